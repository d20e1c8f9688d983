"""What collective variables and biases have in common: functions of positions with parameters."""

# No postponed annotations: torch.jit.script wants those of `forward` in subclasses to be types.

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from ofcv_export.base.atoms import atom_indices
from ofcv_export.base.modes import full_precision, without_inference_tensors
from ofcv_export.base.validation import (
    dtype_name,
    require_dtype,
    require_finite,
    require_floats,
    require_known,
)
from ofcv_export.descriptors.boundaries import require_box
from ofcv_export.descriptors.box_facts import box_facts
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.graph.derivatives import ValuesAndDerivatives, values_and_derivatives
from ofcv_export.graph.details import Box, Description, Form, VariableDetails
from ofcv_export.graph.export_graph import ExportGraph, Normalisation
from ofcv_export.graph.tensor_spec import TensorSpec, frame_specs
from ofcv_export.graph.tracing import traced
from ofcv_export.variables.one_frame import for_one_frame, one_frame

Head = Callable[..., Tensor]


class Variable(nn.Module):
    """A function of positions, perhaps of a box, and of parameters.

    Composed of descriptors and what maps them to values; a subclass says how in `forward`, whose
    arguments are positions, box, and parameters by their names.

    Attributes
    ----------
    descriptors : Descriptor
        Maps positions (batch, n_atoms, 3), and a box (3, 3) if it takes one at run time, to
        descriptors (batch, n_descriptors).
    atoms : list of int
        Zero-based indices of the descriptors' atoms in the engine's numbering.
    elements : list of str or None
        Chemical symbols of the atoms.
    length_unit : str
        Unit of positions and box.
    n_outputs : int
        Number of values.
    periods : list of float or None
        Period of each value, None where it has none.
    """

    if TYPE_CHECKING:  # TorchScript takes annotations of modules for interfaces.
        descriptors: Descriptor
        atoms: list[int]
        elements: list[str] | None
        length_unit: str
        n_outputs: int
        periods: list[float | None]
    # TorchScript compiles `forward`, not what describes the variable.
    __jit_unused_properties__ = ["box", "descriptors", "dtype", "normalisation", "periodic"]  # noqa: RUF012 (PyTorch's own name)

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of positions and values."""

    @abstractmethod
    def head(self) -> Head | None:
        """Return what maps descriptors and parameters to values; None if nothing does.

        So it is where positions are used other than to make descriptors of them.
        """

    @property
    def periodic(self) -> bool:
        """Whether a box is an input."""
        return self.descriptors.takes_box

    @property
    def box(self) -> Box:
        """What becomes of boxes and periodic images."""
        return Box(**box_facts(self.descriptors))

    def parameter_defaults(self) -> dict[str, list[float]]:
        """Return the default values of the inputs that follow positions and box."""
        return {}

    def judge(self) -> nn.Module:
        """Return what the exported graph must equal: a map of positions, box or None, parameters.

        By default, as for a subclass of a user's own, this module itself.
        """
        return self

    @property
    def normalisation(self) -> Normalisation | None:
        """Which descriptors the network was trained on, where it is known."""
        return None

    def with_atoms(self, atoms: Sequence[int]) -> Self:
        """Return the variable of other atoms of the engine, zero-based; it shares the weights."""
        other = copy.copy(self)
        other.atoms = atom_indices("atoms", atoms, self.descriptors.n_atoms)
        return other

    def output_units(self) -> dict[str, str]:
        """Return the unit of each output of a file, where it is known."""
        return {}

    def bias_description(self) -> Description | None:
        """Return the JSON-able description of the energy of a bias."""
        return None

    def time_unit(self) -> str | None:
        """Return the unit of the parameter ``time``, if there is one that follows a simulation."""
        return None

    def values_and_derivatives(
        self, positions: Tensor, box: Tensor | None = None, **parameters: Tensor
    ) -> tuple[Tensor, ...]:
        """Return values and derivatives by autograd.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (batch, n_atoms, 3), in `length_unit`.
        box : torch.Tensor, optional
            Lattice vectors as rows, shape (3, 3); needed when `periodic`.
        **parameters : torch.Tensor
            Those named in `parameter_defaults`; by default the values there.

        Returns
        -------
        tuple of torch.Tensor
            Values (batch, n_outputs), derivatives (batch, n_outputs, n_atoms, 3) and, when
            `periodic`, derivatives with respect to the box (batch, n_outputs, 3, 3).

        Raises
        ------
        ValueError, TypeError
            For a wrong shape or dtype, values that are not finite, a box that is missing or not
            asked for, and a parameter that is unknown.
        """
        shape = ("batch", self.descriptors.n_atoms, 3)
        require_floats("positions", positions, shape, self.dtype)
        require_finite("positions", positions)
        if (box is not None) != self.periodic:
            expected = "lattice vectors (3, 3)" if self.periodic else "none (not periodic)"
            raise ValueError(f"box: expected {expected}, got {'none' if box is None else 'one'}")
        if box is not None:
            require_box(box, orthorhombic=self.box.run_time == "orthorhombic")
            require_dtype("box", box, self.dtype)
        boxes = () if box is None else (box,)
        given = self._given(parameters)
        with full_precision(positions.device):
            outputs: tuple[Tensor, ...] = self._by_autograd()(positions, *boxes, *given)
        return outputs

    def details(self) -> VariableDetails:
        """Return the facts that a file tells."""
        parameters = self.parameter_defaults()
        return VariableDetails(
            n_atoms=self.descriptors.n_atoms,
            n_outputs=self.n_outputs,
            box=self.box,
            descriptors=self.descriptors.specification(),
            periods=tuple(self.periods),
            parameters={key: tuple(value) for key, value in parameters.items()},
            time_unit=self.time_unit(),
            bias=self.bias_description(),
            form="general",
        )

    def export_graph(self) -> ExportGraph:
        """Return the graph of values and derivatives, with nothing left to differentiate."""
        name = dtype_name(self.dtype)
        n_atoms, n_outputs = self.descriptors.n_atoms, self.n_outputs
        inputs = frame_specs(name, n_atoms, self.periodic)
        parameters = self.parameter_defaults()
        outputs = [
            TensorSpec("values", name, ("batch", n_outputs)),
            TensorSpec("derivatives", name, ("batch", n_outputs, n_atoms, 3)),
        ]
        if self.periodic:
            outputs.append(TensorSpec("box_derivatives", name, ("batch", n_outputs, 3, 3)))
        inputs += [
            TensorSpec(key, dtype_name(self._parameter_dtype(key)), (len(value),))
            for key, value in parameters.items()
        ]
        written_out = values_and_derivatives(self, n_outputs, self.dtype, self.periodic)
        return ExportGraph(
            self.details(),
            tuple(inputs),
            tuple(outputs),
            build=lambda graph: traced(written_out, graph.inputs, "network"),
            exact=ValuesAndDerivatives(self.judge(), self.n_outputs, self.periodic),
            atoms=self.atoms,
            elements=self.elements,
            length_unit=self.length_unit,
            output_units=self.output_units(),
            one_frame=self._one_frame,
            normalisation=self.normalisation,
        )

    def _one_frame(
        self, compiled: bool, device: str
    ) -> tuple[Callable[[ExportGraph], nn.Module], Form]:
        """Return what builds the graph for one frame and the name of its form."""
        function, form = one_frame(self, device, compiled)
        return partial(for_one_frame, function, compiled), form

    def _by_autograd(self) -> ValuesAndDerivatives:
        return ValuesAndDerivatives(without_inference_tensors(self), self.n_outputs, self.periodic)

    def _parameter_dtype(self, name: str) -> torch.dtype:
        """Return float64 for a time, which grows while differences of it count."""
        return torch.float64 if name == "time" and self.time_unit() else self.dtype

    def default_parameters(self) -> dict[str, Tensor]:
        """Return the default values of the inputs that follow positions and box, as tensors."""
        return {
            name: torch.tensor(value, dtype=self._parameter_dtype(name))
            for name, value in self.parameter_defaults().items()
        }

    def _given(self, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the parameters in order, checked; the defaults of those that are missing."""
        known = self.default_parameters()
        for name, value in parameters.items():
            require_known(name, known)
            require_floats(name, value, known[name].shape, self._parameter_dtype(name))
            require_finite(name, value)
        return list((known | dict(parameters)).values())
