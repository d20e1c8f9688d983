"""Rows of two runs hold every pair once, where its second atom is."""

import pytest
import torch
from hypothesis import given

from ofcv_export.jacobian.folded_runs import folded_runs
from ofcv_export.jacobian.opposite_pairs import pair_runs
from tests.builders.chain_rules import pair_patterns
from tests.builders.systems import all_pairs


def pairs_of(rows, n_atoms):
    """Return pair, first and second atom of every place that is taken."""
    found = []
    for own, base, low, high, other_own, other_base, other_low, other_high in rows.tolist():
        last = n_atoms - 1
        here = [(base + place, own, place) for place in range(low, high)]
        there = [
            (other_base - place, last - other_own, last - place)
            for place in range(other_low, other_high)
        ]
        assert not set(range(low, high)) & set(range(other_low, other_high))
        found += here + there
    return sorted(found)


def require_every_pair_once(pattern):
    runs = pair_runs(pattern)
    rows = folded_runs(runs, pattern.n_atoms)
    expected = zip(runs.first.tolist(), runs.second.tolist(), strict=True)
    assert pairs_of(rows, pattern.n_atoms) == [(i, *pair) for i, pair in enumerate(expected)]
    return rows


@given(pattern=pair_patterns())
def test_every_pair_is_in_one_place(pattern):
    require_every_pair_once(pattern)


@pytest.mark.parametrize("n_atoms", [2, 3, 10, 33])
def test_all_pairs_fill_half_as_many_rows_as_atoms(n_atoms):
    rows = require_every_pair_once(all_pairs(n_atoms).pattern())
    assert len(rows) == n_atoms // 2
    assert rows.dtype == torch.int64
