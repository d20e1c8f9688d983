import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofcv_export import SparseChainRule, SparsityPattern
from ofcv_export.jacobian.chain_rule import GatherChainRule, ScatterChainRule


@st.composite
def patterns(draw):
    n_descriptors, n_atoms = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    entries = draw(
        st.lists(st.booleans(), min_size=n_descriptors * n_atoms, max_size=n_descriptors * n_atoms)
    )
    dependence = torch.tensor(entries).reshape(n_descriptors, n_atoms)
    dependence[0, 0] = True
    return SparsityPattern.from_dependence(dependence)


def dense_product(pattern, x, blocks):
    jacobian = blocks.new_zeros(len(x), pattern.n_descriptors, pattern.n_atoms, 3)
    jacobian[:, pattern.descriptor_index, pattern.atom_index] = blocks
    return torch.einsum("bd...,bdax->bax...", x, jacobian)


@pytest.mark.parametrize("form", [ScatterChainRule, GatherChainRule])
@given(pattern=patterns(), n_outputs=st.sampled_from([None, 1, 3]), batch=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_both_forms_equal_the_dense_product(form, pattern, n_outputs, batch):
    generator = torch.Generator().manual_seed(0)
    extra = () if n_outputs is None else (n_outputs,)
    x = torch.randn(batch, pattern.n_descriptors, *extra, generator=generator).double()
    blocks = torch.randn(batch, pattern.n_blocks, 3, generator=generator).double()
    rule = form(pattern)
    values = rule.arrange(blocks)
    assert values.shape == (batch, rule.n_values)
    assert torch.equal(rule.blocks(values), blocks)
    expected = dense_product(pattern, x, blocks)
    torch.testing.assert_close(rule(x, values), expected, rtol=1e-12, atol=1e-12)


def test_same_input_same_bits():
    pattern = SparsityPattern.from_dependence(torch.ones(40, 7, dtype=torch.bool))
    x, blocks = torch.randn(30, 40), torch.randn(30, pattern.n_blocks, 3)
    for form in (ScatterChainRule, GatherChainRule):
        rule = form(pattern)
        first = rule(x, rule.arrange(blocks))
        assert all(torch.equal(first, rule(x, rule.arrange(blocks))) for _ in range(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_chain_rule_takes_blocks_in_the_patterns_own_order(dtype):
    pattern = SparsityPattern([1, 0, 1], [2, 0, 0], n_descriptors=2, n_atoms=3)
    x, values = torch.randn(4, 2, dtype=dtype), torch.randn(4, 9, dtype=dtype)
    out = SparseChainRule(pattern, dtype)(x, values)
    torch.testing.assert_close(out, dense_product(pattern, x, values.reshape(4, 3, 3)))


@pytest.mark.parametrize(
    ("x", "values", "error", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 9), ValueError, r"expected shape \(batch, 2\)"),
        (
            torch.zeros(4, 2),
            torch.zeros(3, 9),
            ValueError,
            r"expected shape \(4, 9\), got \(3, 9\)",
        ),
        (torch.zeros(4, 2).double(), torch.zeros(4, 9), TypeError, "expected dtype float32"),
        (torch.zeros(4, 2), torch.zeros(4, 9).double(), TypeError, "expected dtype float32"),
        ([[0.0, 0.0]], torch.zeros(4, 9), TypeError, "expected a torch tensor, got list"),
    ],
)
def test_bad_input_to_the_sparse_chain_rule(x, values, error, message):
    pattern = SparsityPattern([1, 0, 1], [2, 0, 0], n_descriptors=2, n_atoms=3)
    with pytest.raises(error, match=message):
        SparseChainRule(pattern)(x, values)


def test_half_precision_is_refused():
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got float16"):
        SparseChainRule(SparsityPattern([0], [0], 1, 1), torch.float16)
