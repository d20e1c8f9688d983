"""Natural reparametrisation: the symmetric square root of the overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyscf import gto
from torch import Tensor

from ofcv_export.density.natural_reparametrization import natural_transform


@pytest.fixture(scope="module")
def overlap() -> np.ndarray:
    atoms = "O 0 0 0.22; H 0 1.43 -0.89; H 0 -1.43 -0.89"
    return gto.M(atom=atoms, unit="Bohr", basis="6-31g*").intor("int1e_ovlp")


def orthogonal(n: int) -> Tensor:
    draw = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(draw).Q


def test_it_is_the_symmetric_square_root(overlap):
    root = natural_transform(overlap)
    assert root.dtype == torch.float64
    torch.testing.assert_close(root @ root, torch.from_numpy(overlap), rtol=0, atol=1e-13)
    torch.testing.assert_close(root, root.T, rtol=0, atol=1e-14)
    assert torch.linalg.eigvalsh(root)[0] > 0


def test_transformed_coefficients_measure_densities(overlap):
    """The integral of a density squared is the squared length of its coefficients."""
    coeffs = np.linspace(-1, 1, len(overlap))
    length = torch.linalg.vector_norm(natural_transform(overlap) @ torch.from_numpy(coeffs))
    assert float(length) ** 2 == pytest.approx(coeffs @ overlap @ coeffs, rel=1e-13)


def test_it_turns_with_the_basis(overlap):
    """Of all square roots only the symmetric one does."""
    turn = orthogonal(len(overlap))
    turned = natural_transform(turn @ torch.from_numpy(overlap) @ turn.T)
    expected = turn @ natural_transform(overlap) @ turn.T
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"overlap: expected shape \(n, n\), got \(2, 3\)"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "overlap: expected finite values"),
        (np.array([[1.0, 0.2], [0.1, 1.0]]), "overlap: expected a symmetric matrix, got W - W"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "got eigenvalues from -1.0e[+]00 to 3.0e[+]00"),
        (np.ones((2, 2)), "overlap: expected a positive definite matrix"),
    ],
)
def test_bad_overlaps_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        natural_transform(matrix)
