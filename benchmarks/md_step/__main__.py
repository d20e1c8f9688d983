"""What one MD step costs in C++: value and all position derivatives of one frame, in float32.

``python -m benchmarks.md_step [--build build/md_step]``. Pair distances of three systems, a tanh
network and one CV. Every way is called in turns in one process, and several processes are run,
since where the weights lie in memory moves the times as well: a row is the median of the
processes' medians, with the fastest and the slowest decile of all of them. The limit is one C++
function for the fixed size, fused by hand. ONNX Runtime has no C++ package for pip, so it is called
from Python, with its inputs and outputs bound. Times are the calling thread's processor time. The
second table offers all cores to LibTorch (OMP_NUM_THREADS), of which the header takes one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.md_step.others import OTHERS
from benchmarks.md_step.peers import compile_peers, missing
from benchmarks.md_step.steps import (
    SYSTEMS,
    WAYS,
    Times,
    build_program,
    measure,
    onnx_times,
    write_files,
)
from benchmarks.timing import machine


def main(
    build: Annotated[Path, typer.Option(help="Where to build the C++ program.")] = Path(
        "build/md_step"
    ),
) -> None:
    """Print three tables."""
    program = build_program(build)
    n_cores = os.cpu_count() or 1
    console = Console(width=110)
    console.print(machine("torch", "onnxruntime"))
    for package in missing():
        console.print(f"{package}: not installed, its rows are left out (the extra peers)")
    table = Table("system", "way", "median, µs", "10 % to 90 %", "/ limit", "autograd / this")
    threads = Table("system", "way", "1 thread offered, µs", f"{n_cores} offered, µs", "ratio")
    others = Table("descriptors", "way", "median, µs", "10 % to 90 %", ".pt2 / this")
    with tempfile.TemporaryDirectory() as root:
        for system in SYSTEMS:
            folder = Path(root) / str(system.n_atoms)
            folder.mkdir()
            form = write_files(system, folder)
            compile_peers(system, folder)
            times = measure(program, system.n_atoms, folder, 1)
            times["onnx"] = onnx_times(system, folder)
            add_rows(table, system.name, form, times)
            offered = measure(program, system.n_atoms, folder, n_cores)
            for way in ("pt", "pt2"):
                one, more = times[way][1], offered[way][1]
                threads.add_row(
                    system.name, WAYS[way], f"{one:.2f}", f"{more:.2f}", f"{more / one:.2f}"
                )
        for number, other in enumerate(OTHERS):
            folder = Path(root) / f"other {number}"
            folder.mkdir()
            other.write_files(folder)
            add_other(others, other.name, measure(program, other.n_atoms, folder, 1))
    for each in (table, threads, others):
        console.print(each)


def add_rows(table: Table, name: str, form: str, times: dict[str, Times]) -> None:
    """Add the rows of one system."""
    limit, autograd = times["fused"][1], times["autograd"][1]
    for way, label in WAYS.items():
        if way not in times:
            continue
        low, median, high = times[way]
        label = f"{label} ({form})" if way in ("pt", "pt2", "c") else label
        table.add_row(
            name,
            label,
            f"{median:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{median / limit:.2f}",
            f"{autograd / median:.1f}",
        )
    table.add_section()


def add_other(table: Table, name: str, times: dict[str, Times]) -> None:
    """Add the rows of other descriptors."""
    for way, (low, median, high) in times.items():
        ratio = times["pt2"][1] / median
        table.add_row(name, WAYS[way], f"{median:.2f}", f"{low:.2f} to {high:.2f}", f"{ratio:.1f}")
    table.add_section()


if __name__ == "__main__":
    typer.run(main)
