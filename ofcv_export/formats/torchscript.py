"""TorchScript archives (``.pt``), which LibTorch loads with ``torch::jit::load``.

TorchScript is deprecated upstream, and its Python front end warns on Python 3.14 and later. It is
what most engines load today; ONNX is the format to prefer for anything new.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import fx

from ofcv_export.formats.format import Format
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.scriptable import scriptable
from ofcv_export.runtimes.archive import DIGEST, METADATA, digest, records
from ofcv_export.runtimes.torchscript import KIND, TorchScriptRuntime


class TorchScript(TorchScriptRuntime, Format):
    """TorchScript, run by LibTorch."""

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
        extras[DIGEST] = digest(records(path, _archive(compiled, extras), KIND))
        path.write_bytes(_archive(compiled, extras))


def _archive(compiled: torch.jit.ScriptModule, extras: dict[str, str]) -> bytes:
    """Return the archive with these records; torch.jit.save puts all extra files in ``extra/``."""
    buffer = io.BytesIO()
    files = {name.removeprefix("extra/"): text for name, text in extras.items()}
    torch.jit.save(compiled, buffer, _extra_files=files)
    return buffer.getvalue()
