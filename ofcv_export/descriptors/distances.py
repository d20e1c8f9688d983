"""Distances of pairs of atoms."""

import torch
from torch import Tensor

from ofcv_export.descriptors.atom_tuples import AtomTuples
from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.vectors import norm, reciprocal


class PairDistances(AtomTuples):
    """|r_j - r_i| for chosen pairs (i, j).

    The derivatives of the distance of two coincident atoms are 0.

    Parameters
    ----------
    pairs : torch.Tensor
        Pairs of zero-based atom indices, int64, shape (n_pairs, 2).
    n_atoms : int
        Number of atoms in a frame.
    box : Boundaries, optional
        Boundary conditions; open by default.
    """

    type_name = "pairwise_distances"
    facts = ("n_atoms", "pairs", "box")
    tuples = "pairs"
    bonds = ((0, 1),)
    pairs: Tensor

    def __init__(self, pairs: Tensor, n_atoms: int, box: Boundaries | None = None) -> None:
        super().__init__(pairs, n_atoms, box)
        self.antisymmetric = True

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the distances, shape (batch, n_pairs)."""
        return norm(self.vectors(positions, box))

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return distances and the unit vectors that are their derivatives."""
        vectors = self.vectors(positions, box)
        distances = norm(vectors)
        unit = self.box.to_positions(vectors * reciprocal(distances).unsqueeze(2), box)
        return distances, torch.stack([-unit, unit], dim=2).flatten(1, 2)


def all_pairs(n_atoms: int) -> Tensor:
    """Return all pairs (i, j), i < j, in the order (0, 1), (0, 2), ..., shape (n_pairs, 2)."""
    return torch.triu_indices(n_atoms, n_atoms, offset=1).t().contiguous()
