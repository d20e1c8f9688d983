"""TorchScript archives (``.pt``), read and run by LibTorch with ``torch::jit::load``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofcv_export.base.packages import require_torch
from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes.archive import METADATA, checked_records
from ofcv_export.runtimes.machine import devices
from ofcv_export.runtimes.runtime import Runner, Runtime, foreign

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KIND = "a TorchScript archive"


class TorchScriptRuntime(Runtime):
    """TorchScript, run by LibTorch."""

    name = "torchscript"
    suffix = ".pt"
    runtime = "LibTorch"
    on_torch = True

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Runtime.metadata`."""
        return Metadata.from_json(checked_records(path, content, KIND)[METADATA])

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Load the archive onto a device."""
        module = self.program(content, path, device)

        import torch

        from ofcv_export.base.modes import without_autocast

        def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            # Not in inference mode, whose tensors a caller could not work on.
            with torch.no_grad(), without_autocast(device):
                outputs = module(*(tensor.to(device) for tensor in inputs))
            return outputs if isinstance(outputs, tuple) else (outputs,)

        return run

    def program(self, content: bytes, path: Path, device: str) -> torch.jit.ScriptModule:
        """Return the program on a device, with nothing in the way of its differentiation.

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        ValueError
            If LibTorch cannot read the file.
        """
        require_torch("a .pt file")
        import torch

        try:
            program: torch.jit.ScriptModule = torch.jit.load(
                io.BytesIO(content), map_location=device
            )
        except RuntimeError as error:
            raise foreign(path, "LibTorch cannot read it") from error
        return program

    def devices(self, metadata: Metadata) -> list[str]:
        """Return ``cpu``, and ``cuda`` where there is one."""
        require_torch("a .pt file")
        return devices()
