"""Patterns drawn at random, and what every kernel of the chain rule must give on them."""

import pytest
import torch
from hypothesis import strategies as st

from ofcv_export import SparsityPattern
from ofcv_export.jacobian.chain_rule import ScatterChainRule
from tests.builders.systems import all_pairs, normal

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
both_dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE))


@st.composite
def any_patterns(draw):
    """Some distinct blocks in any order."""
    n_atoms, n_descriptors = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    blocks = draw(st.permutations(range(n_atoms * n_descriptors)))
    blocks = torch.tensor(blocks[: draw(st.integers(1, len(blocks)))])
    return SparsityPattern(blocks // n_atoms, blocks % n_atoms, n_descriptors, n_atoms)


@st.composite
def pair_patterns(draw):
    """Some pairs in any order, either way round, some of them twice."""
    n_atoms = draw(st.integers(2, 9))
    pairs = all_pairs(n_atoms).pairs.tolist()
    if draw(st.booleans()):
        pairs = draw(st.permutations(pairs * 2))[: draw(st.integers(1, len(pairs)))]
    turned = draw(st.sampled_from([[False], [True], [False, True, True]]))
    pairs = [pair[:: -1 if turned[i % len(turned)] else 1] for i, pair in enumerate(pairs)]
    return pattern_of(pairs, n_atoms)


def pattern_of(pairs, n_atoms):
    descriptors = torch.arange(len(pairs)).repeat_interleave(2)
    return SparsityPattern(descriptors, torch.tensor(pairs).flatten(), len(pairs), n_atoms)


def require_equal_maps(rule, values, pattern, blocks, ref_idx, n_outputs):
    """Compare a kernel, its transpose and the transpose's transpose with plain operators."""
    dtype, tolerance = blocks.dtype, TOLERANCE[blocks.dtype]
    extra = () if n_outputs is None else (n_outputs,)
    shape = (len(ref_idx), pattern.n_descriptors, *extra)
    x = normal(*shape, dtype=dtype).to(blocks.device).requires_grad_()
    ref_idx = ref_idx.to(blocks.device)
    full = ScatterChainRule(pattern).to(blocks.device)
    expected = full(x, full.arrange(blocks)[ref_idx])
    found = rule(x, values, ref_idx)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    weights = normal(*expected.shape, dtype=dtype, seed=1).to(blocks.device)
    # A gradient whose layout is not that of the result.
    weights = weights.transpose(1, 2).contiguous().transpose(1, 2)
    gradients = [
        torch.autograd.grad((out.square() * weights).sum(), x, create_graph=True)[0]
        for out in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=10 * tolerance, atol=10 * tolerance)
    seconds = [torch.autograd.grad(one.square().sum(), x)[0] for one in gradients]
    torch.testing.assert_close(*seconds, rtol=100 * tolerance, atol=100 * tolerance)
