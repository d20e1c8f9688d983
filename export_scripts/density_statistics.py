"""Dataset statistics of density coefficients and their gradients, from Kohn-Sham calculations.

The level of theory is that of the M-OFDFT paper (arXiv 2309.16578): PBE/6-31G(2df,p), densities
expanded in an even-tempered basis with ratio 2.5, every SCF iteration a sample.

The basis functions of an atom stay in PySCF's own order: shells sorted by l, and within a shell
x, y, z for p functions, m = -l..l for d functions and higher. Coefficients given at run time to a
rescaling built from these statistics must be in that same order; a code with another order (e3nn
and mldft put p functions as y, z, x) has to permute first. The statistics are taken in the frame
of the lab, not in local frames at the atoms, so every molecule is turned at random first.

Run it from the repository's root with ``python -m export_scripts.density_statistics``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import typer
from ase.collections import g2
from pyscf import df, dft, gto
from rich.progress import track
from scipy.spatial.transform import Rotation

from ofcv_export.basis import BasisInfo
from ofcv_export.statistics import DatasetStatistics

# Names in ASE's G2 collection (MP2/6-31G* geometries): each of H, C, N, O occurs in several.
MOLECULES = ("H2O", "CH4", "NH3", "CO", "H2CO", "CH3OH", "HCN", "H3CNH2")
ELEMENTS = ("H", "C", "N", "O")
ORBITAL_BASIS = "6-31G(2df,p)"
EVEN_TEMPERED_RATIO = 2.5
FUNCTIONAL = "PBE"
WEIGHER_KEY = "has_energy_label"


@dataclass(frozen=True)
class DensitySample:
    """The density of one SCF iteration of one molecule, atomic units, float64.

    Attributes
    ----------
    molecule : str
        Name of the molecule.
    iteration : int
        SCF iteration, from 0.
    atomic_numbers : numpy.ndarray
        Shape (n_atoms,), int64.
    basis_function_ind : numpy.ndarray
        Position of each coefficient's (element, basis dimension) in the statistics, shape (n,),
        int64.
    coeffs : numpy.ndarray
        Density coefficients p, shape (n,).
    gradient : numpy.ndarray
        dE_H/dp, shape (n,).
    """

    molecule: str
    iteration: int
    atomic_numbers: np.ndarray
    basis_function_ind: np.ndarray
    coeffs: np.ndarray
    gradient: np.ndarray


def even_tempered_basis() -> dict[str, list[Any]]:
    """Return the even-tempered, uncontracted density basis of `ELEMENTS` in PySCF's format."""
    basis = {}
    for element in ELEMENTS:
        atom = gto.M(atom=f"{element} 0 0 0", basis=ORBITAL_BASIS, spin=None)
        basis.update(df.aug_etb(atom, beta=EVEN_TEMPERED_RATIO))
    return basis


def element_mol(basis: dict[str, list[Any]]) -> gto.Mole:
    """Return a PySCF molecule with one atom of every element in `basis`."""
    atoms = [(element, (10.0 * i, 0.0, 0.0)) for i, element in enumerate(basis)]
    return gto.M(atom=atoms, basis=basis, spin=None)


def build_molecule(name: str, rotation: Rotation) -> gto.Mole:
    """Return a molecule of ASE's G2 collection, turned by `rotation`, in the orbital basis."""
    atoms = g2[name]
    positions = rotation.apply(atoms.positions)
    return gto.M(
        atom=list(zip(atoms.get_chemical_symbols(), positions, strict=True)),
        basis=ORBITAL_BASIS,
        verbose=0,
    )


def scf_density_matrices(mol: gto.Mole) -> list[np.ndarray]:
    """Return the density matrix (n_ao, n_ao) of every iteration of a Kohn-Sham calculation.

    Raises
    ------
    RuntimeError
        If the calculation does not converge.
    """
    density_matrices: list[np.ndarray] = []
    mean_field = dft.RKS(mol, xc=FUNCTIONAL)
    mean_field.callback = lambda state: density_matrices.append(np.array(state["dm"]))
    mean_field.kernel()
    if not mean_field.converged:
        raise RuntimeError(f"{mol.atom}: the SCF calculation did not converge")
    return density_matrices


def fit_densities(
    mol: gto.Mole, auxiliary_mol: gto.Mole, density_matrices: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    r"""Expand densities in the auxiliary basis, and differentiate their Hartree energy.

    With the Coulomb metric :math:`J_{PQ} = (P|Q)`, the coefficients p of
    :math:`\rho(r) = \sum_P p_P \omega_P(r)` solve

    .. math:: \sum_Q (P|Q)\, p_Q = (P|\rho) = \sum_{ij} (P|ij)\, D_{ij}

    (Dunlap, Connolly and Sabin, J. Chem. Phys. 71, 3396 (1979)), and the gradient label is that of
    the Hartree energy of the fitted density, :math:`E_H = \frac{1}{2} p^T J p`:

    .. math:: \frac{\partial E_H}{\partial p_P} = \sum_Q (P|Q)\, p_Q
              = \int \omega_P(r)\, v_H(r)\, dr.

    Parameters
    ----------
    mol, auxiliary_mol : pyscf.gto.Mole
        The same atoms in the orbital basis and in the density basis of n functions.
    density_matrices : sequence of numpy.ndarray
        Shape (n_ao, n_ao) each.

    Returns
    -------
    coeffs, gradients : numpy.ndarray
        Shape (n_densities, n), float64, atomic units.
    """
    metric = auxiliary_mol.intor("int2c2e")
    three_center = df.incore.aux_e2(mol, auxiliary_mol, "int3c2e")
    potentials = np.einsum("ijp,dij->dp", three_center, np.stack(density_matrices))
    coeffs = scipy.linalg.cho_solve(scipy.linalg.cho_factor(metric), potentials.T).T
    return coeffs, coeffs @ metric


def density_samples(
    basis_info: BasisInfo,
    basis: dict[str, list[Any]],
    molecules: Sequence[str] = MOLECULES,
    seed: int = 2026,
) -> list[DensitySample]:
    """Run a Kohn-Sham calculation for each molecule and return a sample for each SCF iteration.

    Parameters
    ----------
    basis_info : BasisInfo
        Description of the density basis of all elements.
    basis : dict
        The density basis in PySCF's format.
    molecules : sequence of str
        Names in ASE's G2 collection; closed shells of H, C, N and O.
    seed : int
        Seed of the random orientations.

    Returns
    -------
    list of DensitySample
        In the order of the calculations; the last sample of a molecule is its converged density.
    """
    rotations = Rotation.random(len(molecules), random_state=seed)
    samples = []
    for name, rotation in track(
        list(zip(molecules, rotations, strict=True)), description="Kohn-Sham calculations"
    ):
        mol = build_molecule(name, rotation)
        atomic_numbers = mol.atom_charges().astype(np.int64)
        density_matrices = scf_density_matrices(mol)
        coeffs, gradients = fit_densities(mol, df.make_auxmol(mol, basis), density_matrices)
        basis_function_ind = np.asarray(basis_info.basis_function_ind(atomic_numbers))
        samples += [
            DensitySample(name, iteration, atomic_numbers, basis_function_ind, *fields)
            for iteration, fields in enumerate(zip(coeffs, gradients, strict=True))
        ]
    return samples


def mean_and_std(
    values: np.ndarray, basis_function_ind: np.ndarray, n_basis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population standard deviation for each (element, basis dimension).

    Two passes: the squares are those of the deviations from the finished mean.

    Parameters
    ----------
    values : numpy.ndarray
        Values of all atoms of all samples, shape (n_values,), float64.
    basis_function_ind : numpy.ndarray
        Which basis dimension each value belongs to, shape (n_values,), int64.
    n_basis : int
        Number of basis dimensions of all elements together.

    Returns
    -------
    mean, std : numpy.ndarray
        Shape (n_basis,), float64.

    Raises
    ------
    ValueError
        If some basis dimension has no value.
    """
    count = np.bincount(basis_function_ind, minlength=n_basis)
    if np.any(count == 0):
        missing = np.flatnonzero(count == 0)
        raise ValueError(
            f"basis_function_ind: expected every index below {n_basis}, got none of {missing[0]}"
        )
    mean = np.bincount(basis_function_ind, weights=values, minlength=n_basis) / count
    squares = (values - mean[basis_function_ind]) ** 2
    variance = np.bincount(basis_function_ind, weights=squares, minlength=n_basis) / count
    return mean, np.sqrt(variance)


def max_abs(values: np.ndarray, basis_function_ind: np.ndarray, n_basis: int) -> np.ndarray:
    """Return the largest absolute value for each (element, basis dimension), shape (n_basis,)."""
    largest = np.zeros(n_basis)
    np.maximum.at(largest, basis_function_ind, np.abs(values))
    return largest


def statistics_of_samples(
    samples: Sequence[DensitySample], l_per_basis_func: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the statistics of coefficients and gradients under mldft's keys.

    Every (element, basis dimension) is averaged over all atoms of that element in all samples,
    each with the same weight. The atomic reference is linear in the coefficients, with the mean
    gradient as slope: "after atom ref" subtracts the mean gradient, and "after scalar atom ref"
    subtracts it for l = 0 functions only.

    Parameters
    ----------
    samples : sequence of DensitySample
        The data.
    l_per_basis_func : numpy.ndarray
        Angular momentum of each basis dimension, shape (n_basis,).

    Returns
    -------
    dict
        Arrays of shape (n_basis,), float64.
    """
    n_basis = len(l_per_basis_func)
    ind = np.concatenate([sample.basis_function_ind for sample in samples])
    coeffs = np.concatenate([sample.coeffs for sample in samples])
    gradient = np.concatenate([sample.gradient for sample in samples])

    coeffs_mean, coeffs_std = mean_and_std(coeffs, ind, n_basis)
    gradient_mean, gradient_std = mean_and_std(gradient, ind, n_basis)
    scalar_gradient_mean = np.where(np.asarray(l_per_basis_func) == 0, gradient_mean, 0.0)
    return {
        "coeffs/mean": coeffs_mean,
        "coeffs/std": coeffs_std,
        "coeffs/abs_max": max_abs(coeffs, ind, n_basis),
        "gradient_label/mean": gradient_mean,
        "gradient_label/std": gradient_std,
        "gradient_label/abs_max": max_abs(gradient, ind, n_basis),
        "gradient_max_after_atom_ref": max_abs(gradient - gradient_mean[ind], ind, n_basis),
        "gradient_max_after_scalar_atom_ref": max_abs(
            gradient - scalar_gradient_mean[ind], ind, n_basis
        ),
    }


def compute_statistics(
    path: Path, molecules: Sequence[str] = MOLECULES, seed: int = 2026
) -> tuple[DatasetStatistics, BasisInfo, list[DensitySample]]:
    """Compute the dataset statistics of `molecules` and write them as a store that mldft reads.

    Parameters
    ----------
    path : Path
        Store to write, ending in ".zarr"; one that is there must hold the same numbers.
    molecules : sequence of str
        Names in ASE's G2 collection; together they must contain every one of `ELEMENTS`.
    seed : int
        Seed of the random orientations.

    Returns
    -------
    statistics : DatasetStatistics
        The store, under the weigher key "has_energy_label".
    basis_info : BasisInfo
        Description of the density basis, in PySCF's order of functions.
    samples : list of DensitySample
        The data behind the statistics.
    """
    basis = even_tempered_basis()
    basis_info = BasisInfo.from_mol(element_mol(basis))
    samples = density_samples(basis_info, basis, molecules, seed)
    statistics = DatasetStatistics(path, create_store=True)
    for key, values in statistics_of_samples(samples, basis_info.l_per_basis_func).items():
        statistics.save_statistic(WEIGHER_KEY, key, values)
    return statistics, basis_info, samples


def converged_sample(samples: Sequence[DensitySample], molecule: str) -> DensitySample:
    """Return the last SCF iteration of `molecule`."""
    return [sample for sample in samples if sample.molecule == molecule][-1]


def main(output: Path = Path("density_statistics.zarr")) -> None:
    """Compute dataset statistics of a few small molecules with PySCF."""
    _, basis_info, samples = compute_statistics(output)
    typer.echo(f"{output}: {len(samples)} densities, {basis_info.n_basis} basis dimensions")


if __name__ == "__main__":
    typer.run(main)
