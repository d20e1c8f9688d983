"""The lattice of periodic images in a system that may be open along some directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Times the longest lattice vector: no atom is as far away as half of this.
_FAR = 1e6


def image_lattice(
    vectors: NDArray[np.float64], periodic: Sequence[bool]
) -> NDArray[np.float64] | None:
    """Return lattice vectors whose nearest images are those of the system.

    Parameters
    ----------
    vectors : numpy.ndarray
        Lattice vectors as rows, shape (3, 3). Those of open directions are not used.
    periodic : sequence of bool
        Along which of them the system is periodic.

    Returns
    -------
    numpy.ndarray or None
        The vectors themselves where the system is periodic along all three, None where it is along
        none. Otherwise shape (3, 3), with very long vectors, normal to the periodic ones, for the
        open directions.
    """
    flags = np.asarray(periodic, dtype=bool)
    if flags.all():
        return vectors
    if not flags.any():
        return None
    lattice = vectors[flags]
    # The last right singular vectors span what is normal to the rows.
    normals = np.linalg.svd(lattice).Vh[len(lattice) :]
    return np.vstack([lattice, _FAR * np.abs(lattice).max() * normals])
