"""C99 source of graphs with fixed sizes: numbers, loops and elementary functions, nothing else.

`emit` writes a function for a graph of aten operators, `ofcv_export.formats.c99` a file around it.
`compiler`, `fortran` and `interface` serve reading, too, and need no PyTorch. May import `graph`
and `base`; `runtimes` and `formats` may import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofcv_export.base.lazy import lazy_names

if TYPE_CHECKING:
    from ofcv_export.c_source.emitter import emit
else:
    __getattr__, __dir__ = lazy_names(__name__, {"emit": "ofcv_export.c_source.emitter"})

__all__ = ["emit"]
