"""SmartDerivatives in training: forward and backward against one read of the values they touch.

``python -m benchmarks.training_batch [--figure docs/training_batch.png] [--large]``. All pair
distances of 10, 30 and 100 atoms, float32, on the CPU, with torch's operators and with the loops
compiled by numba, with one thread and with as many as there are. A read is a plain sum over one
vector per pair of the batch's frames, at a new place of a data set larger than the caches; it takes
turns with the calls it is compared with. Printed are medians with half the distance of the
quartiles; the ratios are what to look at. It takes about two minutes. ``--large`` adds the memory
of the set-up of 100 atoms in 10 000 frames, which takes about half a minute.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Spread, in_turns, machine
from ofcv_export import SmartDerivatives
from ofcv_export.descriptors.distances import PairDistances, all_pairs

ATOMS = (10, 30, 100)
BATCHES = (64, 256, 1024, 4096)
KERNELS = ("torch", "numba")
# Data sets of about this many numbers are larger than the caches of most processors.
NUMBERS_IN_DATASET = 60_000_000
# Numbers of atoms from 2 pairs to 10^6 non-zeros per frame, each batch about as many in all.
GROWTH_ATOMS = (2, 3, 6, 14, 30, 59, 130, 270, 578)
NUMBERS_IN_BATCH = 10_000_000
SECONDS = 1.0
GOAL = 2.0
MEMORY_GOAL = 8.0
console = Console(width=100)

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


# Times by kernel, then by call: "read", "forward", "both".
Row = dict[str, dict[str, Spread]]


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, help="file of the plot, such as a .png")
    parser.add_argument("--large", action="store_true", help="add the memory of a large set-up")
    arguments = parser.parse_args()
    threads = sorted({1, torch.get_num_threads()})
    console.print(machine("torch", "numba"))
    print_first_call()
    batches = {n: table_of_batches(n) for n in threads}
    torch.set_num_threads(1)
    growth = table_of_growth()
    if arguments.large:
        print_memory()
    if arguments.figure:
        draw(arguments.figure, batches[1], growth)


def table_of_batches(n_threads: int) -> dict[tuple[int, int], Row]:
    """Measure all systems and batches with some threads, print the table, return the times."""
    torch.set_num_threads(n_threads)
    table = Table(
        "atoms", "batch", "read once", "GB/s",
        *(f"{kernel}\n{call}" for kernel in KERNELS for call in ("forward", "both")),
        title=f"All pair distances, float32, {n_threads} thread(s); times over that of a read",
    )  # fmt: skip
    rows: dict[tuple[int, int], Row] = {}
    for n_atoms in ATOMS:
        n_frames = max(NUMBERS_IN_DATASET // (3 * n_pairs(n_atoms)), max(BATCHES))
        smarts = {kernel: frozen(distances(n_atoms), n_frames, kernel) for kernel in KERNELS}
        for batch in BATCHES:
            row = {kernel: measure(smart, batch) for kernel, smart in smarts.items()}
            rows[n_atoms, batch] = row
            read = row["numba"]["read"]
            speed = batch * 3 * n_pairs(n_atoms) * 4 / read.median / 1e9
            cells = [ratio(row[kernel], call) for kernel in KERNELS for call in ("forward", "both")]
            table.add_row(str(n_atoms), str(batch), str(read), f"{speed:.0f}", *cells)
        table.add_section()
    console.print(table)
    console.print(f"both: forward and backward. Goal: at most {GOAL:.0f} reads.")
    return rows


def table_of_growth() -> dict[int, Row]:
    """Measure frames of 6 to 10^6 non-zeros, print the table, return the times by non-zeros."""
    table = Table(
        "non-zeros", "batch", "read",
        *(f"{kernel}\n{call}" for kernel in KERNELS for call in ("forward", "both")),
        title="Time per non-zero of a frame in ns, one thread",
    )  # fmt: skip
    rows: dict[int, Row] = {}
    for n_atoms in GROWTH_ATOMS:
        nnz = 6 * n_pairs(n_atoms)
        batch = batch_for(nnz)
        row = rows[nnz] = {
            kernel: measure(frozen(distances(n_atoms), 4 * batch, kernel), batch)
            for kernel in KERNELS
        }
        spreads = [row["numba"]["read"]]
        spreads += [row[kernel][call] for kernel in KERNELS for call in ("forward", "both")]
        each = [f"{spread.median / (batch * nnz) * 1e9:.3g} {spread.width}" for spread in spreads]
        table.add_row(str(nnz), str(batch), *each)
    console.print(table)
    return rows


def n_pairs(n_atoms: int) -> int:
    """Return the number of pairs of atoms."""
    return n_atoms * (n_atoms - 1) // 2


def batch_for(nnz: int) -> int:
    """Return how many frames have about as many non-zeros as every batch of the growth table."""
    return max(NUMBERS_IN_BATCH // nnz, 1)


def distances(n_atoms: int) -> PairDistances:
    """Return the distances of all pairs of atoms."""
    return PairDistances(all_pairs(n_atoms), n_atoms)


def frozen(descriptors: PairDistances, n_frames: int, kernel: str = "torch") -> SmartDerivatives:
    """Return distances set up on some frames and repeated to the number wanted."""
    n_atoms = descriptors.n_atoms
    generator = torch.Generator().manual_seed(0)
    distinct = min(n_frames, max(500_000 // descriptors.n_descriptors, 1))
    positions = torch.randn(distinct, n_atoms, 3, generator=generator)
    smart = SmartDerivatives(kernel=kernel)
    smart.setup({"data": positions}, descriptors, n_atoms)
    smart.values = smart.values.repeat(-(-n_frames // distinct), 1)[:n_frames]
    return smart


def measure(smart: SmartDerivatives, batch: int, seconds: float = SECONDS) -> dict[str, Spread]:
    """Return the times of a read, a forward pass, and a forward and a backward pass.

    The read is of one vector for each descriptor, whatever the kernel stores.
    """
    pattern = smart.pattern
    assert pattern is not None
    n_frames, draws = len(smart.values), 8
    frames = cycle([torch.randint(n_frames, (batch,)) for _ in range(draws)])
    numbers, flat = batch * 3 * pattern.n_descriptors, smart.values.flatten()
    starts = cycle(torch.linspace(0, len(flat) - numbers, draws).long().tolist())
    x = torch.randn(batch, pattern.n_descriptors)
    leaf = x.clone().requires_grad_()
    gradient = torch.randn(batch, pattern.n_atoms, 3)

    def read() -> None:
        start = next(starts)
        flat[start : start + numbers].sum()

    calls = {
        "read": read,
        "forward": lambda: smart(x, next(frames)),
        "both": lambda: torch.autograd.grad(smart(leaf, next(frames)), leaf, gradient),
    }
    return in_turns(calls, seconds)


def ratio(times: Mapping[str, Spread], call: str) -> str:
    """Return the time of a call over that of the read beside it, with the call's spread."""
    return f"{times[call].median / times['read'].median:.1f} {times[call].width}"


def print_first_call() -> None:
    """Print how long numba's first calls take: compiled now, or by an earlier process."""
    smart, x = frozen(distances(10), 64, "numba"), torch.randn(64, 45, requires_grad=True)
    start = time.perf_counter()
    torch.autograd.grad(smart(x).sum(), x)
    console.print(f"First forward and backward with numba: {time.perf_counter() - start:.2f} s")


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
    lines = [("torch", "both", ":"), ("numba", "both", "-"), ("numba", "read", "--")]
    for number, n_atoms in enumerate(ATOMS):
        for kernel, call, style in lines:
            label = f"{n_atoms} atoms" if style == "-" else None
            y = [batches[n_atoms, batch][kernel][call].median for batch in BATCHES]
            left.loglog(BATCHES, y, style, marker=".", color=f"C{number}", label=label)
    left.set(xlabel="frames in a batch", ylabel="time / s")
    left.set_title("forward + backward: torch dotted, numba solid; one read dashed", fontsize=10)
    left.legend(fontsize=8)
    names = {"both": "forward + backward", "forward": "forward", "read": "one read"}
    calls = [(kernel, call) for kernel in KERNELS for call in ("both", "forward")]
    for number, (kernel, call) in enumerate([*calls, ("numba", "read")]):
        label = names[call] if call == "read" else f"{kernel}: {names[call]}"
        y = [1e9 * row[kernel][call].median / (batch_for(nnz) * nnz) for nnz, row in growth.items()]
        right.loglog(list(growth), y, ".-", color=f"C{number}", label=label)
    right.set(xlabel="non-zeros per frame", ylabel="time per non-zero / ns")
    right.set_title("all pairs of 2 to 578 atoms", fontsize=10)
    right.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
