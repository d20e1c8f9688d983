"""Interfaces of C source, compiled or not, for Fortran."""

from __future__ import annotations

from os import PathLike

from ofcv_export.base.files import require_file, require_suffix
from ofcv_export.c_source.fortran import fortran_text
from ofcv_export.runtimes.c99 import C99Runtime
from ofcv_export.runtimes.shared_library import SharedLibraryRuntime

_RUNTIMES = {entry.suffix: entry for entry in (C99Runtime(), SharedLibraryRuntime())}


def fortran_module(path: str | PathLike[str]) -> str:
    """Return a Fortran 2003 module with the interface of a file.

    Parameters
    ----------
    path : path-like
        The file, ``.c`` or ``.so``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, foreign or of another format.
    """
    target = require_file("path", path)
    runtime = _RUNTIMES[require_suffix("path", target, *_RUNTIMES)]
    content = target.read_bytes()
    metadata = runtime.metadata(content, target)
    symbol = runtime.symbol(content, target)
    return fortran_text(metadata.inputs, metadata.outputs, symbol)
