import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofcv_export import SparsityPattern


def test_entries_are_atom_times_three_plus_dim():
    pattern = SparsityPattern([0, 1], [2, 0], n_descriptors=2, n_atoms=3)
    descriptors, targets = pattern.entries()
    assert descriptors.tolist() == [0, 0, 0, 1, 1, 1]
    assert targets.tolist() == [6, 7, 8, 0, 1, 2]
    assert pattern.nnz == 6
    assert pattern.unused_atoms() == [1]


def test_targets_beyond_2_to_the_24_are_exact():
    atoms = torch.tensor([2**24 // 3 + 1, 2**26 + 5, 2**30 + 1])
    pattern = SparsityPattern([0, 0, 0], atoms, n_descriptors=1, n_atoms=2**30 + 2)
    _, targets = pattern.entries()
    assert targets.dtype == torch.int64
    assert targets.tolist() == [3 * atom + dim for atom in atoms.tolist() for dim in range(3)]


@given(st.lists(st.sets(st.integers(0, 6), max_size=5), min_size=1, max_size=12))
def test_descriptors_of_one_colour_share_no_atom(atoms_of):
    dependence = torch.zeros(len(atoms_of), 7, dtype=torch.bool)
    for descriptor, atoms in enumerate(atoms_of):
        dependence[descriptor, list(atoms)] = True
    colours = SparsityPattern.from_dependence(dependence).colours()
    for colour in colours.unique():
        assert dependence[colours == colour].sum(dim=0).max() <= 1


@pytest.mark.parametrize("n_atoms", [10, 22])
def test_all_pairs_take_about_as_many_colours_as_atoms(n_atoms):
    pairs = torch.triu_indices(n_atoms, n_atoms, offset=1)
    descriptors = torch.arange(pairs.shape[1]).repeat_interleave(2)
    pattern = SparsityPattern(descriptors, pairs.T.flatten(), pairs.shape[1], n_atoms)
    assert pattern.colours().max() + 1 <= n_atoms + 1


def test_digest_tells_patterns_apart():
    digests = {
        SparsityPattern([0], [0], 1, 2).digest(),
        SparsityPattern([0], [1], 1, 2).digest(),
        SparsityPattern([0], [0], 1, 3).digest(),
        SparsityPattern([0], [0], 2, 2).digest(),
    }
    assert len(digests) == 4
    assert SparsityPattern([0], [1], 1, 2).digest() in digests


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0], [2], 1, 2), IndexError, r"atom_index: expected indices in \[0, 2\), got 2"),
        (([1], [0], 1, 2), IndexError, r"descriptor_index: expected indices in \[0, 1\), got 1"),
        (([0, 0], [1], 1, 2), ValueError, r"atom_index: expected shape \(2,\), got \(1,\)"),
        (([0, 0], [1, 1], 1, 2), ValueError, "every .descriptor, atom. pair once, got 2 pairs"),
        (([0.5], [1], 1, 2), TypeError, "descriptor_index: expected dtype int64 or int32"),
        (([0], [0], 0, 2), ValueError, "n_descriptors: expected a positive integer, got 0"),
    ],
)
def test_bad_patterns_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        SparsityPattern(*arguments)
