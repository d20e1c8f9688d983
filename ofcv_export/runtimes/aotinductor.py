"""AOTInductor packages (``.pt2``), read and run by LibTorch.

A package runs on the kind of CPU or GPU it was compiled for, with the minor version of PyTorch it
was compiled by; anything else is refused before any of its code runs.
"""

from __future__ import annotations

import io
import re
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofcv_export.base.arrays import in_memory
from ofcv_export.base.files import is_noexec
from ofcv_export.base.packages import require_torch
from ofcv_export.base.validation import last_line
from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes.archive import DIGEST, METADATA, checked_records, records
from ofcv_export.runtimes.machine import require_this_machine
from ofcv_export.runtimes.runtime import Runner, Runtime, foreign

if TYPE_CHECKING:
    from torch import Tensor

KIND = "an AOTInductor package"
CODE = "data/aotinductor/model/"
LIBRARY = "model.wrapper.so"
_LOADED: dict[bytes, Any] = {}
_ONE_AT_A_TIME = threading.Lock()
_OTHER_FOLDERS = ("/tmp", "/var/tmp")
_PLAIN_NAME = re.compile(r"[\w./+-]+")


class AOTInductorRuntime(Runtime):
    """AOTInductor, run by LibTorch."""

    name = "aotinductor"
    suffix = ".pt2"
    runtime = "AOTInductor"
    on_torch = True

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Runtime.metadata`."""
        return Metadata.from_json(checked_records(path, content, KIND)[METADATA])

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Load the compiled code; nothing of it is left on disk."""
        require_torch("a .pt2 file")
        import torch

        from ofcv_export.base.modes import without_autocast

        found = records(path, content, KIND)
        if CODE + LIBRARY not in found:
            raise foreign(path, "no compiled code in the archive")
        try:
            runner = _loaded(found, device)
        except RuntimeError as error:
            raise foreign(path, f"AOTInductor cannot read it: {last_line(error)}") from error

        def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            # Compiled code takes every input to be contiguous.
            tensors = [in_memory(tensor.to(device)) for tensor in inputs]
            # Not in inference mode, whose tensors a caller could not work on.
            with torch.no_grad(), without_autocast(device):
                return tuple(runner.run(tensors))

        return run

    def devices(self, metadata: Metadata) -> list[str]:
        """Return the device that a file was compiled for, if this is such a machine."""
        require_torch("a .pt2 file")
        require_this_machine(metadata)
        return [metadata.device]


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that Inductor's commands can name and code can be loaded from.

    Inductor writes commands without quotes, so that a folder with a space in its name will not do.

    Raises
    ------
    OSError
        If there is none.
    """
    tried = list(dict.fromkeys([tempfile.gettempdir(), *_OTHER_FOLDERS]))
    named = [place for place in tried if _PLAIN_NAME.fullmatch(place) and Path(place).is_dir()]
    usable = [place for place in named if not is_noexec(place)]
    if not usable:
        raise OSError(
            "TMPDIR: expected a folder with no space or quote in its name from which code may be "
            f"loaded, got {', '.join(tried)} ({len(named) - len(usable)} mounted noexec)"
        )
    return tempfile.TemporaryDirectory(prefix="ofcv-", dir=usable[0], ignore_cleanup_errors=True)


def package_of(content: dict[str, bytes]) -> bytes:
    """Return a package with these records."""
    from torch.export.pt2_archive import PT2ArchiveWriter

    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as archive:
        for name, data in content.items():
            archive.write_bytes(name, data)
    return buffer.getvalue()


def _loaded(content: dict[str, bytes], device: str) -> Any:
    """Return LibTorch's runner of compiled code, on the CPU one for all files of one content.

    LibTorch keeps the memory maps of every library that it ever loaded, and a process may have
    65530 of them.
    """
    if device != "cpu":
        return _load(content, device)
    digest = content[DIGEST]
    with _ONE_AT_A_TIME:
        if digest not in _LOADED:
            _LOADED[digest] = _load(content, device)
        return _LOADED[digest]


def _load(content: dict[str, bytes], device: str) -> Any:
    """Return LibTorch's runner of compiled code.

    torch._inductor.aoti_load_package would compile a test program first, which takes seconds and a
    compiler, and leave what it unpacked on disk should the process be killed.
    """
    import torch

    with temporary_folder() as folder:
        for name, data in content.items():
            if name.startswith(CODE):
                (Path(folder) / Path(name).name).write_bytes(data)
        # Once the library is mapped into memory its file can go.
        library = str(Path(folder) / LIBRARY)
        if device == "cpu":
            return torch._C._aoti.AOTIModelContainerRunnerCpu(library, 1)
    return _load_package(content, device)


def _load_package(content: dict[str, bytes], device: str) -> Any:
    """Return LibTorch's runner of a whole package, for calls from one thread at a time.

    Only this one can be told so. Otherwise it looks after several threads' calls with events, which
    a CUDA graph cannot record.
    """
    import torch

    index = torch.device(device).index
    with temporary_folder() as folder:
        path = Path(folder) / "model.pt2"
        # PyTorch before 2.13 finds the other files by the name of a source, which it does not read.
        source = {CODE + LIBRARY.removesuffix(".so") + ".cpp": b""}
        path.write_bytes(package_of(content | source))
        one_at_a_time, n_runners = True, 1
        return torch._C._aoti.AOTIModelPackageLoader(
            str(path), "model", one_at_a_time, n_runners, -1 if index is None else index
        )
