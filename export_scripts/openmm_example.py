"""Alanine dipeptide in OpenMM, pulled from alpha-R to alpha-L along a trained collective variable.

``python -m export_scripts.openmm_example`` simulates a little, trains a network on the distances
of the heavy atoms, exports a moving restraint of it, and runs it in OpenMM from Python and, where
``--program`` names the built ``ofcv_openmm``, from C++ with no Python in the loop.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import openmm
import torch
import typer
from openmm import app, unit
from rich.console import Console

import ofcv_export as ofcv
from export_scripts.simulation import (
    FORCE_FIELD,
    HEAVY_ATOMS,
    MOVED_BY_PHI,
    PDB_PATH,
    PHI,
    STARTS,
    basin_labels,
    conformation,
    rotate_torsion,
    simulate,
    start_run,
    torsion,
)
from export_scripts.train import pair_distances, train_committor_like
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.engines.openmm import openmm_force

PULLING_TIME = 50.0  # ps
# A stiff bias on a molecule that it bends wants half of the usual 2 fs.
TIMESTEP = 0.001  # ps
# Degrees of phi.
ALPHA_L = (0.0, 130.0)

console = Console()


@dataclass(frozen=True)
class Molecule:
    """Alanine dipeptide in implicit solvent, in a state to start from.

    Attributes
    ----------
    topology : openmm.app.Topology
        Atoms and elements.
    system : str
        The system, as XML.
    state : str
        Equilibrated positions and velocities in the alpha-R basin, as XML.
    """

    topology: app.Topology
    system: str
    state: str

    @classmethod
    def equilibrated(cls, constraints: object = app.HBonds, seed: int = 2026) -> Molecule:
        """Return the molecule after 4 ps at 300 K, its time set back to 0."""
        pdb = app.PDBFile(str(PDB_PATH))
        system = app.ForceField(*FORCE_FIELD).createSystem(
            pdb.topology,
            nonbondedMethod=app.NoCutoff,
            constraints=constraints,
            removeCMMotion=False,
        )
        positions = pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        context, integrator = start_run(
            system, conformation(positions, *STARTS[0]), 300.0, seed, "Reference"
        )
        integrator.setStepSize(0.001)
        integrator.step(4000)
        context.setTime(0.0)
        state = context.getState(positions=True, velocities=True)
        serialize = openmm.XmlSerializer.serialize
        return cls(pdb.topology, serialize(system), serialize(state))

    def elements(self) -> list[str]:
        """Return the chemical symbols of the heavy atoms."""
        atoms = list(self.topology.atoms())
        return [atoms[index].element.symbol for index in HEAVY_ATOMS]

    def make_system(self) -> openmm.System:
        """Return a system of one's own, to add forces to."""
        return openmm.XmlSerializer.deserialize(self.system)

    def start(
        self, system: openmm.System, integrator: openmm.Integrator, platform: str = "Reference"
    ) -> openmm.Context:
        """Return a context in the state to start from."""
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
        context.setState(openmm.XmlSerializer.deserialize(self.state))
        return context

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write system and state for the C++ program; return where they are."""
        system, state = folder / "system.xml", folder / "state.xml"
        system.write_text(self.system)
        state.write_text(self.state)
        return system, state


def trained_cv(
    molecule: Molecule, n_frames: int = 400, seed: int = 2026, dtype: torch.dtype = torch.float32
) -> tuple[ofcv.CollectiveVariable, tuple[float, float]]:
    """Return a network trained to tell alpha-L from the rest, and its mean values on both sides.

    A simulation stays in the basins. Between them the network would say what it likes, and a bias
    on it would bend the molecule instead of turning it. So it sees every frame a second time, with
    phi turned to any angle.
    """
    frames = simulate(n_frames, seed=seed)
    angles = np.random.default_rng(seed).uniform(-180.0, 180.0, n_frames)
    turned = [
        rotate_torsion(frame, PHI, MOVED_BY_PHI, angle)
        for frame, angle in zip(frames.positions, angles, strict=True)
    ]
    positions = torch.from_numpy(frames.positions[:, HEAVY_ATOMS])
    seen = torch.cat([positions, torch.from_numpy(np.stack(turned)[:, HEAVY_ATOMS])])
    labels = torch.from_numpy(basin_labels(np.concatenate([frames.phi, angles])))
    trained = train_committor_like(pair_distances(seen), labels, seed=seed)
    cv = ofcv.CollectiveVariable(
        PairDistances(all_pairs(len(HEAVY_ATOMS)), len(HEAVY_ATOMS)),
        trained.network.to(dtype),
        HEAVY_ATOMS,
        "nm",
        molecule.elements(),
    )
    with torch.no_grad():
        z = cv(positions.to(dtype)).squeeze(1).double()
    labels = labels[:n_frames]
    return cv, (z[labels == 0].mean().item(), z[labels == 1].mean().item())


def moving_restraint(
    cv: ofcv.CollectiveVariable, ends: tuple[float, float]
) -> ofcv.MovingRestraint:
    """Return a restraint that takes the collective variable from one side to the other.

    At 300 K it lets it fluctuate by 5 % of the way.
    """
    thermal_energy = 2.494
    force_constant = thermal_energy / (0.05 * (ends[1] - ends[0])) ** 2
    return ofcv.MovingRestraint(cv, [0.0, PULLING_TIME], list(ends), [force_constant] * 2)


def run_in_python(molecule: Molecule, path: Path, seed: int) -> np.ndarray:
    """Run with the PythonForce; return phi in degrees after every picosecond."""
    system = molecule.make_system()
    system.addForce(openmm_force(path, system, molecule.topology))
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    context = molecule.start(system, integrator)
    frames = []
    for _ in range(round(PULLING_TIME) + 1):
        state = context.getState(positions=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        integrator.step(round(1.0 / TIMESTEP))
    return torsion(np.stack(frames), PHI)


def run_in_cpp(
    molecule: Molecule, path: Path, program: Path, folder: Path, seed: int
) -> np.ndarray:
    """Run with the C++ force; return phi in degrees after every picosecond."""
    system, state = molecule.write(folder)
    steps_per_frame = round(1.0 / TIMESTEP)
    command = [program, "--system", system, "--state", state, "--bias", path]
    command += ["--integrator", "langevin", "--timestep", 1000 * TIMESTEP, "--seed", seed]
    command += ["--steps", round(PULLING_TIME) * steps_per_frame, "--interval", steps_per_frame]
    command += ["--energies", folder / "energies.csv", "--positions", folder / "positions.npy"]
    subprocess.run([*map(str, command), "--timed-steps", "20000"], check=True)
    return torsion(np.load(folder / "positions.npy"), PHI)


def last_angle(phi: np.ndarray) -> float:
    """Return the mean direction of the last five angles, in degrees."""
    return float(np.degrees(np.angle(np.exp(1j * np.radians(phi[-5:])).mean())))


def require_alpha_l(name: str, phi: np.ndarray) -> None:
    """Raise ValueError unless a run, angles in degrees, ended in the alpha-L region."""
    last = last_angle(phi)
    if not ALPHA_L[0] < last < ALPHA_L[1]:
        low, high = ALPHA_L
        raise ValueError(
            f"{name}: expected phi between {low:.0f}° and {high:.0f}° (alpha-L) at the end, "
            f"got {last:.0f}°"
        )


def main(
    output: Annotated[Path, typer.Option(help="Folder for what it writes.")] = Path(
        "openmm_output"
    ),
    program: Annotated[Path | None, typer.Option(help="The built ofcv_openmm.")] = None,
    n_frames: Annotated[int, typer.Option(min=40, help="Frames to train on.")] = 400,
    seed: Annotated[int, typer.Option(min=1, help="Seed of all random numbers.")] = 2026,
) -> None:
    """Pull alanine dipeptide over the phi barrier with an exported restraint."""
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    molecule = Molecule.equilibrated(seed=seed)
    cv, ends = trained_cv(molecule, n_frames, seed, torch.float64)
    path = output / "pull.pt2"
    console.print(str(ofcv.export(moving_restraint(cv, ends), path, batch=1)))
    runs = {"Python": run_in_python(molecule, path, seed)}
    if program is not None:
        runs["C++"] = run_in_cpp(molecule, path, program, output, seed)
    for name, phi in runs.items():
        last = last_angle(phi)
        console.print(f"{name}: phi = {phi[0]:.0f}° at the start, {last:.0f}° at the end")
    try:
        for name, phi in runs.items():
            require_alpha_l(name, phi)
    except ValueError as error:
        console.print(f"[bold red]error[/] {error}")
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
