r"""Density labels of small organic molecules: Kohn-Sham calculations in mldft's label layout.

The level of theory is that of the M-OFDFT paper (arXiv:2309.16578): PBE/6-31G(2df,p), densities
expanded in an even-tempered basis with ratio 2.5, every SCF step a sample. The label files are
described in ``ofcv_export.density.fitting.density_labels``.

What a sample holds. In SCF step k the orbitals minimise
:math:`T_s + \int v^{(k)} \rho` under a fixed number of electrons, where the potential is the DIIS
average :math:`v^{(k)} = \sum_{j<k} \pi^{(k)}_j v_\mathrm{eff}[\rho^{(j)}]`, step 0 being the
initial guess. The stationarity condition, the Euler equation of that minimisation,

.. math:: \frac{\delta T_s}{\delta \rho}\Big|_{\rho^{(k)}} (r) = \mu^{(k)} - v^{(k)}(r),

holds for every SCF step, not only at convergence. Integrated with a density basis function
:math:`\omega_P` it gives the gradient label

.. math::

    \nabla_p T_s(p^{(k)}) = -\sum_{j<k} \pi^{(k)}_j\, v_\mathrm{eff}(p^{(j)}) + \mu^{(k)} w, \quad
    v_\mathrm{eff}(p) = \nabla_p \left(E_\mathrm{H} + E_\mathrm{xc} + E_\mathrm{ext}\right),\quad
    w_P = \int \omega_P .

The chemical potential :math:`\mu^{(k)}` is unknown, so ``grad_kin`` leaves its term out, and only
the projection onto a fixed number of electrons means something:

.. math::

    \left(I - \frac{w w^T}{w^T w}\right) \nabla_p T_s(p^{(k)}) =
    -\left(I - \frac{w w^T}{w^T w}\right) \sum_{j<k} \pi^{(k)}_j\, v_\mathrm{eff}(p^{(j)}).

This is the gradient label of the M-OFDFT paper in the form of mldft's ``label_generation``; a fit
of statistics projects it. The value label, likewise, is
:math:`T_s(p) = E_\mathrm{KS} - E_\mathrm{H}(p) - E_\mathrm{xc}(p) - E_\mathrm{ext}(p)` with the
electronic Kohn-Sham energy of the step.

The basis functions of an atom stay in PySCF's own order: shells sorted by l, and within a shell
x, y, z for p functions, m = -l..l for d functions and higher. Coefficients given at run time to a
rescaling built from these labels must be in that same order; a code with another order (e3nn puts
p functions as y, z, x) has to permute first. The frame is that of the lab, not local frames at the
atoms, so every molecule is turned at random first.

Run it from the repository's root with ``python -m export_scripts.density_labels labels``.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy.linalg
import typer
from ase.collections import g2
from numpy.typing import ArrayLike
from pyscf import df, dft, gto, lib
from rich.console import Console
from rich.progress import track
from scipy.spatial.transform import Rotation

from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.fitting.density_labels import FloatArray, write_labels

# Names in ASE's G2 collection (MP2/6-31G* geometries): each of H, C, N, O occurs in several.
MOLECULES = (
    "H2O", "CH4", "NH3", "CO", "H2CO", "CH3OH", "HCN", "H3CNH2", "C2H2", "C2H4", "HCOOH", "N2H4",
)  # fmt: skip
ELEMENTS = ("H", "C", "N", "O")
ORBITAL_BASIS = "6-31G(2df,p)"
EVEN_TEMPERED_RATIO = 2.5
DENSITY_BASIS = f"even_tempered_{EVEN_TEMPERED_RATIO}_from_{ORBITAL_BASIS}"
FUNCTIONAL = "PBE"
KINETIC_FUNCTIONAL = "GGA_K_APBE"
ENERGY_TOLERANCE = 1e-9
DIIS_SPACE = 8
GRID_BLOCK = 4096


def even_tempered_basis() -> dict[str, list[Any]]:
    """Return the even-tempered, uncontracted density basis of `ELEMENTS` in PySCF's format."""
    basis = {}
    for element in ELEMENTS:
        atom = gto.M(atom=f"{element} 0 0 0", basis=ORBITAL_BASIS, spin=None)
        basis.update(df.aug_etb(atom, beta=EVEN_TEMPERED_RATIO))
    return basis


def density_basis_info() -> BasisInfo:
    """Return the layout of the density basis of `ELEMENTS`, in PySCF's order of functions."""
    atoms = [(element, (10.0 * i, 0.0, 0.0)) for i, element in enumerate(ELEMENTS)]
    return BasisInfo.from_mol(gto.M(atom=atoms, basis=even_tempered_basis(), spin=None))


def build_molecule(name: str, seed: int = 2026) -> gto.Mole:
    """Return a molecule of ASE's G2 collection in the orbital basis.

    Parameters
    ----------
    name : str
        E.g. ``CH3OH``; closed shells of H, C, N and O.
    seed : int
        Seed of the random orientation, which depends on the name as well.
    """
    atoms = g2[name]
    rotation = Rotation.random(
        random_state=np.random.RandomState([seed, zlib.crc32(name.encode())])
    )
    positions = rotation.apply(atoms.positions)
    return gto.M(
        atom=list(zip(atoms.get_chemical_symbols(), positions, strict=True)),
        basis=ORBITAL_BASIS,
        verbose=0,
    )


def density_molecule(mol: gto.Mole) -> gto.Mole:
    """Return the same atoms in the density basis."""
    return df.make_auxmol(mol, even_tempered_basis())


class RecordedDIIS(lib.diis.DIIS):
    r"""Pulay's DIIS that remembers how it mixed, for `kohn_sham`.

    The Fock matrices F_j of the last steps are averaged with coefficients that minimise
    :math:`\|\sum_j \pi_j e_j\|^2` under :math:`\sum_j \pi_j = 1`, where
    :math:`e_j = X^T (F_j D_j S - S D_j F_j) X` and :math:`X^T S X = I`; P. Pulay, J. Comput. Chem.
    3, 556 (1982). PySCF's own class does not give the coefficients away.

    Attributes
    ----------
    coeffs : numpy.ndarray of float64
        The last step's coefficients, oldest Fock matrix first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.coeffs = np.ones(1)
        self._focks: deque[FloatArray] = deque(maxlen=DIIS_SPACE)
        self._errors: deque[FloatArray] = deque(maxlen=DIIS_SPACE)

    def update(
        self, overlap: FloatArray, density_matrix: FloatArray, fock: FloatArray, *_: Any, **__: Any
    ) -> FloatArray:
        """Return the average of the last Fock matrices, `fock` included."""
        values, vectors = scipy.linalg.eigh(overlap)
        orthonormal = vectors / np.sqrt(values)
        commutator = fock @ density_matrix @ overlap - overlap @ density_matrix @ fock
        error = orthonormal.T @ commutator @ orthonormal
        self._focks.append(fock)
        self._errors.append(error.ravel())
        self.coeffs = mixing_coeffs(np.stack(self._errors))
        return np.tensordot(self.coeffs, np.stack(self._focks), axes=1)


def mixing_coeffs(errors: FloatArray) -> FloatArray:
    """Return coefficients that sum to 1 and make the norm of the summed errors least.

    Parameters
    ----------
    errors : numpy.ndarray of float64, shape (n_steps, n)

    Returns
    -------
    numpy.ndarray of float64, shape (n_steps,)
    """
    # Errors shrink by orders of magnitude from step to step; only their directions are compared.
    norms = np.linalg.norm(errors, axis=1)
    directions = errors / norms[:, None]
    solution = scipy.linalg.lstsq(directions @ directions.T, norms[-1] / norms)[0] / norms
    return solution / solution.sum()


@dataclass
class KohnShamSteps:
    """The SCF steps of a Kohn-Sham calculation, atomic units; step 0 is the initial guess.

    Attributes
    ----------
    density_matrices : list of numpy.ndarray, shape (n_ao, n_ao) each
    mixing : list of numpy.ndarray
        Of steps 1, 2, ...: DIIS coefficients of the steps just before, oldest first.
    energies : list of dict
        Of steps 1, 2, ...: energies by the names of the labels.
    grids : pyscf.dft.gen_grid.Grids
        Integration grid of the exchange-correlation energy.
    """

    density_matrices: list[FloatArray] = field(default_factory=list)
    mixing: list[FloatArray] = field(default_factory=list)
    energies: list[dict[str, float]] = field(default_factory=list)
    grids: Any = None


def kohn_sham(mol: gto.Mole, max_steps: int = 50) -> KohnShamSteps:
    """Run a restricted Kohn-Sham calculation and record every SCF step.

    Parameters
    ----------
    mol : pyscf.gto.Mole
        Molecule in the orbital basis, with closed shells.
    max_steps : int
        Largest number of SCF steps.

    Raises
    ------
    RuntimeError
        If the calculation does not converge.
    """
    steps = KohnShamSteps()
    kinetic, nuclear = mol.intor("int1e_kin"), mol.intor("int1e_nuc")

    def record(state: dict[str, Any]) -> None:
        if not steps.density_matrices:
            steps.density_matrices.append(np.array(state["dm_last"]))
        matrix = np.array(state["dm"])
        steps.density_matrices.append(matrix)
        steps.mixing.append(state["mf_diis"].coeffs)
        steps.energies.append(
            {
                "e_kin": float(np.sum(matrix * kinetic)),
                "e_hartree": float(state["vhf"].ecoul),
                "e_xc": float(state["vhf"].exc),
                "e_ext": float(np.sum(matrix * nuclear)),
            }
        )

    mean_field = dft.RKS(mol, xc=FUNCTIONAL)
    mean_field.conv_tol, mean_field.max_cycle = ENERGY_TOLERANCE, max_steps
    mean_field.diis, mean_field.diis_start_cycle = RecordedDIIS(), 0
    mean_field.conv_check = False
    mean_field.callback = record
    mean_field.kernel()
    if not mean_field.converged:
        raise RuntimeError(f"{mol.atom}: the SCF calculation did not converge")
    steps.grids = mean_field.grids
    return steps


@dataclass(frozen=True)
class DensityIntegrals:
    """Integrals over the density basis of a molecule, atomic units.

    Attributes
    ----------
    coulomb_matrix : numpy.ndarray, shape (n, n)
        J of the Hartree energy pᵀJp/2.
    overlap_matrix : numpy.ndarray, shape (n, n)
    external_potential : numpy.ndarray, shape (n,)
        Attraction by the nuclei, v of the energy v·p.
    basis_integrals : numpy.ndarray, shape (n,)
        w of the number of electrons w·p.
    """

    coulomb_matrix: FloatArray
    overlap_matrix: FloatArray
    external_potential: FloatArray
    basis_integrals: FloatArray


def density_integrals(density_mol: gto.Mole) -> DensityIntegrals:
    """Compute the integrals over a density basis."""
    point_charges = gto.fakemol_for_charges(density_mol.atom_coords())
    potentials = gto.intor_cross("int2c2e", density_mol, point_charges)
    return DensityIntegrals(
        coulomb_matrix=density_mol.intor("int2c2e"),
        overlap_matrix=density_mol.intor("int1e_ovlp"),
        external_potential=-potentials @ density_mol.atom_charges(),
        basis_integrals=basis_integrals(density_mol),
    )


def basis_integrals(density_mol: gto.Mole) -> FloatArray:
    r"""Return the integral of every function of an uncontracted basis, shape (n,).

    A normalised s Gaussian with exponent :math:`\alpha` has :math:`(2\pi/\alpha)^{3/4}`, and all
    others none.
    """
    integrals = np.zeros(density_mol.nao)
    for shell, first in enumerate(density_mol.ao_loc[:-1]):
        if density_mol.bas_angular(shell) == 0:
            integrals[first] = (2 * np.pi / density_mol.bas_exp(shell)[0]) ** 0.75
    return integrals


def fit_densities(
    mol: gto.Mole,
    density_mol: gto.Mole,
    integrals: DensityIntegrals,
    density_matrices: Sequence[FloatArray],
) -> FloatArray:
    r"""Expand densities in the density basis.

    The coefficients minimise the Coulomb energy of the residual density and the square of its
    energy in the field of the nuclei, and keep the number of electrons N:

    .. math::

        \min_p\; (\rho_p - \rho | \rho_p - \rho) + (v^T p - \mathrm{tr}\, V D)^2
        \quad\text{subject to}\quad w^T p = N,

    the fit of mldft that is named ``hartree+external`` with a fixed number of electrons.

    Parameters
    ----------
    mol, density_mol : pyscf.gto.Mole
        The same atoms in the orbital basis and in the density basis.
    integrals : DensityIntegrals
        Integrals over the density basis.
    density_matrices : sequence of numpy.ndarray, shape (n_ao, n_ao) each

    Returns
    -------
    numpy.ndarray of float64, shape (n_densities, n)
    """
    matrices = np.stack(density_matrices)
    three_center = df.incore.aux_e2(mol, density_mol, "int3c2e", aosym="s1")
    coulomb = np.einsum("ijp,dij->dp", three_center, matrices, optimize=True)
    attraction = np.einsum("ij,dij->d", mol.intor("int1e_nuc"), matrices)
    v, w = integrals.external_potential, integrals.basis_integrals
    factor = scipy.linalg.cho_factor(integrals.coulomb_matrix + np.outer(v, v))
    free = scipy.linalg.cho_solve(factor, (coulomb + np.outer(attraction, v)).T).T
    correction = scipy.linalg.cho_solve(factor, w)
    excess = free @ w - mol.nelectron
    return free - np.outer(excess / (w @ correction), correction)


def grid_functional(
    density_mol: gto.Mole, grids: Any, coeffs: FloatArray, functional: str
) -> tuple[FloatArray, FloatArray]:
    r"""Integrate a semilocal functional of expanded densities, and its gradient.

    .. math::

        \frac{\partial E}{\partial p_P} = \int \frac{\partial e}{\partial \rho}\, \omega_P
        + 2 \frac{\partial e}{\partial \sigma}\, \nabla\rho \cdot \nabla\omega_P,
        \qquad \sigma = |\nabla\rho|^2

    Parameters
    ----------
    density_mol : pyscf.gto.Mole
        Molecule in the density basis of n functions.
    grids : pyscf.dft.gen_grid.Grids
        Built integration grid.
    coeffs : numpy.ndarray of float64, shape (n_densities, n)
    functional : str
        A GGA by its name in libxc or PySCF.

    Returns
    -------
    energies : numpy.ndarray of float64, shape (n_densities,)
    gradients : numpy.ndarray of float64, shape (n_densities, n)
    """
    energies, gradients = np.zeros(len(coeffs)), np.zeros_like(coeffs)
    for start in range(0, len(grids.weights), GRID_BLOCK):
        block = slice(start, start + GRID_BLOCK)
        weights = grids.weights[block]
        values = dft.numint.eval_ao(density_mol, grids.coords[block], deriv=1)
        # The density and its gradient, (n_densities, 4, n_points).
        densities = np.stack([coeffs @ component.T for component in values], axis=1)
        factors = np.empty_like(densities)
        for row, (density, factor) in enumerate(zip(densities, factors, strict=True)):
            per_electron, (by_density, by_sigma, *_), *_ = dft.libxc.eval_xc(functional, density)
            energies[row] += np.sum(weights * density[0] * per_electron)
            factor[0] = weights * by_density
            factor[1:] = 2 * weights * by_sigma * density[1:]
        for component, factor in zip(values, factors.swapaxes(0, 1), strict=True):
            gradients += factor @ component
    return energies, gradients


def kinetic_gradients(potentials: FloatArray, mixing: Sequence[FloatArray]) -> FloatArray:
    """Return dT_s/dp of every SCF step from the stationarity condition, without mu w.

    Parameters
    ----------
    potentials : numpy.ndarray of float64, shape (n_steps, n)
        v_eff(p) of every step, the initial guess first.
    mixing : sequence of numpy.ndarray
        Of steps 1, 2, ...: DIIS coefficients of the steps just before, oldest first.

    Returns
    -------
    numpy.ndarray of float64, shape (n_steps, n)
        Zero for the initial guess, which minimises nothing.
    """
    gradients = np.zeros_like(potentials)
    for step, coeffs in enumerate(mixing, start=1):
        gradients[step] = -coeffs @ potentials[step - len(coeffs) : step]
    return gradients


def labels_of(
    mol: gto.Mole, steps: KohnShamSteps, density_mol: gto.Mole, integrals: DensityIntegrals
) -> dict[str, ArrayLike]:
    """Return coefficients, energies and gradients of every SCF step by their names in the layout.

    For the initial guess, whatever includes the kinetic energy is unknown and 0.

    Parameters
    ----------
    mol, density_mol : pyscf.gto.Mole
        The same atoms in the orbital basis and in the density basis.
    steps : KohnShamSteps
        The calculation.
    integrals : DensityIntegrals
        Integrals over the density basis.
    """
    coeffs = fit_densities(mol, density_mol, integrals, steps.density_matrices)
    known = np.arange(len(coeffs)) > 0
    ks = {
        name: np.array([0.0] + [energies[name] for energies in steps.energies])
        for name in ("e_kin", "e_hartree", "e_xc", "e_ext")
    }
    ks["e_electron"] = ks["e_kin"] + ks["e_hartree"] + ks["e_xc"] + ks["e_ext"]
    ks["e_nuc_nuc"] = np.full(len(coeffs), mol.energy_nuc())
    ks["e_tot"] = np.where(known, ks["e_electron"] + ks["e_nuc_nuc"], 0.0)

    energy, gradient = {}, {}
    gradient["hartree"] = coeffs @ integrals.coulomb_matrix
    energy["hartree"] = 0.5 * np.sum(coeffs * gradient["hartree"], axis=1)
    gradient["ext"] = np.tile(integrals.external_potential, (len(coeffs), 1))
    energy["ext"] = coeffs @ integrals.external_potential
    for name, functional in (("xc", FUNCTIONAL), ("kinapbe", KINETIC_FUNCTIONAL)):
        energy[name], gradient[name] = grid_functional(density_mol, steps.grids, coeffs, functional)
    rest = sum(gradient[name] for name in ("hartree", "xc", "ext"))
    gradient["kin"] = kinetic_gradients(rest, steps.mixing)
    energy["kin"] = ks["e_electron"] - sum(energy[name] for name in ("hartree", "xc", "ext"))
    for values in (energy, gradient):
        values["kin_minus_apbe"] = values["kin"] - values["kinapbe"]
        values["kin_plus_xc"] = values["kin"] + values["xc"]
    gradient["tot"] = gradient["kin"] + rest
    energy["electron"], energy["tot"] = ks["e_electron"], ks["e_tot"]
    for name in ("kin", "kin_minus_apbe", "kin_plus_xc"):
        energy[name][0] = gradient[name][0] = 0.0
    gradient["tot"][0] = 0.0
    return (
        {f"of_labels/energies/e_{name}": values for name, values in energy.items()}
        | {f"of_labels/spatial/grad_{name}": values for name, values in gradient.items()}
        | {f"ks_labels/energies/{name}": values for name, values in ks.items()}
        | {"of_labels/spatial/coeffs": coeffs, "ks_labels/energies/has_energy_label": known}
    )


def compute_labels(path: Path, name: str, seed: int = 2026, integrals: bool = False) -> None:
    """Run the Kohn-Sham calculation of one molecule and write its label file.

    The same call on the same machine writes the same bytes, as long as the linear algebra of NumPy
    and SciPy has the same number of threads (``OMP_NUM_THREADS``).

    Parameters
    ----------
    path : Path
        File to write, ending in ``.zarr.zip``.
    name : str
        Molecule of ASE's G2 collection.
    seed : int
        Seed of the random orientation.
    integrals : bool
        Add the Coulomb and the overlap matrix of the density basis, which mldft does not store, as
        ``integrals/coulomb_matrix`` and ``integrals/overlap_matrix``, shape (n, n).
    """
    # PySCF's sums over threads have no fixed order, and so no fixed last digits.
    with lib.with_omp_threads(1):
        mol = build_molecule(name, seed)
        density_mol = density_molecule(mol)
        matrices = density_integrals(density_mol)
        labels = labels_of(mol, kohn_sham(mol), density_mol, matrices)
    n_steps = len(np.asarray(labels["of_labels/spatial/coeffs"]))
    labels |= {
        "geometry/mol_id": name,
        "geometry/atom_pos": mol.atom_coords(),
        "geometry/atomic_numbers": mol.atom_charges().astype(np.uint8),
        "of_labels/n_scf_steps": n_steps,
        "of_labels/basis": DENSITY_BASIS,
        "of_labels/spatial/dual_basis_integrals": np.tile(matrices.basis_integrals, (n_steps, 1)),
        "ks_labels/basis": ORBITAL_BASIS,
    }
    if integrals:
        labels["integrals/coulomb_matrix"] = matrices.coulomb_matrix
        labels["integrals/overlap_matrix"] = matrices.overlap_matrix
    write_labels(path, labels, density_basis_info())


def compute_all_labels(
    folder: Path,
    molecules: Sequence[str] = MOLECULES,
    seed: int = 2026,
    integrals: bool = False,
    processes: int = 1,
    console: Console | None = None,
) -> list[Path]:
    """Write the label files of several molecules, with a progress bar.

    Parameters
    ----------
    folder : Path
        Folder to write ``<molecule>.zarr.zip`` to; made if it is not there.
    molecules : sequence of str
        Names in ASE's G2 collection.
    seed, integrals
        See `compute_labels`.
    processes : int
        Number of molecules to compute at a time; the files do not depend on it.
    console : rich.console.Console, optional
        Where to show progress.

    Returns
    -------
    list of Path
        The files, in the order of `molecules`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.zarr.zip" for name in molecules]
    written = _written(paths, molecules, seed, integrals, processes)
    for _ in track(written, "Kohn-Sham calculations", len(paths), console=console):
        pass
    return paths


def _written(
    paths: Sequence[Path], molecules: Sequence[str], seed: int, integrals: bool, processes: int
) -> Iterator[None]:
    """Write the label files, and yield after each."""
    arguments = paths, molecules, repeat(seed), repeat(integrals)
    if processes == 1:
        yield from map(compute_labels, *arguments)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(compute_labels, *arguments)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder for the label files.")],
    molecule: Annotated[
        list[str] | None, typer.Option(help="Molecule of ASE's G2 collection; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random orientations.")] = 2026,
    integrals: Annotated[
        bool, typer.Option("--integrals", help="Add the matrices that a density optimiser needs.")
    ] = False,
    processes: Annotated[int, typer.Option(help="Number of molecules at a time.")] = 1,
) -> None:
    """Compute density labels of small organic molecules with PySCF."""
    paths = compute_all_labels(folder, molecule or MOLECULES, seed, integrals, processes)
    typer.echo(f"{folder}: {len(paths)} label files")


if __name__ == "__main__":
    typer.run(main)
