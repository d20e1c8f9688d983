"""SmartDerivatives in training: forward and backward against one read of the values they touch.

``python -m benchmarks.training_batch [--figure docs/training_batch.png] [--large]``. All pair
distances of 10, 30 and 100 atoms, float32, on the CPU, with one thread and with as many as there
are. A read is a plain sum over as many bytes as the batch's frozen values take, at a new place of
a data set larger than the caches; it takes turns with the calls it is compared with. Printed are
medians with half the distance of the quartiles; the ratios are what to look at. ``--large`` adds
the memory of the set-up of 100 atoms in 10 000 frames, which takes about half a minute.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import cycle
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.smart_derivatives import text
from ofcv_export import SmartDerivatives
from ofcv_export.descriptors.distances import PairDistances, all_pairs

ATOMS = (10, 30, 100)
BATCHES = (64, 256, 1024, 4096)
# Data sets of about this many numbers are larger than the caches of most processors.
NUMBERS_IN_DATASET = 60_000_000
# Numbers of atoms from 2 pairs to 10^6 non-zeros per frame, each batch about as many in all.
GROWTH_ATOMS = (2, 3, 6, 14, 30, 59, 130, 270, 578)
NUMBERS_IN_BATCH = 10_000_000
GOAL = 2.0
MEMORY_GOAL = 8.0
console = Console()

MEMORY_OF_SETUP = """
import resource, time, torch
from ofcv_export import SmartDerivatives
from ofcv_export.descriptors.distances import PairDistances, all_pairs
torch.set_num_threads(1)
positions, smart, start = torch.randn(10_000, 100, 3), SmartDerivatives(), time.perf_counter()
smart.setup({"data": positions}, PairDistances(all_pairs(100), 100), 100)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / 2**20, smart.values.nbytes / 2**30, time.perf_counter() - start)
"""


@dataclass
class Spread:
    """Median and quartiles of times in seconds."""

    times: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.times)

    def __str__(self) -> str:
        low, _, high = statistics.quantiles(self.times, n=4)
        return f"{text(self.median)} ±{(high - low) / 2 / self.median:.0%}"


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, help="file of the plot, such as a .png")
    parser.add_argument("--large", action="store_true", help="add the memory of a large set-up")
    arguments = parser.parse_args()
    threads = sorted({1, torch.get_num_threads()})
    machine = platform.processor() or platform.machine()
    console.print(f"{machine}, up to {threads[-1]} threads, torch {metadata.version('torch')}")
    batches = {n: table_of_batches(n) for n in threads}
    torch.set_num_threads(1)
    growth = table_of_growth()
    if arguments.large:
        print_memory()
    if arguments.figure:
        draw(arguments.figure, batches[1], growth)


Row = dict[str, Spread]


def table_of_batches(n_threads: int) -> dict[tuple[int, int], Row]:
    """Measure all systems and batches with some threads, print the table, return the times."""
    torch.set_num_threads(n_threads)
    table = Table(
        "atoms", "batch", "read once", "GB/s", "forward", "both", "forward / read", "both / read",
        title=f"All pair distances, float32, {n_threads} thread(s)",
    )  # fmt: skip
    rows: dict[tuple[int, int], Row] = {}
    for n_atoms in ATOMS:
        smart = frozen(n_atoms, max(NUMBERS_IN_DATASET // (3 * n_pairs(n_atoms)), max(BATCHES)))
        for batch in BATCHES:
            row = rows[n_atoms, batch] = measure(smart, batch)
            read, forward, both = row.values()
            speed = batch * smart.values.shape[1] * smart.values.itemsize / read.median / 1e9
            table.add_row(
                str(n_atoms), str(batch), str(read), f"{speed:.0f}", str(forward), str(both),
                *(f"{each.median / read.median:.1f}" for each in (forward, both)),
            )  # fmt: skip
    console.print(table)
    console.print(f"both: forward and backward. Goal: at most {GOAL:.0f} reads.")
    return rows


def table_of_growth() -> dict[int, Row]:
    """Measure frames of 6 to 10^6 non-zeros, print the table, return the times by non-zeros."""
    table = Table(
        "non-zeros per frame", "batch", "read", "forward", "both",
        title="Time per non-zero in ns, one thread",
    )  # fmt: skip
    rows: dict[int, Row] = {}
    for n_atoms in GROWTH_ATOMS:
        nnz = 6 * n_pairs(n_atoms)
        batch = max(NUMBERS_IN_BATCH // nnz, 1)
        row = rows[nnz] = measure(frozen(n_atoms, 4 * batch), batch)
        each = [f"{spread.median / (batch * nnz) * 1e9:.3g}" for spread in row.values()]
        table.add_row(str(nnz), str(batch), *each)
    console.print(table)
    return rows


def n_pairs(n_atoms: int) -> int:
    """Return the number of pairs of atoms."""
    return n_atoms * (n_atoms - 1) // 2


def frozen(n_atoms: int, n_frames: int) -> SmartDerivatives:
    """Return all pair distances set up on some frames and repeated to the number wanted."""
    generator = torch.Generator().manual_seed(0)
    distinct = min(n_frames, max(500_000 // n_pairs(n_atoms), 1))
    positions = torch.randn(distinct, n_atoms, 3, generator=generator)
    smart = SmartDerivatives()
    smart.setup({"data": positions}, PairDistances(all_pairs(n_atoms), n_atoms), n_atoms)
    smart.values = smart.values.repeat(-(-n_frames // distinct), 1)[:n_frames]
    return smart


def measure(smart: SmartDerivatives, batch: int) -> Row:
    """Return the times of a read, a forward pass, and a forward and a backward pass."""
    values = smart.values
    n_frames, pattern = len(values), smart.pattern
    assert pattern is not None
    draws = 8
    frames = cycle([torch.randint(n_frames, (batch,)) for _ in range(draws)])
    starts = cycle(torch.linspace(0, n_frames - batch, draws).long().tolist())
    x = torch.randn(batch, pattern.n_descriptors)
    leaf = x.clone().requires_grad_()
    gradient = torch.randn(batch, pattern.n_atoms, 3)

    def read() -> None:
        start = next(starts)
        values[start : start + batch].sum()

    return times(
        {
            "read": read,
            "forward": lambda: smart(x, next(frames)),
            "both": lambda: torch.autograd.grad(smart(leaf, next(frames)), leaf, gradient),
        }
    )


def times(calls: Mapping[str, Callable[[], object]], seconds: float = 1.5) -> Row:
    """Time calls in turns for some seconds in all, at least 7 times each."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found["read"]) < 7:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - start)
    return {name: Spread(each) for name, each in found.items()}


def print_memory() -> None:
    """Print the peak memory of a set-up in a process of its own."""
    command = [sys.executable, "-c", MEMORY_OF_SETUP]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, values, seconds = map(float, result.stdout.split()[-3:])
    console.print(
        f"Set-up of 100 atoms, 4950 distances, 10 000 frames, float32, one thread: {seconds:.0f} s,"
        f" peak memory {peak:.2f} GiB (goal {MEMORY_GOAL:.0f}), frozen values {values:.2f} GiB"
    )


def draw(path: Path, batches: Mapping[tuple[int, int], Row], growth: Mapping[int, Row]) -> None:
    """Draw the growth with the batch and with the size of a frame."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, n_atoms in enumerate(ATOMS):
        for name, style in (("both", "o-"), ("read", "x--")):
            label = f"{n_atoms} atoms" if name == "both" else None
            y = [batches[n_atoms, batch][name].median for batch in BATCHES]
            left.loglog(BATCHES, y, style, color=f"C{number}", label=label)
    left.set(xlabel="frames in a batch", ylabel="time / s")
    left.set_title("forward + backward (solid), one read (dashed)")
    left.legend()
    labels = {"read": "one read", "forward": "forward", "both": "forward + backward"}
    for name, label in labels.items():
        each = [
            row[name].median / (max(NUMBERS_IN_BATCH // nnz, 1) * nnz)
            for nnz, row in growth.items()
        ]
        right.loglog(list(growth), [1e9 * value for value in each], "o-", label=label)
    right.set(xlabel="non-zeros per frame", ylabel="time per non-zero / ns")
    right.set_title("all pairs of 2 to 578 atoms")
    right.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
