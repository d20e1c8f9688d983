"""What one MD step and one training batch cost on a CUDA device.

``python -m benchmarks.cuda [--device cuda:0]``. Three tables: a step of a single frame as one call
after the other and as one CUDA graph, training batches against a copy of as many bytes, and sums in
a fixed order against atomics. Times are medians, taken with CUDA events around runs of calls whose
inputs are on the device. Small batches fit into its cache and may be read faster than its memory.

Without a device it says so and measures nothing. ``--device cpu`` is a dry run of the same code:
small batches, few repetitions, time.perf_counter, no CUDA graph. It shows that the program works;
its times mean nothing.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ofcv_export as ofcv
from benchmarks.md_step.steps import SYSTEMS, System, value_only
from benchmarks.training_batch import ATOMS, BATCHES, distances, frozen
from ofcv_export.artifacts.cuda_graph import CapturedRunner
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.formats.format import Runner
from ofcv_export.graph.tensor_spec import TensorSpec

STEP_GOAL = 15.0
BANDWIDTH_GOAL = 0.7
# Bytes copied to measure the bandwidth: more than any cache holds.
BYTES_COPIED = 2**30
console = Console(width=110)


@dataclass(frozen=True)
class Clock:
    """Times calls on a device.

    Parameters
    ----------
    device : torch.device
        Where the calls run.
    n_rounds : int
        Number of times that are taken.
    n_calls : int
        Calls in each of them.
    """

    device: torch.device
    n_rounds: int
    n_calls: int

    def times(self, call: Callable[[], object]) -> list[float]:
        """Return the time of a call in seconds, once for each round, sorted."""
        for _ in range(5):
            call()
        return sorted(self._round(call) / self.n_calls for _ in range(self.n_rounds))

    def median(self, call: Callable[[], object]) -> float:
        """Return the median of `times`."""
        return statistics.median(self.times(call))

    def _round(self, call: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            for _ in range(self.n_calls):
                call()
            return time.perf_counter() - start
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(self.n_calls):
            call()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1000


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:<index>, or cpu for a dry run.")] = "cuda",
) -> None:
    """Print three tables."""
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        console.print("No CUDA device: nothing was measured.")
        return
    if where.type == "cuda":
        torch.cuda.set_device(where)
    console.print(described(where))
    is_dry = where.type != "cuda"
    clock = Clock(where, 3, 2) if is_dry else Clock(where, 100, 20)
    with tempfile.TemporaryDirectory() as folder:
        print_steps(clock, Path(folder))
    batches = BATCHES[:1] if is_dry else BATCHES
    print_batches(clock, ATOMS[:2] if is_dry else ATOMS, batches)
    print_orders(clock, batches[-1])


def described(device: torch.device) -> str:
    """Return the device, its driver and the version of PyTorch in one line."""
    if device.type != "cuda":
        return f"Dry run on the CPU, torch {torch.__version__}: the times mean nothing."
    properties = torch.cuda.get_device_properties(device)
    return (
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
        f"{properties.multi_processor_count} multiprocessors, driver {driver()}; "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    )


def driver() -> str:
    """Return the version of the driver, as nvidia-smi tells it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown (no nvidia-smi)"
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def print_steps(clock: Clock, folder: Path) -> None:
    """Print the table of single frames."""
    table = Table(
        "system", "way", "median, µs", "10 % to 90 %", "autograd / this",
        title="One step: value and position derivatives of one frame, float32",
    )  # fmt: skip
    for system in SYSTEMS:
        runs = ways(system, clock.device, folder)
        autograd = 0.0
        for name, run in runs.items():
            times = [1e6 * each for each in clock.times(run)]
            median = statistics.median(times)
            autograd = autograd or median
            low, high = times[len(times) // 10], times[len(times) * 9 // 10]
            table.add_row(
                system.name, name, f"{median:.1f}", f"{low:.1f} to {high:.1f}",
                f"{autograd / median:.1f}",
            )  # fmt: skip
        table.add_section()
    console.print(table)
    console.print(f"Goal: {STEP_GOAL:.0f} µs at 50 atoms. Graph: recorded as one CUDA graph.")


def ways(system: System, device: torch.device, folder: Path) -> dict[str, Callable[[], object]]:
    """Return the ways to make a step, TorchScript with autograd first."""
    cv = system.cv()
    inputs = [1.5 * torch.rand(1, system.n_atoms, 3, device=device)]
    specs = [TensorSpec("positions", "float32", (1, system.n_atoms, 3))]
    runners: dict[str, Runner] = {"TorchScript + autograd": by_autograd(cv, device)}
    if device.type == "cuda":
        graph = CapturedRunner(runners["TorchScript + autograd"], specs, str(device))
        runners["TorchScript + autograd, graph"] = graph
    for suffix in (".pt", ".pt2"):
        path = folder / f"cv{suffix}"
        compiled_for = "cuda" if suffix == ".pt2" and device.type == "cuda" else "cpu"
        ofcv.export(cv, path, batch=1, device=compiled_for)
        runners[f"ours, {suffix}"] = ofcv.load(path, str(device)).run
        if device.type == "cuda":
            captured = ofcv.load(path, str(device), cuda_graph=True)
            runners[f"ours, {suffix}, graph"] = captured.run
    return {name: lambda run=run: run(inputs) for name, run in runners.items()}


def by_autograd(cv: ofcv.CollectiveVariable, device: torch.device) -> Runner:
    """Return a runner that differentiates a scripted module, as engines do today."""
    module = value_only(cv).to(device)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        positions = inputs[0].detach().requires_grad_()
        values = module(positions)
        return values, *torch.autograd.grad(values.sum(), positions)

    return run


def print_batches(clock: Clock, atoms: Sequence[int], batches: Sequence[int]) -> None:
    """Print the table of training batches of all pair distances."""
    speed = bandwidth(clock)
    table = Table(
        "atoms", "batch", "copy, µs", "forward, µs", "both, µs", "forward / copy", "both / copy",
        "forward, % of bandwidth", "both, % of bandwidth",
        title="SmartDerivatives, all pair distances, float32",
    )  # fmt: skip
    for n_atoms in atoms:
        smart = frozen(distances(n_atoms), 2 * max(batches)).to(clock.device)
        for batch in batches:
            table.add_row(str(n_atoms), str(batch), *batch_row(clock, smart, batch, speed))
    console.print(table)
    console.print(
        f"Copy: as many bytes as the batch's frozen values take. Bandwidth: {speed / 1e9:.0f} GB/s "
        "for a copy larger than any cache, read and written. Both: forward and "
        "backward. A share counts each tensor that a pass must read or write once. "
        f"Goal: {BANDWIDTH_GOAL:.0%} for batch {max(BATCHES)}."
    )


def bandwidth(clock: Clock) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    n_bytes = BYTES_COPIED if clock.device.type == "cuda" else BYTES_COPIED // 64
    source = torch.zeros(n_bytes // 4, device=clock.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / clock.median(lambda: target.copy_(source))


def batch_row(clock: Clock, smart: ofcv.SmartDerivatives, batch: int, speed: float) -> list[str]:
    """Return the cells of one batch."""
    x, gradient, frames = batch_inputs(smart, batch)
    leaf = x.clone().requires_grad_()
    values = smart.values[:batch]
    copy = torch.empty_like(values)
    copied = clock.median(lambda: copy.copy_(values))
    forward = clock.median(lambda: smart(x, next(frames)))
    both = clock.median(lambda: torch.autograd.grad(smart(leaf, next(frames)), leaf, gradient))
    n_bytes = values.nbytes + x.nbytes + gradient.nbytes
    shares = n_bytes / forward / speed, 2 * n_bytes / both / speed
    return [
        *(f"{1e6 * each:.0f}" for each in (copied, forward, both)),
        *(f"{each / copied:.1f}" for each in (forward, both)),
        *(f"{100 * each:.0f}" for each in shares),
    ]


def batch_inputs(smart: ofcv.SmartDerivatives, batch: int) -> tuple[Tensor, Tensor, cycle[Tensor]]:
    """Return d(out)/d(desc), the derivative of a loss by d(out)/d(pos), and frames in turn."""
    pattern, device = smart.pattern, smart.values.device
    assert pattern is not None
    x = torch.randn(batch, pattern.n_descriptors, device=device)
    gradient = torch.randn(batch, pattern.n_atoms, 3, device=device)
    n_frames = len(smart.values)
    return x, gradient, cycle(torch.randint(n_frames, (8, batch), device=device).unbind())


def print_orders(clock: Clock, batch: int) -> None:
    """Print the price of a fixed order."""
    table = Table(
        "descriptors", "chain rule", "pass", "fixed order, µs", "atomics, µs", "ratio",
        "same bits", "with atomics",
        title=f"Sums in a fixed order against atomics, batch {batch}",
    )  # fmt: skip
    star = torch.stack([torch.zeros(19, dtype=torch.int64), torch.arange(1, 20)], dim=1)
    systems = {
        "all pairs of 10 atoms": distances(10),
        "all pairs of 30 atoms": distances(30),
        "19 atoms around one": PairDistances(star, 20),
    }
    for name, descriptors in systems.items():
        smart = frozen(descriptors, 2 * batch).to(clock.device)
        for which, call in passes(smart, batch).items():
            times, same = {}, {}
            for atomics in (False, True):
                smart.atomics = atomics
                times[atomics] = 1e6 * clock.median(call)
                same[atomics] = all(torch.equal(call(), call()) for _ in range(10))
            table.add_row(
                name, type(smart.chain_rule).__name__, which, f"{times[False]:.0f}",
                f"{times[True]:.0f}", f"{times[False] / times[True]:.2f}",
                *("yes" if same[atomics] else "no" for atomics in (False, True)),
            )  # fmt: skip
    console.print(table)


def passes(smart: ofcv.SmartDerivatives, batch: int) -> dict[str, Callable[[], Tensor]]:
    """Return a forward pass, and a forward and a backward pass, of the same frames every time."""
    x, gradient, frames = batch_inputs(smart, batch)
    rows, leaf = next(frames), x.clone().requires_grad_()
    return {
        "forward": lambda: smart(x, rows),
        "both": lambda: torch.autograd.grad(smart(leaf, rows), leaf, gradient)[0],
    }


if __name__ == "__main__":
    typer.run(main)
