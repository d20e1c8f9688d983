"""C99 source of graphs with fixed sizes: numbers, loops and elementary functions, nothing else.

`emit` writes a function for a graph of aten operators, `ofcv_export.formats.c99` a file around it.
May import `graph` and `base`; `formats` may import it.
"""

from ofcv_export.c_source.emitter import emit

__all__ = ["emit"]
