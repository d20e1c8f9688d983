"""The chain rule compiled with numba against torch's operators, autograd and differences."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.chain_rules import (
    any_patterns,
    both_dtypes,
    pair_patterns,
    pattern_of,
    require_equal_maps,
)
from tests.builders.systems import OPEN, all_pairs, dense_jacobian, frames, normal

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")

import ofcv_export
from ofcv_export import SmartDerivatives, SparsityPattern
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.torsions import Torsions
from ofcv_export.jacobian import compiled_chain_rule
from ofcv_export.jacobian.compiled_chain_rule import BlockKernel, PairKernel
from ofcv_export.jacobian.frame_chain_rule import FrameChainRule
from ofcv_export.jacobian.opposite_pairs import blocks_of_pairs


def frozen(function, positions, kernel, **keywords):
    smart = SmartDerivatives(kernel=kernel, **keywords)
    smart.setup({"data": positions}, function, positions.shape[1])
    return smart


@both_dtypes
@given(
    pattern=any_patterns(),
    n_outputs=st.sampled_from([None, 1, 3]),
    ref_idx=st.lists(st.integers(0, 4), min_size=1, max_size=9),
)
@settings(max_examples=40, deadline=None)
def test_blocks_equal_plain_operators(dtype, pattern, n_outputs, ref_idx):
    blocks = normal(5, pattern.n_blocks, 3, dtype=dtype)
    rule = BlockKernel(pattern)
    values = rule.arrange(blocks)
    assert values.shape == (5, rule.n_values) == (5, pattern.nnz)
    assert torch.equal(rule.blocks(values), blocks)
    require_equal_maps(rule, values, pattern, blocks, torch.tensor(ref_idx), n_outputs)


@both_dtypes
@given(
    pattern=pair_patterns(),
    n_outputs=st.sampled_from([None, 1, 3]),
    ref_idx=st.lists(st.integers(0, 4), min_size=1, max_size=9),
)
@settings(max_examples=40, deadline=None)
def test_pairs_equal_plain_operators(dtype, pattern, n_outputs, ref_idx):
    pairs = normal(5, pattern.n_descriptors, 3, dtype=dtype)
    rule = PairKernel(pattern)
    values = rule.arrange(pairs)
    assert values.shape == (5, rule.n_values) == (5, pattern.nnz // 2)
    assert torch.equal(rule.vectors(values), pairs)
    blocks = blocks_of_pairs(pairs)
    assert torch.equal(rule.blocks(values), blocks)
    require_equal_maps(rule, values, pattern, blocks, torch.tensor(ref_idx), n_outputs)


@pytest.mark.parametrize("n_atoms", [10, 47])
@both_dtypes
def test_all_pairs_of_more_atoms(n_atoms, dtype):
    pattern = all_pairs(n_atoms).pattern()
    pairs = normal(20, pattern.n_descriptors, 3, dtype=dtype)
    rule = PairKernel(pattern)
    values, ref_idx = rule.arrange(pairs), torch.tensor([19, 3, 3, 0, 7])
    for n_outputs in (None, 2):
        require_equal_maps(rule, values, pattern, blocks_of_pairs(pairs), ref_idx, n_outputs)


@pytest.mark.parametrize("turned", [False, True])
def test_all_pairs_are_one_run_for_each_first_atom(turned):
    pairs = all_pairs(6).pairs.flip(1) if turned else all_pairs(6).pairs
    start, first, second = PairKernel(pattern_of(pairs.tolist(), 6)).indices
    assert start.tolist() == [0, 5, 9, 12, 14, 15]
    assert first.tolist() == [0, 1, 2, 3, 4]
    assert second.tolist() == [1, 2, 3, 4, 5]


SYSTEMS = {
    "pairs": all_pairs(5),
    "more than pairs": MultipleDescriptors(
        [all_pairs(5), Torsions(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), 5, box=OPEN)]
    ),
}
systems = pytest.mark.parametrize("name", SYSTEMS)


@systems
def test_against_autograd_of_the_descriptors(name):
    function, positions = SYSTEMS[name], frames(7, 5)
    smart = frozen(function, positions, "numba")
    assert type(smart.chain_rule) is (PairKernel if name == "pairs" else BlockKernel)
    ref_idx = torch.tensor([6, 0, 0, 3])
    x = normal(4, function.n_descriptors)
    jacobian = dense_jacobian(function, positions)[ref_idx]
    expected = torch.einsum("bd,bdax->bax", x, jacobian)
    torch.testing.assert_close(smart(x, ref_idx), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(smart(x, ref_idx.int()), smart(x, ref_idx), rtol=0, atol=0)
    leaf = x.clone().requires_grad_()
    weights = normal(4, 5, 3, seed=1)
    (found,) = torch.autograd.grad(smart(leaf, ref_idx), leaf, weights)
    expected = torch.einsum("bax,bdax->bd", weights, jacobian)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@systems
def test_against_central_differences(name):
    function, positions = SYSTEMS[name], frames(2, 5)
    found = frozen(function, positions, "numba")(v := normal(2, function.n_descriptors))
    step = 1e-6
    for atom in range(5):
        for dim in range(3):
            shift = torch.zeros_like(positions)
            shift[:, atom, dim] = step
            change = function(positions + shift) - function(positions - shift)
            slope = (v * change).sum(1) / (2 * step)
            torch.testing.assert_close(found[:, atom, dim], slope, rtol=1e-5, atol=1e-7)


@systems
@pytest.mark.parametrize("n_outputs", [None, 2])
def test_differentiable_twice_by_differences(name, n_outputs):
    function = SYSTEMS[name]
    smart = frozen(function, frames(4, 5), "numba")
    extra = () if n_outputs is None else (n_outputs,)
    x = normal(3, function.n_descriptors, *extra).requires_grad_()
    index = torch.tensor([2, 0, 2])
    assert torch.autograd.gradcheck(lambda y: smart(y, index), x)
    assert torch.autograd.gradgradcheck(lambda y: smart(y, index).square(), x)


@systems
def test_any_number_of_threads_gives_the_same_bits(name, monkeypatch):
    monkeypatch.setattr(compiled_chain_rule, "_NUMBERS_PER_THREAD", 100)
    function = SYSTEMS[name]
    smart = frozen(function, frames(40, 5, torch.float32), "numba")
    x = normal(301, function.n_descriptors, dtype=torch.float32).requires_grad_()
    ref_idx = torch.arange(301) * 7 % 40
    weights = normal(301, 5, 3, dtype=torch.float32, seed=1)
    results, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3, 1):
            torch.set_num_threads(n_threads)
            out = smart(x, ref_idx)
            results.append((out, *torch.autograd.grad(out, x, weights)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_not_a_number_stays_in_its_frame():
    smart = frozen(all_pairs(12), frames(6, 12), "numba")
    x = normal(6, 66)
    expected = smart(x)
    x[3, 17] = float("nan")
    found = smart(x)
    rows = torch.arange(6) != 3
    assert torch.equal(found[rows], expected[rows])
    pair = all_pairs(12).pairs[17]
    others = [atom for atom in range(12) if atom not in pair]
    assert found[3, pair].isnan().all()
    assert torch.equal(found[3, others], expected[3, others])


@systems
def test_no_frames(name):
    function = SYSTEMS[name]
    x = torch.zeros(0, function.n_descriptors, requires_grad=True)
    smart = frozen(function, frames(3, 5, torch.float32), "numba")
    out = smart(x, torch.zeros(0, dtype=torch.int64))
    assert out.shape == (0, 5, 3)
    assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


@systems
@pytest.mark.parametrize(
    ("ref_idx", "message"),
    [
        ([0, 7], r"ref_idx: expected indices in \[0, 7\), got 7 at position 1"),
        ([0, -1], r"ref_idx: expected indices in \[0, 7\), got -1 at position 1"),
        ([2**62, 0], r"got 4611686018427387904 at position 0"),
    ],
)
def test_frames_that_do_not_exist_are_refused(name, ref_idx, message):
    function = SYSTEMS[name]
    smart = frozen(function, frames(7, 5, torch.float32), "numba")
    with pytest.raises(IndexError, match=message):
        smart(torch.zeros(2, function.n_descriptors), torch.tensor(ref_idx))


@both_dtypes
@pytest.mark.parametrize("n_atoms", [5, 30])
def test_memory_is_half_at_any_size(n_atoms, dtype):
    smart = frozen(all_pairs(n_atoms), frames(4, n_atoms, dtype), "numba")
    assert 2 * smart.values.nbytes == 4 * smart.pattern.nnz * dtype.itemsize
    expected = frozen(all_pairs(n_atoms), frames(4, n_atoms, dtype), "torch")
    assert torch.equal(smart.blocks(), expected.blocks())


@systems
@pytest.mark.parametrize("written_with", ["torch", "numba"])
def test_kernel_is_a_choice_of_the_call_not_of_the_file(name, written_with, tmp_path):
    function = SYSTEMS[name]
    smart = frozen(function, frames(6, 5), written_with)
    smart.save(tmp_path / "setup.npz")
    x = normal(6, function.n_descriptors)
    for kernel in ("torch", "numba"):
        again = SmartDerivatives.load(tmp_path / "setup.npz", kernel=kernel)
        assert again.kernel == kernel
        assert torch.equal(again.blocks(), smart.blocks())
        assert torch.equal(again.values, frozen(function, frames(6, 5), kernel).values)
        torch.testing.assert_close(again(x), smart(x), rtol=1e-13, atol=1e-13)
    again = SmartDerivatives.load(tmp_path / "setup.npz")
    assert again.kernel == "auto"
    assert isinstance(again.chain_rule, FrameChainRule)


@systems
@pytest.mark.parametrize("form", ["scatter", "gather"])
def test_exported_graph_is_made_of_torchs_operators(name, form):
    function = SYSTEMS[name]
    smart = frozen(function, frames(6, 5), "numba")
    x, ref_idx = normal(3, function.n_descriptors), torch.tensor([5, 5, 1])
    found = torch.jit.script(smart.core(form))(x, ref_idx)
    torch.testing.assert_close(found, smart(x, ref_idx), rtol=1e-13, atol=1e-13)


def test_pattern_that_is_too_narrow_is_widened():
    def disguised(positions):
        return all_pairs(4)(positions)

    narrow = all_pairs(4).pattern().dependence()
    narrow[2, 3] = False
    smart = SmartDerivatives(kernel="numba")
    positions = frames(9, 4)
    smart.setup({"data": positions}, disguised, 4, pattern=SparsityPattern.from_dependence(narrow))
    x = normal(9, 6)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(all_pairs(4), positions))
    torch.testing.assert_close(smart(x), expected)


def test_moves_to_another_dtype():
    smart = frozen(all_pairs(5), frames(7, 5, torch.float32), "numba")
    x = normal(7, 10)
    expected = smart(x.float())
    torch.testing.assert_close(smart.double()(x).float(), expected)
    with pytest.raises(TypeError, match="values: expected dtype float32 or float64, got float16"):
        smart.half()(x.half())


def test_other_devices_are_refused():
    smart = frozen(all_pairs(5), frames(7, 5, torch.float32), "numba")
    expected = 'expected a tensor on cpu for kernel="numba", got one on meta'
    with pytest.raises(ValueError, match=f"values: {expected}"):
        smart.to("meta")(torch.zeros(7, 10, device="meta"))
    with pytest.raises(ValueError, match=f"data: {expected}"):
        frozen(all_pairs(5), frames(7, 5).to("meta"), "numba")


def test_unknown_kernels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="kernel: expected one of .*, got 'x'"):
        SmartDerivatives(kernel="x")
    frozen(all_pairs(5), frames(7, 5), "torch").save(tmp_path / "setup.npz")
    with pytest.raises(ValueError, match="kernel: expected one of .*, got 'x'"):
        SmartDerivatives.load(tmp_path / "setup.npz", kernel="x")


def test_without_numba():
    code = """
import sys
sys.modules["numba"] = None
from ofcv_export import SmartDerivatives
SmartDerivatives(kernel="torch")
try:
    SmartDerivatives(kernel="numba")
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == (
        'kernel: expected the package numba for kernel="numba" '
        "(pip install 'ofcv-export[fast]'), got none\n"
    ), result.stderr


def test_numba_is_not_imported_unless_it_is_wanted():
    code = (
        "import sys, ofcv_export; ofcv_export.SmartDerivatives(); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_folder_for_compiled_code(tmp_path):
    """Neither the package nor the user's cache can be written to."""
    package = tmp_path / "site" / "ofcv_export"
    shutil.copytree(Path(ofcv_export.__file__).parent, package, ignore=_no_caches)
    # Files where folders would have to be made: also root can't write there.
    (package / "jacobian" / "__pycache__").write_text("")
    (tmp_path / "no_folder").write_text("")
    nowhere = str(tmp_path / "no_folder" / "cache")
    code = """
import torch
from ofcv_export import SmartDerivatives, SparsityPattern
from ofcv_export.jacobian import compiled_chain_rule
from ofcv_export.jacobian.compiled_chain_rule import PairKernel
rule = PairKernel(SparsityPattern([0, 0], [0, 1], 1, 2))
values = rule.arrange(torch.ones(1, 1, 3))
print(compiled_chain_rule.__file__)
print(rule(torch.ones(1, 1), values, torch.zeros(1, dtype=torch.int64)).tolist())
"""
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "NUMBA_CACHE_DIR": ""}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    file, forces = result.stdout.splitlines()
    assert file == str(package / "jacobian/compiled_chain_rule.py")
    assert forces == str([[[-1.0] * 3, [1.0] * 3]])


def _no_caches(folder, names):
    return [name for name in names if name == "__pycache__"]


def test_mlcolvars_loss_and_a_step_of_training_agree():
    pytest.importorskip("mlcolvar", reason="mlcolvar is the peer of this test")
    from mlcolvar.core.loss.committor_loss import CommittorLoss

    from ofcv_export.integrations.mlcolvar import SmartDerivatives as ForMlcolvar

    positions = frames(30, 5)
    labels = torch.arange(30) % 3
    dataset = {"data": positions, "labels": labels, "weights": torch.rand(30).double()}
    results = []
    for kernel in ("torch", "numba"):
        smart = ForMlcolvar(kernel=kernel)
        assert smart.kernel == kernel
        descriptors = smart.setup(dataset, all_pairs(5), 5, separate_boundary_dataset=True)
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Linear(10, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        ).double()
        loss = CommittorLoss(
            atomic_masses=torch.ones(5).double(),
            alpha=1.0,
            gamma=1.0,
            separate_boundary_dataset=True,
            descriptors_derivatives=smart,
        )
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
        x = descriptors["data"].clone().requires_grad_()
        z = network(x)
        value, *_ = loss(x, z, z.sigmoid(), labels, dataset["weights"], descriptors["ref_idx"])
        value.backward()
        optimiser.step()
        results.append((value, *(p.grad for p in network.parameters()), *network.parameters()))
    assert results[0][1].abs().max() > 0
    for torchs, numbas in zip(*results, strict=True):
        torch.testing.assert_close(numbas, torchs, rtol=1e-10, atol=1e-12)


def test_a_damaged_cache_is_compiled_anew(tmp_path):
    code = (
        "import torch, ofcv_export as ofcv\n"
        "from tests.builders.systems import all_pairs\n"
        "smart = ofcv.SmartDerivatives(kernel='numba')\n"
        "positions = torch.arange(30.0).reshape(2, 5, 3).sin()\n"
        "smart.setup({'data': positions}, all_pairs(5), n_atoms=5)\n"
        "print(smart(torch.ones(1, 10), torch.tensor([1])).tolist())\n"
    )

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        ).stdout

    expected = run()
    for damage in ({".nbi": b"damaged", ".nbc": b""}, {".nbc": b"damaged"}):
        for file in tmp_path.rglob("*.nb*"):
            if file.suffix in damage:
                file.write_bytes(damage[file.suffix])
        assert run() == expected
    sizes = {file: file.stat().st_size for file in tmp_path.rglob("*.nb*")}
    assert sizes
    assert min(sizes.values()) > 10
