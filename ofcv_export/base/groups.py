"""Entries in the order of what they belong to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Groups(NamedTuple):
    """Entries sorted by their owners, those of one owner in the order in which they came.

    Attributes
    ----------
    order : torch.Tensor
        The entries, int64 (n_entries,).
    start : torch.Tensor
        Where those of each owner begin in `order`, and the number of all, int64 (n_owners + 1,).
    """

    order: Tensor
    start: Tensor

    @classmethod
    def by(cls, owner: Tensor, n_owners: int) -> Groups:
        """Sort entries by the owner of each, int64 (n_entries,)."""
        counts = torch.bincount(owner, minlength=n_owners)
        start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(torch.argsort(owner, stable=True), start)

    @property
    def counts(self) -> Tensor:
        """Number of entries of each owner, int64 (n_owners,)."""
        return self.start.diff()

    @property
    def width(self) -> int:
        """The largest number of entries of an owner."""
        return int(self.counts.max())

    @property
    def rank(self) -> Tensor:
        """Place of each entry of `order` among those of its owner, int64 (n_entries,)."""
        return torch.arange(len(self.order)) - self.start[:-1].repeat_interleave(self.counts)
