"""Lattices as NumPy arrays: checks of a box, Minkowski reduction, nearest images.

`ofcv_export.descriptors.lattice` has the reduction and the images as graphs, with the theory.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.validation import require_finite, require_shape

# Four steps reduce every basis that an MD engine keeps; random products of four shears with
# coefficients of up to 5, whose entries reach several hundred, took ten or fewer in 99.9%.
N_STEPS = 10
# A box that a variable was made for equals the engine's to this part of its largest component.
SAME_BOX = 1e-4
_SHEARS = (0, 1, -1, 2, -2, 4, -4, 8, -8, 16, -16)
# Of the product of the lengths.
_SMALLEST_VOLUME = 1e-6

Array = NDArray[np.float64]


# Of a box in absurd units the sums may be infinite, and tell as much.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def require_independent_vectors(box: NDArray[Any]) -> None:
    """Raise unless `box` holds finite, linearly independent vectors.

    Parameters
    ----------
    box : numpy.ndarray
        Lattice vectors as rows, shape (3, 3), float32 or float64.

    Raises
    ------
    ValueError
        If it has another shape, is not finite, or is singular: a volume below 1e-6 of the product
        of the lengths.
    """
    require_shape("box", box, (3, 3))
    require_finite("box", box)
    box = box.astype(np.float64)
    lengths = np.linalg.norm(box, axis=1)
    # One after the other, so that tiny or huge units neither underflow nor overflow.
    volume = abs(np.linalg.det(box / lengths[:, None])) if (lengths > 0).all() else 0.0
    if not volume > _SMALLEST_VOLUME:
        raise ValueError(f"box: expected linearly independent vectors, got {box.tolist()}")


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def require_box(box: NDArray[Any], orthorhombic: bool = False) -> None:
    """Raise unless `box` holds the lattice vectors of a box.

    Parameters
    ----------
    box : numpy.ndarray
        Lattice vectors as rows, shape (3, 3), float32 or float64.
    orthorhombic : bool
        Whether the vectors must lie along x, y and z.

    Raises
    ------
    ValueError
        If it has another shape, is not finite, is singular (a volume below 1e-6 of the product of
        the lengths), is not orthorhombic where it must be, or so oblique that the fixed number of
        steps of a graph's reduction does not reduce it.
    """
    require_shape("box", box, (3, 3))
    require_finite("box", box)
    box = box.astype(np.float64)
    if orthorhombic and not (is_along_axes(box) and (np.diagonal(box) > 0).all()):
        raise ValueError(
            f"box: expected positive lengths along x, y and z and zeros, got {box.tolist()}"
        )
    require_independent_vectors(box)
    once = _reduced(box)
    if np.square(_reduced(once)).sum() < np.square(once).sum() * (1 - 1e-9):
        raise ValueError(f"box: expected less oblique lattice vectors, got {box.tolist()}")


def require_same_box(box: NDArray[Any], own: NDArray[Any]) -> None:
    """Raise ValueError unless a box (3, 3) is the one that an artifact holds."""
    if np.abs(box - own).max() > SAME_BOX * np.abs(own).max():
        raise ValueError(f"box: expected the artifact's own {own.tolist()}, got {box.tolist()}")


def is_along_axes(box: NDArray[Any]) -> bool:
    """Return whether lattice vectors (3, 3) lie along x, y and z but for rounding errors."""
    diagonal = np.diagonal(box)
    off_axes = np.abs(box - np.diag(diagonal)).max()
    # They move no image by more than float32 resolves.
    return bool(off_axes <= 1e-7 * np.abs(diagonal).max())


def is_unit_box(box: NDArray[Any]) -> bool:
    """Return whether a box (3, 3) in Angstrom is what PDB files say of a system without one."""
    return np.array_equal(box, np.eye(3))


def reduced_lattice(vectors: Array) -> Array:
    """Return the Minkowski-reduced basis of a lattice, with as many steps as it takes.

    Parameters
    ----------
    vectors : numpy.ndarray
        Lattice vectors as rows, shape (3, 3), linearly independent.
    """
    basis, shorter = vectors, _reduced(vectors)
    while np.square(shorter).sum() < np.square(basis).sum() * (1 - 1e-12):
        basis, shorter = shorter, _reduced(shorter)
    return basis


def nearest_images(vectors: Array, lattice: Array) -> Array:
    """Return the shortest of all periodic images of vectors.

    Parameters
    ----------
    vectors : numpy.ndarray
        Shape (n, 3).
    lattice : numpy.ndarray
        Minkowski-reduced lattice vectors as rows, shape (3, 3).
    """
    edges = np.diagonal(lattice)
    if np.array_equal(lattice, np.diag(edges)):
        # Rounding is exact here, and many times faster.
        return vectors - edges * np.rint(vectors / edges)
    remainder = vectors - np.rint(vectors @ np.linalg.inv(lattice)) @ lattice
    half = half_of_the_neighbours() @ lattice
    shifts = np.concatenate([np.zeros((1, 3)), half, -half])
    images = remainder[:, None] - shifts
    nearest = np.square(images).sum(2).argmin(1)
    return images[np.arange(len(vectors)), nearest]


@functools.cache
def half_of_the_neighbours() -> Array:
    """Return the vectors of {-1, 0, 1}^3 whose first component that is not 0 is 1, (13, 3)."""
    everything = itertools.product((-1, 0, 1), repeat=3)
    return np.array([v for v in everything if v > (0, 0, 0)], dtype=np.float64)


@functools.cache
def changes_of_basis() -> Array:
    """Return the identity and other integer matrices of determinant 1 or -1, (n_changes, 3, 3).

    All bases with entries -1, 0 and 1 are among them, so that a basis which none improves is
    reduced, and larger shears of one vector by the two others, which shorten the way from a very
    oblique basis.
    """
    triples = np.array(list(itertools.combinations(half_of_the_neighbours(), 3)))
    bases = triples[np.abs(np.rint(np.linalg.det(triples))) == 1]
    pairs = list(itertools.product(_SHEARS, repeat=2))
    shears = np.tile(np.eye(3), (3, len(pairs), 1, 1))
    for row in range(3):
        others = [column for column in range(3) if column != row]
        shears[row][:, row, others] = pairs
    return np.concatenate([np.eye(3)[None], bases, shears.reshape(-1, 3, 3)])


def _reduced(basis: Array) -> Array:
    """Return a lattice's basis after the fixed number of steps of a graph."""
    changes, weights = changes_of_basis(), _weights()
    combination = np.eye(3)
    reduced = basis
    for _ in range(N_STEPS):
        best = (weights @ (reduced @ reduced.T).ravel()).argmin()
        combination = changes[best] @ combination
        reduced = combination @ basis
    return reduced


@functools.cache
def _weights() -> Array:
    """Return what gives the sum of squared lengths after each change of basis, (n_changes, 9).

    It is trace(T G T^T) = sum of (T^T T) * G, with G = B B^T.
    """
    changes = changes_of_basis()
    return (changes.transpose(0, 2, 1) @ changes).reshape(-1, 9)
