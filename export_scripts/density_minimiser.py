r"""Ground-state densities by projected gradient descent with momentum, in NumPy and in C++.

Minimises

.. math::

    E(p) = \frac{1}{2} p^T A p + b^T p + E_\mathrm{learned}(p) \quad \text{at} \quad w^T p = N.

With a symmetric positive definite preconditioner P the direction of descent is
:math:`P (g - \mu w)`; the chemical potential :math:`\mu = w^T P g / w^T P w` keeps the number of
electrons N.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ofcv_export.density.energy_functional import MoleculeFunctional

STEP_SIZE, MOMENTUM, TOLERANCE, MAX_ITERATIONS = 0.2, 0.6, 1e-9, 5000


@dataclass(frozen=True)
class Problem:
    """What a molecule's optimisation starts from; n basis functions, atomic units, float64.

    Attributes
    ----------
    coulomb : numpy.ndarray
        A, shape (n, n).
    external : numpy.ndarray
        b, shape (n,).
    integrals : numpy.ndarray
        w, shape (n,).
    initial : numpy.ndarray
        Coefficients to start from, shape (n,).
    preconditioner : numpy.ndarray
        P, shape (n, n), symmetric and positive definite.
    n_electrons : float
        N.
    """

    coulomb: np.ndarray
    external: np.ndarray
    integrals: np.ndarray
    initial: np.ndarray
    preconditioner: np.ndarray
    n_electrons: float

    def save(self, folder: Path) -> list[str]:
        """Write the arrays as ``.npy`` and return the options of ofcv_density that name them."""
        words = ["--electrons", repr(self.n_electrons)]
        for name in ("coulomb", "external", "integrals", "initial", "preconditioner"):
            np.save(folder / f"{name}.npy", getattr(self, name))
            words += [f"--{name}", str(folder / f"{name}.npy")]
        return words


@dataclass(frozen=True)
class Optimisation:
    """Coefficients (n,) at the end, and energy and gradient norm of every iteration, (k, 2)."""

    coeffs: np.ndarray
    history: np.ndarray


def minimise(molecule: MoleculeFunctional, problem: Problem) -> Optimisation:
    """Minimise the energy as ofcv_density does, with NumPy and autograd.

    Raises
    ------
    RuntimeError
        If the gradient is not small enough after the largest number of iterations.
    """
    w, preconditioner = problem.integrals, problem.preconditioner
    w_preconditioned = preconditioner @ w
    norm = w @ w_preconditioned
    coeffs = problem.initial + w_preconditioned * (problem.n_electrons - w @ problem.initial) / norm
    velocity = np.zeros_like(coeffs)
    history = []
    for _ in range(MAX_ITERATIONS + 1):
        learned, learned_gradient = molecule.energy_and_gradient(torch.from_numpy(coeffs))
        potential = problem.coulomb @ coeffs
        energy = learned.item() + coeffs @ (potential / 2 + problem.external)
        gradient = learned_gradient.numpy() + potential + problem.external
        projected = gradient - w * (w_preconditioned @ gradient) / norm
        direction = preconditioner @ projected
        history.append((energy, np.sqrt(projected @ direction)))
        if history[-1][1] <= TOLERANCE:
            return Optimisation(coeffs, np.array(history))
        velocity = MOMENTUM * velocity - STEP_SIZE * direction
        coeffs = coeffs + velocity
    raise RuntimeError(f"gradient: expected at most {TOLERANCE}, got {history[-1][1]}")


def minimise_in_cpp(program: Path, model: Path, words: Sequence[str], folder: Path) -> Optimisation:
    """Run ofcv_density on an artifact and return what it writes."""
    stem = folder / f"cpp-{model.suffix[1:]}"
    coeffs, history = (stem.with_name(f"{stem.name}-{name}.npy") for name in ("coeffs", "history"))
    settings = ("--step", STEP_SIZE, "--momentum", MOMENTUM, "--tolerance", TOLERANCE)
    outputs = ("--output", coeffs, "--history", history, "--max-iterations", MAX_ITERATIONS)
    command = [program, "--model", model, *words, *settings, *outputs]
    subprocess.run([str(word) for word in command], check=True)
    return Optimisation(np.load(coeffs), np.load(history))
