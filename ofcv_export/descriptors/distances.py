"""Distances of pairs of atoms."""

from typing import Any

import torch
from torch import Tensor

from ofcv_export.descriptors.boundaries import Boundaries, open_boundaries
from ofcv_export.descriptors.descriptor import Descriptor, require_atoms
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.vectors import norm, reciprocal


class PairDistances(Descriptor):
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

    pairs: Tensor
    first: Tensor
    second: Tensor

    def __init__(self, pairs: Tensor, n_atoms: int, box: Boundaries | None = None) -> None:
        pairs = require_atoms("pairs", pairs, n_atoms, width=2)
        box = open_boundaries() if box is None else box
        super().__init__(n_atoms, len(pairs), box.takes_box)
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("first", pairs[:, 0].contiguous(), persistent=False)
        self.register_buffer("second", pairs[:, 1].contiguous(), persistent=False)
        self.box = box
        self.antisymmetric = True

    def vectors(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the vectors from i to j, shape (batch, n_pairs, 3)."""
        start = positions.index_select(1, self.first)
        end = positions.index_select(1, self.second)
        return self.box.displacement(start, end, box)

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the distances, shape (batch, n_pairs)."""
        return norm(self.vectors(positions, box))

    def specification(self) -> dict[str, Any]:
        """Return the JSON-able description, see `Descriptor.specification`."""
        return {
            "type": "pairwise_distances",
            "n_atoms": self.n_atoms,
            "pairs": self.pairs.tolist(),
            "box": self.box.specification(),
        }

    def pattern(self) -> SparsityPattern:
        """Return two blocks per pair: its first atom, then its second."""
        descriptors = torch.arange(self.n_descriptors).repeat_interleave(2)
        return SparsityPattern(
            descriptors, self.pairs.cpu().flatten(), self.n_descriptors, self.n_atoms
        )

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return distances and the unit vectors that are their derivatives."""
        vectors = self.vectors(positions, box)
        distances = norm(vectors)
        unit = self.box.to_positions(vectors * reciprocal(distances).unsqueeze(2), box)
        return distances, torch.stack([-unit, unit], dim=2).flatten(1, 2)


def all_pairs(n_atoms: int) -> Tensor:
    """Return all pairs (i, j), i < j, in the order (0, 1), (0, 2), ..., shape (n_pairs, 2)."""
    return torch.triu_indices(n_atoms, n_atoms, offset=1).t().contiguous()
