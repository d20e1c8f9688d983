"""Descriptors of pairs of atoms whose two derivatives are opposite: one vector for two blocks.

Where descriptor p depends on the difference of two positions only, d(p)/d(second atom) = u[p] and
d(p)/d(first atom) = -u[p].
"""

from __future__ import annotations

from typing import NamedTuple

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


class PairRuns(NamedTuple):
    """Pairs turned so that they make long runs: one first atom and consecutive second ones.

    All pairs of n atoms, in the usual order, are n - 1 runs.

    Attributes
    ----------
    flipped : torch.Tensor
        Which pairs are turned round, boolean (n_pairs,).
    first, second : torch.Tensor
        Atoms of the turned pairs, int64 (n_pairs,).
    start : torch.Tensor
        The first pair of each run, int64 (n_runs,).
    """

    flipped: Tensor
    first: Tensor
    second: Tensor
    start: Tensor


def pair_runs(pattern: SparsityPattern) -> PairRuns:
    """Return the runs of a pattern of two blocks for each descriptor in turn."""
    atoms = pattern.atom_index.reshape(-1, 2)
    # Of the two ways round the one with fewer, so longer, runs.
    ascending = atoms.sort(dim=1).values
    ways = [ascending, ascending.flip(1)]
    starts = [_run_starts(*way.unbind(1)) for way in ways]
    best = int(len(starts[1]) < len(starts[0]))
    first, second = ways[best].unbind(1)
    return PairRuns(first != atoms[:, 0], first.contiguous(), second.contiguous(), starts[best])


def _run_starts(first: Tensor, second: Tensor) -> Tensor:
    """Return where stretches of one first atom and consecutive second atoms start."""
    goes_on = (first.diff() == 0) & (second.diff() == 1)
    return torch.nonzero(torch.cat([goes_on.new_ones(1), ~goes_on])).flatten()


class StoredPairs:
    """One vector for each pair, as `PairRuns` turns them; values (batch, 3, n_pairs), flattened."""

    flipped: Tensor
    stores_pairs = True

    def arrange(self, vectors: Tensor) -> Tensor:
        """Return the values (batch, 3 * n_pairs) of vectors (batch, n_pairs, 3)."""
        return self._turned(vectors).transpose(1, 2).flatten(1)

    def vectors(self, values: Tensor) -> Tensor:
        """Return the vectors (batch, n_pairs, 3) of values (batch, 3 * n_pairs)."""
        return self._turned(values.unflatten(1, (3, -1)).transpose(1, 2))

    def _turned(self, pairs: Tensor) -> Tensor:
        """Return vectors (batch, n, 3), those turned round that lie the other way round here."""
        return torch.where(self.flipped.unsqueeze(1), -pairs, pairs)
