"""Distances of pairs of atoms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.geometry import OrthorhombicBox
from ofcv_export.sparsity_pattern import SparsityPattern


class PairDistances(Descriptor):
    """|r_j - r_i| for chosen pairs (i, j).

    Parameters
    ----------
    pairs : torch.Tensor
        Pairs of zero-based atom indices, int64, shape (n_pairs, 2).
    n_atoms : int
        Number of atoms in a frame.
    box : OrthorhombicBox
        Boundary conditions.
    """

    pairs: Tensor

    def __init__(self, pairs: Tensor, n_atoms: int, box: OrthorhombicBox) -> None:
        super().__init__()
        self.register_buffer("pairs", pairs, persistent=False)
        self.n_atoms = n_atoms
        self.n_descriptors = len(pairs)
        self.box = box

    def _vectors(self, positions: Tensor) -> Tensor:
        first, second = self.pairs[:, 0], self.pairs[:, 1]
        return self.box.displacement(
            positions.index_select(1, first), positions.index_select(1, second)
        )

    def forward(self, positions: Tensor) -> Tensor:
        """Return the distances, shape (batch, n_pairs)."""
        return torch.linalg.vector_norm(self._vectors(positions), dim=2)

    def specification(self) -> dict[str, Any]:
        """Return the JSON-able description that an artifact's metadata carries."""
        box = self.box.lengths.tolist() if self.box.periodic or self.box.scaled else None
        return {
            "type": "pairwise_distances",
            "pairs": self.pairs.tolist(),
            "box": box,
            "scaled": self.box.scaled,
        }

    def pattern(self) -> SparsityPattern:
        """Return two blocks per pair: its first atom, then its second."""
        descriptors = torch.arange(self.n_descriptors).repeat_interleave(2)
        return SparsityPattern(
            descriptors, self.pairs.cpu().flatten(), self.n_descriptors, self.n_atoms
        )

    def jacobian(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances and the unit vectors that are their derivatives."""
        vectors = self._vectors(positions)
        distances = torch.linalg.vector_norm(vectors, dim=2)
        unit = self.box.to_positions(vectors / distances.unsqueeze(2))
        return distances, torch.stack([-unit, unit], dim=2).flatten(1, 2)
