"""Molecules that a periodic boundary cuts, put together again before a file sees them.

`ofcv_export.descriptors.whole_molecules` does the same inside a graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.lattice import nearest_images


def made_whole(positions: NDArray[np.float64], lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions in which each atom is the image nearest to the one before it.

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (n_atoms, 3); the first one stays.
    lattice : numpy.ndarray
        Minkowski-reduced lattice vectors as rows, shape (3, 3).
    """
    steps = np.diff(positions, axis=0)
    moves = (nearest_images(steps, lattice) - steps).cumsum(0)
    return np.concatenate([positions[:1], positions[1:] + moves])
