"""Eigenvalues of the adjacency matrix."""

import torch
from torch import Tensor

from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.switching import (
    SwitchingFunction,
    switching_module,
    value_and_slope,
)
from ofcv_export.descriptors.vectors import norm, reciprocal


class AdjacencyEigenvalues(Descriptor):
    """Ascending eigenvalues of A_ij = s(|r_j - r_i|), A_ii = 0.

    Where eigenvalues coincide their first derivatives are those of one basis of the eigenspace,
    and their second derivatives are not finite. ONNX has no operator for eigenvalues: TorchScript
    and AOTInductor can carry this descriptor, ONNX cannot.

    Parameters
    ----------
    n_atoms : int
        Number of atoms in a frame.
    switching_function : torch.nn.Module or callable
        s(r), one of `ofcv_export.descriptors.switching`, or any function that is elementwise on a
        vector of distances and differentiable by autograd.
    box : Boundaries, optional
        Boundary conditions; open by default.
    """

    type_name = "adjacency_eigenvalues"
    facts = ("n_atoms", "switching_function", "distances.box")
    entries: Tensor

    def __init__(
        self,
        n_atoms: int,
        switching_function: SwitchingFunction,
        box: Boundaries | None = None,
    ) -> None:
        distances = PairDistances(all_pairs(n_atoms), n_atoms, box)
        super().__init__(n_atoms, n_atoms, distances.takes_box)
        n_pairs = distances.n_descriptors
        # The number of the pair (i, j) at both (i, j) and (j, i); on the diagonal one past the end.
        entries = torch.full((n_atoms, n_atoms), n_pairs)
        entries[distances.start, distances.end] = torch.arange(n_pairs)
        entries[distances.end, distances.start] = torch.arange(n_pairs)
        self.register_buffer("entries", entries.flatten(), persistent=False)
        self.distances = distances
        self.switching_function = switching_module(switching_function)

    def _matrix(self, contributions: Tensor) -> Tensor:
        """Return the symmetric matrix with the pairs' values, shape (batch, n_atoms, n_atoms)."""
        padded = torch.cat([contributions, torch.zeros_like(contributions[:, :1])], dim=1)
        return padded.index_select(1, self.entries).reshape(-1, self.n_atoms, self.n_atoms)

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the eigenvalues, shape (batch, n_atoms)."""
        contributions = self.switching_function(self.distances(positions, box))
        return torch.linalg.eigvalsh(self._matrix(contributions))

    def pattern(self) -> SparsityPattern:
        """Return the full pattern: every eigenvalue depends on every atom."""
        return SparsityPattern.from_dependence(
            torch.ones(self.n_atoms, self.n_atoms, dtype=torch.bool)
        )

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return eigenvalues and derivatives d(lambda_k) = v_k^T dA v_k (Hellmann-Feynman)."""
        first, second = self.distances.start, self.distances.end
        vectors = self.distances.vectors(positions, box)
        distances = norm(vectors)
        contributions, slopes = value_and_slope(self.switching_function, distances)
        eigenvalues, v = torch.linalg.eigh(self._matrix(contributions))
        pair = (slopes * reciprocal(distances)).unsqueeze(2) * vectors
        pair = self.distances.box.to_positions(pair, box)
        weights = 2 * v[:, first] * v[:, second]
        terms = weights.transpose(1, 2).unsqueeze(3) * pair.unsqueeze(1)
        blocks = terms.new_zeros(len(positions), self.n_atoms, self.n_atoms, 3)
        blocks.index_add_(2, second, terms)
        blocks.index_add_(2, first, -terms)
        return eigenvalues, blocks.flatten(1, 2)
