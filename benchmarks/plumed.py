"""What a CV costs a step of PLUMED: as an action of its own, as OFCV, and as PYTORCH_MODEL.

``python -m benchmarks.plumed [--library build/plumed/OFCV.so]``. All pair distances, a tanh network
in float32 and one CV with a RESTRAINT, one thread. Times are those of whole steps of PLUMED as
`plumed benchmark` measures them, each input in a process of its own and all in turns: the fastest
step, which other programs did not disturb, and the mean step of the calmest turn. A step without
any CV is listed as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

import ofcv_export as ofcv
from benchmarks.timing import machine
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.engines.plumed import CONTRACT, ofcv_input, pytorch_model_input

SIZES = ((10, 32), (50, 64))
RESTRAINT = "RESTRAINT ARG=cv.node-0 AT=0 KAPPA=1\n"
N_TURNS = 5
# Cycles, total, average, minimum in seconds.
PART = re.compile(r"^BENCH:\s+B3 Calculation part 2\s+(\d+)\s+([\d.]+)\s+[\d.]+\s+([\d.]+)", re.M)


def main(
    library: Annotated[Path, typer.Option(help="The built OFCV.so.")] = Path(
        "build/plumed/OFCV.so"
    ),
    n_steps: Annotated[int, typer.Option(help="Steps of each turn.")] = 5000,
) -> None:
    """Print one table."""
    plumed = _plumed()
    if not library.exists():
        sys.exit(f"library: expected {library}, got none (see docs/engines/plumed.md)")
    table = Table("network", "input", "fastest, µs", "mean, µs", "PYTORCH_MODEL / this, fastest")
    with tempfile.TemporaryDirectory() as folder:
        for n_atoms, n_hidden in SIZES:
            inputs = write_inputs(Path(folder), n_atoms, n_hidden, library.resolve())
            times = step_times(plumed, Path(folder), list(inputs.values()), n_atoms, n_steps)
            network = f"{n_atoms * (n_atoms - 1) // 2}-{n_hidden}-{n_hidden}-1"
            for name, (fastest, mean) in zip(inputs, times, strict=True):
                is_ours = name.startswith(("OFCV", "CV"))
                ratio = f"{times[1][0] / fastest:.1f}x" if is_ours else ""
                table.add_row(network, name, f"{fastest:.0f}", f"{mean:.1f}", ratio)
            table.add_section()
    console = Console(width=100)
    console.print(machine("torch"))
    console.print(table)


def _plumed() -> str:
    """Return the program, or end with the reason why nothing can be measured."""
    plumed = shutil.which("plumed")
    if plumed is None:
        sys.exit("plumed: expected the program on the PATH, got none: nothing was measured")
    for words in (["manual", "--action", "PYTORCH_MODEL"], ["benchmark", "--help"]):
        done = subprocess.run([plumed, "--no-mpi", *words], capture_output=True, check=False)
        if done.returncode != 0:
            sys.exit(f"plumed: expected one with {' '.join(words)}, got none: nothing was measured")
    return plumed


def write_inputs(folder: Path, n_atoms: int, n_hidden: int, library: Path) -> dict[str, str]:
    """Export one CV in each way and return PLUMED's input for each."""
    torch.manual_seed(0)
    pairs = all_pairs(n_atoms)
    network = nn.Sequential(
        nn.Linear(len(pairs), n_hidden),
        nn.Tanh(),
        nn.Linear(n_hidden, n_hidden),
        nn.Tanh(),
        nn.Linear(n_hidden, 1),
    )
    cv = ofcv.CollectiveVariable(PairDistances(pairs, n_atoms), network)
    ofcv.export(cv, folder / "network.pt", contract=CONTRACT)
    inputs = {
        "no CV": "p: POSITION ATOM=1 NOPBC\n",
        "DISTANCE, PYTORCH_MODEL": pytorch_model_input(folder / "network.pt", nopbc=True)
        + RESTRAINT,
    }
    ofcv.export(cv, folder / "cv.cpp", contract="plumed")
    inputs["CV of cv.cpp"] = ofcv_input(folder / "cv.cpp", nopbc=True) + RESTRAINT
    for suffix in (".so", ".pt", ".pt2"):
        ofcv.export(cv, folder / f"cv{suffix}", batch=1)
        text = ofcv_input(folder / f"cv{suffix}", library=library, nopbc=True)
        inputs[f"OFCV, {suffix}"] = text + RESTRAINT
    return inputs


def step_times(
    plumed: str, folder: Path, inputs: list[str], n_atoms: int, n_steps: int
) -> list[tuple[float, float]]:
    """Return for each input the fastest step and the mean step of the calmest turn, in µs."""
    turns = [
        [one_run(plumed, folder, text, n_atoms, n_steps) for text in inputs] for _ in range(N_TURNS)
    ]
    return [
        (min(fastest for fastest, _ in runs), min(mean for _, mean in runs))
        for runs in zip(*turns, strict=True)
    ]


def one_run(
    plumed: str, folder: Path, text: str, n_atoms: int, n_steps: int
) -> tuple[float, float]:
    """Return the fastest and the mean step of the later part of one run, in µs."""
    (folder / "plumed.dat").write_text(text)
    words = ["--natoms", str(n_atoms), "--nsteps", str(n_steps), "--atom-distribution", "sphere"]
    done = subprocess.run(
        [plumed, "--no-mpi", "benchmark", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PLUMED_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    part = PART.search(done.stdout)
    if part is None:
        sys.exit("plumed: expected a line with times, got none")
    return 1e6 * float(part[3]), 1e6 * float(part[2]) / int(part[1])


if __name__ == "__main__":
    typer.run(main)
