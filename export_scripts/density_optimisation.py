r"""Ground-state density of a molecule with a learned functional, optimised in Python and in C++.

The energy, as in M-OFDFT (arXiv:2309.16578), is

.. math::

    E(p) = \frac{1}{2} p^T A p + b^T p + E_\mathrm{learned}(p), \qquad w^T p = N,

with the Coulomb matrix A of the density basis, the nuclear attraction b, the integrals w and the
number of electrons N. The learned part stands for kinetic and exchange-correlation energy. It is
trained on the labels of a few molecules, the optimised one among them, in their natural
parametrisation and local frames, with the network of ``export_scripts.energy_network``. So small a
functional serves to show the way, not to predict energies.

Both programs do the same, see ``export_scripts.density_minimiser``; the preconditioner is the
inverse of the quadratic part's Hessian.

Run it from the repository's root with ``python -m export_scripts.density_optimisation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

import ofcv_export as ofcv
from export_scripts.density_labels import compute_labels
from export_scripts.density_minimiser import Optimisation, Problem, minimise, minimise_in_cpp
from export_scripts.energy_network import CoefficientNetwork
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.energy_functional import EnergyFunctional, MoleculeFunctional
from ofcv_export.density.fitting.density_labels import (
    DensityLabels,
    read_array,
    read_labels,
    write_labels,
)
from ofcv_export.density.fitting.fit_statistics import fit_statistics
from ofcv_export.density.local_frames import local_frame_transform
from ofcv_export.density.natural_reparametrization import natural_transform

MOLECULES = ("H2O", "CH4", "NH3", "H2CO", "CH3OH", "HCN")
ENERGY, GRADIENT = "e_kin_plus_xc", "grad_kin_plus_xc"
# Agreement that the two programs owe each other, in Hartree and in coefficients.
AGREEMENT = 1e-8


def molecule_transform(path: Path, labels: DensityLabels) -> Tensor:
    """Return the map of a molecule's coefficients to local frames of an orthonormal basis, (n, n).

    Both maps commute, since the square root of the overlap turns with the basis.
    """
    frames = local_frame_transform(
        labels.positions, labels.atomic_numbers.tolist(), labels.basis_info
    )
    return frames @ natural_transform(read_array(path, "integrals/overlap_matrix"))


def transformed_labels(path: Path, folder: Path) -> Path:
    """Write a molecule's labels in natural coordinates p' = T p and return the new file.

    Gradients and integrals, which are derivatives with respect to p, become T^-T g.
    """
    labels = read_labels(path, ENERGY, GRADIENT)
    transform = molecule_transform(path, labels).numpy()
    inverse = np.linalg.inv(transform)
    arrays = {
        "geometry/mol_id": labels.mol_id,
        "geometry/atom_pos": labels.positions,
        "geometry/atomic_numbers": labels.atomic_numbers.astype(np.uint8),
        f"of_labels/energies/{ENERGY}": labels.energy,
        "of_labels/spatial/coeffs": labels.coeffs @ transform.T,
        f"of_labels/spatial/{GRADIENT}": labels.gradient @ inverse,
        "of_labels/spatial/dual_basis_integrals": labels.basis_integrals @ inverse,
        "ks_labels/energies/has_energy_label": labels.has_energy_label,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder / path.name, arrays, labels.basis_info)
    return folder / path.name


@dataclass(frozen=True)
class Samples:
    """All labelled SCF steps as one batch of molecules, for training.

    Attributes
    ----------
    coeffs, gradient, normal : torch.Tensor
        Coefficients, projected gradient and w / |w| of every sample, shape (n,).
    basis_function_ind, batch : torch.Tensor
        Indices as the functional takes them, shape (n,), int64.
    energy, n_atoms : torch.Tensor
        Shape (n_samples,).
    """

    coeffs: Tensor
    gradient: Tensor
    normal: Tensor
    basis_function_ind: Tensor
    batch: Tensor
    energy: Tensor
    n_atoms: Tensor

    @classmethod
    def read(cls, paths: Sequence[Path], functional: EnergyFunctional) -> Samples:
        """Read label files in natural coordinates."""
        steps = [
            (labels, step)
            for labels in (read_labels(path, ENERGY, GRADIENT) for path in paths)
            for step in np.flatnonzero(labels.has_energy_label)
        ]
        molecules = [labels.atomic_numbers for labels, _ in steps]
        integrals = [labels.basis_integrals[step] for labels, step in steps]
        gradients = [labels.projected_gradient()[step] for labels, step in steps]
        return cls(
            _joined([labels.coeffs[step] for labels, step in steps]),
            _joined(gradients),
            _joined([w / np.linalg.norm(w) for w in integrals]),
            *functional.molecule_indices(molecules, steps[0][0].basis_info),
            torch.tensor([labels.energy[step] for labels, step in steps]),
            torch.tensor([len(numbers) for numbers in molecules]),
        )

    def loss(self, functional: EnergyFunctional) -> Tensor:
        """Return the mean squared error of projected gradients and of energies per atom."""
        n_samples = len(self.energy)
        leaf = self.coeffs.clone().requires_grad_()
        energy = functional.energies(leaf, self.basis_function_ind, self.batch, n_samples)
        (gradient,) = torch.autograd.grad(energy.sum(), leaf, create_graph=True)
        along = gradient.new_zeros(n_samples).index_add(0, self.batch, gradient * self.normal)
        error = gradient - along[self.batch] * self.normal - self.gradient
        return (error**2).sum() / n_samples + (
            (energy - self.energy) / self.n_atoms
        ).square().mean()


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def train_functional(
    paths: Sequence[Path], store: Path, n_steps: int, seed: int, console: Console
) -> EnergyFunctional:
    """Fit statistics to labels in natural coordinates, and a network on top of them."""
    statistics = fit_statistics(paths, store, energy_key=ENERGY, gradient_key=GRADIENT)
    basis_info = read_labels(paths[0], ENERGY, GRADIENT).basis_info
    torch.manual_seed(seed)
    rescaling = ofcv.DimensionWiseRescaling.from_dataset_statistics(statistics)
    functional = EnergyFunctional(
        CoefficientNetwork(rescaling.n_basis),
        rescaling,
        AtomicReference.from_dataset_statistics(statistics, basis_info),
    )
    samples = Samples.read(paths, functional)
    parameters = functional.network.parameters()
    optimiser = torch.optim.Adam(parameters, lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for _ in track(range(n_steps), description="Training", console=console):
        optimiser.zero_grad()
        loss = samples.loss(functional)
        loss.backward()
        optimiser.step()
        schedule.step()
    console.print(f"{len(samples.energy)} SCF steps, loss {loss.item():.3g}")
    return functional


def problem_of(path: Path, molecule: MoleculeFunctional) -> Problem:
    """Return a molecule's integrals, its first SCF density and the preconditioner."""
    labels = read_labels(path, ENERGY, GRADIENT)
    coulomb = read_array(path, "integrals/coulomb_matrix")
    network, index = molecule.functional.network, molecule.basis_function_ind
    stiffness = network.log_stiffness(index).squeeze(1).exp().detach().numpy()
    scale = molecule.functional.rescaling.lambda_z[index].numpy()
    transform = molecule.transform.numpy()
    hessian = coulomb + transform.T @ (stiffness[:, None] * scale[:, None] ** 2 * transform)
    inverse = np.linalg.inv(hessian)
    integrals = labels.basis_integrals[0]
    return Problem(
        coulomb=coulomb,
        external=read_array(path, "of_labels/spatial/grad_ext")[0],
        integrals=integrals,
        initial=labels.coeffs[0],
        preconditioner=(inverse + inverse.T) / 2,
        n_electrons=float(labels.atomic_numbers.sum()),
    )


def draw(python: Optimisation, cpp: Optimisation, reference: float, path: Path) -> None:
    """Draw energy and gradient norm against the iteration, Python and C++ on top of each other."""
    figure, (energies, norms) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    final = python.history[-1, 0]
    for run, style, label in ((python, "C0-", "Python, autograd"), (cpp, "C1--", "C++, artifact")):
        energies.semilogy(np.maximum(run.history[:, 0] - final, 1e-13), style, label=label)
        norms.semilogy(run.history[:, 1], style, label=label)
    energies.set(xlabel="iteration", ylabel="energy above the last one (Hartree)")
    norms.set(xlabel="iteration", ylabel="norm of the projected gradient")
    energies.set_title(f"E = {final:.5f} Hartree; Kohn-Sham {reference:.5f}", fontsize="medium")
    norms.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(
    labels: Annotated[Path, typer.Option(help="Label files; missing ones are computed.")] = Path(
        "density_labels"
    ),
    output: Annotated[Path, typer.Option(help="Folder for artifacts and arrays.")] = Path(
        "density_output"
    ),
    program: Annotated[Path, typer.Option(help="The program ofcv_density.")] = Path(
        "build/cpp_demo/ofcv_density"
    ),
    molecule: Annotated[str, typer.Option(help="Molecule to optimise.")] = "H2O",
    n_steps: Annotated[int, typer.Option(help="Training steps.")] = 500,
    figure: Annotated[Path | None, typer.Option(help="Where the figure goes.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the network.")] = 0,
) -> None:
    """Train a functional, optimise a density with it in Python and in C++, and compare."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    console = Console()
    for folder in (labels, output):
        folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys((molecule, *MOLECULES)))
    paths = [labels / f"{name}.zarr.zip" for name in names]
    for name, path in zip(names, paths, strict=True):
        if not path.exists():
            compute_labels(path, name, integrals=True)
    natural = [transformed_labels(path, output / "natural_labels") for path in paths]
    store = output / "statistics.zarr"
    functional = train_functional(natural, store, n_steps, seed, console)

    known = read_labels(paths[0], ENERGY, GRADIENT)
    frozen = functional.for_molecule(
        known.atomic_numbers.tolist(), known.basis_info, molecule_transform(paths[0], known)
    )
    problem = problem_of(paths[0], frozen)
    words = problem.save(output)
    python = minimise(frozen, problem)
    converged = known.coeffs[-1]
    reference = known.energy[-1] + converged @ (problem.coulomb @ converged / 2 + problem.external)
    console.print(f"Python: {python.history[-1, 0]:.10f} Hartree, {len(python.history) - 1} steps")
    console.print(f"Kohn-Sham: {reference:.10f} Hartree")
    for suffix in (".pt", ".pt2"):
        model = output / f"functional{suffix}"
        console.print(str(ofcv.export(frozen, model, output_units={"energy": "Hartree"})))
        cpp = minimise_in_cpp(program, model, words, output)
        differences = (
            abs(cpp.coeffs - python.coeffs).max(),
            abs(cpp.history[-1, 0] - python.history[-1, 0]),
        )
        console.print(
            f"C++ - Python: coefficients {differences[0]:.1e}, energy {differences[1]:.1e}"
        )
        if max(differences) > AGREEMENT:
            raise RuntimeError(f"{model}: expected agreement to {AGREEMENT}, got {differences}")
    if figure is not None:
        draw(python, cpp, reference, figure)


if __name__ == "__main__":
    typer.run(main)
