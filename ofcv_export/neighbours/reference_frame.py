"""The frame in which pairs were searched, and how long the search holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceFrame:
    """Positions and box of a search.

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (n, 3).
    box : numpy.ndarray or None
        Lattice vectors as rows, shape (3, 3).
    """

    positions: Floats
    box: Floats | None

    def covers(self, positions: Floats, box: Floats | None, radius: float, skin: float) -> bool:
        """Return whether all pairs within a radius are among those found within radius + skin.

        With A = H0^-1 H, a pair's vector r0 (images included) has become r0 A + u_j - u_i, where
        u = x - x0 A. So it is at least sigma |r0| - 2 max |u| long, with sigma the smallest
        singular value of A. A pair that was not found has |r0| > radius + skin. It lies beyond the
        radius as long as sigma (radius + skin) - 2 max |u| >= radius, that is

            2 max |u| + (1 - sigma) (radius + skin) <= skin.

        The room that a growing box gives (sigma > 1) is not used: then, and only then, what holds
        for the largest of several radii holds for the smaller ones.
        """
        if (box is None) != (self.box is None):
            return False
        moved = positions - self.positions
        shrinking = 0.0
        if box is not None and self.box is not None and not np.array_equal(box, self.box):
            map_of_space = np.linalg.solve(self.box, box)
            moved = positions - self.positions @ map_of_space
            shrinking = 1.0 - _least_stretch(map_of_space)
        farthest = math.sqrt(np.square(moved).sum(axis=1).max())
        return bool(2.0 * farthest + shrinking * (radius + skin) <= skin)


def _least_stretch(map_of_space: NDArray[np.floating[Any]]) -> float:
    """Return a lower bound, at most 1, of the smallest singular value of A.

    By Gershgorin's theorem on A^T A; exact for boxes whose vectors change in length only, and
    whatever the rotation.
    """
    metric = map_of_space @ map_of_space.T
    diagonal = np.diagonal(metric)
    least = float((diagonal - (np.abs(metric).sum(axis=1) - diagonal)).min())
    return math.sqrt(min(max(least, 0.0), 1.0))
