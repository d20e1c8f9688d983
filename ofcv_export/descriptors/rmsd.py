"""Root-mean-square deviation from a reference structure after optimal superposition."""

from typing import Any

import torch
from torch import Tensor

from ofcv_export.descriptors.alignment import Superposition
from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.vectors import norm


class RMSD(Descriptor):
    """Weighted root-mean-square deviation, minimal over translations and rotations.

    Where it is exactly 0 its derivatives are 0.

    Parameters
    ----------
    reference, n_atoms, atoms, weights, box
        As those of `ofcv_export.descriptors.alignment.Superposition`.
    """

    def __init__(
        self,
        reference: Tensor,
        n_atoms: int,
        atoms: Tensor | None = None,
        weights: Tensor | None = None,
        box: Boundaries | None = None,
    ) -> None:
        superposition = Superposition(reference, n_atoms, atoms, weights, box)
        super().__init__(n_atoms, 1, superposition.box.takes_box)
        self.superposition = superposition

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the deviation in the unit of the positions, shape (batch, 1)."""
        aligned, reference = self.superposition(positions, box)
        share = self.superposition.normalised_weights(positions)
        deviations = (aligned - reference) * torch.sqrt(share).unsqueeze(1)
        return norm(deviations.flatten(1)).unsqueeze(1)

    def specification(self) -> dict[str, Any]:
        """Return the JSON-able description, see `Descriptor.specification`."""
        return {"type": "rmsd", "n_atoms": self.n_atoms, **self.superposition.specification()}

    def pattern(self) -> SparsityPattern:
        """Return one block for each chosen atom."""
        atoms = self.superposition.atoms.cpu()
        return SparsityPattern(torch.zeros_like(atoms), atoms, 1, self.n_atoms)
