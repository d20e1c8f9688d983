"""The metadata that every artifact carries, readable without executing it."""

from __future__ import annotations

import hashlib
import math
from importlib import metadata as packages
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from ofcv_export.graph.details import Details, VariableDetails
from ofcv_export.graph.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from torch import nn

SCHEMA: Final = 2


class Digests(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SHA-256 of the sparsity pattern, where there is one, and of the weights."""

    pattern: str | None
    weights: str


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measured differences from float64, see `ofcv_export.verify`."""

    reference: str
    runtime: str
    max_abs_error: float
    max_rel_error: float
    tolerance: float
    comparisons: int


class ProbeOutput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some float64 values of an output, at places of the flattened tensor, and their usual size."""

    places: tuple[int, ...]
    values: tuple[float, ...]
    scale: float


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs' sizes and some outputs, to check a file wherever it is used."""

    sizes: dict[str, int]
    outputs: dict[str, ProbeOutput]


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metadata of an artifact.

    Parameters
    ----------
    schema : int
        Version of these fields.
    format : str
        ``torchscript``, ``onnx`` or ``aotinductor``.
    details : Details
        The kind of artifact, and the facts about it.
    inputs, outputs : tuple of TensorSpec
        What goes in and out, in order.
    options : dict
        Options of the export, with which a reference module makes the same graph.
    atoms : list of int or None
        Zero-based indices of the atoms in the engine's numbering.
    elements : list of str or None
        Chemical symbols of the atoms.
    length_unit : str or None
        Unit of lengths.
    output_units : dict of str to str
        Unit of each output, where known.
    sha256 : Digests
        Of the sparsity pattern and of the weights.
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
    parity : Parity or None
        Measured differences from float64; None until they are.
    probe : Probe
        Inputs' sizes and some float64 outputs.
    """

    schema: Literal[2] = SCHEMA
    format: str
    details: Details
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    options: dict[str, Any]
    atoms: list[int] | None
    elements: list[str] | None
    length_unit: str | None
    output_units: dict[str, str]
    sha256: Digests
    versions: dict[str, str]
    opset: int | None
    device: str
    instruction_set: str | None
    created: str
    parity: Parity | None
    probe: Probe

    @property
    def kind(self) -> str:
        """What the artifact computes, e.g. ``collective_variable``."""
        kind = self.details.__struct_config__.tag
        assert isinstance(kind, str)
        return kind

    @property
    def periodic(self) -> bool:
        """Whether a box is an input."""
        return any(spec.name == "box" for spec in self.inputs)

    def to_json(self) -> str:
        """Return the metadata as JSON text.

        Raises
        ------
        ValueError
            If a number is NaN or infinite, for which JSON has no words.
        """
        _require_finite("metadata", msgspec.to_builtins(self))
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Metadata:
        """Read metadata.

        Raises
        ------
        ValueError
            If the text is not metadata of this schema.
        """
        try:
            schema = msgspec.json.decode(text, type=_AnySchema).schema
            if schema != SCHEMA:
                raise ValueError(f"metadata: expected schema {SCHEMA}, got {schema!r}")
            return msgspec.json.decode(text, type=cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"metadata: expected schema {SCHEMA}, got others: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"metadata: expected JSON, got {text[:40]!r}") from error


def variable_details(metadata: Metadata) -> VariableDetails:
    """Return the facts about a collective variable or a bias.

    Raises
    ------
    ValueError
        If the artifact is of another kind.
    """
    if not isinstance(metadata.details, VariableDetails):
        raise ValueError(f"model: expected a collective_variable, got a {metadata.kind}")
    return metadata.details


class _AnySchema(msgspec.Struct):
    """The version alone, of metadata whose other fields may be any."""

    schema: Any = None


def _require_finite(name: str, value: Any) -> None:
    """Raise ValueError at the first NaN or infinite number in builtin containers."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected finite numbers, got {value}")
    if isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            _require_finite(f"{name}.{key}", entry)


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    tensors = dict(module.named_buffers()) | dict(module.named_parameters())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def version_of(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return packages.version(package)
    except packages.PackageNotFoundError:
        return "not installed"
