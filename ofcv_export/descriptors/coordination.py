"""Coordination numbers between two groups of atoms."""

import torch
from torch import Tensor

from ofcv_export.base.validation import require_positive_number
from ofcv_export.descriptors.boundaries import Boundaries, open_boundaries
from ofcv_export.descriptors.descriptor import Descriptor, require_atoms
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.switching import (
    SwitchingFunction,
    switching_module,
    value_and_slope,
)
from ofcv_export.descriptors.vectors import norm, reciprocal


class CoordinationNumbers(Descriptor):
    """Sum over group B of s(|r_b - r_a|), one value for every atom a of group A.

    Parameters
    ----------
    group_a, group_b : torch.Tensor
        Zero-based atom indices, int64. An atom of both groups is not its own neighbour.
    n_atoms : int
        Number of atoms in a frame.
    switching_function : torch.nn.Module or callable
        s(r), one of `ofcv_export.descriptors.switching`, or any function that is elementwise on a
        vector of distances and differentiable by autograd.
    cutoff : float, optional
        Distance beyond which a pair does not count at all, such as the ``dmax`` of s(r).
    box : Boundaries, optional
        Boundary conditions; open by default.

    Raises
    ------
    ValueError
        If an atom of A has no possible neighbour, or the cutoff is not positive.
    """

    type_name = "coordination_numbers"
    facts = ("n_atoms", "group_a", "group_b", "switching_function", "cutoff", "box")
    group_a: Tensor
    group_b: Tensor
    different: Tensor
    stand_in: Tensor
    largest_distance: Tensor

    def __init__(
        self,
        group_a: Tensor,
        group_b: Tensor,
        n_atoms: int,
        switching_function: SwitchingFunction,
        cutoff: float | None = None,
        box: Boundaries | None = None,
    ) -> None:
        group_a = require_atoms("group_a", group_a, n_atoms)
        group_b = require_atoms("group_b", group_b, n_atoms)
        different = group_a[:, None] != group_b[None, :]
        if not bool(different.any(dim=1).all()):
            raise ValueError("group_b: expected an atom other than the one of group_a, got none")
        if cutoff is not None:
            require_positive_number("cutoff", cutoff)
        box = open_boundaries() if box is None else box
        super().__init__(n_atoms, len(group_a), box.takes_box)
        self.register_buffer("group_a", group_a, persistent=False)
        self.register_buffer("group_b", group_b, persistent=False)
        self.register_buffer("different", different, persistent=False)
        self.overlap = not bool(different.all())
        # In the place of an atom's distance from itself, that from its first neighbour is looked
        # at and counts nothing: s(r) may be infinite at 0.
        neighbour = different.int().argmax(dim=1, keepdim=True)
        stand_in = torch.where(different, torch.arange(len(group_b)), neighbour)
        self.register_buffer("stand_in", stand_in, persistent=False)
        self.switching_function = switching_module(switching_function)
        self.cutoff = cutoff
        largest = torch.tensor(0.0 if cutoff is None else cutoff, dtype=torch.float64)
        self.register_buffer("largest_distance", largest, persistent=False)
        self.box = box

    def _vectors(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return the vectors from A to B, shape (batch, n_a, n_b, 3)."""
        a = positions.index_select(1, self.group_a).unsqueeze(2)
        b = positions.index_select(1, self.group_b).unsqueeze(1)
        return self.box.displacement(a, b, box)

    def _contributions(self, distances: Tensor) -> Tensor:
        if self.overlap:
            distances = distances.gather(2, self.stand_in.expand(distances.shape))
        s = self.switching_function(distances)
        if self.cutoff is not None:
            s = s * (distances <= self.largest_distance.to(distances))
        if self.overlap:
            s = s.masked_fill(~self.different, 0.0)
        return s

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the coordination numbers, shape (batch, n_a)."""
        return self._contributions(norm(self._vectors(positions, box))).sum(2)

    def pattern(self) -> SparsityPattern:
        """Return, for each atom of A, its own block and then those of its neighbours in B."""
        group_a, group_b = self.group_a.cpu(), self.group_b.cpu()
        atoms = torch.cat([group_a[:, None], group_b.expand(len(group_a), -1)], dim=1)
        kept = self._kept().cpu()
        descriptors = torch.arange(self.n_descriptors).repeat_interleave(atoms.shape[1])
        return SparsityPattern(
            descriptors[kept], atoms.flatten()[kept], self.n_descriptors, self.n_atoms
        )

    def _kept(self) -> Tensor:
        """Return which of the n_a * (1 + n_b) possible blocks are those of two atoms."""
        own = torch.ones_like(self.different[:, :1])
        return torch.nonzero(torch.cat([own, self.different], dim=1).flatten()).flatten()

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return coordination numbers and s'(r) along the unit vectors."""
        vectors = self._vectors(positions, box)
        distances = norm(vectors)
        contributions, slopes = value_and_slope(self._contributions, distances)
        pair = (slopes * reciprocal(distances)).unsqueeze(3) * vectors
        pair = self.box.to_positions(pair, box)
        blocks = torch.cat([-pair.sum(2, keepdim=True), pair], dim=2).flatten(1, 2)
        return contributions.sum(2), blocks.index_select(1, self._kept())
