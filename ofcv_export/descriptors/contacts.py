"""Contacts: a switching function of the distance of each pair of atoms."""

from torch import Tensor

from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.distance_functions import DistanceFunctions
from ofcv_export.descriptors.switching import (
    SwitchingFunction,
    switching_module,
    value_and_slope,
)


class Contacts(DistanceFunctions):
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

    type_name = "contacts"
    facts = ("n_atoms", "distances.pairs", "distances.box", "switching_function")

    def __init__(
        self,
        pairs: Tensor,
        n_atoms: int,
        switching_function: SwitchingFunction,
        box: Boundaries | None = None,
    ) -> None:
        super().__init__(pairs, n_atoms, box)
        self.switching_function = switching_module(switching_function)

    def function(self, distances: Tensor) -> Tensor:
        """Return s(r), elementwise."""
        contacts: Tensor = self.switching_function(distances)
        return contacts

    def value_and_slope(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return s(r) and s'(r), elementwise."""
        return value_and_slope(self.switching_function, distances)
