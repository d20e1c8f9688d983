"""Molecules that a periodic boundary cuts, put together again."""

# No postponed annotations: torch.jit.script wants those of `forward` to be types.

import torch
from torch import Tensor, nn

from ofcv_export.descriptors.lattice import LatticeReduction, NearestImage


class MakeWhole(nn.Module):
    """Put each atom at its image nearest to the atom before it, exact in every box."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction = LatticeReduction()
        self.nearest_image = NearestImage()

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return positions (n_atoms, 3) moved by lattice vectors; the first one stays.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (n_atoms, 3).
        box : torch.Tensor
            Lattice vectors as rows, shape (3, 3).
        """
        lattice = box if is_diagonal(box) else self.reduction(box)
        return self.in_reduced(positions, lattice)

    def in_reduced(self, positions: Tensor, lattice: Tensor) -> Tensor:
        """Return the same in a lattice (3, 3) that is Minkowski-reduced."""
        steps = positions[1:] - positions[:-1]
        if is_diagonal(lattice):
            # Rounding is exact here, and many times faster.
            edges = torch.diagonal(lattice)
            nearest = steps - edges * torch.round(steps / edges)
        else:
            nearest = self.nearest_image(steps, lattice)
        return torch.cat([positions[:1], positions[1:] + (nearest - steps).cumsum(0)])


def is_diagonal(box: Tensor) -> bool:
    """Return whether lattice vectors (3, 3) lie along x, y and z."""
    return bool((box == torch.diag(torch.diagonal(box))).all())
