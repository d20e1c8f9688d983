"""Boundary conditions: vectors between atoms, and the nearest of their periodic images.

A box is its lattice vectors as rows, shape (3, 3). The nearest image is exact in every box, so no
box is too small or too oblique for it. The integers that choose the image are constants of
differentiation; derivatives with respect to the box (the virial) follow from
``displacement = vector - n @ box``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ofcv_export.base import lattice
from ofcv_export.base.arrays import to_array
from ofcv_export.base.validation import (
    require_finite,
    require_floats,
    require_shape,
    to_float_tensor,
)
from ofcv_export.descriptors.described import Described
from ofcv_export.descriptors.lattice import (
    LatticeReduction,
    NearestImage,
    in_basis,
    one_box,
    reduced_lattice,
)


class Boundaries(Described):
    """What descriptors ask of boundary conditions.

    Attributes
    ----------
    takes_box : bool
        Whether the box is an input of every call.
    periodic : bool
        Whether the nearest image counts.
    scaled : bool
        Whether positions are fractions of the box.
    """

    none_means_unknown = False
    takes_box: bool
    periodic: bool
    scaled: bool

    def __init__(self, takes_box: bool, periodic: bool, scaled: bool) -> None:
        super().__init__()
        self.takes_box = takes_box
        self.periodic = periodic
        self.scaled = scaled

    def displacement(self, start: Tensor, end: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the vectors from `start` to `end` in real units.

        Parameters
        ----------
        start, end : torch.Tensor
            Positions, shapes that broadcast to (..., 3).
        box : torch.Tensor, optional
            Lattice vectors as rows, shape (3, 3), if `takes_box`; otherwise None. Copies of one
            box for each frame, (batch, 3, 3), let derivatives with respect to it come out frame by
            frame.

        Raises
        ------
        ValueError
            If a box is missing, or given where none is taken.
        """
        raise NotImplementedError

    def to_positions(self, derivatives: Tensor, box: Tensor | None = None) -> Tensor:
        """Turn derivatives with respect to real vectors into those with respect to positions."""
        raise NotImplementedError

    def specification(self) -> dict[str, Any] | None:
        """Return the JSON-able description of the boundaries, None for open ones."""
        is_open = not (self.takes_box or self.periodic or self.scaled)
        return None if is_open else super().specification()

    def lattice(self) -> Tensor:
        """Return the lattice vectors of a fixed box as rows, shape (3, 3), float64."""
        raise NotImplementedError


class OrthorhombicBox(Boundaries):
    """A fixed box with perpendicular edges, or open boundaries.

    Parameters
    ----------
    lengths : torch.Tensor or array_like, optional
        Edge lengths, shape (3,). None for open boundaries in real coordinates.
    periodic : bool
        Whether the nearest image counts.
    scaled : bool
        Whether positions are fractions of the edges.

    Raises
    ------
    ValueError
        If lengths are needed but absent, or are not three positive numbers.
    """

    type_name = "orthorhombic"
    facts = ("lengths", "periodic", "scaled")
    lengths: Tensor

    def __init__(
        self,
        lengths: Tensor | Sequence[float] | NDArray[Any] | None,
        periodic: bool,
        scaled: bool = False,
    ) -> None:
        super().__init__(takes_box=False, periodic=periodic, scaled=scaled)
        if lengths is None:
            if periodic or scaled:
                raise ValueError("box: expected three edge lengths, got none")
            lengths = torch.ones(3)
        lengths = _numbers(lengths)
        require_shape("box", lengths, (3,))
        require_finite("box", lengths)
        if bool((lengths <= 0).any()):
            raise ValueError(f"box: expected positive edge lengths, got {lengths.tolist()}")
        self.register_buffer("lengths", lengths, persistent=False)

    def displacement(self, start: Tensor, end: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the vectors from `start` to `end`, see `Boundaries.displacement`.

        In a box with perpendicular edges rounding each component gives the nearest image.
        """
        _require_none(box)
        lengths = self.lengths.to(start)
        vectors = end - start
        if self.scaled:
            if self.periodic:
                vectors = vectors - torch.round(vectors.detach())
            return vectors * lengths
        if self.periodic:
            vectors = vectors - lengths * torch.round(vectors.detach() / lengths)
        return vectors

    def to_positions(self, derivatives: Tensor, box: Tensor | None = None) -> Tensor:
        """Return derivatives with respect to positions, see `Boundaries.to_positions`."""
        return derivatives * self.lengths.to(derivatives) if self.scaled else derivatives

    def lattice(self) -> Tensor:
        """Return the lattice vectors as rows."""
        return torch.diag(self.lengths)


class TriclinicBox(Boundaries):
    """A fixed box of any shape.

    Parameters
    ----------
    vectors : torch.Tensor or array_like
        Lattice vectors as rows, shape (3, 3), reduced or not.
    periodic : bool
        Whether the nearest image counts.
    scaled : bool
        Whether positions are fractions of the lattice vectors.

    Raises
    ------
    ValueError, TypeError
        If the vectors are not those of a box, see `require_box`.
    """

    type_name = "triclinic"
    facts = ("vectors", "periodic", "scaled")
    vectors: Tensor
    reduced: Tensor

    def __init__(
        self,
        vectors: Tensor | Sequence[Sequence[float]] | NDArray[Any],
        periodic: bool = True,
        scaled: bool = False,
    ) -> None:
        super().__init__(takes_box=False, periodic=periodic, scaled=scaled)
        vectors = _numbers(vectors).detach().cpu()
        require_box(vectors)
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("reduced", reduced_lattice(vectors), persistent=False)
        self.nearest_image = NearestImage()

    def displacement(self, start: Tensor, end: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the vectors from `start` to `end`, see `Boundaries.displacement`."""
        _require_none(box)
        vectors = end - start
        if self.scaled:
            if self.periodic:
                vectors = vectors - torch.round(vectors.detach())
            vectors = torch.matmul(vectors, self.vectors.to(start))
        if self.periodic:
            vectors = self.nearest_image(vectors, self.reduced.to(start))
        return vectors

    def to_positions(self, derivatives: Tensor, box: Tensor | None = None) -> Tensor:
        """Return derivatives with respect to positions, see `Boundaries.to_positions`."""
        if self.scaled:
            return torch.matmul(derivatives, self.vectors.to(derivatives).t())
        return derivatives

    def lattice(self) -> Tensor:
        """Return the lattice vectors as rows."""
        return self.vectors


class RuntimeBox(Boundaries):
    """A box that comes with every call, as in a simulation at constant pressure.

    Parameters
    ----------
    shape : {"triclinic", "orthorhombic"}
        Any box, or only boxes whose lattice vectors lie along x, y and z. The latter are cheaper:
        rounding is exact in them and no image is searched.
    periodic : bool
        Whether the nearest image counts.
    scaled : bool
        Whether positions are fractions of the lattice vectors.

    Raises
    ------
    ValueError
        For another shape.
    """

    type_name = "run time"
    facts = ("shape", "periodic", "scaled")

    def __init__(
        self, shape: str = "triclinic", periodic: bool = True, scaled: bool = False
    ) -> None:
        super().__init__(takes_box=True, periodic=periodic, scaled=scaled)
        if shape not in ("triclinic", "orthorhombic"):
            raise ValueError(f'shape: expected "triclinic" or "orthorhombic", got {shape!r}')
        self.shape = shape
        self.orthorhombic = shape == "orthorhombic"
        self.reduction = LatticeReduction()
        self.nearest_image = NearestImage()

    def displacement(self, start: Tensor, end: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the vectors from `start` to `end`, see `Boundaries.displacement`."""
        if box is None:
            raise ValueError("box: expected shape (3, 3), got none")
        box = box.to(start)
        vectors = end - start
        if self.scaled:
            if self.periodic:
                vectors = vectors - torch.round(vectors.detach())
            vectors = in_basis(vectors, box)
            if self.orthorhombic:
                return vectors
        if not self.periodic:
            return vectors
        if self.orthorhombic:
            images = torch.round((vectors / torch.diagonal(one_box(box))).detach())
            return vectors - in_basis(images, box)
        return self.nearest_image(vectors, self.reduction(box))

    def to_positions(self, derivatives: Tensor, box: Tensor | None = None) -> Tensor:
        """Return derivatives with respect to positions, see `Boundaries.to_positions`."""
        if box is not None and self.scaled:
            return torch.matmul(derivatives, box.to(derivatives).t())
        return derivatives


def open_boundaries() -> OrthorhombicBox:
    """Return boundaries without a box."""
    return OrthorhombicBox(None, periodic=False)


def _numbers(box: Any) -> Tensor:
    """Return a box in float64, whatever holds its numbers."""
    numbers = box if isinstance(box, Tensor) else to_float_tensor("box", box, torch.float64)
    return numbers.to(torch.float64)


def require_box(box: Tensor, orthorhombic: bool = False) -> None:
    """Raise unless `box` holds the lattice vectors of a box.

    Graphs check nothing: a caller that takes boxes from outside checks them with this function.

    Parameters
    ----------
    box : torch.Tensor
        Lattice vectors as rows, shape (3, 3), float32 or float64.
    orthorhombic : bool
        Whether the vectors must lie along x, y and z.

    Raises
    ------
    TypeError
        If `box` is not a floating tensor.
    ValueError
        If it is no box, see `ofcv_export.base.lattice.require_box`.
    """
    require_floats("box", box, (3, 3))
    lattice.require_box(to_array(box), orthorhombic)


def _require_none(box: Tensor | None) -> None:
    if box is not None:
        raise ValueError("box: expected none (the boundaries are open or fixed), got a tensor")
