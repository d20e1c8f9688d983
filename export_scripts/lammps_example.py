"""A chain in liquid argon, stretched by an exported moving restraint in LAMMPS.

``python -m export_scripts.lammps_example`` exports the restraint of the chain's end-to-end
distance, runs it through ``fix external``, and prints how the distance follows the centre and what
the bias adds to the time of a step.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.engines.lammps import LammpsBias, import_lammps

N_BEADS = 8
PULLING_TIME = 5.0  # ps
ENDS = (4.0, 9.0)  # Angstrom
TIMESTEP = 0.002  # ps

console = Console()


def end_to_end_restraint() -> ofcv.MovingRestraint:
    """Return a restraint that stretches the chain; at 120 K the distance fluctuates by 0.2 A."""
    distance = PairDistances(torch.tensor([[0, 1]]), n_atoms=2)
    cv = ofcv.CollectiveVariable(
        distance, nn.Identity(), atoms=[0, N_BEADS - 1], length_unit="angstrom"
    )
    force_constant = 0.238 / 0.2**2
    return ofcv.MovingRestraint(
        cv, [0.0, PULLING_TIME], list(ENDS), [force_constant] * 2, energy_unit="kcal/mol"
    )


def chain_in_argon(n_cells: int, seed: int) -> Any:
    """Return a LAMMPS with a curled chain, IDs 1 to N_BEADS, in argon at 120 K."""
    lmp = import_lammps().lammps(cmdargs=["-screen", "none", "-log", "none"])
    lmp.commands_string(f"""
        units real
        atom_style bond
        atom_modify map array
        lattice fcc 5.5
        region box block 0 {n_cells} 0 {n_cells} 0 {n_cells}
        create_box 2 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 8
        mass 1 14.027
        mass 2 39.948
        """)
    middle = 0.5 * n_cells * 5.5
    # Half a turn of a circle whose ends are 4 A apart.
    angles = np.linspace(0, 1.6 * np.pi, N_BEADS)
    beads = middle + 2.6 * np.stack([np.cos(angles), np.sin(angles), 0.1 * angles], axis=1)
    lmp.create_atoms(N_BEADS, list(range(1, N_BEADS + 1)), [1] * N_BEADS, beads.flatten().tolist())
    lmp.commands_string("""
        create_atoms 2 box
        group chain type 1
        group argon type 2
        bond_style harmonic
        bond_coeff 1 100.0 1.53
        pair_style lj/cut 8.5
        pair_coeff * * 0.238 3.4
        special_bonds lj 0.0 0.0 1.0
        delete_atoms overlap 3.0 argon chain
        """)
    lmp.commands_list([f"create_bonds single/bond 1 {tag} {tag + 1}" for tag in range(1, N_BEADS)])
    lmp.commands_string(f"""
        timestep {1000 * TIMESTEP}
        thermo 1000
        minimize 1e-4 1e-6 200 1000
        velocity all create 120.0 {seed} loop geom
        fix nve all nve
        fix heat all langevin 120.0 120.0 500.0 {seed}
        run 1000
        reset_timestep 0 time 0.0
        """)
    return lmp


def end_to_end(lmp: Any) -> float:
    """Return the end-to-end distance in Angstrom, at the nearest image."""
    rows = {tag: row for row, tag in enumerate(lmp.numpy.extract_atom("id"))}
    positions = lmp.numpy.extract_atom("x")
    vector = positions[rows[N_BEADS]] - positions[rows[1]]
    low, high = map(np.array, lmp.extract_box()[:2])
    return float(np.linalg.norm(vector - (high - low) * np.round(vector / (high - low))))


def stretch(lmp: Any, path: Path) -> None:
    """Run with the restraint and print how the distance follows the centre."""
    bias = LammpsBias(lmp, path)
    table = Table("time (ps)", "centre (A)", "distance (A)", "bias (kcal/mol)")
    for part in range(6):
        share = part / 5
        if part > 0:
            lmp.command(f"run {round(0.2 * PULLING_TIME / TIMESTEP)} post no")
        else:
            lmp.command("run 0 post no")
        centre = ENDS[0] + share * (ENDS[1] - ENDS[0])
        values = (share * PULLING_TIME, centre, end_to_end(lmp), bias.energy)
        table.add_row(*(f"{value:.2f}" for value in values))
    bias.remove()
    console.print(table)


def time_per_step(lmp: Any, n_steps: int) -> float:
    """Return the time of a step in microseconds."""
    lmp.command("run 0 post no")
    start = time.perf_counter()
    lmp.command(f"run {n_steps} pre no post no")
    return 1e6 * (time.perf_counter() - start) / n_steps


def print_overhead(lmp: Any, path: Path, n_steps: int) -> None:
    """Time steps with and without the bias in turns, and print the medians."""
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(5):
        times["without"].append(time_per_step(lmp, n_steps))
        bias = LammpsBias(lmp, path)
        times["with"].append(time_per_step(lmp, n_steps))
        bias.remove()
    without, biased = (float(np.median(values)) for values in times.values())
    console.print(
        f"{lmp.get_natoms()} atoms, one thread: {without:.0f} µs a step without the bias, "
        f"{biased:.0f} µs with it: {biased - without:.0f} µs more"
    )


def main(
    output: Annotated[Path, typer.Option(help="Folder for what it writes.")] = Path(
        "lammps_output"
    ),
    suffix: Annotated[str, typer.Option(help="Format: .pt, .onnx or .pt2.")] = ".pt",
    n_cells: Annotated[int, typer.Option(min=4, help="Argon unit cells along each edge.")] = 6,
    n_steps: Annotated[int, typer.Option(min=1, help="Steps of each timed run.")] = 1000,
    seed: Annotated[int, typer.Option(min=1, help="Seed of all random numbers.")] = 2026,
) -> None:
    """Stretch a chain in liquid argon with an exported restraint."""
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"stretch{suffix}"
    console.print(str(ofcv.export(end_to_end_restraint(), path, batch=1)))
    lmp = chain_in_argon(n_cells, seed)
    stretch(lmp, path)
    print_overhead(lmp, path, n_steps)


if __name__ == "__main__":
    typer.run(main)
