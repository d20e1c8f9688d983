"""Eigenvalues of the adjacency matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ofcv_export.descriptors.coordination import SwitchingFunction, value_and_slope
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.geometry import OrthorhombicBox
from ofcv_export.sparsity_pattern import SparsityPattern


class AdjacencyEigenvalues(Descriptor):
    """Ascending eigenvalues of A_ij = s(|r_j - r_i|), A_ii = 0.

    Where eigenvalues coincide their derivatives are those of one basis of the eigenspace.

    Parameters
    ----------
    n_atoms : int
        Number of atoms in a frame.
    switching_function : callable
        s(r), elementwise on a vector of distances and differentiable by autograd.
    box : OrthorhombicBox
        Boundary conditions.
    """

    first: Tensor
    second: Tensor

    def __init__(
        self, n_atoms: int, switching_function: SwitchingFunction, box: OrthorhombicBox
    ) -> None:
        super().__init__()
        first, second = torch.triu_indices(n_atoms, n_atoms, offset=1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        self.n_atoms = n_atoms
        self.n_descriptors = n_atoms
        self.switching_function = switching_function
        self.box = box

    def _vectors(self, positions: Tensor) -> Tensor:
        return self.box.displacement(
            positions.index_select(1, self.first), positions.index_select(1, self.second)
        )

    def _contributions(self, distances: Tensor) -> Tensor:
        return self.switching_function(distances.flatten()).reshape(distances.shape)

    def _matrix(self, contributions: Tensor) -> Tensor:
        """Return the symmetric matrix with the pairs' values, shape (batch, n_atoms, n_atoms)."""
        matrix = contributions.new_zeros(len(contributions), self.n_atoms, self.n_atoms)
        matrix[:, self.first, self.second] = contributions
        return matrix + matrix.transpose(1, 2)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the eigenvalues, shape (batch, n_atoms)."""
        distances = torch.linalg.vector_norm(self._vectors(positions), dim=2)
        return torch.linalg.eigvalsh(self._matrix(self._contributions(distances)))

    def pattern(self) -> SparsityPattern:
        """Return the full pattern: every eigenvalue depends on every atom."""
        return SparsityPattern.from_dependence(
            torch.ones(self.n_atoms, self.n_atoms, dtype=torch.bool)
        )

    def jacobian(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return eigenvalues and derivatives d(lambda_k) = v_k^T dA v_k (Hellmann-Feynman)."""
        vectors = self._vectors(positions)
        distances = torch.linalg.vector_norm(vectors, dim=2)
        contributions, slopes = value_and_slope(self._contributions, distances)
        eigenvalues, v = torch.linalg.eigh(self._matrix(contributions))
        pair = self.box.to_positions((slopes / distances).unsqueeze(2) * vectors)
        weights = 2 * v[:, self.first] * v[:, self.second]
        terms = weights.transpose(1, 2).unsqueeze(3) * pair.unsqueeze(1)
        blocks = terms.new_zeros(len(positions), self.n_atoms, self.n_atoms, 3)
        blocks.index_add_(2, self.second, terms)
        blocks.index_add_(2, self.first, -terms)
        return eigenvalues, blocks.flatten(1, 2)
