"""The file formats, chosen by a file's suffix, behind one interface.

Their reading halves are in `ofcv_export.runtimes`. May import `base`, `graph`, `c_source` and
`runtimes`.
"""

from __future__ import annotations

from os import PathLike

from ofcv_export.base.files import require_suffix
from ofcv_export.formats.aotinductor import AOTInductor
from ofcv_export.formats.c99 import C99
from ofcv_export.formats.format import Format
from ofcv_export.formats.onnx import Onnx
from ofcv_export.formats.plumed_source import PlumedSource
from ofcv_export.formats.shared_library import SharedLibrary
from ofcv_export.formats.torchscript import TorchScript

FORMATS: dict[str, Format] = {
    entry.suffix: entry
    for entry in (TorchScript(), Onnx(), AOTInductor(), C99(), PlumedSource(), SharedLibrary())
}


def format_of(path: str | PathLike[str]) -> Format:
    """Return the format of a path.

    Raises
    ------
    ValueError
        If the suffix belongs to no format.
    """
    return FORMATS[require_suffix("path", path, *FORMATS)]
