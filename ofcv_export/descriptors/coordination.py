"""Coordination numbers between two groups of atoms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.geometry import OrthorhombicBox
from ofcv_export.sparsity_pattern import SparsityPattern

SwitchingFunction = Callable[[Tensor], Tensor]


class CoordinationNumbers(Descriptor):
    """Sum over group B of s(|r_b - r_a|), one value for every atom a of group A.

    Parameters
    ----------
    group_a, group_b : torch.Tensor
        Zero-based atom indices of two groups without a common atom, int64.
    n_atoms : int
        Number of atoms in a frame.
    switching_function : callable
        s(r), elementwise on a vector of distances and differentiable by autograd.
    cutoff : float, optional
        Distance beyond which a pair does not count at all.
    box : OrthorhombicBox
        Boundary conditions.
    """

    group_a: Tensor
    group_b: Tensor

    def __init__(
        self,
        group_a: Tensor,
        group_b: Tensor,
        n_atoms: int,
        switching_function: SwitchingFunction,
        cutoff: float | None,
        box: OrthorhombicBox,
    ) -> None:
        super().__init__()
        self.register_buffer("group_a", group_a, persistent=False)
        self.register_buffer("group_b", group_b, persistent=False)
        self.n_atoms = n_atoms
        self.n_descriptors = len(group_a)
        self.switching_function = switching_function
        self.cutoff = cutoff
        self.box = box

    def _vectors(self, positions: Tensor) -> Tensor:
        """Return the vectors from A to B, shape (batch, n_a, n_b, 3)."""
        a = positions.index_select(1, self.group_a).unsqueeze(2)
        b = positions.index_select(1, self.group_b).unsqueeze(1)
        return self.box.displacement(a, b)

    def _contributions(self, distances: Tensor) -> Tensor:
        s = self.switching_function(distances.flatten()).reshape(distances.shape)
        return s if self.cutoff is None else s * (distances <= self.cutoff)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the coordination numbers, shape (batch, n_a)."""
        distances = torch.linalg.vector_norm(self._vectors(positions), dim=3)
        return self._contributions(distances).sum(2)

    def pattern(self) -> SparsityPattern:
        """Return, for each atom of A, its own block and then those of all atoms of B."""
        group_a, group_b = self.group_a.cpu(), self.group_b.cpu()
        everyone = group_b.expand(len(group_a), -1)
        atoms = torch.cat([group_a[:, None], everyone], dim=1)
        descriptors = torch.arange(self.n_descriptors).repeat_interleave(atoms.shape[1])
        return SparsityPattern(descriptors, atoms.flatten(), self.n_descriptors, self.n_atoms)

    def jacobian(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return coordination numbers and s'(r) along the unit vectors."""
        vectors = self._vectors(positions)
        distances = torch.linalg.vector_norm(vectors, dim=3)
        contributions, slopes = value_and_slope(self._contributions, distances)
        pair = self.box.to_positions((slopes / distances).unsqueeze(3) * vectors)
        own = -pair.sum(2, keepdim=True)
        return contributions.sum(2), torch.cat([own, pair], dim=2).flatten(1, 2)


def value_and_slope(
    function: Callable[[Tensor], Tensor], distances: Tensor
) -> tuple[Tensor, Tensor]:
    """Return an elementwise function of the distances and its derivative, same shapes.

    A function that does not depend on the distances, such as a step, has the slope 0.
    """
    with torch.enable_grad():
        leaf = distances.detach().requires_grad_()
        values = function(leaf)
        if not values.requires_grad:
            return values, torch.zeros_like(values)
        (slopes,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
    return values.detach(), torch.zeros_like(values) if slopes is None else slopes
