"""A nitrogen molecule, pulled off a copper surface by an exported moving restraint in ASE.

``python -m export_scripts.ase_example`` exports the restraint of the distance between the lower
nitrogen and the copper atom below it, adds it to ASE's EMT calculator, and prints how the distance
follows the centre and what the bias adds to the time of a step.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from rich.console import Console
from rich.table import Table
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.engines.ase import BiasedCalculator

PULLING_TIME = 0.5  # ps
PULL = 3.0  # Angstrom
PS = 1000 * units.fs

console = Console()


def nitrogen_on_copper() -> tuple[Atoms, list[int]]:
    """Return the relaxed system, its lower layers fixed, and the pair (copper, nitrogen)."""
    slab = fcc111("Cu", size=(4, 4, 3), vacuum=8.0)
    slab.pbc = [True, True, False]
    add_adsorbate(slab, molecule("N2"), height=1.85, position="ontop")
    slab.set_constraint(FixAtoms([atom.index for atom in slab if atom.tag > 1]))
    slab.calc = EMT()
    BFGS(slab, logfile=None).run(fmax=0.05)
    nitrogens = [atom.index for atom in slab if atom.symbol == "N"]
    lower = min(nitrogens, key=lambda index: slab.positions[index, 2])
    coppers = [atom.index for atom in slab if atom.symbol == "Cu"]
    below = min(coppers, key=lambda index: slab.get_distance(lower, index, mic=True))
    return slab, [below, lower]


def distance_restraint(atoms: Atoms, pair: list[int]) -> ofcv.MovingRestraint:
    """Return a restraint that takes the pair apart; at 100 K it fluctuates by 0.05 A."""
    distance = PairDistances(torch.tensor([[0, 1]]), n_atoms=2)
    elements = [atoms[index].symbol for index in pair]
    cv = ofcv.CollectiveVariable(distance, nn.Identity(), pair, "angstrom", elements)
    start = atoms.get_distance(*pair, mic=True)
    force_constant = units.kB * 100.0 / 0.05**2
    return ofcv.MovingRestraint(
        cv, [0.0, PULLING_TIME], [start, start + PULL], [force_constant] * 2, energy_unit="eV"
    )


def pull(atoms: Atoms, pair: list[int], path: Path, seed: int) -> None:
    """Run with the restraint and print how the distance follows the centre."""
    calculator = BiasedCalculator(path, atoms, EMT())
    atoms.calc = calculator
    start = atoms.get_distance(*pair, mic=True)
    dynamics = Langevin(
        atoms,
        1.0 * units.fs,
        temperature_K=100.0,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=np.random.default_rng(seed),
    )
    # ASE's calculators know no time, so the dynamics tells the bias.
    dynamics.attach(lambda: calculator.set_parameter("time", dynamics.get_time() / PS))

    table = Table("time (ps)", "centre (A)", "distance (A)", "energy (eV)")
    n_steps = round(PULLING_TIME / 0.001)
    for _ in dynamics.irun(n_steps):
        if dynamics.nsteps % (n_steps // 5) == 0:
            now = dynamics.get_time() / PS
            centre = start + PULL * now / PULLING_TIME
            distance = atoms.get_distance(*pair, mic=True)
            values = (now, centre, distance, atoms.get_potential_energy())
            table.add_row(*(f"{value:.2f}" for value in values))
    console.print(table)


def time_per_step(atoms: Atoms, calculator: Calculator, n_steps: int) -> float:
    """Return the time of a step at constant energy in microseconds."""
    system = atoms.copy()
    system.calc = calculator
    dynamics = VelocityVerlet(system, 1.0 * units.fs)
    dynamics.run(1)
    start = time.perf_counter()
    dynamics.run(n_steps)
    return 1e6 * (time.perf_counter() - start) / n_steps


def print_overhead(atoms: Atoms, path: Path, n_steps: int) -> None:
    """Time steps with and without the bias in turns, and print the medians."""
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(5):
        times["without"].append(time_per_step(atoms, EMT(), n_steps))
        biased_calculator = BiasedCalculator(path, atoms, EMT())
        times["with"].append(time_per_step(atoms, biased_calculator, n_steps))
    without, biased = (float(np.median(values)) for values in times.values())
    console.print(
        f"{len(atoms)} atoms, EMT, one thread: {without:.0f} µs a step without the bias, "
        f"{biased:.0f} µs with it: {biased - without:.0f} µs more"
    )


def main(
    output: Annotated[Path, typer.Option(help="Folder for what it writes.")] = Path("ase_output"),
    suffix: Annotated[str, typer.Option(help="Format: .pt, .onnx or .pt2.")] = ".pt",
    n_steps: Annotated[int, typer.Option(min=1, help="Steps of each timed run.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 2026,
) -> None:
    """Pull a nitrogen molecule off a copper surface with an exported restraint."""
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    atoms, pair = nitrogen_on_copper()
    path = output / f"pull{suffix}"
    console.print(str(ofcv.export(distance_restraint(atoms, pair), path, batch=1)))
    pull(atoms, pair, path, seed)
    print_overhead(atoms, path, n_steps)


if __name__ == "__main__":
    typer.run(main)
