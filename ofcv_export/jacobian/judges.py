"""What the graphs of chain rules must equal, by one formula for all of their forms.

d(out)/d(pos)[frame, a] = sum over blocks b with atom[b] = a of
                          block[frame, b] * d(out)/d(desc)[frame, descriptor[b]]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofcv_export.descriptors.sparsity_pattern import SparsityPattern


class SummedBlocks(nn.Module):
    """The chain rule as a sum over the blocks of the pattern, whatever is stored.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    values : torch.Tensor, optional
        Frozen derivatives in block order, shape (n_frames, nnz), of which the second input chooses
        frames; by default the second input is the derivatives (batch, nnz).
    """

    values: Tensor | None

    def __init__(self, pattern: SparsityPattern, values: Tensor | None = None) -> None:
        super().__init__()
        self.pattern = pattern
        self.register_buffer("values", values)

    def forward(self, x: Tensor, second: Tensor) -> Tensor:
        """Return d(out)/d(pos), shape (batch, n_atoms, 3[, n_outputs])."""
        chosen = second if self.values is None else self.values[second]
        blocks = chosen.unflatten(1, (-1, 3))
        descriptor, atom = (
            index.to(x.device) for index in (self.pattern.descriptor_index, self.pattern.atom_index)
        )
        outputs = x if x.dim() == 3 else x.unsqueeze(2)
        terms = torch.einsum("bkc,bko->bkco", blocks, outputs[:, descriptor])
        zeros = terms.new_zeros(len(x), self.pattern.n_atoms, *terms.shape[2:])
        out = zeros.index_add(1, atom, terms)
        return out if x.dim() == 3 else out.squeeze(3)
