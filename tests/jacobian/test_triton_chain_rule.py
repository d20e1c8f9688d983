"""The chain rule compiled with Triton against torch's operators.

On a CUDA device where there is one, and in Triton's interpreter on the CPU elsewhere (conftest.py).
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")

from ofcv_export import SparsityPattern
from ofcv_export.jacobian.opposite_pairs import blocks_of_pairs
from ofcv_export.jacobian.triton_chain_rule import BlockKernel, PairKernel
from tests.builders.chain_rules import (
    any_patterns,
    both_dtypes,
    pair_patterns,
    pattern_of,
    require_equal_maps,
)
from tests.builders.systems import all_pairs, normal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N_FRAMES = 5
rows = st.lists(st.integers(0, N_FRAMES - 1), min_size=1, max_size=6)


@both_dtypes
@given(pattern=any_patterns(), n_outputs=st.sampled_from([None, 1, 3]), ref_idx=rows)
@settings(max_examples=10, deadline=None)
def test_blocks_equal_plain_operators(dtype, pattern, n_outputs, ref_idx):
    blocks = normal(N_FRAMES, pattern.n_blocks, 3, dtype=dtype).to(DEVICE)
    rule = BlockKernel(pattern).to(DEVICE)
    values = rule.arrange(blocks)
    assert values.shape == (N_FRAMES, rule.n_values) == (N_FRAMES, pattern.nnz)
    assert torch.equal(rule.blocks(values), blocks)
    require_equal_maps(rule, values, pattern, blocks, torch.tensor(ref_idx), n_outputs)


@both_dtypes
@given(pattern=pair_patterns(), n_outputs=st.sampled_from([None, 1, 3]), ref_idx=rows)
@settings(max_examples=10, deadline=None)
def test_pairs_equal_plain_operators(dtype, pattern, n_outputs, ref_idx):
    require_equal_pairs(pattern, dtype, ref_idx, n_outputs)


def require_equal_pairs(pattern, dtype, ref_idx, n_outputs):
    pairs = normal(N_FRAMES, pattern.n_descriptors, 3, dtype=dtype).to(DEVICE)
    rule = PairKernel(pattern).to(DEVICE)
    values = rule.arrange(pairs)
    assert values.shape == (N_FRAMES, rule.n_values) == (N_FRAMES, pattern.nnz // 2)
    assert torch.equal(rule.vectors(values), pairs)
    blocks = blocks_of_pairs(pairs)
    assert torch.equal(rule.blocks(values), blocks)
    require_equal_maps(rule, values, pattern, blocks, torch.tensor(ref_idx), n_outputs)


# One row of a tile for each run where runs are long, sums over an atom's pairs where they are not;
# more atoms and pairs than one tile or program holds.
PATTERNS = {
    "all pairs": (all_pairs(33).pattern(), True),
    "all pairs of an even number": (all_pairs(34).pattern(), True),
    "most pairs": (pattern_of(all_pairs(20).pairs[1:].tolist(), 20), True),
    "star": (pattern_of([(0, i) for i in range(1, 30)], 30), True),
    "some pairs": (pattern_of(all_pairs(40).pairs[::7].tolist(), 40), False),
    "long star": (pattern_of([(70, i) for i in reversed(range(70))], 71), False),
}


@both_dtypes
@pytest.mark.parametrize("name", PATTERNS)
def test_pairs_of_more_atoms(name, dtype):
    pattern, has_long_runs = PATTERNS[name]
    assert PairKernel(pattern).has_long_runs == has_long_runs
    for n_outputs in (None, 2):
        require_equal_pairs(pattern, dtype, [4, 3, 3, 0, 1], n_outputs)


@both_dtypes
def test_blocks_of_more_atoms(dtype):
    generator = torch.Generator().manual_seed(0)
    dependence = torch.rand(20, 90, generator=generator) < 0.9
    descriptor, atom = dependence.nonzero().unbind(1)
    pattern = SparsityPattern(descriptor, atom, 20, 90)
    blocks = normal(N_FRAMES, pattern.n_blocks, 3, dtype=dtype).to(DEVICE)
    rule = BlockKernel(pattern).to(DEVICE)
    require_equal_maps(rule, rule.arrange(blocks), pattern, blocks, torch.tensor([2, 0]), 2)


@pytest.mark.parametrize("frame", [-1, N_FRAMES, 2**40])
def test_a_frame_that_does_not_exist_gives_nan_and_an_error_at_the_next_call(frame):
    for kernel in (PairKernel, BlockKernel):
        pattern = all_pairs(4).pattern()
        rule = kernel(pattern).to(DEVICE)
        values = torch.ones(N_FRAMES, rule.n_values, device=DEVICE)
        x = torch.ones(2, pattern.n_descriptors, device=DEVICE, requires_grad=True)
        out = rule(x, values, torch.tensor([0, frame], device=DEVICE))
        assert torch.isfinite(out[0]).all()
        assert torch.isnan(out[1]).all()
        # Looked at before the next call, which waits for no device by itself.
        message = r"ref_idx: expected indices in \[0, 5\), got others in an earlier call"
        with pytest.raises(IndexError, match=message):
            torch.autograd.grad(out.sum(), x)
        assert torch.isfinite(rule(x, values, torch.tensor([0, 1], device=DEVICE))).all()


def test_no_rows_and_no_outputs():
    pattern = all_pairs(4).pattern()
    rule = PairKernel(pattern).to(DEVICE)
    values = torch.ones(N_FRAMES, rule.n_values, device=DEVICE)
    x = torch.ones(0, pattern.n_descriptors, device=DEVICE)
    assert rule(x, values, torch.empty(0, dtype=torch.int64, device=DEVICE)).shape == (0, 4, 3)
