"""Opposite pairs of blocks, one vector stored for each, against the full storage."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofcv_export import SparsityPattern
from ofcv_export.jacobian import pair_chain_rule
from ofcv_export.jacobian.chain_rule import GatherChainRule, OppositePairs, ScatterChainRule
from ofcv_export.jacobian.pair_chain_rule import (
    CirculantLayout,
    IncidenceLayout,
    PairChainRule,
    suitable_layout,
)
from ofcv_export.jacobian.sparse_chain_rule import suitable_pair_rule
from tests.builders.systems import all_pairs


def pattern_of(pairs, n_atoms):
    descriptors = torch.arange(len(pairs)).repeat_interleave(2)
    return SparsityPattern(descriptors, torch.tensor(pairs).flatten(), len(pairs), n_atoms)


@st.composite
def patterns(draw):
    """Some distinct pairs of some atoms, in any order and either way round."""
    n_atoms = draw(st.integers(2, 9))
    pairs = draw(st.permutations(all_pairs(n_atoms).pairs.tolist()))
    pairs = pairs[: draw(st.integers(1, len(pairs)))]
    turned = draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    return pattern_of([p[::-1] if t else p for p, t in zip(pairs, turned, strict=True)], n_atoms)


def random_vectors(pattern, n_frames, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(n_frames, pattern.n_descriptors, 3, generator=generator, dtype=dtype)
    return vectors, torch.stack([-vectors, vectors], dim=2).flatten(1, 2)


def pair_rule(layout, pattern):
    return PairChainRule(
        layout(pattern.atom_index[0::2], pattern.atom_index[1::2], pattern.n_atoms)
    )


@pytest.mark.parametrize("layout", [IncidenceLayout, CirculantLayout])
@given(pattern=patterns(), n_outputs=st.sampled_from([None, 1, 3]), per_chunk=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_layouts_equal_the_full_storage(layout, pattern, n_outputs, per_chunk):
    vectors, blocks = random_vectors(pattern, 5)
    extra = () if n_outputs is None else (n_outputs,)
    ref_idx = torch.tensor([3, 0, 0, 4])
    x = torch.randn(4, pattern.n_descriptors, *extra, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, pattern.n_atoms, 3, *extra, dtype=torch.float64)
    rule, full = pair_rule(layout, pattern), ScatterChainRule(pattern)
    values = rule.arrange(vectors)
    assert values.shape == (5, rule.n_values)
    assert torch.equal(rule.pairs(values), vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_chain_rule, "_NUMBERS_PER_CHUNK", per_chunk)
        found = rule(x, values, ref_idx)
        (backward,) = torch.autograd.grad((found * weights).sum(), x)
    assert found.is_contiguous()
    expected = full(x, full.arrange(blocks)[ref_idx])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(backward, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [IncidenceLayout, CirculantLayout])
@pytest.mark.parametrize("n_outputs", [None, 2])
@pytest.mark.parametrize("n_atoms", [4, 5])
def test_layouts_are_differentiable_twice(layout, n_outputs, n_atoms):
    pattern = all_pairs(n_atoms).pattern()
    rule = pair_rule(layout, pattern)
    values = rule.arrange(random_vectors(pattern, 3)[0])
    ref_idx = torch.tensor([2, 0, 2])
    extra = () if n_outputs is None else (n_outputs,)
    x = torch.randn(3, pattern.n_descriptors, *extra, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: rule(y, values, ref_idx), x)
    assert torch.autograd.gradgradcheck(lambda y: rule(y, values, ref_idx).square(), x)


@pytest.mark.parametrize("form", [ScatterChainRule, GatherChainRule])
@given(pattern=patterns(), n_outputs=st.sampled_from([None, 2]))
@settings(max_examples=40, deadline=None)
def test_wrapped_forms_equal_the_full_storage_bit_for_bit(form, pattern, n_outputs):
    vectors, blocks = random_vectors(pattern, 4, torch.float32)
    extra = () if n_outputs is None else (n_outputs,)
    x = torch.randn(4, pattern.n_descriptors, *extra)
    full = form(pattern)
    halved = OppositePairs(full, pattern)
    values = halved.arrange(vectors)
    assert values.shape == (4, halved.n_values)
    assert 2 * values.numel() == blocks.numel()
    assert torch.equal(halved.pairs(values), vectors)
    assert torch.equal(halved(x, values), full(x, full.arrange(blocks)))


def test_same_input_same_bits():
    for n_atoms in (7, 40):
        pattern = all_pairs(n_atoms).pattern()
        rule = suitable_pair_rule(pattern)
        values = rule.arrange(random_vectors(pattern, 30, torch.float32)[0])
        x, ref_idx = torch.randn(30, pattern.n_descriptors), torch.arange(30)
        first = rule(x, values, ref_idx)
        assert all(torch.equal(first, rule(x, values, ref_idx)) for _ in range(5))


def test_layout_follows_the_pattern():
    chain = [[atom, atom + 1] for atom in range(199)]
    star = [[0, atom] for atom in range(1, 200)]
    assert type(suitable_layout(all_pairs(60).pattern())) is CirculantLayout
    assert type(suitable_layout(pattern_of(chain[:99], 100))) is CirculantLayout
    assert type(suitable_layout(pattern_of(star[:99], 100))) is IncidenceLayout
    assert suitable_layout(pattern_of(star, 200)) is None
    assert type(suitable_pair_rule(pattern_of(star, 200)).rule) is ScatterChainRule
    assert type(suitable_pair_rule(pattern_of([*chain, [0, 50]], 200)).rule) is GatherChainRule


def test_a_pair_that_comes_twice_has_a_vector_for_each():
    pairs = [*all_pairs(30).pairs.tolist(), [1, 0]]
    pattern = pattern_of(pairs, 30)
    rule = suitable_pair_rule(pattern)
    assert type(rule.layout) is IncidenceLayout
    vectors, blocks = random_vectors(pattern, 2)
    x = torch.randn(2, len(pairs), dtype=torch.float64)
    full = ScatterChainRule(pattern)
    found = rule(x, rule.arrange(vectors), torch.arange(2))
    torch.testing.assert_close(found, full(x, full.arrange(blocks)), rtol=1e-12, atol=1e-12)
