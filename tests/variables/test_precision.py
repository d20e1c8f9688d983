"""float64 input, from NumPy or torch, stays float64 though torch's default is float32.

The numbers are such that float32 rounds each of them, and the judges are formulas of their own.
"""

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors import (
    RMSD,
    Angles,
    Contacts,
    CoordinationNumbers,
    Fermi,
    InverseDistances,
    MultipleDescriptors,
    OrthorhombicBox,
    PairDistances,
    Rational,
    Torsions,
)
from tests.builders.systems import frames
from tests.hunt import formulas

SUFFIXES = [".pt", ".onnx", ".pt2"]
N_ATOMS = 5
PAIRS = torch.combinations(torch.arange(N_ATOMS))
TRIPLES, CHAINS = torch.tensor([[0, 1, 2], [4, 2, 3]]), torch.tensor([[0, 1, 2, 3], [1, 3, 4, 2]])
SOME, OTHERS = torch.tensor([0, 2]), torch.tensor([1, 3, 4])
LENGTHS = np.array([2.1, 2.3, 2.7])
REFERENCE = frames(1, N_ATOMS, seed=5)[0] / 3
CENTRE = np.linspace(0.1, 1.3, 27)
FORCE = np.linspace(0.7, 2.9, 27)


def positions():
    return frames(3, N_ATOMS, seed=2) / 3


def descriptors():
    box = OrthorhombicBox(torch.from_numpy(LENGTHS), periodic=True)
    return MultipleDescriptors(
        [
            PairDistances(PAIRS, N_ATOMS, box),
            InverseDistances(PAIRS[:3], N_ATOMS),
            Contacts(PAIRS[:3], N_ATOMS, Fermi(1 / 3, q=0.1)),
            Contacts(PAIRS[3:6], N_ATOMS, Rational(0.7, n=6, m=12)),
            Angles(TRIPLES, N_ATOMS),
            Torsions(CHAINS, N_ATOMS, ("sin",)),
            CoordinationNumbers(SOME, OTHERS, N_ATOMS, Fermi(0.45, q=0.15)),
            RMSD(REFERENCE, N_ATOMS),
            PairDistances(PAIRS[:1], N_ATOMS),
        ]
    )


def by_formulas(r):
    """Return what `descriptors` gives, shape (batch, 27)."""
    lattice = torch.diag(torch.from_numpy(LENGTHS))
    boxed, free = formulas.displacement(lattice), formulas.displacement(None)
    d = formulas.distances(r, PAIRS, free)
    coordination = [
        formulas.fermi(
            formulas.distances(r, torch.cartesian_prod(a[None], OTHERS), free), 0.45, 0.15
        ).sum(1)
        for a in SOME
    ]
    return torch.cat(
        [
            formulas.distances(r, PAIRS, boxed),
            1 / d[:, :3],
            formulas.fermi(d[:, :3], 1 / 3, 0.1),
            1 / (1 + (d[:, 3:6] / 0.7) ** 6),
            formulas.angles(r, TRIPLES, free),
            torch.sin(formulas.torsions(r, CHAINS, free)),
            torch.stack(coordination, dim=1),
            rmsd(r)[:, None],
            d[:, :1],
        ],
        dim=1,
    )


def rmsd(r):
    """Return the least root-mean-square distance to the reference, by singular values."""
    x, y = r - r.mean(1, keepdim=True), REFERENCE - REFERENCE.mean(0)
    correlation = x.mT @ y
    sign = torch.sign(torch.linalg.det(correlation.detach()))
    s = torch.linalg.svdvals(correlation)
    overlap = s[:, 0] + s[:, 1] + sign * s[:, 2]
    squares = x.square().sum((1, 2)) + y.square().sum() - 2 * overlap
    return (squares / N_ATOMS).sqrt()


def assert_exact(found, expected):
    found = torch.as_tensor(found)
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() <= 1e-14 * expected.abs().max()


@pytest.fixture(scope="module")
def restraint():
    cv = ofcv.CollectiveVariable(descriptors(), nn.Identity()).double()
    return ofcv.HarmonicRestraint(cv, CENTRE, FORCE)


def expected(centre, force):
    leaf = positions().requires_grad_()
    difference = by_formulas(leaf) - torch.from_numpy(centre)
    energy = (torch.from_numpy(force) * difference.square() / 2).sum(1, keepdim=True)
    (slope,) = torch.autograd.grad(energy.sum(), leaf)
    return energy.detach(), slope.unsqueeze(1)


def test_modules(restraint):
    assert torch.get_default_dtype() == torch.float32
    for found, judge in zip(
        restraint.values_and_derivatives(positions()), expected(CENTRE, FORCE), strict=True
    ):
        assert_exact(found, judge)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files(tmp_path, restraint, suffix):
    ofcv.export(restraint, tmp_path / f"bias{suffix}")
    artifact = ofcv.load(tmp_path / f"bias{suffix}")
    centre, force = CENTRE + 1 / 7, FORCE / 3
    judge = expected(centre, force)
    assert np.float32(centre[0]) != centre[0]
    for given in (
        (positions().numpy(), centre, force),
        (positions(), torch.from_numpy(centre), torch.from_numpy(force)),
    ):
        for found, exact in zip(artifact(*given), judge, strict=True):
            assert_exact(found, exact)


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_frozen_derivatives(tmp_path, suffix):
    smart = ofcv.SmartDerivatives()
    smart.setup({"data": positions()}, PairDistances(PAIRS, N_ATOMS), N_ATOMS)
    leaf = positions().requires_grad_()
    (slopes,) = formulas.slopes(
        formulas.distances(leaf, PAIRS, formulas.displacement(None)), [leaf]
    )
    x = torch.from_numpy(np.linspace(0.1, 1.7, 30).reshape(3, 10))
    judge = torch.einsum("bd,dbak->bak", x, slopes)
    assert_exact(smart(x), judge)
    ofcv.export(smart, tmp_path / f"smart{suffix}")
    for given in (x, x.numpy()):
        assert_exact(ofcv.load(tmp_path / f"smart{suffix}")(given, torch.arange(3)), judge)


def test_times_and_masses():
    distance = ofcv.CollectiveVariable(PairDistances(PAIRS[:1], N_ATOMS), nn.Identity()).double()
    times, centres = np.array([0.1, 0.7]), np.array([0.3, 1.1])
    pull = ofcv.MovingRestraint(distance, times, centres, np.array([1.3, 1.7]))
    leaf = positions().requires_grad_()
    value = formulas.distances(leaf, PAIRS[:1], formulas.displacement(None))
    share = (0.37 - 0.1) / (0.7 - 0.1)
    force, centre = 1.3 + share * (1.7 - 1.3), 0.3 + share * (1.1 - 0.3)
    energy = pull(positions(), None, torch.tensor([0.37], dtype=torch.float64))
    assert_exact(energy, (force * (value - centre) ** 2 / 2).detach())
    masses = np.linspace(1.1, 16.3, N_ATOMS)
    bias = ofcv.KolmogorovBias(distance, beta=0.4, masses=masses, lambd=0.7, epsilon=1e-3)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    squared = (slope.square().sum(2) / torch.from_numpy(masses)).sum(1, keepdim=True)
    assert_exact(bias(positions()), -0.7 / 0.4 * torch.log(squared / 1e-3 + 1))
