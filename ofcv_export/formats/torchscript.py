"""TorchScript archives (``.pt``), which LibTorch loads with ``torch::jit::load``.

TorchScript is deprecated upstream, and its Python front end warns on Python 3.14 and later. It is
what most engines load today; ONNX is the format to prefer for anything new.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ofcv_export.artifact import Metadata
from ofcv_export.export_graph import ExportGraph
from ofcv_export.formats.format import Format, Runner, damaged, foreign

_METADATA = "ofcv.json"
_DIGEST = "ofcv.sha256"
# What the digest leaves out: itself, and an identifier that PyTorch derives from all records.
_NOT_DIGESTED = (f"extra/{_DIGEST}", ".data/serialization_id")


class TorchScript(Format):
    """TorchScript, run by LibTorch."""

    name = "torchscript"
    suffix = ".pt"
    runtime = "LibTorch"

    def compile(self, graph: ExportGraph) -> torch.jit.ScriptModule:
        """Script the module and fold its buffers into constants."""
        scripted = torch.jit.script(graph.module.eval())
        frozen: torch.jit.ScriptModule = torch.jit.freeze(scripted)
        return frozen

    def write(self, compiled: torch.jit.ScriptModule, metadata: Metadata, path: Path) -> None:
        """Write the archive with the extra files ``ofcv.json`` and ``ofcv.sha256``."""
        extras = {_METADATA: metadata.to_json(), _DIGEST: "0" * 64}
        extras[_DIGEST] = _digest(_records(path, _archive(compiled, extras)))
        path.write_bytes(_archive(compiled, extras))

    def read_metadata(self, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Format.read_metadata`."""
        records = _records(path, path.read_bytes())
        if f"extra/{_METADATA}" not in records:
            raise foreign(path, "no ofcv.json in the archive")
        if f"extra/{_DIGEST}" not in records:
            raise foreign(path, "no digest in the archive")
        if _digest(records).encode() != records[f"extra/{_DIGEST}"]:
            raise damaged(path)
        return Metadata.from_json(records[f"extra/{_METADATA}"])

    def load(self, path: Path, device: str) -> Runner:
        """Load the archive onto a device."""
        try:
            module = torch.jit.load(path, map_location=device)
        except RuntimeError as error:
            raise foreign(path, "LibTorch cannot read it") from error

        def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                outputs = module(*(tensor.to(device) for tensor in inputs))
            return outputs if isinstance(outputs, tuple) else (outputs,)

        return run

    def devices(self) -> list[str]:
        """Return ``cpu``, and ``cuda`` where there is one."""
        return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _archive(compiled: torch.jit.ScriptModule, extras: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(compiled, buffer, _extra_files=extras)
    return buffer.getvalue()


def _records(path: Path, content: bytes) -> dict[str, bytes]:
    """Return the records of an archive by their names below its top folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if "/" in name]
            return {name.split("/", 1)[1]: archive.read(name) for name in names}
    except Exception as error:  # zipfile raises whatever damaged bytes lead its parser to
        zipped = content.startswith(b"PK")
        why = "truncated or damaged" if zipped else "not a TorchScript archive"
        raise foreign(path, why) from error


def _digest(records: dict[str, bytes]) -> str:
    """Return the SHA-256 over the names, lengths and contents of the records."""
    digest = hashlib.sha256()
    for name in sorted(records, key=str.encode):
        if name not in _NOT_DIGESTED:
            digest.update(name.encode() + b"\0" + len(records[name]).to_bytes(8, "little"))
            digest.update(records[name])
    return digest.hexdigest()
