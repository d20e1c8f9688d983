"""Descriptors of pairs of atoms whose two derivatives are opposite: one vector for two blocks.

Where descriptor p depends on the difference of two positions only, d(p)/d(second atom) = u[p] and
d(p)/d(first atom) = -u[p].
"""

from __future__ import annotations

import torch
from torch import Tensor

from ofcv_export.descriptors.sparsity_pattern import SparsityPattern


def has_pairs(pattern: SparsityPattern) -> bool:
    """Return whether the pattern has two consecutive blocks for each descriptor in turn."""
    expected = torch.arange(pattern.n_descriptors).repeat_interleave(2)
    return torch.equal(pattern.descriptor_index, expected)


def blocks_of_pairs(pairs: Tensor) -> Tensor:
    """Return the blocks -u and u (batch, 2 * n, 3) of vectors u (batch, n, 3)."""
    return torch.stack([-pairs, pairs], dim=2).flatten(1, 2)


def pairs_of_blocks(blocks: Tensor, pattern: SparsityPattern) -> Tensor | None:
    """Return the vectors u (batch, n, 3) of blocks (batch, 2 * n, 3); None where they are none."""
    if not has_pairs(pattern):
        return None
    first, second = blocks.unflatten(1, (-1, 2)).unbind(2)
    return second if torch.equal(first, -second) else None
