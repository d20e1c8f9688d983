"""Rows of pairs for a kernel that sums them by atom: two runs share a row where they fit.

A row has a place for each atom. One run, of a first atom and consecutive second ones, lies in it
with each pair at the place of its second atom; another run lies in it backwards, with the pair of
the second atom b at the place n_atoms - 1 - b. Of all pairs of n atoms a run of n - 1 - i pairs and
one of i + 1 fill a row, and n / 2 rows hold them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ofcv_export.jacobian.opposite_pairs import PairRuns


@dataclass(frozen=True)
class _Run:
    """A run in a row: its first atom's place, and the pairs base plus or minus the places."""

    own: int
    base: int
    low: int
    high: int

    def is_apart_from(self, other: _Run) -> bool:
        return self.high <= other.low or other.high <= self.low

    def numbers(self) -> tuple[int, int, int, int]:
        return self.own, self.base, self.low, self.high


_NOTHING = _Run(-1, 0, 0, 0)


def folded_runs(runs: PairRuns, n_atoms: int) -> Tensor:
    """Return the rows of all runs, the longest runs first.

    Parameters
    ----------
    runs : PairRuns
        At least one run.
    n_atoms : int
        Number of atoms.

    Returns
    -------
    torch.Tensor
        int64 (n_rows, 8): for each of the two runs of a row the place of its first atom, a base,
        and the places from and to which it goes. The pair at a place is the base plus the place in
        the first run, and the base minus the place in the second one; a run that is not there has
        no places.
    """
    ends = torch.cat([runs.start[1:], torch.tensor([len(runs.first)])])
    low, high = runs.second[runs.start], runs.second[ends - 1] + 1
    last = n_atoms - 1
    columns = runs.first[runs.start], runs.start, low, high
    found = sorted(zip(*(column.tolist() for column in columns), strict=True), key=_length)
    forward = [_Run(own, start - low, low, high) for own, start, low, high in found]
    backward = [
        _Run(last - own, start - low + last, last + 1 - high, last + 1 - low)
        for own, start, low, high in found
    ]
    left = list(range(len(found)))
    rows = []
    while left:
        longest = forward[left.pop()]
        # The longest of those that fit.
        fitting = (each for each in reversed(left) if longest.is_apart_from(backward[each]))
        partner = next(fitting, None)
        if partner is not None:
            left.remove(partner)
        second = _NOTHING if partner is None else backward[partner]
        rows.append(longest.numbers() + second.numbers())
    return torch.tensor(rows)


def _length(run: tuple[int, int, int, int]) -> int:
    return run[3] - run[2]
