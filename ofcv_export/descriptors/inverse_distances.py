"""Inverse distances of pairs of atoms."""

from typing import Any

import torch
from torch import Tensor

from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.vectors import reciprocal


class InverseDistances(Descriptor):
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

    def __init__(self, pairs: Tensor, n_atoms: int, box: Boundaries | None = None) -> None:
        distances = PairDistances(pairs, n_atoms, box)
        super().__init__(n_atoms, distances.n_descriptors, distances.takes_box)
        self.distances = distances
        self.antisymmetric = True

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the inverse distances, shape (batch, n_pairs)."""
        return reciprocal(self.distances(positions, box))

    def specification(self) -> dict[str, Any]:
        """Return the JSON-able description, see `Descriptor.specification`."""
        return {**self.distances.specification(), "type": "inverse_distances"}

    def pattern(self) -> SparsityPattern:
        """Return two blocks per pair: its first atom, then its second."""
        return self.distances.pattern()

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return inverse distances and their derivatives, -1/r^2 along the unit vectors."""
        distances, blocks = self.distances.jacobian(positions, box)
        inverse = reciprocal(distances)
        slopes = (-inverse.square()).repeat_interleave(2, dim=1)
        return inverse, torch.mul(blocks, slopes.unsqueeze(2))
