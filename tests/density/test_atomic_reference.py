"""The atomic reference: mldft's formula, batches, statistics, TorchScript, bad input."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.dataset_statistics import DatasetStatistics
from tests.builders.systems import normal

BASIS = BasisInfo([1, 8, 6], ["2x0e", "1x0e+1x1o", "3x0e"])
MOLECULES = ([8, 1, 1], [6, 1, 1, 1, 1], [1])


@pytest.fixture
def reference() -> AtomicReference:
    return AtomicReference(normal(9), normal(3, seed=1), 2.5, BASIS)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    index = np.concatenate([BASIS.basis_function_ind(numbers) for numbers in MOLECULES])
    sizes = [len(BASIS.basis_function_ind(numbers)) for numbers in MOLECULES]
    molecule = np.repeat(np.arange(3), sizes)
    return normal(len(index), seed=2), torch.from_numpy(index), torch.from_numpy(molecule)


def by_hand(reference: AtomicReference) -> list[float]:
    """Sum coefficient by coefficient and atom by atom."""
    coeffs, index, molecule = (tensor.tolist() for tensor in batch())
    energies = [reference.t_global] * 3
    for p, i, m in zip(coeffs, index, molecule, strict=True):
        energies[m] += float(reference.g_z[i]) * p
    row = {1: 0, 8: 1, 6: 2}
    for m, numbers in enumerate(MOLECULES):
        energies[m] += sum(float(reference.t_z[row[number]]) for number in numbers)
    return energies


def test_energy_is_that_of_the_formula(reference):
    assert reference(*batch(), 3).tolist() == pytest.approx(by_hand(reference), rel=1e-14)


def test_the_order_of_coefficients_does_not_matter(reference):
    order = torch.randperm(len(batch()[0]), generator=torch.Generator().manual_seed(3))
    shuffled = reference(*(tensor[order] for tensor in batch()), 3)
    torch.testing.assert_close(shuffled, reference(*batch(), 3), rtol=1e-14, atol=1e-14)


def test_gradient_is_the_slope(reference):
    coeffs, index, molecule = batch()
    leaf = coeffs.requires_grad_()
    (gradient,) = torch.autograd.grad(reference(leaf, index, molecule, 3).sum(), leaf)
    assert torch.equal(gradient, reference.g_z[index])


def test_it_can_be_scripted(reference):
    scripted = torch.jit.script(reference)
    assert torch.equal(scripted(*batch(), 3), reference(*batch(), 3))


def test_state_dict_is_that_of_mldft(reference):
    assert set(reference.state_dict()) == {"g_z", "t_z"}
    other = AtomicReference(torch.zeros(9).double(), torch.zeros(3).double(), 2.5, BASIS)
    other.load_state_dict(reference.state_dict())
    assert torch.equal(other(*batch(), 3), reference(*batch(), 3))


@pytest.fixture
def statistics(tmp_path: Path) -> DatasetStatistics:
    store = DatasetStatistics(tmp_path / "s.zarr", create_store=True)
    for key, array in {
        "gradient_label/mean": np.arange(1.0, 10.0),
        "atom_ref_atom_type_bias": np.array([0.5, 1.5, 2.5]),
        "atom_ref_global_bias": np.array(4.0),
        "scalar_atom_ref_atom_type_bias": np.array([-0.5, -1.5, -2.5]),
        "scalar_atom_ref_global_bias": np.array(-4.0),
    }.items():
        store.save_statistic("has_energy_label", key, array)
    return store


def test_from_statistics(statistics):
    reference = AtomicReference.from_dataset_statistics(statistics, BASIS)
    assert reference.g_z.tolist() == list(range(1, 10))
    assert reference.t_z.tolist() == [0.5, 1.5, 2.5]
    assert reference.t_global == 4.0


def test_from_statistics_of_scalars_only(statistics):
    """As mldft: the slope of l > 0 is 0, and the biases are those fitted without it."""
    reference = AtomicReference.from_dataset_statistics(statistics, BASIS, scalar_only=True)
    assert reference.g_z.tolist() == [1, 2, 3, 0, 0, 0, 7, 8, 9]
    assert reference.t_z.tolist() == [-0.5, -1.5, -2.5]
    assert reference.t_global == -4.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g_z": torch.zeros(8)}, "g_z: expected shape (9,), got (8,)"),
        ({"t_z": torch.zeros(2)}, "t_z: expected shape (3,), got (2,)"),
        (
            {"t_z": torch.tensor([0.0, torch.nan, 0.0])},
            "t_z of O (8): expected finite values, got nan at index ()",
        ),
        (
            {"g_z": torch.tensor([0.0] * 8 + [torch.inf])},
            "g_z of C (6): expected finite values, got inf at index (2,)",
        ),
        ({"t_global": np.inf}, "t_global: expected finite values, got inf at index ()"),
    ],
)
def test_bad_values_are_refused(change, message):
    arguments = {"g_z": torch.zeros(9), "t_z": torch.zeros(3), "t_global": 0.0} | change
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AtomicReference(**arguments, basis_info=BASIS)


def test_mixed_dtypes_are_refused():
    with pytest.raises(TypeError, match="t_z: expected dtype float32, got float64"):
        AtomicReference(torch.zeros(9), torch.zeros(3).double(), 0.0, BASIS)
