"""Contacts: a switching function of the distance of each pair of atoms."""

from typing import Any

from torch import Tensor

from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.switching import (
    SwitchingFunction,
    switching_module,
    value_and_slope,
)


class Contacts(Descriptor):
    """s(|r_j - r_i|) for chosen pairs (i, j).

    Parameters
    ----------
    pairs : torch.Tensor
        Pairs of zero-based atom indices, int64, shape (n_pairs, 2).
    n_atoms : int
        Number of atoms in a frame.
    switching_function : torch.nn.Module or callable
        s(r), one of `ofcv_export.descriptors.switching`, or any function that is elementwise on a
        vector of distances and differentiable by autograd.
    box : Boundaries, optional
        Boundary conditions; open by default.
    """

    def __init__(
        self,
        pairs: Tensor,
        n_atoms: int,
        switching_function: SwitchingFunction,
        box: Boundaries | None = None,
    ) -> None:
        distances = PairDistances(pairs, n_atoms, box)
        super().__init__(n_atoms, distances.n_descriptors, distances.takes_box)
        self.distances = distances
        self.antisymmetric = True
        self.switching_function = switching_module(switching_function)

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the contacts, shape (batch, n_pairs)."""
        return self.switching_function(self.distances(positions, box))

    def specification(self) -> dict[str, Any] | None:
        """Return the JSON-able description, see `Descriptor.specification`."""
        switching = self.switching_function.specification()  # type: ignore[operator]
        if switching is None:
            return None
        return {
            **self.distances.specification(),
            "type": "contacts",
            "switching_function": switching,
        }

    def pattern(self) -> SparsityPattern:
        """Return two blocks per pair: its first atom, then its second."""
        return self.distances.pattern()

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return contacts and their derivatives, s'(r) along the unit vectors."""
        distances, blocks = self.distances.jacobian(positions, box)
        contacts, slopes = value_and_slope(self.switching_function, distances)
        return contacts, blocks * slopes.repeat_interleave(2, dim=1).unsqueeze(2)
