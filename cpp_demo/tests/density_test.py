"""Run ofcv_density as a user would. Usage: density_test.py PROGRAM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from program import PROGRAM, fails, run, run_tests

import ofcv_export as ofcv
from export_scripts.density_minimiser import (
    MOMENTUM,
    STEP_SIZE,
    Problem,
    minimise,
    minimise_in_cpp,
)
from export_scripts.energy_network import CoefficientNetwork

BASIS = ofcv.BasisInfo([1, 8], ["2x0e+1x1o", "3x0e+1x1o"])
WATER, N = [8, 1, 1], 16


def functional() -> ofcv.EnergyFunctional:
    """Return a functional with a network that nobody has trained."""
    torch.manual_seed(0)
    values = torch.rand(4, BASIS.n_basis, dtype=torch.float64)
    return ofcv.EnergyFunctional(
        CoefficientNetwork(BASIS.n_basis, 4, (8,)).double(),
        ofcv.DimensionWiseRescaling(*values[:3]),
        ofcv.AtomicReference(values[3], torch.rand(2, dtype=torch.float64), -1.5, BASIS),
    )


def problem() -> Problem:
    """Return integrals of a made-up molecule with five electrons."""
    generator = np.random.default_rng(1)
    half = generator.standard_normal((N, N))
    coulomb = np.eye(N) + half @ half.T / N
    inverse = np.linalg.inv(coulomb)
    return Problem(
        coulomb=coulomb,
        external=generator.standard_normal(N),
        integrals=generator.uniform(0.5, 1.5, N),
        initial=generator.standard_normal(N),
        preconditioner=(inverse + inverse.T) / 2,
        n_electrons=5.0,
    )


def test_agreement() -> None:
    """Same steps, same minimum as in Python; there the gradient is parallel to w."""
    molecule = functional().for_molecule(WATER, BASIS, torch.eye(N) + 0.1 * torch.ones(N, N))
    for suffix in (".pt", ".pt2", ".so"):
        ofcv.export(molecule, f"model{suffix}")
    for name, start in (
        ("preconditioned", problem()),
        ("plain", replace(problem(), preconditioner=np.eye(N))),
    ):
        words = start.save(Path())
        expected = minimise(molecule, start)
        for suffix in (".pt", ".pt2", ".so"):
            found = minimise_in_cpp(PROGRAM, Path(f"model{suffix}"), words, Path())
            assert found.history.shape == expected.history.shape, (name, suffix)
            assert abs(found.history - expected.history).max() < 1e-10, (name, suffix)
            assert abs(found.coeffs - expected.coeffs).max() < 1e-8, (name, suffix)
        p, w = found.coeffs, start.integrals
        _, gradient = molecule.energy_and_gradient(torch.from_numpy(p))
        total = gradient.numpy() + start.coulomb @ p + start.external
        assert abs(total - w * (w @ total) / (w @ w)).max() < 1e-8
        assert abs(w @ p - start.n_electrons) < 1e-10
        energies = found.history[:, 0]
        assert energies[-1] < energies[0]
        assert (np.diff(energies[len(energies) // 2 :]) < 1e-12).all()


def test_single_precision() -> None:
    """A float32 functional is used from the program's float64."""
    ofcv.export(functional().float().for_molecule(WATER, BASIS), "single.pt")
    words = (*problem().save(Path()), "--step", STEP_SIZE, "--momentum", MOMENTUM)
    done = run("--model", "single.pt", *words, "--tolerance", 1e-4)
    assert done.returncode == 0, done
    assert done.stdout.startswith("converged after "), done.stdout
    assert "electrons           5.0000000000" in done.stdout, done.stdout


def test_not_converged() -> None:
    """Code 1, and the last coefficients are written all the same."""
    model, words = "model.pt", problem().save(Path())
    ofcv.export(functional().for_molecule(WATER, BASIS), model)
    output = ("--output", "p.npy", "--history", "history.npy")
    done = run("--model", model, *words, *output, "--max-iterations", 3)
    assert done.returncode == 1, done
    assert done.stdout.startswith("not converged after 3 iterations"), done.stdout
    assert np.load("p.npy").shape == (N,)
    assert np.load("history.npy").shape == (4, 2)


def test_errors() -> None:
    """One line that says what was expected and what came."""
    given = " ".join(["--model model.pt", *problem().save(Path())])
    ofcv.export(functional().for_molecule(WATER, BASIS), "model.pt")
    ofcv.export(functional(), "any.pt")
    np.save("short.npy", np.ones(3))
    np.save("single.npy", np.ones(N, np.float32))
    np.save("nan.npy", np.full(N, np.nan))
    np.save("negative.npy", -np.eye(N))
    one = "--model: expected an energy_functional of one molecule,"
    positive = "preconditioner: expected a positive definite matrix"
    for message, words in (
        ("--model: expected a value, got nothing", ""),
        ("--coulomb: expected a value, got nothing", "--model model.pt"),
        ("arguments: expected an option that --help lists, got '--box'", f"{given} --box 1"),
        ("--step: expected a number in [0, 1e+06), got 'x'", f"{given} --step x"),
        ("--momentum: expected a number in [0, 1), got '1'", f"{given} --momentum 1"),
        (f"{one} got energy_functional with 3 inputs", f"{given} --model any.pt"),
        ("--initial: expected shape (16,), got (3,)", f"{given} --initial short.npy"),
        ("--initial: expected dtype float64, got float32", f"{given} --initial single.npy"),
        ("--initial: expected finite values, got nan at index (0,)", f"{given} --initial nan.npy"),
        (f"{positive}, got one that is not", f"{given} --preconditioner negative.npy"),
    ):
        fails(message, words)
    assert run("--help").stdout.startswith("usage: ofcv_density --model FILE")


if __name__ == "__main__":
    run_tests(test_agreement, test_single_precision, test_not_converged, test_errors)
