"""PLUMED's source (``.cpp``): from Python its functions run as those of a .c file."""

from __future__ import annotations

from ofcv_export.runtimes.c99 import C99Runtime


class PlumedSourceRuntime(C99Runtime):
    """C source with an action of PLUMED around it."""

    name = "plumed"
    suffix = ".cpp"
