"""Descriptors made again from the description that an artifact's metadata carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.alignment import AlignedPositions
from ofcv_export.descriptors.angles import Angles
from ofcv_export.descriptors.boundaries import (
    Boundaries,
    OrthorhombicBox,
    RuntimeBox,
    TriclinicBox,
    open_boundaries,
)
from ofcv_export.descriptors.contacts import Contacts
from ofcv_export.descriptors.coordination import CoordinationNumbers
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.histogram import ContinuousHistogram
from ofcv_export.descriptors.inverse_distances import InverseDistances
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.rmsd import RMSD
from ofcv_export.descriptors.switching import Fermi, Rational, Step
from ofcv_export.descriptors.torsions import Torsions

_DESCRIPTORS: dict[str, type[Descriptor]] = {
    "pairwise_distances": PairDistances,
    "inverse_distances": InverseDistances,
    "contacts": Contacts,
    "angles": Angles,
    "torsions": Torsions,
    "coordination_numbers": CoordinationNumbers,
    "adjacency_eigenvalues": AdjacencyEigenvalues,
    "continuous_histogram": ContinuousHistogram,
    "aligned_positions": AlignedPositions,
    "rmsd": RMSD,
    "multiple_descriptors": MultipleDescriptors,
}
_SWITCHING_FUNCTIONS: dict[str, type[nn.Module]] = {
    "fermi": Fermi,
    "rational": Rational,
    "step": Step,
}


def from_specification(specification: Mapping[str, Any]) -> Descriptor:
    """Return the descriptor whose `specification()` this is.

    Parameters
    ----------
    specification : mapping
        As `Descriptor.specification` returns it, also after a way through JSON.

    Raises
    ------
    ValueError
        If a type is unknown.
    """
    made = _of_type("descriptor", specification, _DESCRIPTORS, _ARGUMENTS)
    assert isinstance(made, Descriptor)
    return made


def _of_type(
    name: str,
    specification: Mapping[str, Any],
    types: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> object:
    kind = specification.get("type")
    if not isinstance(kind, str) or kind not in types:
        raise ValueError(f"{name}: expected one of the types {sorted(types)}, got {kind!r}")
    return types[kind](
        **{
            key: arguments[key](value) if key in arguments else value
            for key, value in specification.items()
            if key != "type"
        }
    )


def _floats(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _box(specification: Mapping[str, Any] | None) -> Boundaries:
    if specification is None:
        return open_boundaries()
    types = {"orthorhombic": OrthorhombicBox, "triclinic": TriclinicBox, "run time": RuntimeBox}
    box = _of_type("box", specification, types, {"lengths": _floats, "vectors": _floats})
    assert isinstance(box, Boundaries)
    return box


def _switching_function(specification: Mapping[str, Any]) -> object:
    return _of_type("switching_function", specification, _SWITCHING_FUNCTIONS, {})


_ARGUMENTS = {
    "pairs": torch.tensor,
    "atoms": torch.tensor,
    "group_a": torch.tensor,
    "group_b": torch.tensor,
    "modes": tuple,
    "reference": _floats,
    "weights": _floats,
    "box": _box,
    "switching_function": _switching_function,
    "descriptor": from_specification,
    "descriptors": lambda parts: [from_specification(part) for part in parts],
}
