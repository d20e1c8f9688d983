"""Several descriptors of the same atoms, one after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.sparsity_pattern import SparsityPattern


class MultipleDescriptors(Descriptor):
    """Concatenation of descriptors.

    Parameters
    ----------
    descriptors : sequence of Descriptor
        Descriptors of frames with the same number of atoms.
    """

    def __init__(self, descriptors: Sequence[Descriptor]) -> None:
        super().__init__()
        self.descriptors = nn.ModuleList(descriptors)
        self.n_atoms = descriptors[0].n_atoms
        self.n_descriptors = sum(descriptor.n_descriptors for descriptor in descriptors)

    def forward(self, positions: Tensor) -> Tensor:
        """Return all descriptors, shape (batch, n_descriptors)."""
        return torch.cat([descriptor(positions) for descriptor in self.descriptors], dim=1)

    def pattern(self) -> SparsityPattern:
        """Return the patterns below one another."""
        descriptor_index, atom_index, offset = [], [], 0
        for descriptor in self.descriptors:
            pattern = descriptor.pattern()  # type: ignore[operator]
            descriptor_index.append(pattern.descriptor_index + offset)
            atom_index.append(pattern.atom_index)
            offset += pattern.n_descriptors
        return SparsityPattern(
            torch.cat(descriptor_index), torch.cat(atom_index), offset, self.n_atoms
        )

    def jacobian(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return all descriptors and all blocks."""
        parts = [descriptor.jacobian(positions) for descriptor in self.descriptors]  # type: ignore[operator]
        values, blocks = zip(*parts, strict=True)
        return torch.cat(values, dim=1), torch.cat(blocks, dim=1)
