"""Several descriptors of the same atoms, one after another."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern


class MultipleDescriptors(Descriptor):
    """Concatenation of descriptors.

    A box given at run time goes to those that take one.

    Parameters
    ----------
    descriptors : sequence of Descriptor
        Descriptors of frames with the same number of atoms.

    Raises
    ------
    ValueError
        If there are none, or their numbers of atoms differ.
    """

    def __init__(self, descriptors: Sequence[Descriptor]) -> None:
        if not descriptors:
            raise ValueError("descriptors: expected at least one descriptor, got none")
        sizes = {descriptor.n_atoms for descriptor in descriptors}
        if len(sizes) > 1:
            raise ValueError(
                f"descriptors: expected the same number of atoms in all, got {sorted(sizes)}"
            )
        super().__init__(
            descriptors[0].n_atoms,
            sum(descriptor.n_descriptors for descriptor in descriptors),
            any(descriptor.takes_box for descriptor in descriptors),
        )
        self.descriptors = nn.ModuleList(descriptors)
        self.antisymmetric = all(descriptor.antisymmetric for descriptor in descriptors)

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return all descriptors, shape (batch, n_descriptors)."""
        if box is not None and not self.takes_box:
            raise ValueError("box: expected none (the boundaries are open or fixed), got a tensor")
        values = []
        for descriptor in self.descriptors:
            values.append(descriptor(positions, box if descriptor.takes_box else None))
        return torch.cat(values, dim=1)

    def specification(self) -> dict[str, Any] | None:
        """Return the JSON-able description, see `Descriptor.specification`."""
        if type(self) is not MultipleDescriptors:
            return None
        parts = [descriptor.specification() for descriptor in self.descriptors]  # type: ignore[operator]
        if any(part is None for part in parts):
            return None
        return {"type": "multiple_descriptors", "descriptors": parts}

    def periods(self) -> list[float | None]:
        """Return the periods of all descriptors, see `Descriptor.periods`."""
        if type(self) is not MultipleDescriptors:
            return super().periods()
        return [period for part in self.descriptors for period in part.periods()]  # type: ignore[operator]

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

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return all descriptors and all blocks."""
        parts = [
            descriptor.jacobian(positions, box if descriptor.takes_box else None)  # type: ignore[operator]
            for descriptor in self.descriptors
        ]
        values, blocks = zip(*parts, strict=True)
        return torch.cat(values, dim=1), torch.cat(blocks, dim=1)
