"""Alanine dipeptide in implicit solvent: a short, seeded OpenMM simulation.

Run it from the repository's root with ``python -m export_scripts.simulation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import numpy as np
import openmm
import typer
from openmm import app, unit
from rich.progress import track

PDB_PATH = Path(__file__).with_name("alanine_dipeptide.pdb")
FORCE_FIELD = ("amber99sbildn.xml", "amber99_obc.xml")

# Zero-based indices in the order of the PDB file.
HEAVY_ATOMS = (1, 4, 5, 6, 8, 10, 14, 15, 16, 18)
PHI = (4, 6, 8, 14)
PSI = (6, 8, 14, 16)
# The atoms that a rotation about N-CA (phi) and about CA-C (psi) carries along.
MOVED_BY_PHI = tuple(range(9, 22))
MOVED_BY_PSI = tuple(range(15, 22))

# Starting conformations (phi, psi) in degrees: alpha-R, on the side of phi < 0 where alpha-R, beta
# and C7eq exchange freely, and alpha-L, behind a barrier that a short simulation does not cross.
STARTS = ((-75.0, -20.0), (60.0, 40.0))


@dataclass(frozen=True)
class Trajectory:
    """Frames of a simulation, float64.

    Attributes
    ----------
    positions : numpy.ndarray
        Positions in nm, shape (n_frames, n_atoms, 3).
    potential_energies : numpy.ndarray
        Potential energies in kJ/mol, shape (n_frames,).
    phi, psi : numpy.ndarray
        Backbone torsions in degrees, in (-180, 180], shape (n_frames,).
    elements : tuple of str
        Chemical symbols, length n_atoms.
    """

    positions: np.ndarray
    potential_energies: np.ndarray
    phi: np.ndarray
    psi: np.ndarray
    elements: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the arrays into a compressed NumPy archive."""
        np.savez_compressed(
            path,
            positions=self.positions,
            potential_energies=self.potential_energies,
            phi=self.phi,
            psi=self.psi,
            elements=np.array(self.elements),
        )


def torsion(positions: np.ndarray, atoms: tuple[int, int, int, int]) -> np.ndarray:
    """Return a torsion angle in degrees by IUPAC's sign convention.

    Parameters
    ----------
    positions : numpy.ndarray
        Positions, shape (..., n_atoms, 3).
    atoms : tuple of int
        The four atoms a, b, c, d; the angle is about the bond b-c.

    Returns
    -------
    numpy.ndarray
        Angles in (-180, 180], shape (...).
    """
    a, b, c, d = (positions[..., atom, :] for atom in atoms)
    axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    normal_abc = np.cross(b - a, axis)
    normal_bcd = np.cross(axis, d - c)
    cosine = np.sum(normal_abc * normal_bcd, axis=-1)
    sine = np.sum(np.cross(normal_abc, normal_bcd) * axis, axis=-1)
    angles: np.ndarray = np.degrees(np.arctan2(sine, cosine))
    return angles


def basin_labels(phi: np.ndarray) -> np.ndarray:
    """Return 1 in the alpha-L region, 0 < phi < 130 degrees, and 0 elsewhere, int64."""
    return ((phi > 0.0) & (phi < 130.0)).astype(np.int64)


def rotate_torsion(
    positions: np.ndarray,
    atoms: tuple[int, int, int, int],
    moved: tuple[int, ...],
    target: float,
) -> np.ndarray:
    """Return positions (n_atoms, 3) with one torsion set to `target` degrees.

    The atoms in `moved`, those on the far side of the central bond, are turned about it by
    Rodrigues' formula.
    """
    angle = np.radians(target - torsion(positions, atoms))
    origin = positions[atoms[2]]
    axis = origin - positions[atoms[1]]
    axis = axis / np.linalg.norm(axis)
    arm = positions[list(moved)] - origin
    rotated = positions.copy()
    rotated[list(moved)] = (
        origin
        + arm * np.cos(angle)
        + np.cross(axis, arm) * np.sin(angle)
        + np.outer(arm @ axis, axis) * (1.0 - np.cos(angle))
    )
    return rotated


def conformation(positions: np.ndarray, phi: float, psi: float) -> np.ndarray:
    """Return positions (n_atoms, 3) with the backbone torsions set to `phi` and `psi` degrees."""
    return rotate_torsion(rotate_torsion(positions, PHI, MOVED_BY_PHI, phi), PSI, MOVED_BY_PSI, psi)


def simulate(
    n_frames: int = 2000,
    *,
    steps_per_frame: int = 100,
    n_equilibration_steps: int = 2000,
    temperature: float = 300.0,
    seed: int = 2026,
    platform: str = "Reference",
) -> Trajectory:
    """Simulate alanine dipeptide by Langevin dynamics in implicit solvent.

    Amber99SB-ILDN with OpenMM's native OBC generalised Born force, bonds to hydrogen constrained,
    time step 2 fs, friction 1/ps. The frames are divided evenly between two independent runs, one
    from each conformation in `STARTS`, each minimised and equilibrated first, so that both sides
    of the phi barrier are sampled; their relative weight is therefore not a Boltzmann weight.

    Parameters
    ----------
    n_frames : int
        Number of frames of both runs together.
    steps_per_frame : int
        Time steps between two saved frames.
    n_equilibration_steps : int
        Time steps before the first saved frame of each run.
    temperature : float
        Temperature in K.
    seed : int
        Seed of the first run; the second uses the next integer.
    platform : str
        OpenMM platform. "Reference" computes in double precision on one thread and is several
        times faster than "CPU" for a system as small as this one.

    Returns
    -------
    Trajectory
        The frames of the first run, then those of the second.

    Raises
    ------
    ValueError
        If there are fewer frames than starting conformations.
    """
    if n_frames < len(STARTS):
        raise ValueError(f"n_frames: expected at least {len(STARTS)}, got {n_frames}")
    pdb = app.PDBFile(str(PDB_PATH))
    system = app.ForceField(*FORCE_FIELD).createSystem(
        pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )
    initial = pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    run_of_frame = np.sort(np.arange(n_frames) % len(STARTS))

    positions = np.empty((n_frames, system.getNumParticles(), 3))
    energies = np.empty(n_frames)
    previous_run = -1
    for frame in track(range(n_frames), description="Simulating alanine dipeptide"):
        run = int(run_of_frame[frame])
        if run != previous_run:
            context, integrator = start_run(
                system, conformation(initial, *STARTS[run]), temperature, seed + run, platform
            )
            integrator.step(n_equilibration_steps)
            previous_run = run
        integrator.step(steps_per_frame)
        state = context.getState(getPositions=True, getEnergy=True)
        positions[frame] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        energies[frame] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)

    return Trajectory(
        positions=positions,
        potential_energies=energies,
        phi=torsion(positions, PHI),
        psi=torsion(positions, PSI),
        elements=tuple(atom.element.symbol for atom in pdb.topology.atoms()),
    )


def start_run(
    system: openmm.System, positions: np.ndarray, temperature: float, seed: int, platform: str
) -> tuple[openmm.Context, openmm.Integrator]:
    """Return a minimised context with velocities drawn at `temperature`, and its integrator."""
    integrator = openmm.LangevinMiddleIntegrator(
        temperature * unit.kelvin, 1.0 / unit.picosecond, 2.0 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, seed)
    return context, integrator


def write_extended_xyz(path: Path, trajectory: Trajectory, frames: np.ndarray) -> None:
    """Write the chosen frames as extended XYZ, all atoms, positions in angstrom.

    Parameters
    ----------
    path : Path
        File to write.
    trajectory : Trajectory
        Frames to choose from.
    frames : numpy.ndarray
        Indices of the frames to write, int64. phi and psi go into the comment line.
    """
    images = [
        ase.Atoms(
            symbols=trajectory.elements,
            positions=trajectory.positions[frame] * 10.0,
            info={"phi": float(trajectory.phi[frame]), "psi": float(trajectory.psi[frame])},
        )
        for frame in frames
    ]
    ase.io.write(path, images, format="extxyz")


def main(
    output: Path = Path("alanine_dipeptide.npz"),
    n_frames: int = 2000,
    temperature: float = 300.0,
    seed: int = 2026,
) -> None:
    """Simulate alanine dipeptide; save all frames, and every hundredth as extended XYZ."""
    trajectory = simulate(n_frames, temperature=temperature, seed=seed)
    trajectory.save(output)
    write_extended_xyz(output.with_suffix(".xyz"), trajectory, np.arange(0, n_frames, 100))
    n_alpha_l = int(basin_labels(trajectory.phi).sum())
    typer.echo(f"{output}: {n_frames} frames, {n_alpha_l} of them in the alpha-L region")


if __name__ == "__main__":
    typer.run(main)
