"""SmartDerivatives against autograd, finite differences, and where mlcolvar 1.3.1 is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofcv_export import SmartDerivatives, SparsityPattern
from ofcv_export.descriptors.boundaries import OrthorhombicBox
from ofcv_export.descriptors.contacts import Contacts
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.inverse_distances import InverseDistances
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.switching import Rational
from ofcv_export.descriptors.torsions import Torsions
from ofcv_export.jacobian import sparse_jacobian as sparse_jacobian_module
from ofcv_export.jacobian.chain_rule import GatherChainRule, ScatterChainRule
from tests.builders.systems import (
    OPEN,
    all_pairs,
    by_autograd,
    dense_jacobian,
    frames,
    normal,
    plain_distances,
)


def disguised(function):
    """Return the same function as one that cannot be recognised."""
    return lambda positions: function(positions)


def frozen(function, positions, **keywords):
    smart = SmartDerivatives(force_all_atoms=keywords.pop("force_all_atoms", False))
    dataset = smart.setup({"data": positions}, function, positions.shape[1], **keywords)
    return smart, dataset


def contact(positions, cutoff=1.0):
    """Return a smooth contact of atoms 0 and 1, exactly zero beyond the cutoff, and a distance."""
    first = (positions[:, 0] - positions[:, 1]).norm(dim=1)
    second = (positions[:, 1] - positions[:, 2]).norm(dim=1)
    inside = torch.where(first < cutoff, (1 - first / cutoff) ** 2, 0.0)
    return torch.stack([inside, second], dim=1)


@pytest.mark.parametrize("wrap", [lambda f: f, disguised], ids=["analytic", "any function"])
@pytest.mark.parametrize("n_outputs", [None, 3])
def test_chain_rule_equals_autograd_through_a_network(wrap, n_outputs):
    positions = frames(9, 5)
    smart, dataset = frozen(wrap(all_pairs(5)), positions)
    torch.testing.assert_close(dataset["data"], all_pairs(5)(positions))
    network = torch.nn.Sequential(
        torch.nn.Linear(10, 8), torch.nn.Tanh(), torch.nn.Linear(8, n_outputs or 1)
    ).double()
    leaf = positions.clone().requires_grad_()
    outputs = network(all_pairs(5)(leaf))
    expected = torch.stack(
        [torch.autograd.grad(o.sum(), leaf, retain_graph=True)[0] for o in outputs.unbind(1)], -1
    )
    descriptors = dataset["data"].clone().requires_grad_()
    outputs = network(descriptors)
    x = torch.stack(
        [
            torch.autograd.grad(o.sum(), descriptors, retain_graph=True)[0]
            for o in outputs.unbind(1)
        ],
        dim=-1,
    )
    if n_outputs is None:
        x, expected = x[:, :, 0], expected[..., 0]
    torch.testing.assert_close(smart(x, dataset["ref_idx"]), expected, rtol=1e-12, atol=1e-12)


def test_against_central_differences():
    positions = frames(2, 4)
    smart, _ = frozen(disguised(all_pairs(4)), positions)
    v = torch.randn(2, 6, dtype=torch.float64)
    found = smart(v)
    step = 1e-6
    for atom in range(4):
        for dim in range(3):
            shift = torch.zeros_like(positions)
            shift[:, atom, dim] = step
            change = all_pairs(4)(positions + shift) - all_pairs(4)(positions - shift)
            slope = (v * change).sum(1) / (2 * step)
            torch.testing.assert_close(found[:, atom, dim], slope, rtol=1e-6, atol=1e-8)


@given(ref_idx=st.lists(st.integers(0, 6), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_order_and_any_repetition_of_ref_idx(ref_idx):
    positions = frames(7, 4)
    smart, _ = frozen(all_pairs(4), positions)
    index = torch.tensor(ref_idx)
    x = frames(len(ref_idx), 2, seed=1).reshape(-1, 6)
    jacobian = dense_jacobian(all_pairs(4), positions)[index]
    expected = torch.einsum("bd,bdax->bax", x, jacobian)
    torch.testing.assert_close(smart(x, index), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(smart(x, index.int()), smart(x, index))


def test_frame_in_which_an_atom_is_beyond_every_cutoff():
    positions = frames(6, 3)
    positions[2, 0] += 100
    smart, _ = frozen(contact, positions)
    expected = dense_jacobian(contact, positions)
    assert expected[2, :, 0].abs().max() == 0
    x = torch.randn(6, 2, dtype=torch.float64)
    torch.testing.assert_close(smart(x), torch.einsum("bd,bdax->bax", x, expected))


def test_dependence_that_no_frame_shows_stays_in_the_pattern():
    positions = frames(4, 3) * 0.1
    positions[:, 0] += 3
    smart, _ = frozen(contact, positions)
    assert dense_jacobian(contact, positions)[:, 0].abs().max() == 0
    assert smart.pattern.dependence().tolist() == [[True, True, False], [False, True, True]]


@pytest.mark.parametrize("wrap", [lambda f: f, disguised], ids=["analytic", "any function"])
def test_atoms_aligned_on_an_axis(wrap):
    positions = torch.zeros(3, 4, 3, dtype=torch.float64)
    positions[:, :, 1] = torch.tensor([0.0, 1.0, 2.5, 4.5]).double() * torch.arange(1, 4)[:, None]
    smart, _ = frozen(wrap(all_pairs(4)), positions)
    assert smart.pattern.nnz == 3 * 2 * 6
    x = torch.randn(3, 6, dtype=torch.float64)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(all_pairs(4), positions))
    torch.testing.assert_close(smart(x), expected)


def test_a_single_frame():
    positions = frames(1, 4)
    smart, dataset = frozen(all_pairs(4), positions)
    assert dataset["ref_idx"].tolist() == [0]
    x = frames(1, 2, seed=1).reshape(1, 6)
    values, jacobian = by_autograd(plain_distances, positions)
    torch.testing.assert_close(dataset["data"], values)
    torch.testing.assert_close(smart(x), torch.einsum("bd,bdax->bax", x, jacobian))


def test_non_cubic_box_takes_the_nearest_image_where_mlcolvar_does_not():
    pytest.importorskip("mlcolvar", reason="mlcolvar is the peer of this test")
    from mlcolvar.core.transform import PairwiseDistances

    lengths = [2.0, 3.0, 4.0]
    positions = torch.rand(20, 4, 3, dtype=torch.float64) * torch.tensor(lengths)
    peer = PairwiseDistances(n_atoms=4, PBC=True, cell=lengths)
    smart, dataset = frozen(peer, positions)
    ours = PairDistances(
        all_pairs(4).pairs, 4, OrthorhombicBox(torch.tensor(lengths), periodic=True)
    )
    torch.testing.assert_close(dataset["data"], ours(positions))
    # mlcolvar's own numbers differ: this is what makes the recognised path worth having.
    assert (peer(positions) - dataset["data"]).abs().max() > 0.1
    x = torch.randn(20, 6, dtype=torch.float64)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(ours, positions))
    torch.testing.assert_close(smart(x), expected)


def test_known_pattern_is_used_and_proved():
    positions = frames(5, 4)
    full = SparsityPattern.from_dependence(torch.ones(6, 4, dtype=torch.bool))
    smart, _ = frozen(disguised(all_pairs(4)), positions, pattern=full)
    assert smart.pattern.nnz == full.nnz
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(all_pairs(4), positions))
    torch.testing.assert_close(smart(x), expected)


def test_pattern_that_is_too_narrow_is_widened(monkeypatch):
    positions = frames(40, 4)
    narrow = all_pairs(4).pattern().dependence()
    narrow[2, 3] = narrow[4, 1] = False
    pattern = SparsityPattern.from_dependence(narrow)
    proofs = []
    prove = sparse_jacobian_module.SparseJacobian._prove
    monkeypatch.setattr(
        sparse_jacobian_module.SparseJacobian,
        "_prove",
        lambda self, *a: (proofs.append(self.pattern.nnz), prove(self, *a))[1],
    )
    smart, _ = frozen(disguised(all_pairs(4)), positions, pattern=pattern, descriptors_batch_size=8)
    assert proofs == [30, *[36] * 5]
    assert torch.equal(smart.pattern.dependence(), all_pairs(4).pattern().dependence())
    x = torch.randn(40, 6, dtype=torch.float64)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(all_pairs(4), positions))
    torch.testing.assert_close(smart(x), expected)


@pytest.mark.parametrize("batch_size", [None, -1, 1, 4, 100])
def test_batches_of_the_setup_do_not_matter(batch_size):
    positions = frames(10, 4, torch.float32)
    smart, dataset = frozen(disguised(all_pairs(4)), positions, descriptors_batch_size=batch_size)
    whole, expected = frozen(disguised(all_pairs(4)), positions)
    torch.testing.assert_close(smart.blocks(), whole.blocks())
    torch.testing.assert_close(dataset["data"], expected["data"])


def test_boundary_frames_have_no_derivatives():
    positions = frames(6, 4)
    labels = torch.tensor([[0.0], [2.0], [1.0], [3.0], [2.0], [0.0]])
    dataset = {"data": positions.reshape(6, 12), "labels": labels, "weights": torch.ones(6)}
    smart = SmartDerivatives()
    out = smart.setup(dataset, all_pairs(4), 4, separate_boundary_dataset=True)
    assert out["ref_idx"].tolist() == [-1, 0, -1, 1, 2, -1]
    assert set(out) == {"data", "labels", "weights", "ref_idx"}
    torch.testing.assert_close(out["data"], all_pairs(4)(positions))
    x = torch.randn(3, 6, dtype=torch.float64)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(all_pairs(4), positions[[1, 3, 4]]))
    torch.testing.assert_close(smart(x, out["ref_idx"][out["ref_idx"] >= 0]), expected)


def test_unused_atoms_are_named_unless_allowed():
    pairs = PairDistances(torch.tensor([[0, 1], [1, 3]]), 5, OPEN)
    with pytest.raises(ValueError, match=r"got none for atoms \[2, 4\] \(zero-based\)"):
        frozen(pairs, frames(3, 5))
    smart, _ = frozen(pairs, frames(3, 5), force_all_atoms=True)
    out = smart(torch.ones(3, 2).double())
    assert out.shape == (3, 5, 3)
    assert out[:, [2, 4]].abs().max() == 0
    assert out[:, [0, 1, 3]].abs().min() > 0


def test_ragged_patterns_are_scattered_and_even_ones_gathered():
    star = PairDistances(torch.tensor([[0, atom] for atom in range(1, 9)]), 9, OPEN)
    for function, form in ((star, ScatterChainRule), (all_pairs(9), GatherChainRule)):
        smart = SmartDerivatives(kernel="torch")
        smart.setup({"data": frames(3, 9)}, function, 9)
        assert type(smart.chain_rule) is form


SWITCH = Rational(1.0)
N_MANY = 30
PAIRS = all_pairs(N_MANY).pairs.flip(1)


@pytest.mark.parametrize(
    "function",
    [
        PairDistances(PAIRS, N_MANY, OPEN),
        InverseDistances(PAIRS, N_MANY, OPEN),
        Contacts(PAIRS[:200], N_MANY, SWITCH, OPEN),
        MultipleDescriptors([all_pairs(N_MANY), Contacts(PAIRS, N_MANY, SWITCH, OPEN)]),
        PairDistances(PAIRS, N_MANY, OrthorhombicBox(torch.tensor([1.0, 2.0, 3.0]), periodic=True)),
    ],
    ids=["distances", "inverse distances", "contacts", "two of them", "periodic"],
)
def test_functions_of_distances_take_half_the_memory(function):
    positions = frames(6, N_MANY, torch.float32)
    smart, _ = frozen(function, positions)
    full, _ = frozen(disguised(function), positions)
    # A circulant layout of an even number of atoms leaves half a row of places empty.
    assert smart.values.nbytes <= 0.52 * full.values.nbytes
    for extra in ((), (2,)):
        x = torch.randn(6, function.n_descriptors, *extra, requires_grad=True)
        torch.testing.assert_close(smart(x), full(x), rtol=1e-5, atol=1e-5)
        weights = torch.randn(6, N_MANY, 3, *extra)
        (found,) = torch.autograd.grad((smart(x) * weights).sum(), x)
        (expected,) = torch.autograd.grad((full(x) * weights).sum(), x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_other_descriptors_keep_all_their_derivatives():
    torsions = Torsions(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), 5, box=OPEN)
    both, positions = MultipleDescriptors([all_pairs(5), torsions]), frames(4, 5)
    smart, _ = frozen(both, positions)
    assert smart.values.shape[1] >= smart.pattern.nnz
    x = frames(4, 4, seed=1).reshape(4, 12)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(both, positions))
    torch.testing.assert_close(smart(x), expected)


class Moments(Descriptor):
    """|a|^2 + 2 |b|^2 of pairs of atoms, whose two derivatives are not opposite."""

    def __init__(self, n_atoms):
        super().__init__(n_atoms, n_atoms - 1, takes_box=False)

    def forward(self, positions, box=None):
        squared = positions.square().sum(2)
        return squared[:, :-1] + 2 * squared[:, 1:]

    def specification(self):
        return None

    def pattern(self):
        first = torch.arange(self.n_descriptors)
        atoms = torch.stack([first, first + 1], dim=1).flatten()
        return SparsityPattern(first.repeat_interleave(2), atoms, len(first), self.n_atoms)


@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_descriptors_of_two_atoms_need_not_have_opposite_derivatives(kernel):
    positions = frames(3, 4)
    smart = SmartDerivatives(kernel=kernel)
    smart.setup({"data": positions}, Moments(4), 4)
    x = frames(3, 1, seed=1).reshape(3, 3)
    expected = torch.zeros(3, 4, 3).double()
    expected[:, :-1] += 2 * x[:, :, None] * positions[:, :-1]
    expected[:, 1:] += 4 * x[:, :, None] * positions[:, 1:]
    torch.testing.assert_close(smart(x), expected, rtol=1e-13, atol=1e-13)


def test_claim_of_opposite_derivatives_is_checked():
    class Biased(PairDistances):
        def jacobian(self, positions, box=None):
            distances, blocks = super().jacobian(positions, box)
            factors = torch.tensor([1, 1 + 1e-12], dtype=blocks.dtype).repeat(blocks.shape[1] // 2)
            return distances, blocks * factors.unsqueeze(1)

    with pytest.raises(ValueError, match="expected opposite derivatives from descriptors that say"):
        frozen(Biased(PAIRS, N_MANY, OPEN), frames(3, N_MANY))


@pytest.mark.parametrize("n_outputs", [None, 2])
@pytest.mark.parametrize("function", [all_pairs(5), PairDistances(all_pairs(5).pairs[:4], 5, OPEN)])
def test_differentiable_with_respect_to_x(function, n_outputs):
    smart, _ = frozen(function, frames(4, 5))
    extra = () if n_outputs is None else (n_outputs,)
    x = torch.randn(3, function.n_descriptors, *extra, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0, 2])
    assert torch.autograd.gradcheck(lambda y: smart(y, index), x)
    assert torch.autograd.gradgradcheck(lambda y: smart(y, index).square(), x)


def test_values_stay_near_the_structural_non_zeros():
    smart, _ = frozen(all_pairs(10), frames(50, 10, torch.float32))
    # One vector for each pair of opposite blocks.
    assert smart.values.nbytes == 50 * smart.pattern.nnz * 4 // 2
    assert "values" not in smart.state_dict()


def test_memory_of_a_setup_stays_near_the_values():
    """A dense (frames, atoms, descriptors, 3) array would take 1.5 GB here."""
    code = """
import resource, torch
from tests.builders.systems import all_pairs, frames
from ofcv_export import SmartDerivatives
positions, distances, smart = frames(2000, 50, torch.float32), all_pairs(50), SmartDerivatives()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
smart.setup({"data": positions}, distances, 50)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, smart.values.nbytes)
"""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    grown, values = map(int, result.stdout.split())
    assert values == 2000 * (50 * 49 // 2) * 3 * 4
    assert grown < 6 * values


def test_long_setups_show_their_progress(monkeypatch, capsys):
    frozen(all_pairs(4), frames(6, 4))
    assert "Derivatives" not in capsys.readouterr().out
    monkeypatch.setattr("ofcv_export.jacobian.smart_derivatives._LONG_SETUP", 1)
    frozen(all_pairs(4), frames(6, 4))
    assert "Derivatives of descriptors" in capsys.readouterr().out


def test_save_and_load(tmp_path):
    smart, _ = frozen(all_pairs(4), frames(6, 4, torch.float32))
    smart.save(tmp_path / "setup.npz")
    again = SmartDerivatives.load(tmp_path / "setup.npz")
    x = torch.randn(6, 6)
    assert torch.equal(again(x), smart(x))
    assert again.pattern.digest() == smart.pattern.digest()
    assert again.descriptors == smart.descriptors
    assert again.descriptors["type"] == "pairwise_distances"


def test_setup_of_a_function_comes_back_from_its_file(tmp_path):
    smart, _ = frozen(disguised(all_pairs(4)), frames(6, 4))
    smart.save(tmp_path / "setup.npz")
    again = SmartDerivatives.load(tmp_path / "setup.npz")
    assert torch.equal(again.blocks(), smart.blocks())


def test_file_of_an_earlier_version(tmp_path):
    smart, _ = frozen(all_pairs(N_MANY), frames(6, N_MANY))
    smart.save(tmp_path / "setup.npz")
    again = SmartDerivatives.load(tmp_path / "setup.npz")
    assert torch.equal(again.values, smart.values)
    with np.load(tmp_path / "setup.npz") as archive:
        arrays = dict(archive)
    assert arrays["version"] == 2
    assert arrays["blocks"].shape == (6, len(PAIRS), 3)
    assert arrays.pop("version") == 2
    np.savez(tmp_path / "first.npz", **arrays | {"blocks": smart.blocks().numpy()})
    first = SmartDerivatives.load(tmp_path / "first.npz")
    assert torch.equal(first.blocks(), smart.blocks())
    x = torch.randn(6, len(PAIRS), dtype=torch.float64)
    torch.testing.assert_close(first(x), smart(x), rtol=1e-12, atol=1e-12)
    np.savez(tmp_path / "later.npz", **arrays, version=3)
    with pytest.raises(ValueError, match="expected a set-up of version 1 or 2, got version 3"):
        SmartDerivatives.load(tmp_path / "later.npz")


def test_moves_like_a_module(smart):
    assert smart.double()(torch.ones(7, 10).double()).dtype == torch.float64
    smart.float()
    smart.to("meta")
    assert smart.values.device.type == "meta"
    assert smart.chain_rule.descriptor_index.device.type == "meta"


def test_move_to_cpu(smart):
    smart.move_to_cpu()
    x = frames(7, 10, torch.float32, seed=1)[:, :, 0]
    _, jacobian = by_autograd(plain_distances, frames(7, 5, torch.float32))
    expected = torch.einsum("bd,bdax->bax", x.double(), jacobian)
    torch.testing.assert_close(smart(x).double(), expected, rtol=1e-5, atol=1e-5)
    # There is nothing to copy on the device "meta", and PyTorch says so when it is asked to.
    smart.to("meta")
    with pytest.raises(NotImplementedError, match="meta tensor"):
        smart.move_to_cpu()


def test_a_function_that_mixes_frames_is_refused():
    def centred(positions):
        distances = all_pairs(4)(positions)
        return distances - distances.mean(dim=0)

    with pytest.raises(ValueError, match="descriptors that depend on nothing but their own frame"):
        frozen(centred, frames(8, 4))


def test_a_random_function_is_refused():
    def noisy(positions):
        distances = all_pairs(4)(positions)
        return distances * torch.rand_like(distances)

    class Noisy(PairDistances):
        def forward(self, positions):
            return noisy(positions)

    with pytest.raises(ValueError, match="descriptors that depend on nothing but their own frame"):
        frozen(Noisy(all_pairs(4).pairs, 4, OPEN), frames(8, 4))


@pytest.mark.parametrize(
    ("data", "n_atoms", "error", "message"),
    [
        (frames(3, 4), 5, ValueError, r"data: expected shape \(n_frames, 5, 3\), got \(3, 4, 3\)"),
        (frames(3, 4).reshape(3, 12), 5, ValueError, r"data: expected shape \(n_frames, 15\)"),
        (frames(3, 4).half(), 4, TypeError, "data: expected dtype float32 or float64, got float16"),
        (np.zeros((3, 4, 3)), 4, TypeError, "data: expected a torch tensor, got ndarray"),
        (frames(3, 4)[:0], 4, ValueError, "data: expected at least one frame, got none"),
        (frames(3, 4) * float("nan"), 4, ValueError, "data: expected finite values, got nan"),
        (frames(3, 4), 0, ValueError, "n_atoms: expected a positive integer, got 0"),
    ],
)
def test_bad_datasets_are_refused(data, n_atoms, error, message):
    with pytest.raises(error, match=message):
        SmartDerivatives().setup({"data": data}, all_pairs(4), n_atoms)


def test_derivatives_that_are_not_finite_are_refused():
    def naive_distances(positions):
        return (positions[:, 1:] - positions[:, :1]).square().sum(2).sqrt()

    with pytest.raises(ValueError, match="expected finite derivatives, got .nan, nan, nan."):
        frozen(naive_distances, frames(3, 4) * 0)


def test_distances_of_coincident_atoms_have_zero_derivatives():
    smart, dataset = frozen(all_pairs(4), frames(3, 4) * 0)
    assert not dataset["data"].any()
    assert not smart(torch.ones(3, 6).double()).any()


def test_bad_options_of_the_setup_are_refused():
    with pytest.raises(ValueError, match="n_atoms: expected 5 as in the descriptors, got 4"):
        frozen(all_pairs(5), frames(3, 4))
    with pytest.raises(ValueError, match="descriptors_batch_size: expected a positive integer"):
        frozen(all_pairs(4), frames(3, 4), descriptors_batch_size=0)
    dataset = {"data": frames(3, 4), "labels": torch.tensor([0, 1, 0])}
    with pytest.raises(ValueError, match="labels: expected some frames beyond the boundaries"):
        SmartDerivatives().setup(dataset, all_pairs(4), 4, separate_boundary_dataset=True)
    dataset["labels"] = torch.tensor([0, 2])
    with pytest.raises(ValueError, match="labels: expected one for each of 3 frames, got 2"):
        SmartDerivatives().setup(dataset, all_pairs(4), 4, separate_boundary_dataset=True)
    del dataset["labels"]
    with pytest.raises(ValueError, match="labels: expected one for each of 3 frames, got none"):
        SmartDerivatives().setup(dataset, all_pairs(4), 4, separate_boundary_dataset=True)


@pytest.mark.parametrize(
    ("x", "ref_idx", "error", "message"),
    [
        (torch.zeros(2, 9), None, ValueError, r"x: expected shape \(batch, 10\), got \(2, 9\)"),
        (torch.zeros(10), None, ValueError, r"x: expected shape \(batch, 10\), got \(10,\)"),
        (torch.zeros(2, 10).double(), None, TypeError, "x: expected dtype float32, got float64"),
        (np.zeros((2, 10)), None, TypeError, "x: expected a torch tensor, got ndarray"),
        (torch.zeros(8, 10), None, IndexError, r"ref_idx: expected indices in \[0, 7\), got 7"),
        (torch.zeros(2, 10), torch.tensor([0, -1]), IndexError, "got -1 at position 1"),
        (torch.zeros(2, 10), torch.tensor([0]), ValueError, r"expected shape \(2,\), got \(1,\)"),
        (torch.zeros(1, 10), torch.tensor([0.0]), TypeError, "ref_idx: expected dtype int64"),
        (
            torch.zeros(1, 10, device="meta"),
            torch.tensor([0]),
            ValueError,
            "tensor on cpu, got one",
        ),
    ],
)
def test_bad_input_to_forward_is_refused(smart, x, ref_idx, error, message):
    with pytest.raises(error, match=message):
        smart(x, ref_idx)


def test_forward_before_setup():
    with pytest.raises(RuntimeError, match="setup: expected to be called first"):
        SmartDerivatives()(torch.zeros(1, 1))


def test_bad_setup_files_are_refused(smart, tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected an existing file"):
        SmartDerivatives.load(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match=r"path: expected a file name ending in .npz"):
        smart.save(tmp_path / "setup.txt")
    with pytest.raises(FileNotFoundError, match="path: expected an existing folder"):
        smart.save(tmp_path / "absent" / "setup.npz")
    smart.save(tmp_path / "setup.npz")
    whole = (tmp_path / "setup.npz").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="path: expected an .npz file with descriptor_index"):
            SmartDerivatives.load(tmp_path / "bad.npz")


OWN = "descriptors that depend on nothing but their own frame, got "


@pytest.mark.parametrize("n_frames", [1, 12])
@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: plain_distances(x).tolist(), TypeError, "a torch tensor, got list"),
        (lambda x: plain_distances(x).detach().numpy(), TypeError, "a torch tensor, got ndarray"),
        (lambda x: 3.0, TypeError, "a torch tensor, got float"),
        (lambda x: plain_distances(x).sum(), ValueError, r"shape \(., n_descriptors\), got \(\)"),
        (lambda x: plain_distances(x)[:, 0], ValueError, r"shape \(., n_descriptors\), got \(.,\)"),
        (lambda x: plain_distances(x).half(), TypeError, "dtype float32 or float64, got float16"),
        (lambda x: plain_distances(x) / len(x), ValueError, OWN),
        (lambda x: plain_distances(x) * torch.arange(1.0, len(x) + 1)[:, None], ValueError, OWN),
        (lambda x: plain_distances(x) * torch.rand(1), ValueError,
         "the same descriptors in every call, got "),
    ],
)  # fmt: skip
def test_functions_that_give_no_descriptors_of_a_frame_are_refused(
    function, n_frames, error, message
):
    with pytest.raises(error, match=f"^descriptor_function: expected {message}"):
        frozen(function, frames(n_frames, 4, torch.float32))


def test_a_function_may_compute_in_another_dtype_than_that_of_the_positions():
    positions = frames(9, 4, torch.float32)
    smart, dataset = frozen(lambda x: plain_distances(x.double()), positions)
    assert dataset["data"].dtype == smart.values.dtype == torch.float32
    x = torch.ones(9, 6)
    expected = dense_jacobian(plain_distances, positions.double()).sum(1)
    torch.testing.assert_close(smart(x).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", ["torch", "numba"])
@pytest.mark.parametrize("n_atoms", [3, 25])
def test_an_empty_batch(kernel, n_atoms):
    smart = SmartDerivatives(kernel=kernel)
    smart.setup({"data": frames(2, n_atoms)}, all_pairs(n_atoms), n_atoms)
    n = n_atoms * (n_atoms - 1) // 2
    for shape in ((0, n), (0, n, 2)):
        x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        out = smart(x, torch.zeros(0, dtype=torch.int64))
        assert out.shape == (0, n_atoms, 3, *shape[2:])
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert gradient.shape == shape
        rule = smart.sparse_chain_rule()
        blocks = torch.zeros(0, rule.pattern.nnz, dtype=torch.float64)
        assert rule(x, blocks).shape == (0, n_atoms, 3, *shape[2:])
        for form in ("scatter", "gather"):
            graph = smart.export_graph(form, *shape[2:])
            for module in (graph.module, graph.in_float64()):
                empty = module(x.detach(), torch.zeros(0, dtype=torch.int64))
                assert empty.shape == (0, n_atoms, 3, *shape[2:])


def test_autocast_changes_no_number():
    """The gather form is a product of matrices, which autocast would round to bfloat16."""
    smart = SmartDerivatives(kernel="torch")
    smart.setup({"data": frames(7, 5, torch.float32)}, all_pairs(5), n_atoms=5)
    assert isinstance(smart.chain_rule, GatherChainRule)
    x, index = normal(3, 10, dtype=torch.float32), torch.tensor([1, 6, 1])
    expected = smart(x, index)
    matrix = normal(10, 4, dtype=torch.float32)

    def function(r):
        return plain_distances(r) @ matrix

    data = {"data": frames(7, 5, torch.float32), "labels": torch.tensor([0, 1, 2, 2, 0, 2, 2])}
    options = {"n_atoms": 5, "separate_boundary_dataset": True}
    described = SmartDerivatives().setup(data, function, **options)["data"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(smart(x, index), expected)
        assert torch.equal(SmartDerivatives().setup(data, function, **options)["data"], described)


@pytest.mark.parametrize("make", [lambda: all_pairs(4), lambda: plain_distances])
def test_a_setup_in_inference_mode_is_the_same(make):
    positions = frames(7, 4)
    expected, _ = frozen(make(), positions)
    with torch.inference_mode():
        found, dataset = frozen(make(), positions.clone())
        x = torch.ones(7, 6, dtype=torch.float64)
        assert torch.equal(found(x), expected(x))
    assert torch.equal(found.values, expected.values)
    x = dataset["data"].requires_grad_()
    (gradient,) = torch.autograd.grad(found(x).square().sum(), x)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("apart", [False, True])
def test_descriptors_of_a_setup_hang_on_no_graph(apart):
    """Neither that of positions nor that of a function's own parameters."""
    weight = torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    dataset = {"data": frames(7, 4), "labels": torch.tensor([0, 1, 2, 2, 0, 2, 2])}
    smart = SmartDerivatives()
    out = smart.setup(
        dataset, lambda x: plain_distances(x) * weight, 4, separate_boundary_dataset=apart
    )
    assert not out["data"].requires_grad
    assert not smart.values.requires_grad
