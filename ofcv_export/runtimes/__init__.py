"""What reads and runs files, chosen by a file's suffix, behind one interface.

`ofcv_export.formats` builds on it what writes them. Nothing here imports PyTorch before a file that
needs it is loaded. May import `base`, `graph` and `c_source`, what of them needs no PyTorch.
"""

from __future__ import annotations

from os import PathLike

from ofcv_export.base.files import require_suffix
from ofcv_export.runtimes.aotinductor import AOTInductorRuntime
from ofcv_export.runtimes.c99 import C99Runtime
from ofcv_export.runtimes.onnx import OnnxRuntime
from ofcv_export.runtimes.plumed_source import PlumedSourceRuntime
from ofcv_export.runtimes.runtime import Runtime
from ofcv_export.runtimes.shared_library import SharedLibraryRuntime
from ofcv_export.runtimes.torchscript import TorchScriptRuntime

RUNTIMES: dict[str, Runtime] = {
    entry.suffix: entry
    for entry in (
        TorchScriptRuntime(),
        OnnxRuntime(),
        AOTInductorRuntime(),
        C99Runtime(),
        PlumedSourceRuntime(),
        SharedLibraryRuntime(),
    )
}


def runtime_of(path: str | PathLike[str]) -> Runtime:
    """Return what reads and runs the file at a path.

    Raises
    ------
    ValueError
        If the suffix belongs to no format.
    """
    return RUNTIMES[require_suffix("path", path, *RUNTIMES)]
