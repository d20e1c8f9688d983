"""C99 source of graphs with fixed sizes: numbers, loops and elementary functions, nothing else.

`emit` writes a function for a graph of aten operators. It is what the coming format ``.c`` will be
written with; no file is yet. May import `graph`; `formats` may import it.
"""

from ofcv_export.c_source.emitter import emit

__all__ = ["emit"]
