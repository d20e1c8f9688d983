"""Pairs of atoms and their images, as found in one frame and measured in others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Pairs, each of which comes once.

    Parameters
    ----------
    first, second : numpy.ndarray of int64, shape (n,)
        Rows of the positions.
    shifts : numpy.ndarray of int64, shape (n, 3)
        Lattice vectors crossed from the first to the second.
    """

    first: Indices
    second: Indices
    shifts: Indices

    @classmethod
    def none(cls) -> Pairs:
        """Return no pairs."""
        return cls(*(np.empty(shape, dtype=np.int64) for shape in (0, 0, (0, 3))))

    def within(self, radius: float, positions: Floats, box: Floats | None) -> NDArray[np.bool_]:
        """Return which pairs are no farther apart than a radius, shape (n,)."""
        # Component by component: the bits of a distance depend neither on the other pairs nor on
        # which of its atoms comes first, so that every search, and both directions, agree.
        squared = np.zeros(self.first.size)
        for axis in range(3):
            component = positions[self.second, axis] - positions[self.first, axis]
            if box is not None:
                shift = self.shifts
                component += (shift[:, 0] * box[0, axis] + shift[:, 1] * box[1, axis]) + shift[
                    :, 2
                ] * box[2, axis]
            squared += component * component
        return squared <= radius * radius

    def chosen(self, mask: NDArray[np.bool_] | Indices) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.first[mask], self.second[mask], self.shifts[mask])


@dataclass(frozen=True)
class Edges:
    """Pairs in both directions, ordered by sender, receiver and shift.

    Parameters
    ----------
    pairs : Pairs
        In one direction.
    directed : Pairs
        In both.
    origin : numpy.ndarray of int64, shape (2 n,)
        The pair of each of `directed`.
    """

    pairs: Pairs
    directed: Pairs
    origin: Indices

    @classmethod
    def along(cls, pairs: Pairs) -> Edges:
        """Return both directions of pairs."""
        sender = np.concatenate([pairs.first, pairs.second])
        receiver = np.concatenate([pairs.second, pairs.first])
        shifts = np.concatenate([pairs.shifts, -pairs.shifts])
        order = np.lexsort((*shifts.T[::-1], receiver, sender))
        directed = Pairs(sender, receiver, shifts).chosen(order)
        return cls(pairs, directed, order % max(pairs.first.size, 1))

    def of(self, mask: NDArray[np.bool_]) -> Pairs:
        """Return both directions of some of the pairs."""
        return self.directed.chosen(mask[self.origin])
