"""TorchScript archives (``.pt``), which LibTorch loads with ``torch::jit::load``.

TorchScript is deprecated upstream, and its Python front end warns on Python 3.14 and later. It is
what most engines load today; ONNX is the format to prefer for anything new.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, fx

from ofcv_export.base.modes import without_autocast
from ofcv_export.formats.archive import DIGEST, METADATA, checked_records, digest, records
from ofcv_export.formats.format import Format, Runner, foreign
from ofcv_export.formats.machine import devices
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.scriptable import scriptable

_KIND = "a TorchScript archive"


class TorchScript(Format):
    """TorchScript, run by LibTorch."""

    name = "torchscript"
    suffix = ".pt"
    runtime = "LibTorch"
    contracts = ("colvars-torchann", "gromacs-nnpot", "openmm-torch", "plumed-pytorch")

    def compile(self, graph: ExportGraph) -> torch.jit.ScriptModule:
        """Script the module and, where the graph allows it, fold its buffers into constants."""
        module = graph.module.eval()
        if isinstance(module, fx.GraphModule):
            # Contracts say in an engine's own words what does not fit.
            checked = () if graph.kind == "contract" else graph.inputs
            module = scriptable(module, checked)
        with warnings.catch_warnings():
            # About annotations in PyTorch's own generated modules, and about the deprecation.
            warnings.simplefilter("ignore")
            scripted = torch.jit.script(module)
        program: torch.jit.ScriptModule = torch.jit.freeze(scripted) if graph.freeze else scripted
        return program

    def write(self, compiled: torch.jit.ScriptModule, metadata: Metadata, path: Path) -> None:
        """Write the archive with the extra files ``ofcv.json`` and ``ofcv.sha256``."""
        extras = {METADATA: metadata.to_json(), DIGEST: "0" * 64}
        extras[DIGEST] = digest(records(path, _archive(compiled, extras), _KIND))
        path.write_bytes(_archive(compiled, extras))

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Format.metadata`."""
        return Metadata.from_json(checked_records(path, content, _KIND)[METADATA])

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Load the archive onto a device."""
        module = self.program(content, path, device)

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
        ValueError
            If LibTorch cannot read the file.
        """
        try:
            program: torch.jit.ScriptModule = torch.jit.load(
                io.BytesIO(content), map_location=device
            )
        except RuntimeError as error:
            raise foreign(path, "LibTorch cannot read it") from error
        return program

    def devices(self, metadata: Metadata) -> list[str]:
        """Return ``cpu``, and ``cuda`` where there is one."""
        return devices()


def _archive(compiled: torch.jit.ScriptModule, extras: dict[str, str]) -> bytes:
    """Return the archive with these records; torch.jit.save puts all extra files in ``extra/``."""
    buffer = io.BytesIO()
    files = {name.removeprefix("extra/"): text for name, text in extras.items()}
    torch.jit.save(compiled, buffer, _extra_files=files)
    return buffer.getvalue()
