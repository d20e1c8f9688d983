"""The search for pairs within a radius: by vesin's cells, or directly.

Both find every image, in any lattice, also where the radius is longer than the box. Their pairs are
measured afterwards (`Pairs.within`), so that a pair too many does no harm; none may be missing.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.packages import missing_package
from ofcv_export.neighbours.pairs import Floats, Indices, Pairs

# More than the rounding of distances comes to.
_ROUNDING = 1e-6
# Passes over the points of the second kind that cost less than vesin's search among all.
_MOST_PASSES = 64
# vesin 0.6 has 1e5 cells at most. Of more it makes larger ones, and dies of a division by zero
# where they are larger than the points' extent in some direction.
_MOST_CELLS = 5e4


def plane_distances(box: Floats) -> Floats:
    """Return the distances between a lattice's planes, shape (3,)."""
    distances: Floats = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    return distances


def pairs_between(n_first: int, positions: Floats, box: Floats | None, radius: float) -> Pairs:
    """Return the pairs of one of the first points and one of the others.

    Parameters
    ----------
    n_first : int
        How many points are the first ones.
    positions : numpy.ndarray
        Shape (n, 3).
    box : numpy.ndarray or None
        Lattice vectors as rows, shape (3, 3).
    radius : float
        Of the search.
    """
    radius *= 1 + _ROUNDING
    if n_first * len(_image_offsets(box, radius)) <= _MOST_PASSES or not _suits_vesin(
        positions, box, radius
    ):
        return _direct_search(range(n_first), slice(n_first, None), positions, box, radius)
    found = _vesin_search(positions, box, radius, full_list=True)
    return found.chosen((found.first < n_first) & (found.second >= n_first))


def pairs_among(positions: Floats, box: Floats | None, radius: float) -> Pairs:
    """Return all pairs of points, and of points with their own images, in one direction each."""
    radius *= 1 + _ROUNDING
    if _suits_vesin(positions, box, radius):
        return _vesin_search(positions, box, radius, full_list=False)
    found = _direct_search(range(len(positions)), slice(None), positions, box, radius)
    shifts = found.shifts
    # The sign of the first component that is not 0.
    sign = np.sign(np.sign(shifts) @ np.array([9, 3, 1]))
    is_own_image = (found.first == found.second) & (sign > 0)
    return found.chosen((found.first < found.second) | is_own_image)


def _suits_vesin(positions: Floats, box: Floats | None, radius: float) -> bool:
    if len(positions) < 2 and box is None:
        return False
    extent = np.ptp(positions, axis=0) if box is None else plane_distances(box)
    cells = np.maximum(np.floor(extent / radius), 1.0)
    n_cells = math.prod(cells.tolist())
    return n_cells <= _MOST_CELLS * min(cells.min() ** 3, 1e6)


def _vesin_search(positions: Floats, box: Floats | None, radius: float, full_list: bool) -> Pairs:
    try:
        import vesin
    except ModuleNotFoundError as error:
        raise missing_package("a neighbourhood", error) from error

    cells = np.zeros(positions.shape)
    lattice = np.zeros((3, 3))
    if box is not None:
        lattice = box
        # Atoms far outside of the box would overflow vesin's 32-bit shifts.
        cells = np.rint(positions @ np.linalg.inv(box))
    search = vesin.NeighborList(cutoff=radius, full_list=full_list, n_threads=1)
    pairs, shifts = search.compute(positions - cells @ lattice, lattice, box is not None, "PS")
    first, second = pairs.astype(np.int64).T
    moved = (cells[first] - cells[second]).astype(np.int64)
    return Pairs(first, second, shifts.astype(np.int64) + moved)


# Points so far apart that the square overflows are no pair.
@np.errstate(over="ignore", invalid="ignore")
def _direct_search(
    first: range, others: slice, positions: Floats, box: Floats | None, radius: float
) -> Pairs:
    """Return the pairs of each of the first points and each of the others."""
    offsets = _image_offsets(box, radius)
    lattice = np.zeros((3, 3)) if box is None else box
    inverse = lattice if box is None else np.linalg.inv(box)
    points = positions[others]
    numbers = np.arange(len(positions))[others]
    found: list[tuple[Indices, Indices, NDArray[np.int64]]] = []
    for i in first:
        vectors = points - positions[i]
        cells = -np.rint(vectors @ inverse)
        vectors += cells @ lattice
        for offset in offsets:
            images = vectors + offset @ lattice
            near = np.flatnonzero(np.einsum("ij,ij->i", images, images) <= radius * radius)
            shifts = (cells[near] + offset).astype(np.int64)
            found.append((np.full(near.size, i), numbers[near], shifts))
    if not found:
        return Pairs.none()
    return Pairs(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _image_offsets(box: Floats | None, radius: float) -> Floats:
    """Return the lattice vectors between the image whose fractions are roundest and all within.

    With fractional coordinates of at most 1/2, the image n lattice vectors further lies at least
    (|n| - 1/2) planes away.
    """
    if box is None:
        return np.zeros((1, 3))
    reach = np.floor(radius / plane_distances(box) + 0.5 + _ROUNDING).astype(int).tolist()
    return np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))), dtype=np.float64)
