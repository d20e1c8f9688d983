"""Inverse distances of pairs of atoms."""

from torch import Tensor

from ofcv_export.descriptors.distance_functions import DistanceFunctions
from ofcv_export.descriptors.vectors import reciprocal


class InverseDistances(DistanceFunctions):
    """1 / |r_j - r_i| for chosen pairs (i, j).

    Two coincident atoms, where the function is infinite, give 0 with derivatives 0.

    Parameters
    ----------
    pairs : torch.Tensor
        Pairs of zero-based atom indices, int64, shape (n_pairs, 2).
    n_atoms : int
        Number of atoms in a frame.
    box : Boundaries, optional
        Boundary conditions; open by default.
    """

    type_name = "inverse_distances"
    facts = ("n_atoms", "distances.pairs", "distances.box")

    def function(self, distances: Tensor) -> Tensor:
        """Return 1 / r, elementwise."""
        return reciprocal(distances)

    def value_and_slope(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 / r and -1 / r^2, elementwise."""
        inverse = reciprocal(distances)
        return inverse, -inverse.square()
