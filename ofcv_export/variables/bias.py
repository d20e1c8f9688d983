"""A bias: an energy made of a collective variable."""

# No postponed annotations: torch.jit.script wants those of `forward` to be types.

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ofcv_export.base.units import require_energy_unit
from ofcv_export.base.validation import require_finite, require_shape
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.graph.details import Description
from ofcv_export.graph.export_graph import ExportGraph, Normalisation
from ofcv_export.variables.collective_variable import CollectiveVariable
from ofcv_export.variables.graph_collective_variable import GraphCollectiveVariable
from ofcv_export.variables.graph_energy import GraphEnergy
from ofcv_export.variables.judges import ValuesOf
from ofcv_export.variables.variable import Head, Variable

AnyCollectiveVariable = CollectiveVariable | GraphCollectiveVariable


class Bias(Variable):
    """An energy that an engine adds to its own; minus its derivatives are the forces.

    This class takes the value of a network for the energy; its subclasses make energies of
    collective variables.

    Parameters
    ----------
    cv : CollectiveVariable or GraphCollectiveVariable
        Here with one value, the energy.
    energy_unit : str
        Unit of the energy: kJ/mol, kcal/mol, eV or Hartree.

    Raises
    ------
    TypeError
        If `cv` is not a collective variable, or is a bias already.
    ValueError
        If it has more than one value, a period, or the unit is not known.

    Examples
    --------
    >>> import ofcv_export as ofcv
    >>> from ofcv_export.descriptors.distances import PairDistances
    >>> distance = PairDistances(torch.tensor([[0, 1]]), 2)
    >>> energy = ofcv.Bias(ofcv.CollectiveVariable(distance, torch.nn.Linear(1, 1)), "eV")
    >>> energy.export_graph().output_units
    {'values': 'eV', 'derivatives': 'eV/nm'}
    """

    def __init__(self, cv: AnyCollectiveVariable, energy_unit: str = "kJ/mol") -> None:
        if not isinstance(cv, CollectiveVariable | GraphCollectiveVariable):
            raise TypeError(f"cv: expected a CollectiveVariable, got {type(cv).__name__}")
        require_energy_unit(energy_unit)
        if type(self) is Bias:
            require_one_value(cv)
            if cv.periods != [None]:
                raise ValueError(f"cv: expected an energy, got a value of period {cv.periods[0]}")
        super().__init__()
        # Of a graph the energy is that of `GraphEnergy`, and what follows is for frames alone.
        self.cv: CollectiveVariable = cv  # type: ignore[assignment]
        self.on_graph = isinstance(cv, GraphCollectiveVariable)
        self.atoms, self.elements, self.length_unit = cv.atoms, cv.elements, cv.length_unit  # type: ignore[assignment]
        self.n_outputs = 1
        self.periods = [None]
        self.energy_unit = energy_unit

    @property
    def descriptors(self) -> Descriptor:  # type: ignore[override]
        """Descriptors of the collective variable."""
        return self.cv.descriptors

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the collective variable."""
        return self.cv.dtype

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the energy (batch, 1) of positions (batch, n_atoms, 3).

        Parameters
        ----------
        positions, box : torch.Tensor
            See `values_and_derivatives`; nothing is checked.
        """
        values: Tensor = self.cv(positions, box)
        return values

    def head(self) -> Head | None:
        """Return what maps descriptors and parameters to the energy, see `Variable.head`."""
        return self.cv.head()

    def energy(self, values: Tensor) -> Tensor:
        """Return the energy (batch, 1) of values (batch, n_outputs)."""
        return values

    def energy_on_graph(
        self,
        values_at: Callable[[Tensor], Tensor],
        positions: Tensor,
        elements: Tensor,
        parameters: Sequence[Tensor],
    ) -> Tensor:
        """Return the energy (1,) of a graph of atoms.

        Parameters
        ----------
        values_at : callable
            Maps positions (n_nodes, 3) to values (n_outputs,).
        positions, elements : torch.Tensor
            Of the nodes, shapes (n_nodes, 3) and (n_nodes,).
        parameters : sequence of torch.Tensor
            In order.
        """
        return self.energy(values_at(positions).unsqueeze(0), *parameters)[0]

    def judge(self) -> nn.Module:
        """Return what the exported graph must equal, see `Variable.judge`."""
        return self.energy_judge(self.cv.descriptors, self.cv.network) or self

    def energy_judge(self, descriptors: nn.Module, network: nn.Module) -> nn.Module | None:
        """Return the energy of a network of descriptors by formulas that no file is made of.

        None where there are none, as for a subclass of a user's own.
        """
        return ValuesOf(descriptors, network) if type(self) is Bias else None

    def values_and_derivatives(  # type: ignore[override]
        self, *inputs: Tensor, **named: Tensor
    ) -> tuple[Tensor, ...]:
        """Return energy and derivatives by autograd.

        Of frames as `Variable.values_and_derivatives` does; of a graph of atoms the inputs are
        those of `GraphCollectiveVariable.values_and_derivatives` with a box and, by name or in
        order after them, the parameters.
        """
        if not self.on_graph:
            return super().values_and_derivatives(*inputs, **named)
        energy = GraphEnergy(self)
        known = [spec.name for spec in energy.inputs()]
        given = self.default_parameters() | dict(zip(known, inputs, strict=False)) | named
        if set(given) != set(known):
            raise TypeError(f"inputs: expected {', '.join(known)}, got {', '.join(given)}")
        return energy.of_inputs([given[name] for name in known])

    def export_graph(self) -> ExportGraph:
        """Return the graph of energy and derivatives, with nothing left to differentiate."""
        return GraphEnergy(self).export_graph() if self.on_graph else super().export_graph()

    def with_atoms(self, atoms: Sequence[int]) -> Self:
        """Return the bias on other atoms of the engine, see `Variable.with_atoms`."""
        if not self.on_graph:
            return super().with_atoms(atoms)
        other = copy.copy(self)
        other._modules = {**self._modules, "cv": self.cv.with_atoms(atoms)}
        other.atoms = list(atoms)
        return other

    @property
    def normalisation(self) -> Normalisation | None:
        """Which descriptors the network was trained on, where it is known."""
        return self.cv.normalisation

    def specification(self) -> Description:
        """Return the JSON-able description of the energy, written to the metadata."""
        return {"type": "value"}

    def bias_description(self) -> Description:
        """Return the JSON-able description of the energy."""
        return self.specification()

    def output_units(self) -> dict[str, str]:
        """Return the unit of energy, derivatives and box derivatives."""
        slope = f"{self.energy_unit}/{self.length_unit}"
        units = {"values": self.energy_unit, "derivatives": slope}
        return units | ({"box_derivatives": slope} if self.periodic else {})


def require_one_value(cv: AnyCollectiveVariable) -> None:
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
    tensor = torch.from_numpy(array.copy())
    require_shape(name, tensor, shape)
    require_finite(name, tensor)
    return tensor
