"""A collective variable: a network of descriptors of atomic positions."""

# No postponed annotations: torch.jit.script wants those of `forward` to be types.

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.base.atoms import atom_indices
from ofcv_export.base.elements import atomic_numbers
from ofcv_export.base.frame_check import require_own_frames
from ofcv_export.base.modes import ordinary_modes
from ofcv_export.base.units import require_length_unit
from ofcv_export.base.validation import (
    dtype_name,
    first_line,
    require_positive_number,
    require_shape,
    require_tensor,
)
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.graph.evaluation import evaluation_copy, network_dtype
from ofcv_export.graph.export_graph import Normalisation
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import frame_specs
from ofcv_export.variables.judges import ValuesOf
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
        operations torch.export can see, also a scripted, traced, exported or compiled one. Its
        dtype is that of the collective variable, which holds a copy of it in evaluation mode.
    atoms : sequence of int, optional
        Zero-based indices of the descriptors' atoms in the engine's numbering; by default
        0, 1, ... n_atoms - 1.
    length_unit : str
        Unit of positions and box.
    elements : sequence of str, optional
        Chemical symbols of the atoms, in order, so that engines can check them.
    periods : float or sequence of float or None, optional
        Period of each value, None for a value without one; a single number is that of all. By
        default 2 pi for a torsional angle that ``torch.nn.Identity`` hands on, and none for others.
        Restraints take differences to the nearest image, and engines are told.

    Raises
    ------
    TypeError
        If the descriptors are not a `Descriptor`, the network is no module or has no single
        floating dtype, or atoms or periods are no numbers.
    ValueError
        If atoms, descriptors, network and periods do not fit together, the network mixes frames or
        is random, or the unit or an element is not known.

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
        periods: float | Sequence[float | None] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(descriptors, Descriptor):
            raise TypeError(f"descriptors: expected a Descriptor, got {type(descriptors).__name__}")
        self.descriptors = descriptors
        self.network = evaluation_copy(network)
        # A network without parameters has the default dtype of now, until the variable is cast.
        self.precision: Tensor
        self.register_buffer("precision", torch.empty(0), persistent=False)
        require_length_unit(length_unit)
        self.length_unit = length_unit
        n_atoms = descriptors.n_atoms
        self.atoms = atom_indices("atoms", range(n_atoms) if atoms is None else atoms, n_atoms)
        self.elements = _elements(elements, n_atoms)
        # Mean and range of each descriptor in the training, where `from_mlcolvar` knows them.
        self.trained_on: tuple[Tensor, Tensor] | None = None
        self.n_outputs = self._count_outputs()
        known: list[float | None] = [None] * self.n_outputs
        if type(network) is nn.Identity:
            known = descriptors.periods()
        self.periods = known if periods is None else _periods(periods, known)

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a subclass with a `forward` of its own, which a bias or a file would not have."""
        super().__init_subclass__(**options)
        if cls.forward is not CollectiveVariable.forward:
            raise TypeError(
                f"{cls.__name__}: expected the forward of CollectiveVariable, got one of its own; "
                "make it part of the network"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype; without parameters, torch's default when the network was given."""
        return network_dtype(self.network, self.precision)

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

    def judge(self) -> nn.Module:
        """Return what the exported graph must equal, see `Variable.judge`."""
        return ValuesOf(self.descriptors, self.network)

    @property
    def normalisation(self) -> Normalisation | None:
        """Which descriptors the network was trained on, where it is known."""
        if self.trained_on is None:
            return None
        return Normalisation(self.descriptors, *self.trained_on)

    @ordinary_modes()
    def _count_outputs(self) -> int:
        """Return the number of values, from a call with an example."""
        specs = frame_specs(dtype_name(self.dtype), self.descriptors.n_atoms, self.periodic)
        positions, *box = probe(specs, {"batch": _TRIED_FRAMES})
        try:
            with torch.no_grad():
                values = self(positions, *box)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"network: expected one that takes (batch, {self.descriptors.n_descriptors}) "
                f"descriptors of {dtype_name(self.dtype)}, got: {first_line(error)}"
            ) from error
        require_tensor("network", values)
        require_shape("network", values, (_TRIED_FRAMES, "n_outputs"))
        require_own_frames("network", lambda frames: self(frames, *box), positions, "values")
        return int(values.shape[1])


def _periods(
    periods: float | Iterable[float | None], known: Sequence[float | None]
) -> list[float | None]:
    """Return the period of each value, checked against those that are known."""
    given = list(periods) if isinstance(periods, Iterable) else [periods] * len(known)
    if len(given) != len(known):
        raise ValueError(f"periods: expected one for each of {len(known)} values, got {given}")
    for period, own in zip(given, known, strict=True):
        if period is not None:
            require_positive_number("periods", period)
        if own is not None and (period is None or not math.isclose(period, own, rel_tol=1e-6)):
            raise ValueError(f"periods: expected {own} for a torsional angle, got {period}")
    return [
        own or (None if period is None else float(period))
        for period, own in zip(given, known, strict=True)
    ]


def _elements(elements: Sequence[str] | None, n_atoms: int) -> list[str] | None:
    """Return the chemical symbols, checked."""
    if elements is None:
        return None
    symbols = list(elements)
    if len(symbols) != n_atoms or not all(isinstance(entry, str) for entry in symbols):
        raise ValueError(f"elements: expected {n_atoms} chemical symbols, got {symbols}")
    atomic_numbers(symbols)
    return symbols
