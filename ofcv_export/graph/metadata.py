"""The metadata that every artifact carries, readable without executing it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata as packages
from typing import Any

from torch import nn

from ofcv_export.graph.export_graph import ExportGraph, TensorSpec

SCHEMA = 1
KINDS = (
    "smart_derivatives",
    "sparse_chain_rule",
    "dimension_wise_rescaling",
    "collective_variable",
    "energy_functional",
    "contract",
)


@dataclass(frozen=True)
class Metadata:
    """Metadata of an artifact, schema 1.

    Parameters
    ----------
    kind : str
        What the artifact computes, one of ``KINDS``.
    format : str
        ``torchscript``, ``onnx`` or ``aotinductor``.
    inputs, outputs : tuple of TensorSpec
        What goes in and out, in order.
    details : dict
        Facts about this kind, such as the sparsity pattern.
    options : dict
        Options of the export, with which a reference module makes the same graph.
    atoms : list of int or None
        Zero-based indices of the atoms in the engine's numbering.
    length_unit : str or None
        Unit of lengths.
    output_units : dict of str to str
        Unit of each output, where known.
    periodic : bool
        Whether a box is an input.
    sha256 : dict
        Digests of the sparsity pattern (or None) and of the weights.
    versions : dict
        Versions of the packages that wrote the file.
    opset : int or None
        ONNX opset.
    device : str
        Device the file was made for.
    instruction_set : str or None
        What the CPU must have to run compiled code, e.g. ``x86_64 avx2 fma3 f16c``.
    created : str
        Date and time, ISO 8601, UTC.
    parity : dict
        Measured differences from float64.
    probe : dict
        Inputs' sizes and some float64 outputs, to check the file wherever it is used.
    """

    kind: str
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    details: dict[str, Any]
    options: dict[str, Any]
    atoms: list[int] | None
    length_unit: str | None
    output_units: dict[str, str]
    periodic: bool
    sha256: dict[str, str | None]
    versions: dict[str, str]
    opset: int | None
    device: str
    instruction_set: str | None
    created: str
    parity: dict[str, Any]
    probe: dict[str, Any]

    def to_json(self) -> str:
        """Return the metadata as JSON text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Metadata:
        """Read metadata.

        Raises
        ------
        ValueError
            If the text is not metadata of this schema.
        """
        try:
            content = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"metadata: expected JSON, got {text[:40]!r}") from error
        schema = content.pop("schema", None) if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"metadata: expected schema {SCHEMA}, got {schema!r}")
        names = {field.name for field in fields(cls)}
        if set(content) != names:
            different = sorted(names.symmetric_difference(content))
            raise ValueError(f"metadata: expected the fields of schema 1, got others: {different}")
        if content["kind"] not in KINDS:
            raise ValueError(
                f"metadata: expected a kind among {', '.join(KINDS)}, got {content['kind']!r}"
            )
        for side in ("inputs", "outputs"):
            content[side] = tuple(_spec(entry) for entry in content[side])
        return cls(**content)


def describe(graph: ExportGraph, format_name: str, **facts: Any) -> Metadata:
    """Return the metadata of a graph about to be written.

    Parameters
    ----------
    graph : ExportGraph
        The graph.
    format_name : str
        Format of the file.
    **facts
        The fields that the graph does not know, see `Metadata`.
    """
    details = dict(graph.details)
    return Metadata(
        kind=graph.kind,
        format=format_name,
        inputs=graph.inputs,
        outputs=graph.outputs,
        sha256={
            "pattern": details.pop("pattern_sha256", None),
            "weights": weights_digest(graph.module),
        },
        details=details,
        periodic=any(spec.name == "box" for spec in graph.inputs),
        versions={name: _version(name) for name in ("ofcv-export", "torch", "onnx")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    )


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    tensors = dict(module.named_buffers()) | dict(module.named_parameters())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _spec(entry: dict[str, Any]) -> TensorSpec:
    example = entry.get("example")
    lists = {"shape": tuple(entry["shape"]), "example": None if example is None else tuple(example)}
    return TensorSpec(**{**entry, **lists})


def _version(package: str) -> str:
    try:
        return packages.version(package)
    except packages.PackageNotFoundError:
        return "not installed"
