"""What MD steps, training batches and rescalings cost on a CUDA device.

``python -m benchmarks.cuda [--device cuda:0] [--json figures.json]``. Tables: a step of a single
frame as one call after the other and as one CUDA graph; training batches by torch's operators and
by Triton's kernels against the bytes that they must move; sums in a fixed order against atomics;
the rescaling of 10^8 coefficients. Times are medians, taken with CUDA events around runs of calls
whose inputs are on the device; "waited for" is the time on the host of one step that is waited for.
Small batches fit into the device's cache and may be read faster than its memory.

Without a device it says so and measures nothing. ``--device cpu`` is a dry run of the same code:
small batches, few repetitions, time.perf_counter, no CUDA graph, no Triton. It shows that the
program works; its times mean nothing.
"""

from __future__ import annotations

import copy
import gc
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ofcv_export as ofcv
from benchmarks.md_step.steps import SYSTEMS, System, value_only
from benchmarks.rescaling import N_BASIS, plain, rescaling
from benchmarks.training_batch import distances, frozen
from ofcv_export.artifacts.cuda_graph import CapturedRunner
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.runtimes.runtime import Runner

STEP_GOAL = 15.0
BANDWIDTH_GOAL, RESCALING_GOAL = 0.7, 0.8
ATOMS = (10, 30, 100)
BATCHES = (64, 256, 1024, 4096, 16384, 65536)
ORDER_BATCH = 4096
N_COEFFICIENTS = 10**8
# Batches of frames whose values take less than this are measured.
LARGEST_BATCH = 2**33
# Bytes copied to measure the bandwidth: more than any cache holds.
BYTES_COPIED = 2**30
_MOST_CALLS = 20
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
    seconds : float
        How long to go on for, in all: a round has as many calls as that allows, at most 20.
    """

    device: torch.device
    n_rounds: int
    seconds: float

    def times(self, call: Callable[[], object]) -> list[float]:
        """Return the time of a call in seconds, once for each round, sorted."""
        for _ in range(3):
            call()
        n_calls = int(self.seconds / self.n_rounds / self._round(call, 1))
        n_calls = max(min(n_calls, _MOST_CALLS), 1)
        return sorted(self._round(call, n_calls) for _ in range(self.n_rounds))

    def median(self, call: Callable[[], object]) -> float:
        """Return the median of `times`."""
        return statistics.median(self.times(call))

    def waited(self, call: Callable[[], object]) -> float:
        """Return the median time of a call that the host waits for, in seconds."""
        times = []
        for _ in range(10 * self.n_rounds):
            start = time.perf_counter()
            call()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def _round(self, call: Callable[[], object], n_calls: int) -> float:
        """Return the mean time of some calls, one after the other, in seconds."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            for _ in range(n_calls):
                call()
            return (time.perf_counter() - start) / n_calls
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(n_calls):
            call()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1000 / n_calls


Figures = list[dict[str, Any]]


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:<index>, or cpu for a dry run.")] = "cuda",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for all figures, as JSON.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option(help="Folder of exported files, used again if they are there.")
    ] = None,
) -> None:
    """Print the tables."""
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        console.print("No CUDA device: nothing was measured.")
        return
    if where.index is not None:
        torch.cuda.set_device(where)
    console.print(described(where))
    clock = Clock(where, 21, 0.3) if where.type == "cuda" else Clock(where, 3, 0.01)
    with tempfile.TemporaryDirectory() as temporary:
        folder = files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(clock, folder, json_file)


def measure(clock: Clock, files: Path, json_file: Path | None) -> None:
    """Print the tables, with exported files in a folder, and write their figures."""
    is_dry = clock.device.type != "cuda"
    figures: Figures = []
    speed = bandwidth(clock)
    figures.append({"table": "bandwidth", "bytes_per_second": speed})
    tables: list[Callable[[], Figures]] = [
        lambda: print_batches(
            clock, ATOMS[:2] if is_dry else ATOMS, BATCHES[:1] if is_dry else BATCHES, speed
        ),
        lambda: print_orders(clock, BATCHES[0] if is_dry else ORDER_BATCH),
        lambda: print_rescaling(clock, files, 10**4 if is_dry else N_COEFFICIENTS, speed),
        lambda: print_steps(clock, files),
    ]
    for table in tables:
        figures += table()
        if json_file is not None:
            # After each table, so that a run that ends early leaves those it made.
            document = {"device": described(clock.device), "date": time.strftime("%Y-%m-%d")}
            json_file.write_text(json.dumps(document | {"figures": figures}, indent=1) + "\n")


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


def print_steps(clock: Clock, files: Path) -> Figures:
    """Print the table of single frames."""
    table = Table(
        "system", "way", "kernels", "median, µs", "10 % to 90 %", "waited for, µs",
        "autograd / this",
        title="One step: value and position derivatives of one frame, float32",
    )  # fmt: skip
    figures: Figures = []
    for system in SYSTEMS:
        runs = ways(system, clock.device, files)
        autograd = 0.0
        for name, run in runs.items():
            times = [1e6 * each for each in clock.times(run)]
            median = statistics.median(times)
            autograd = autograd or median
            low, high = times[len(times) // 10], times[len(times) * 9 // 10]
            waited = 1e6 * clock.waited(run)
            kernels = n_kernels(run, clock.device)
            table.add_row(
                system.name, name, str(kernels), f"{median:.1f}", f"{low:.1f} to {high:.1f}",
                f"{waited:.1f}", f"{autograd / median:.1f}",
            )  # fmt: skip
            figures.append({
                "table": "step", "system": system.name, "way": name, "kernels": kernels,
                "us": median, "low_us": low, "high_us": high, "waited_us": waited,
            })  # fmt: skip
        table.add_section()
    console.print(table)
    console.print(f"Goal: {STEP_GOAL:.0f} µs at 50 atoms. Graph: recorded as one CUDA graph.")
    return figures


def n_kernels(run: Callable[[], object], device: torch.device) -> int:
    """Return the kernels and copies of a call, 0 on the CPU."""
    if device.type != "cuda":
        return 0
    kind = torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[kind]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in profile.events())


def ways(system: System, device: torch.device, folder: Path) -> dict[str, Callable[[], object]]:
    """Return the ways to make a step, TorchScript with autograd first."""
    cv = system.cv()
    inputs = [1.5 * torch.rand(1, system.n_atoms, 3, device=device)]
    specs = [TensorSpec("positions", "float32", (1, system.n_atoms, 3))]
    runners: dict[str, Runner] = {"TorchScript + autograd": by_autograd(cv, device)}
    if device.type == "cuda":
        try:
            graph = CapturedRunner(runners["TorchScript + autograd"], specs, str(device))
            runners["TorchScript + autograd, graph"] = graph
        except ValueError as error:
            console.print(f"{system.name}, TorchScript + autograd: no graph ({error})")
    for suffix in (".pt", ".pt2"):
        path = exported(cv, folder / f"{system.n_atoms}-atoms{suffix}", device, batch=1)
        runners[f"ours, {suffix}"] = ofcv.load(path, str(device)).run
        if device.type == "cuda":
            captured = ofcv.load(path, str(device), cuda_graph=True)
            runners[f"ours, {suffix}, graph"] = captured.run
            runners[f"ours, {suffix}, graph, inputs in place"] = in_place(captured, inputs)
    return {name: lambda run=run: run(inputs) for name, run in runners.items()}


def exported(module: Any, path: Path, device: torch.device, **options: Any) -> Path:
    """Return the file of a module for a device, exported unless it is there."""
    if not path.exists():
        compiled_for = "cuda" if path.suffix == ".pt2" and device.type == "cuda" else "cpu"
        ofcv.export(module, path, device=compiled_for, **options)
    return path


def in_place(captured: ofcv.Artifact, inputs: Sequence[Tensor]) -> Runner:
    """Return a runner whose inputs are in the memory of the graph already."""
    for recorded, tensor in zip(captured.recorded_inputs, inputs, strict=True):
        recorded.copy_(tensor)
    return lambda _: captured.run(captured.recorded_inputs)


def by_autograd(cv: ofcv.CollectiveVariable, device: torch.device) -> Runner:
    """Return a runner that differentiates a scripted module, as engines do today."""
    module = value_only(copy.deepcopy(cv)).to(device)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        positions = inputs[0].detach().requires_grad_()
        values = module(positions)
        return values, *torch.autograd.grad(values.sum(), positions)

    return run


def print_batches(
    clock: Clock, atoms: Sequence[int], batches: Sequence[int], speed: float
) -> Figures:
    """Print the table of training batches of all pair distances."""
    table = Table(
        "atoms", "batch", "kernel", "forward, µs", "both, µs",
        "forward, % of bandwidth", "both, % of bandwidth",
        title="SmartDerivatives, all pair distances, float32",
    )  # fmt: skip
    figures: Figures = []
    kernels = ("triton", "torch") if clock.device.type == "cuda" else ("torch",)
    for n_atoms in atoms:
        descriptors = distances(n_atoms)
        for kernel in kernels:
            per_frame = 12 * descriptors.n_descriptors * (1 if kernel == "triton" else 2)
            possible = [batch for batch in batches if batch * per_frame < LARGEST_BATCH]
            smart = on_device(descriptors, 2 * max(possible), clock.device, kernel)
            for batch in possible:
                row = batch_row(clock, smart, batch, speed)
                figures.append({"table": "batch", "atoms": n_atoms, "kernel": kernel} | row)
                table.add_row(
                    str(n_atoms), str(batch), kernel,
                    *(f"{row[key]:.0f}" for key in ("forward_us", "both_us")),
                    *(f"{100 * row[key]:.0f}" for key in ("forward_share", "both_share")),
                )  # fmt: skip
            del smart
            gc.collect()
        table.add_section()
    console.print(table)
    console.print(
        f"Bandwidth: {speed / 1e9:.0f} GB/s for a copy larger than any cache, read and written. "
        "Both: forward and backward. A share counts each stored value, input and result that a "
        f"pass must read or write once. Goal: {BANDWIDTH_GOAL:.0%} at batch 4096."
    )
    return figures


def on_device(
    descriptors: PairDistances, n_frames: int, device: torch.device, kernel: str
) -> ofcv.SmartDerivatives:
    """Return a frozen set-up of some frames, repeated on the device to the number wanted."""
    n_distinct = min(n_frames, 64)
    smart = frozen(descriptors, n_distinct, kernel).to(device)
    smart.values = smart.values.repeat(-(-n_frames // n_distinct), 1)[:n_frames]
    return smart


def bandwidth(clock: Clock) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    n_bytes = BYTES_COPIED if clock.device.type == "cuda" else BYTES_COPIED // 64
    source = torch.zeros(n_bytes // 4, device=clock.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / clock.median(lambda: target.copy_(source))


def batch_row(
    clock: Clock, smart: ofcv.SmartDerivatives, batch: int, speed: float
) -> dict[str, float]:
    """Return the figures of one batch."""
    x, gradient, frames = batch_inputs(smart, batch)
    leaf = x.clone().requires_grad_()
    forward = clock.median(lambda: smart(x, next(frames)))
    both = clock.median(lambda: torch.autograd.grad(smart(leaf, next(frames)), leaf, gradient))
    n_bytes = smart.values[:batch].nbytes + x.nbytes + gradient.nbytes
    return {
        "batch": batch,
        "forward_us": 1e6 * forward,
        "both_us": 1e6 * both,
        "forward_share": n_bytes / forward / speed,
        "both_share": 2 * n_bytes / both / speed,
    }


def batch_inputs(smart: ofcv.SmartDerivatives, batch: int) -> tuple[Tensor, Tensor, cycle[Tensor]]:
    """Return d(out)/d(desc), the derivative of a loss by d(out)/d(pos), and frames in turn."""
    pattern, device = smart.pattern, smart.values.device
    assert pattern is not None
    x = torch.randn(batch, pattern.n_descriptors, device=device)
    gradient = torch.randn(batch, pattern.n_atoms, 3, device=device)
    n_frames = len(smart.values)
    return x, gradient, cycle(torch.randint(n_frames, (8, batch), device=device).unbind())


def print_orders(clock: Clock, batch: int) -> Figures:
    """Print the price of a fixed order with torch's operators."""
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
    figures: Figures = []
    for name, descriptors in systems.items():
        smart = on_device(descriptors, 2 * batch, clock.device, "torch")
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
            figures.append({
                "table": "order", "descriptors": name, "pass": which, "batch": batch,
                "fixed_us": times[False], "atomics_us": times[True],
                "fixed_same_bits": same[False], "atomics_same_bits": same[True],
            })  # fmt: skip
    console.print(table)
    return figures


def passes(smart: ofcv.SmartDerivatives, batch: int) -> dict[str, Callable[[], Tensor]]:
    """Return a forward pass, and a forward and a backward pass, of the same frames every time."""
    x, gradient, frames = batch_inputs(smart, batch)
    rows, leaf = next(frames), x.clone().requires_grad_()
    return {
        "forward": lambda: smart(x, rows),
        "both": lambda: torch.autograd.grad(smart(leaf, rows), leaf, gradient)[0],
    }


def print_rescaling(clock: Clock, files: Path, n: int, speed: float) -> Figures:
    """Print the table of the rescaling of many coefficients."""
    table = Table(
        "way", "median, ms", "% of bandwidth", title=f"Rescaling of {n:.0e} coefficients, float32"
    )
    device = clock.device
    module = rescaling().to(device)
    coeffs = torch.randn(n, device=device)
    index = torch.randint(N_BASIS, (n,), device=device)
    runs: dict[str, Callable[[], object]] = {
        "PyTorch expression": lambda: plain(module, [coeffs, index])
    }
    for suffix in (".pt", ".pt2"):
        path = exported(rescaling(), files / f"rescaling{suffix}", device)
        artifact = ofcv.load(path, str(device))
        runs[f"ours, {suffix}"] = lambda artifact=artifact: artifact.run([coeffs, index])
    # The coefficients are read and written, the indices read.
    n_bytes = 2 * coeffs.nbytes + index.nbytes
    figures: Figures = []
    for name, run in runs.items():
        median = clock.median(run)
        share = n_bytes / median / speed
        table.add_row(name, f"{1e3 * median:.3f}", f"{100 * share:.0f}")
        figures.append({"table": "rescaling", "way": name, "ms": 1e3 * median, "share": share})
    console.print(table)
    console.print(f"Goal: {RESCALING_GOAL:.0%} of the bandwidth.")
    return figures


if __name__ == "__main__":
    typer.run(main)
