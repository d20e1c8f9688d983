"""Root-mean-square deviation from a reference structure after optimal superposition."""

import torch
from torch import Tensor

from ofcv_export.descriptors.alignment import Superposition
from ofcv_export.descriptors.vectors import norm


class RMSD(Superposition):
    """Weighted root-mean-square deviation, minimal over translations and rotations.

    Where it is exactly 0 its derivatives are 0.

    Parameters
    ----------
    reference, n_atoms, atoms, weights, box
        As those of `ofcv_export.descriptors.alignment.Superposition`.
    """

    type_name = "rmsd"

    @staticmethod
    def count(n_chosen: int) -> int:
        """Return 1, whatever the number of atoms."""
        return 1

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the deviation in the unit of the positions, shape (batch, 1)."""
        aligned, reference = self.superposed(positions, box)
        share = self.normalised_weights(positions)
        deviations = (aligned - reference) * torch.sqrt(share).unsqueeze(1)
        return norm(deviations.flatten(1)).unsqueeze(1)
