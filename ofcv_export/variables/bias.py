"""A bias: a collective variable whose one value is an energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofcv_export.base.units import require_energy_unit
from ofcv_export.base.validation import require_finite, require_shape
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.variables.collective_variable import CollectiveVariable


class Bias(CollectiveVariable):
    """An energy that an engine adds to its own; minus its derivatives are the forces.

    This class takes the value of a network for the energy; its subclasses make energies of
    collective variables.

    Parameters
    ----------
    cv : CollectiveVariable
        Here with one value, the energy.
    energy_unit : str
        Unit of the energy: kJ/mol, kcal/mol, eV or Hartree.

    Raises
    ------
    TypeError
        If `cv` is not a collective variable, or is a bias already.
    ValueError
        If it has more than one value, or the unit is not known.

    Examples
    --------
    >>> import ofcv_export as ofcv
    >>> from ofcv_export.descriptors.distances import PairDistances
    >>> distance = PairDistances(torch.tensor([[0, 1]]), 2)
    >>> energy = ofcv.Bias(ofcv.CollectiveVariable(distance, torch.nn.Linear(1, 1)), "eV")
    >>> energy.export_graph().output_units
    {'values': 'eV', 'derivatives': 'eV/nm'}
    """

    def __init__(self, cv: CollectiveVariable, energy_unit: str = "kJ/mol") -> None:
        if not isinstance(cv, CollectiveVariable) or isinstance(cv, Bias):
            raise TypeError(f"cv: expected a CollectiveVariable, got {type(cv).__name__}")
        require_energy_unit(energy_unit)
        super().__init__(cv.descriptors, cv.network, cv.atoms, cv.length_unit, cv.elements)
        self.energy_unit = energy_unit
        if type(self) is Bias:
            require_one_value(cv)

    def specification(self) -> dict[str, Any]:
        """Return the JSON-able description of the energy, written to the metadata."""
        return {"type": "value"}

    def export_graph(self) -> ExportGraph:
        """Return the graph of energy and derivatives, with nothing left to differentiate."""
        graph = super().export_graph()
        units = {"values": self.energy_unit}
        for spec in graph.outputs[1:]:
            units[spec.name] = f"{self.energy_unit}/{self.length_unit}"
        details = {**graph.details, "bias": self.specification()}
        return replace(graph, details=details, output_units=units)

    def _count_outputs(self) -> int:
        return 1


def require_one_value(cv: CollectiveVariable) -> None:
    """Raise ValueError unless a collective variable has one value."""
    if cv.n_outputs != 1:
        raise ValueError(f"cv: expected one value, got {cv.n_outputs}")


def numbers(name: str, value: float | Sequence[Any] | Tensor, shape: Sequence[int | str]) -> Tensor:
    """Return finite numbers in float64; a single one fills a vector.

    Raises
    ------
    ValueError
        If they are not numbers, not finite or of another shape.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {value!r}") from error
    if array.ndim == 0 and len(shape) == 1:
        size = shape[0]
        array = array.reshape(1) if isinstance(size, str) else np.full(size, array)
    tensor = torch.tensor(array)
    require_shape(name, tensor, shape)
    require_finite(name, tensor)
    return tensor
