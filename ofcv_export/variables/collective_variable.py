"""A collective variable: a network of descriptors of atomic positions."""

# No postponed annotations: torch.jit.script wants those of `forward` to be types.

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.base.validation import (
    FLOATING,
    dtype_name,
    first_line,
    require_shape,
    require_tensor,
)
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.variables.variable import Head, Variable

# A number of frames with which a network is tried.
_TRIED_FRAMES = 3


class CollectiveVariable(Variable):
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

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a subclass with a `forward` of its own, which a bias or a file would not have."""
        super().__init_subclass__(**options)
        if "forward" in vars(cls):
            raise TypeError(
                f"{cls.__name__}: expected the forward of CollectiveVariable, got one of its own; "
                "make it part of the network"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype; the default dtype for a network without parameters."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        if len(dtypes) > 1:
            names = ", ".join(sorted(map(dtype_name, dtypes)))
            raise TypeError(f"network: expected one floating dtype, got {names}")
        dtype = dtypes.pop() if dtypes else torch.get_default_dtype()
        if dtype not in FLOATING:
            raise TypeError(f"network: expected dtype float32 or float64, got {dtype_name(dtype)}")
        return dtype

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the values (batch, n_outputs) of positions (batch, n_atoms, 3).

        Parameters
        ----------
        positions, box : torch.Tensor
            See `values_and_derivatives`; nothing is checked.
        """
        values: Tensor = self.network(self.descriptors(positions, box))
        return values

    def head(self) -> Head:
        """Return the network."""
        return self.network

    def _count_outputs(self) -> int:
        """Return the number of values, from a call with an example."""
        specs = [
            TensorSpec("positions", dtype_name(self.dtype), ("batch", self.descriptors.n_atoms, 3))
        ]
        if self.periodic:
            specs.append(TensorSpec("box", specs[0].dtype, (3, 3)))
        try:
            with torch.no_grad():
                values = self(*probe(specs, {"batch": _TRIED_FRAMES}))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"network: expected one that takes (batch, {self.descriptors.n_descriptors}) "
                f"descriptors of {dtype_name(self.dtype)}, got: {first_line(error)}"
            ) from error
        require_tensor("network", values)
        require_shape("network", values, (_TRIED_FRAMES, "n_outputs"))
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
