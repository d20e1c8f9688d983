"""The figure docs/nve.png: total energy against time, with and without an exported bias.

``python -m export_scripts.nve`` runs alanine dipeptide at constant energy (Verlet, 0.5 fs, no
constraints, double precision) three times from one state: unbiased, with the bias as a PythonForce,
and with the bias as a C++ force.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import numpy as np
import openmm
import torch
import typer
from openmm import unit
from rich.console import Console
from rich.table import Table

import ofcv_export as ofcv
from export_scripts.figures import figure
from export_scripts.openmm_example import Molecule, trained_cv
from export_scripts.simulation import HEAVY_ATOMS
from ofcv_export.engines.openmm import openmm_force

TIMESTEP = 0.0005  # ps
STEPS_PER_REPORT = 20
# Okabe-Ito, as in the other figures.
COLOURS = {"without bias": "0.5", "Python force": "#0072B2", "C++ force": "#D55E00"}


def starting_value(cv: ofcv.CollectiveVariable, molecule: Molecule) -> float:
    """Return the collective variable in the state that the runs start from."""
    state = openmm.XmlSerializer.deserialize(molecule.state)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return cv(torch.from_numpy(positions[None, HEAVY_ATOMS])).item()


def total_energies(molecule: Molecule, n_steps: int, path: Path | None) -> np.ndarray:
    """Return the total energy in kJ/mol at every report, from Python."""
    system = molecule.make_system()
    if path is not None:
        system.addForce(openmm_force(path, system, molecule.topology))
    integrator = openmm.VerletIntegrator(TIMESTEP)
    context = molecule.start(system, integrator)
    energies = []
    for step in range(0, n_steps + 1, STEPS_PER_REPORT):
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole))
        if step < n_steps:
            integrator.step(STEPS_PER_REPORT)
    return np.array(energies)


def total_energies_in_cpp(
    molecule: Molecule, n_steps: int, path: Path, program: Path, folder: Path
) -> np.ndarray:
    """Return the total energy in kJ/mol at every report, from C++."""
    system, state = molecule.write(folder)
    command = [program, "--system", system, "--state", state, "--bias", path]
    command += ["--timestep", 1000 * TIMESTEP, "--steps", n_steps, "--interval", STEPS_PER_REPORT]
    subprocess.run([*map(str, command), "--energies", str(folder / "nve.csv")], check=True)
    table = np.genfromtxt(folder / "nve.csv", delimiter=",", names=True)
    total: np.ndarray = table["potential"] + table["kinetic"]
    return total


def plot(path: Path, time: np.ndarray, runs: dict[str, np.ndarray]) -> None:
    """Plot each run's change in total energy, one panel a run on one scale."""
    with figure(path, len(runs), (3.6 * len(runs), 3.0)) as axes:
        limit = 1.1 * max(np.abs(energies - energies.mean()).max() for energies in runs.values())
        for axis, (name, energies) in zip(axes, runs.items(), strict=True):
            axis.plot(time, energies - energies.mean(), color=COLOURS[name], linewidth=0.4)
            axis.axhline(0.0, color="black", linewidth=0.6)
            axis.set(xlabel="time (ps)", ylim=(-limit, limit), title=name)
        axes[0].set_ylabel("total energy minus mean (kJ/mol)")


def table_of(time: np.ndarray, runs: dict[str, np.ndarray]) -> Table:
    """Return drift and fluctuation of each run."""
    table = Table("run", "drift (kJ/mol/ns)", "its standard error", "fluctuation (kJ/mol)")
    for name, energies in runs.items():
        slope, error = drift(time, energies)
        table.add_row(name, f"{slope:.2f}", f"{error:.2f}", f"{energies.std():.4f}")
    return table


def drift(time: np.ndarray, energies: np.ndarray, n_blocks: int = 20) -> tuple[float, float]:
    """Return the slope in kJ/mol/ns of blocks' means against time, and its standard error."""
    size = len(time) // n_blocks * n_blocks
    blocks = [values[:size].reshape(n_blocks, -1).mean(1) for values in (time, energies)]
    (slope, _), covariance = np.polyfit(*blocks, 1, cov=True)
    return 1000 * slope, 1000 * float(np.sqrt(covariance[0, 0]))


def main(
    program: Annotated[Path, typer.Option(help="The built ofcv_openmm.")] = Path(
        "build/cpp_demo/openmm/ofcv_openmm"
    ),
    output: Annotated[Path, typer.Option(help="Folder for what it writes.")] = Path(
        "openmm_output"
    ),
    figure_path: Annotated[Path, typer.Option("--figure", help="The figure.")] = Path(
        "docs/nve.png"
    ),
    length: Annotated[float, typer.Option(help="Length of a run in ps.")] = 50.0,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 2026,
) -> None:
    """Make the figure and print the drift of each run."""
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    molecule = Molecule.equilibrated(constraints=None, seed=seed)
    cv, (low, high) = trained_cv(molecule, seed=seed, dtype=torch.float64)
    # Stiff, around where the run starts: it lets z fluctuate by 4 % of the way to alpha-L.
    restraint = ofcv.HarmonicRestraint(cv, starting_value(cv, molecule), 2000.0 / (high - low) ** 2)
    path = output / "restraint.pt2"
    ofcv.export(restraint, path, batch=1)

    n_steps = round(length / TIMESTEP) // STEPS_PER_REPORT * STEPS_PER_REPORT
    runs = {
        "without bias": total_energies(molecule, n_steps, None),
        "Python force": total_energies(molecule, n_steps, path),
        "C++ force": total_energies_in_cpp(molecule, n_steps, path, program, output),
    }
    time = np.arange(0, n_steps + 1, STEPS_PER_REPORT) * TIMESTEP
    plot(figure_path, time, runs)
    Console().print(table_of(time, runs))


if __name__ == "__main__":
    typer.run(main)
