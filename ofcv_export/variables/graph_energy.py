"""The energy of a bias whose collective variable is one of a graph of atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor, nn

from ofcv_export.base.validation import dtype_name
from ofcv_export.graph.details import GraphVariableDetails
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.variables.graph_collective_variable import GraphCollectiveVariable
from ofcv_export.variables.graph_variable import GraphVariable, Zeros

if TYPE_CHECKING:
    from ofcv_export.variables.bias import Bias


class GraphEnergy(GraphVariable):
    """The energy of a bias, as a function of a graph of atoms and of the bias's parameters.

    Parameters
    ----------
    bias : Bias
        Its collective variable is a `GraphCollectiveVariable`.
    """

    def __init__(self, bias: Bias) -> None:
        super().__init__()
        self.bias = bias
        self.n_outputs = 1
        self.length_unit, self.elements = bias.length_unit, self.cv.elements

    @property
    def cv(self) -> GraphCollectiveVariable:
        """The collective variable."""
        cv: Any = self.bias.cv
        assert isinstance(cv, GraphCollectiveVariable)
        return cv

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the collective variable."""
        return self.cv.dtype

    @property
    def atoms(self) -> list[int] | None:
        """The engine's atoms, see `GraphVariable.atoms`."""
        return self.cv.atoms

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs of the collective variable, then the parameters."""
        parameters = [
            TensorSpec(name, dtype_name(value.dtype), tuple(value.shape))
            for name, value in self.bias.default_parameters().items()
        ]
        return (*self.cv.inputs(), *parameters)

    def values(self, zeros: Zeros, inputs: Sequence[Tensor]) -> Tensor:
        """Return the energy (1,), see `GraphVariable.values`."""
        n_inputs = len(self.cv.inputs())
        graph, parameters = inputs[:n_inputs], inputs[n_inputs:]

        def values_at(positions: Tensor) -> Tensor:
            return self.cv.values(zeros, [positions, *graph[1:]])

        return self.bias.energy_on_graph(values_at, graph[0], graph[1], parameters)

    def details(self) -> GraphVariableDetails:
        """Return the facts that a file tells."""
        defaults = self.bias.parameter_defaults()
        return msgspec.structs.replace(
            self.cv.details(),
            n_outputs=1,
            periods=(None,),
            parameters={name: tuple(value) for name, value in defaults.items()},
            time_unit=self.bias.time_unit(),
            bias=self.bias.bias_description(),
        )

    def output_units(self) -> dict[str, str]:
        """Return the unit of energy, derivatives and box derivatives."""
        slope = f"{self.bias.energy_unit}/{self.length_unit}"
        energy = self.bias.energy_unit
        return {"values": energy, "derivatives": slope, "box_derivatives": slope}

    def judge(self) -> nn.Module:
        """Return what the exported graph must equal, see `GraphVariable.judge`."""
        energy = self.bias.energy_judge(_GivenValues(), nn.Identity())
        return self if energy is None else _Judge(self.cv, energy)


class _GivenValues(nn.Module):
    """Takes the values of a collective variable for the positions of a judge of energies."""

    def forward(self, values: Tensor, box: Tensor | None) -> Tensor:
        """Return the values."""
        return values


class _Judge(nn.Module):
    """An energy of the values that the user's own network gives.

    Parameters
    ----------
    cv : GraphCollectiveVariable
        The collective variable.
    energy : torch.nn.Module
        Maps values (1, n_outputs), None and parameters to the energy (1, 1).
    """

    def __init__(self, cv: GraphCollectiveVariable, energy: nn.Module) -> None:
        super().__init__()
        self.cv = cv
        self.energy = energy
        self.n_inputs = len(cv.inputs())

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the energy (1,)."""
        graph, parameters = inputs[: self.n_inputs], inputs[self.n_inputs :]
        energy: Tensor = self.energy(self.cv(*graph).unsqueeze(0), None, *parameters)
        return energy[0]
