"""Functions of a graph of atoms, which differ in what they make of a network's values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ofcv_export.base.arrays import to_array
from ofcv_export.base.lattice import require_box
from ofcv_export.base.modes import full_precision, without_inference_tensors
from ofcv_export.base.validation import (
    dtype_name,
    require_finite,
    require_floats,
    require_integers,
)
from ofcv_export.graph.details import GraphVariableDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.graph_derivatives import (
    GraphValuesAndDerivatives,
    graph_values_and_derivatives,
)
from ofcv_export.graph.known_values import KnownValues
from ofcv_export.graph.tensor_spec import TensorSpec, require_allowed
from ofcv_export.graph.tracing import traced

Zeros = Callable[[Tensor], Tensor]


class GraphVariable(nn.Module):
    """A function of a graph of atoms, and of parameters.

    Attributes
    ----------
    n_outputs : int
        Number of values.
    length_unit : str
        Unit of positions and box.
    elements : list of str or None
        Chemical symbols of `atoms`.
    """

    n_outputs: int
    length_unit: str
    elements: list[str] | None

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of positions and values."""

    @property
    @abstractmethod
    def atoms(self) -> list[int] | None:
        """The engine's atoms: those of the system, then those of the environment."""

    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return what describes the inputs of the file, in order."""

    @abstractmethod
    def values(self, zeros: Zeros, inputs: Sequence[Tensor]) -> Tensor:
        """Return the values (n_outputs,) of inputs in the order of `inputs`; nothing is checked.

        Parameters
        ----------
        zeros : callable
            Makes zeros of a tensor's shape.
        inputs : sequence of torch.Tensor
            In order.
        """

    @abstractmethod
    def details(self) -> GraphVariableDetails:
        """Return the facts that a file tells."""

    def output_units(self) -> dict[str, str]:
        """Return the unit of each output of a file, where it is known."""
        return {}

    def judge(self) -> nn.Module:
        """Return what the exported graph must equal: a map of the inputs to values."""
        return self

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the values (n_outputs,) of a graph; nothing is checked.

        Parameters
        ----------
        *inputs : torch.Tensor
            In the order of `inputs`.
        """
        return self.values(torch.zeros_like, inputs)

    def outputs(self) -> tuple[TensorSpec, ...]:
        """Return what describes the outputs of the file, in order."""
        name = dtype_name(self.dtype)
        return (
            TensorSpec("values", name, (self.n_outputs,)),
            TensorSpec("derivatives", name, (self.n_outputs, "n_nodes", 3)),
            TensorSpec("box_derivatives", name, (self.n_outputs, 3, 3)),
        )

    def of_inputs(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and derivatives of inputs in the order of `inputs`, by autograd.

        Raises
        ------
        ValueError, TypeError, IndexError
            Unless they are those of a graph.
        """
        self._require(self.inputs(), inputs)
        with full_precision(inputs[0].device):
            judge = GraphValuesAndDerivatives(without_inference_tensors(self), self.n_outputs)
            values, derivatives, box_derivatives = judge(*inputs)
        return values, derivatives, box_derivatives

    def export_graph(self) -> ExportGraph:
        """Return the graph of values and derivatives, with nothing left to differentiate."""

        def with_known_values(*inputs: Tensor) -> tuple[Tensor, ...]:
            with KnownValues() as known:
                return graph_values_and_derivatives(
                    lambda *given: known.whole(self.values(known.zeros, given)), self.n_outputs
                )(*inputs)

        def build(graph: ExportGraph) -> nn.Module:
            return traced(with_known_values, graph.inputs, "network", outputs=graph.outputs)

        return ExportGraph(
            self.details(),
            self.inputs(),
            self.outputs(),
            build=build,
            exact=GraphValuesAndDerivatives(self.judge(), self.n_outputs),
            atoms=self.atoms,
            elements=self.elements,
            length_unit=self.length_unit,
            output_units=self.output_units(),
        )

    def _require(self, specs: Sequence[TensorSpec], inputs: Sequence[Tensor]) -> None:
        """Raise unless the inputs are those of a graph."""
        sizes: dict[str, int] = {}
        for spec, given in zip(specs, inputs, strict=True):
            shape = tuple(
                sizes.get(size, size) if isinstance(size, str) else size for size in spec.shape
            )
            if spec.is_integer:
                require_integers(spec.name, given, shape)
            else:
                require_floats(spec.name, given, shape, spec.torch_dtype)
                require_finite(spec.name, given)
            sizes |= {
                symbol: size
                for symbol, size in zip(spec.shape, given.shape, strict=True)
                if isinstance(symbol, str)
            }
            if spec.is_integer:
                require_allowed(spec, given, sizes)
            if spec.name == "box" and given.any():
                require_box(to_array(given))
