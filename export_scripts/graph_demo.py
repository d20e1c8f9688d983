"""NaCl in water in OpenMM, restrained along a network over the graph of ions and oxygens.

``python -m export_scripts.graph_demo`` simulates bound and unbound ions with OpenMM's own force
field, trains a small SchNet to tell them apart, exports a restraint of it, checks forces and virial
against differences and against OpenMM's own restraint, and runs it at constant pressure: from
Python and, where ``--program`` names the built ``ofcv_openmm``, from C++ with no Python in it.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

import ofcv_export as ofcv
from export_scripts.figures import figure
from export_scripts.graph_checks import TOLERANCE, all_errors, contribution
from export_scripts.ion_network import IonDistance, graphs_of, train, values_of, variable
from export_scripts.salt_water import (
    IONS,
    STEPS_PER_FRAME,
    TEMPERATURE,
    TIMESTEP,
    Frames,
    SaltWater,
    own_restraint,
)
from ofcv_export.engines.openmm import openmm_force

N_WATERS = 216
# Distances of the ions in the frames to train on, nm.
SIDES = {"bound": 0.27, "unbound": 0.55}
# At 300 K the learned variable fluctuates by 5 % of the way from one side, -1, to the other, 1.
THERMAL_ENERGY = 2.494  # kJ/mol
FORCE_CONSTANT = THERMAL_ENERGY / (0.05 * 2.0) ** 2
# The distance's restraint pulls on the ions on both sides, kJ/mol/nm^2 and nm.
STIFFNESS, CENTRE = 1000.0, 0.4
# Okabe-Ito, as in the other figures.
COLOURS = ("#D55E00", "#009E73", "#0072B2")
ERROR = "  {:<48}{:.1e}"

console = Console()


def export_all(learned: ofcv.Bias, distance: ofcv.Bias, folder: Path) -> tuple[Path, Path]:
    """Export and verify both restraints; return the compiled learned one, and the distance's."""
    path, distance_path = folder / "restraint.pt2", folder / "distance.pt"
    jobs = [(learned, path.with_suffix(".pt")), (distance, distance_path), (learned, path)]
    for bias, file in track(jobs, description=f"{'Exporting and verifying':<36}", console=console):
        console.print(str(ofcv.export(bias, file)))
    return path, distance_path


def run_in_cpp(
    water: SaltWater, path: Path, program: Path, folder: Path, n_frames: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run with the C++ force; return bias in kJ/mol and temperature in K of start and frames."""
    system, state = water.write(folder)
    command = [program, "--system", system, "--state", state, "--bias", path, "--platform", "CPU"]
    command += ["--integrator", "langevin", "--timestep", 1000 * TIMESTEP, "--seed", seed]
    command += ["--temperature", TEMPERATURE, "--threads", os.cpu_count() or 1]
    command += ["--steps", n_frames * STEPS_PER_FRAME, "--interval", STEPS_PER_FRAME]
    subprocess.run([*map(str, command), "--energies", str(folder / "energies.csv")], check=True)
    table = np.genfromtxt(folder / "energies.csv", delimiter=",", names=True)
    return table["bias"], water.temperatures(table["kinetic"])


def report(name: str, sizes: dict[str, np.ndarray]) -> None:
    """Print mean and standard error of a run's second half, from the means of four blocks."""
    console.print(f"{name}, mean of the second half:")
    for what, values in sizes.items():
        parts = np.array_split(values[len(values) // 2 :], 4)
        means = np.array([part.mean() for part in parts])
        error = means.std(ddof=1) / 2
        decimals = max(0, 1 - math.floor(math.log10(error)))
        console.print(f"  {what:<28}{means.mean():.{decimals}f} ± {error:.{decimals}f}")


def require_small(errors: dict[str, float]) -> None:
    """Raise ValueError unless all errors are below the tolerance."""
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise ValueError(f"{name}: expected an error of at most {TOLERANCE:g}, got {error:.1e}")


def require_sane(name: str, bias: np.ndarray, temperatures: np.ndarray) -> None:
    """Raise ValueError unless a run kept its temperature (K) and its restraint (kJ/mol)."""
    half = len(bias) // 2
    found, energy = temperatures[half:].mean(), bias[half:].mean()
    if not abs(found - TEMPERATURE) < 0.05 * TEMPERATURE:
        raise ValueError(f"{name}: expected a temperature of {TEMPERATURE:g} K, got {found:.0f} K")
    if not energy < 3 * THERMAL_ENERGY:
        raise ValueError(
            f"{name}: expected a mean bias below {3 * THERMAL_ENERGY:.1f} kJ/mol, got {energy:.1f}"
        )


def plot(
    path: Path,
    restrained: Frames,
    values: np.ndarray,
    sides: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Plot variable and volume along the restrained run, and the variable against the distance."""
    times = STEPS_PER_FRAME * TIMESTEP * np.arange(1, len(values) + 1)
    with figure(path, 3, (10.8, 3.2)) as (along, volume, against):
        along.plot(times, values, color=COLOURS[2], linewidth=0.9)
        along.axhline(0.0, color="black", linewidth=0.6)
        along.set(xlabel="time (ps)", ylabel="learned variable", ylim=(-1.2, 1.2))
        volume.plot(times, restrained.volumes, color=COLOURS[2], linewidth=0.9)
        volume.set(xlabel="time (ps)", ylabel="volume (nm³)")
        seen = sides | {"restrained": (restrained.distances, values)}
        for (name, dots), colour in zip(seen.items(), COLOURS, strict=True):
            against.plot(*dots, "o", markersize=3, color=colour, label=name)
        against.set(xlabel="Na-Cl distance (nm)", ylabel="learned variable", ylim=(-1.2, 1.2))
        against.legend(loc="lower right", handletextpad=0.1)


def main(
    output: Annotated[Path, typer.Option(help="Folder for what it writes.")] = Path("graph_output"),
    program: Annotated[Path | None, typer.Option(help="The built ofcv_openmm.")] = None,
    n_frames: Annotated[int, typer.Option(min=10, help="Frames of each side to train on.")] = 60,
    length: Annotated[float, typer.Option(min=2.0, help="Restrained run, in ps.")] = 30.0,
    seed: Annotated[int, typer.Option(min=1, help="Seed of all random numbers.")] = 2026,
) -> None:
    """Restrain Na+ and Cl- in water along a learned variable of the graph around them."""
    torch.set_num_threads(1)
    began = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    water = SaltWater.solvated(N_WATERS, n_frames, seed)
    runs, ends = {}, {}
    for name, distance in SIDES.items():
        own, title = own_restraint(distance), f"Simulating {name} ions"
        runs[name], ends[name] = water.run(own, n_frames, seed, title)
    graphs = {name: graphs_of(frames, water) for name, frames in runs.items()}
    labels = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat_interleave(n_frames)
    network, accuracy = train(list(chain(*graphs.values())), labels, seed)
    console.print(f"{accuracy:.1%} of held-out frames on the right side of 0")

    cv = variable(network, water)
    learned = ofcv.HarmonicRestraint(cv, 0.0, FORCE_CONSTANT)
    of_distance = ofcv.HarmonicRestraint(variable(IonDistance(), water), CENTRE, STIFFNESS)
    path, distance_path = export_all(learned, of_distance, output)
    middle, own = n_frames // 2, own_restraint(CENTRE, STIFFNESS)
    places = [(frames.positions[middle].copy(), frames.boxes[middle]) for frames in runs.values()]
    # In one of the frames the nearest image of Cl- is another than the one with the coordinates.
    places[-1][0][IONS[1]] += places[-1][1].sum(0)
    errors = all_errors(water, path, distance_path, own, places)
    console.print("Largest relative errors:")
    for name, error in errors.items():
        console.print(ERROR.format(name, error))

    start, n_saved = ends["bound"], round(length / (STEPS_PER_FRAME * TIMESTEP))
    force = openmm_force(path, water.make_system(), water.topology)
    restrained, _ = start.run(force, n_saved, seed, "Restrained run from Python")
    values = values_of(cv, graphs_of(restrained, water))
    bias, temperatures = 0.5 * FORCE_CONSTANT * values**2, water.temperatures(restrained.kinetic)
    sizes = {
        "bias (kJ/mol)": bias,
        "temperature (K)": temperatures,
        "variable": values,
        "Na-Cl distance (nm)": restrained.distances,
        "potential energy (kJ/mol)": restrained.potential,
        "volume (nm^3)": restrained.volumes,
        "pressure (bar)": restrained.pressures,
    }
    report("Python", sizes)
    checked = {"Python": (bias, temperatures)}
    if program is not None:
        console.print("The same run from C++")
        checked["C++"] = run_in_cpp(start, path, program, output, n_saved, seed)
        report("C++", dict(zip(sizes, checked["C++"], strict=False)))
        expected = contribution(start, path).energy(*start.place)
        name = "bias at the start, from C++ against Python"
        errors[name] = abs(checked["C++"][0][0] / expected - 1)
        console.print(ERROR.format(name, errors[name]))
    seen = {name: (frames.distances, values_of(cv, graphs[name])) for name, frames in runs.items()}
    plot(output / "graph.png", restrained, values, seen)
    console.print(f"Files and figure are in {output}, made in {time.monotonic() - began:.0f} s")
    try:
        require_small(errors)
        for name, found in checked.items():
            require_sane(name, *found)
    except ValueError as error:
        console.print(f"[bold red]error[/] {error}")
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
