"""What a bias costs a step of OpenMM: nothing, an empty PythonForce, ours from Python and from C++.

``python -m benchmarks.openmm_overhead [--program build/cpp_demo/openmm/ofcv_openmm]``. Alanine
dipeptide, 22 atoms, a harmonic restraint of a 45-32-32-1 network on the distances of the heavy
atoms, float32, one thread. All runs of a platform take turns; the numbers are medians of five
rounds. The empty PythonForce reads the positions in nm, as in OpenMM's documentation, and returns
zeros.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import openmm
import torch
import typer
from openmm import unit
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import ofcv_export as ofcv
from benchmarks.timing import machine
from export_scripts.openmm_example import Molecule
from export_scripts.simulation import HEAVY_ATOMS
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.engines.openmm import openmm_force

PLATFORMS = ("Reference", "CPU")
SUFFIXES = (".pt", ".onnx", ".c", ".so", ".pt2")
CPP_SUFFIXES = (".pt", ".pt2", ".so")
N_ROUNDS = 5
STEPS_PER_ROUND = 400
TIMING = re.compile(r"timing +([\d.]+) us a step without the bias, ([\d.]+) with it")


def main(
    program: Annotated[Path | None, typer.Option(help="The built ofcv_openmm.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the table as .csv.")] = None,
) -> None:
    """Print one table for each platform."""
    torch.set_num_threads(1)
    console = Console(width=110)
    console.print(machine("openmm", "torch", "onnxruntime"))
    molecule = Molecule.equilibrated()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = export_restraint(molecule, folder)
        molecule.write(folder)
        for platform in PLATFORMS:
            found = measure(molecule, files, folder, platform, program)
            console.print(table_of(platform, found))
            rows += [(platform, *row) for row in found]
    if output is not None:
        lines = [",".join(map(str, row)) for row in rows]
        output.write_text("\n".join(["platform,force,step_us,overhead_us", *lines]) + "\n")


def export_restraint(molecule: Molecule, folder: Path) -> dict[str, Path]:
    """Return the restraint's files by suffix. The network is not trained: it costs the same."""
    torch.manual_seed(0)
    layers = [nn.Linear(45, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)]
    n_atoms = len(HEAVY_ATOMS)
    cv = ofcv.CollectiveVariable(
        PairDistances(all_pairs(n_atoms), n_atoms), nn.Sequential(*layers), HEAVY_ATOMS
    )
    restraint = ofcv.HarmonicRestraint(cv, centre=0.0, force_constant=10.0)
    files = {suffix: folder / f"restraint{suffix}" for suffix in SUFFIXES}
    for path in track(files.values(), description="Exporting"):
        ofcv.export(restraint, path, batch=1)
    return files


def measure(
    molecule: Molecule, files: dict[str, Path], folder: Path, platform: str, program: Path | None
) -> list[tuple[str, float, float]]:
    """Return name, time of a step and of its bias alone (µs) for each way to run it."""
    forces: dict[str, Callable[[openmm.System], openmm.Force] | None] = {
        "none": None,
        "empty PythonForce": empty_force,
    }
    for suffix, path in files.items():
        forces[f"PythonForce, {suffix}"] = lambda system, path=path: openmm_force(path, system)
    contexts = {name: start(molecule, make, platform) for name, make in forces.items()}
    times: dict[str, list[float]] = {name: [] for name in contexts}
    overheads: dict[str, list[float]] = {name: [] for name in contexts}
    for _ in track(range(N_ROUNDS), description=f"Timing on {platform}"):
        for name, context in contexts.items():
            times[name].append(microseconds_per_step(context))
            overheads[name].append(times[name][-1] - times["none"][-1])
        for suffix in CPP_SUFFIXES if program is not None else ():
            name = f"C++ force, {suffix}"
            assert program is not None
            without, with_bias = time_in_cpp(program, files[suffix], folder, platform)
            times.setdefault(name, []).append(with_bias)
            overheads.setdefault(name, []).append(with_bias - without)
    return [
        (name, statistics.median(times[name]), statistics.median(overheads[name])) for name in times
    ]


def empty_force(system: openmm.System) -> openmm.PythonForce:
    """Return a force that reads the positions and returns zeros."""
    zeros = np.zeros((system.getNumParticles(), 3))

    def compute(state: openmm.State) -> tuple[float, np.ndarray]:
        state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        return 0.0, zeros

    return openmm.PythonForce(compute)


def start(
    molecule: Molecule, make: Callable[[openmm.System], openmm.Force] | None, platform: str
) -> openmm.Context:
    """Return a context with the force, warmed up."""
    system = molecule.make_system()
    if make is not None:
        system.addForce(make(system))
    if platform == "CPU":
        openmm.Platform.getPlatformByName(platform).setPropertyDefaultValue("Threads", "1")
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    context = molecule.start(system, integrator, platform)
    integrator.step(50)
    return context


def microseconds_per_step(context: openmm.Context) -> float:
    """Return the median wall time of the steps of one round.

    Each step is timed on its own: other programs on the machine disturb some, but not the median.
    """
    integrator = context.getIntegrator()
    times = []
    for _ in range(STEPS_PER_ROUND):
        begin = time.perf_counter()
        integrator.step(1)
        times.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(times)


def time_in_cpp(program: Path, bias: Path, folder: Path, platform: str) -> tuple[float, float]:
    """Return the wall times of a step without and with the C++ force, by turns."""
    command = [program, "--system", folder / "system.xml", "--state", folder / "state.xml"]
    command += ["--bias", bias, "--platform", platform, "--integrator", "langevin"]
    command += ["--timestep", 2, "--steps", 50, "--timed-steps", 2000]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    found = TIMING.search(done.stdout)
    assert found is not None, done.stdout
    return float(found[1]), float(found[2])


def table_of(platform: str, rows: list[tuple[str, float, float]]) -> Table:
    """Return the table of one platform."""
    table = Table(title=f"{platform} platform, 22 atoms, one thread")
    overheads = {name: overhead for name, _, overhead in rows}
    peers = ("empty PythonForce", "PythonForce, .pt2")
    table.add_column("force")
    for heading in ("step (µs)", "overhead (µs)", *(f"{peer} / this" for peer in peers)):
        table.add_column(heading, justify="right")
    for name, step, overhead in rows:
        ratios = [f"{overheads[peer] / overhead:.2f}" for peer in peers] if overhead else ["", ""]
        table.add_row(name, f"{step:.1f}", f"{overhead:.1f}" if overhead else "", *ratios)
    return table


if __name__ == "__main__":
    typer.run(main)
