"""A collective variable: positions in, values and derivatives out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ofcv_export.base.fixed_order import fixed_order
from ofcv_export.base.validation import (
    dtype_name,
    require_dtype,
    require_finite,
    require_shape,
    require_tensor,
)
from ofcv_export.descriptors.boundaries import RuntimeBox, require_box
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.graph.export_graph import ExportGraph, TensorSpec
from ofcv_export.graph.gradients import ValuesAndDerivatives, write_out
from ofcv_export.variables.one_frame import single_frame

# Batches that a graph is traced with. It stays free in the graph, which takes sizes that are equal
# in the example for one and the same, so one is chosen that is no other size of the input.
_TRACED_BATCHES = (5, 7)


class CollectiveVariable(nn.Module):
    """A network of descriptors of atomic positions.

    Parameters
    ----------
    descriptors : Descriptor
        Maps positions (batch, n_atoms, 3), and a box (3, 3) if it takes one at run time, to
        descriptors (batch, n_descriptors).
    network : torch.nn.Module
        Maps descriptors to values (batch, n_outputs), every frame on its own; any module whose
        operations torch.export can see. Its dtype is that of the collective variable.
    atoms : sequence of int, optional
        Zero-based indices of the descriptors' atoms in the engine's numbering; by default
        0, 1, ... n_atoms - 1.
    length_unit : str
        Unit of positions and box.
    elements : sequence of str, optional
        Chemical symbols of the atoms, in order, so that engines can check them.

    Raises
    ------
    TypeError
        If the descriptors are not a `Descriptor`, or the network has no single floating dtype.
    ValueError
        If atoms, descriptors and network do not fit together.

    Examples
    --------
    >>> from ofcv_export.descriptors.distances import PairDistances
    >>> distances = PairDistances(torch.tensor([[0, 1], [1, 2]]), n_atoms=3)
    >>> cv = CollectiveVariable(distances, torch.nn.Linear(2, 1), atoms=[4, 6, 8])
    >>> values, derivatives = cv.values_and_derivatives(torch.randn(5, 3, 3))
    >>> values.shape, derivatives.shape
    (torch.Size([5, 1]), torch.Size([5, 1, 3, 3]))
    """

    def __init__(
        self,
        descriptors: Descriptor,
        network: nn.Module,
        atoms: Sequence[int] | None = None,
        length_unit: str = "nm",
        elements: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(descriptors, Descriptor):
            raise TypeError(f"descriptors: expected a Descriptor, got {type(descriptors).__name__}")
        self.descriptors = descriptors
        self.network = network.eval()
        self.length_unit = length_unit
        self.atoms = _atoms(atoms, descriptors.n_atoms)
        self.elements = _elements(elements, descriptors.n_atoms)
        self.n_outputs = self._count_outputs()

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype; the default dtype for a network without parameters."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        if len(dtypes) > 1:
            names = ", ".join(sorted(map(dtype_name, dtypes)))
            raise TypeError(f"network: expected one floating dtype, got {names}")
        return dtypes.pop() if dtypes else torch.get_default_dtype()

    @property
    def periodic(self) -> bool:
        """Whether a box is an input."""
        return self.descriptors.takes_box

    @property
    def reads_positions(self) -> bool:
        """Whether `forward` uses positions other than to make descriptors of them."""
        return False

    def forward(self, positions: Tensor, box: Tensor | None = None, *parameters: Tensor) -> Tensor:
        """Return the values (batch, n_outputs) of positions (batch, n_atoms, 3).

        Parameters
        ----------
        positions, box : torch.Tensor
            See `values_and_derivatives`.
        *parameters : torch.Tensor
            None here; those of `parameter_defaults` in subclasses.
        """
        values: Tensor = self.network(self.descriptors(positions, box))
        return values

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
        require_tensor("positions", positions)
        require_shape("positions", positions, ("batch", self.descriptors.n_atoms, 3))
        require_dtype("positions", positions, self.dtype)
        require_finite("positions", positions)
        if (box is not None) != self.periodic:
            expected = "lattice vectors (3, 3)" if self.periodic else "none (not periodic)"
            raise ValueError(f"box: expected {expected}, got {'none' if box is None else 'one'}")
        if box is not None:
            require_box(box, orthorhombic=self._box_shape() == "orthorhombic")
            require_dtype("box", box, self.dtype)
        boxes = () if box is None else (box,)
        given = self._given(parameters)
        with fixed_order(positions.device):
            outputs: tuple[Tensor, ...] = self._by_autograd()(positions, *boxes, *given)
        return outputs

    def export_graph(self) -> ExportGraph:
        """Return the graph of values and derivatives, with nothing left to differentiate."""
        name = dtype_name(self.dtype)
        n_atoms, n_outputs = self.descriptors.n_atoms, self.n_outputs
        inputs = [TensorSpec("positions", name, ("batch", n_atoms, 3))]
        parameters = self.parameter_defaults()
        outputs = [
            TensorSpec("values", name, ("batch", n_outputs)),
            TensorSpec("derivatives", name, ("batch", n_outputs, n_atoms, 3)),
        ]
        if self.periodic:
            inputs.append(TensorSpec("box", name, (3, 3)))
            outputs.append(TensorSpec("box_derivatives", name, ("batch", n_outputs, 3, 3)))
        inputs += [TensorSpec(key, name, (len(value),)) for key, value in parameters.items()]
        return ExportGraph(
            "collective_variable",
            write_out(self, n_outputs, self._example(), self.periodic),
            tuple(inputs),
            tuple(outputs),
            {
                "n_atoms": n_atoms,
                "n_outputs": n_outputs,
                "box": self._box_shape(),
                "descriptors": self.descriptors.specification(),
                "elements": self.elements,
                "parameters": parameters,
                "form": "general",
            },
            exact=self._by_autograd(),
            atoms=self.atoms,
            length_unit=self.length_unit,
            one_frame=self._one_frame,
        )

    def _one_frame(self, compiled: bool) -> tuple[nn.Module, str]:
        """Return the graph for one frame and the name of its form, see `single_frame`."""
        positions, *others = self._example()
        examples = [positions[:1], *others]
        return single_frame(self, self.n_outputs, examples, self.periodic, compiled)

    def parameter_defaults(self) -> dict[str, list[float]]:
        """Return the default values of the inputs that follow positions and box."""
        return {}

    def _box_shape(self) -> str | None:
        """Return which boxes the descriptors take at run time."""
        boxes = [part for part in self.descriptors.modules() if isinstance(part, RuntimeBox)]
        if not boxes:
            return None
        return "orthorhombic" if any(box.orthorhombic for box in boxes) else "triclinic"

    def _by_autograd(self) -> ValuesAndDerivatives:
        return ValuesAndDerivatives(self, self.n_outputs, self.periodic)

    def _traced_batch(self) -> int:
        return next(size for size in _TRACED_BATCHES if size != self.descriptors.n_atoms)

    def _example(self) -> list[Tensor]:
        """Return distinct positions, a box around them when periodic, and the parameters."""
        shape = (self._traced_batch(), self.descriptors.n_atoms, 3)
        positions = torch.sin(torch.arange(1.0, torch.Size(shape).numel() + 1)).reshape(shape)
        example = [positions.to(self.dtype)]
        if self.periodic:
            example.append(4 * torch.eye(3, dtype=self.dtype))
        return example + self._default_tensors()

    def _default_tensors(self) -> list[Tensor]:
        defaults = self.parameter_defaults().values()
        return [torch.tensor(value, dtype=self.dtype) for value in defaults]

    def _given(self, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the parameters in order, checked; the defaults of those that are missing."""
        known = dict(zip(self.parameter_defaults(), self._default_tensors(), strict=True))
        for name, value in parameters.items():
            if name not in known:
                names = ", ".join(known) or "none"
                raise ValueError(f"parameters: expected {names}, got {name}")
            require_tensor(name, value)
            require_shape(name, value, known[name].shape)
            require_dtype(name, value, self.dtype)
            require_finite(name, value)
        return list((known | dict(parameters)).values())

    def _count_outputs(self) -> int:
        """Return the number of values, from a call with an example."""
        try:
            with torch.no_grad():
                values = self(*self._example())
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"network: expected one that takes (batch, {self.descriptors.n_descriptors}) "
                f"descriptors of {dtype_name(self.dtype)}, got: {reason}"
            ) from error
        require_tensor("network", values)
        require_shape("network", values, (self._traced_batch(), "n_outputs"))
        return int(values.shape[1])


def _atoms(atoms: Sequence[int] | None, n_atoms: int) -> list[int]:
    """Return the atoms' indices in the engine, checked."""
    indices = list(range(n_atoms)) if atoms is None else [int(atom) for atom in atoms]
    if len(indices) != n_atoms or len(set(indices)) != n_atoms or min(indices) < 0:
        raise ValueError(f"atoms: expected {n_atoms} distinct zero-based indices, got {indices}")
    return indices


def _elements(elements: Sequence[str] | None, n_atoms: int) -> list[str] | None:
    """Return the chemical symbols, checked."""
    if elements is None:
        return None
    symbols = list(elements)
    if len(symbols) != n_atoms or not all(isinstance(entry, str) for entry in symbols):
        raise ValueError(f"elements: expected {n_atoms} chemical symbols, got {symbols}")
    return symbols
