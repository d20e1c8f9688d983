"""Throughput of the dimension-wise rescaling beside the limit that the memory sets.

``python -m benchmarks.rescaling``. float32, one thread, called from Python; medians over rounds in
each of which every variant has its turn, with half the distance of the quartiles. "limit" is the
time of a copy that moves as many bytes, measured in the same rounds: 16 a coefficient, 24 with the
gradient, and 28 with the gradient of a frozen molecule, whose scales are read instead of indices.

The arrays that hold the results are made anew in each call. glibc gives large ones back to the
system every time, and the page faults that follow cost more than everything else; the benchmark
starts itself again with settings that make it keep them, as an engine with its own arrays would.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ofcv_export as ofcv
from benchmarks.timing import Spread, in_turns, machine
from ofcv_export.density.rescaling import DimensionWiseRescaling, MoleculeRescaling
from ofcv_export.formats import format_of
from ofcv_export.formats.format import on_tensors

KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
N_BASIS = 361
SIZES = (10**4, 10**5, 10**6, 10**7)
N_SECONDS, N_ROUNDS = 2.0, 15
Call = Callable[[], object]


def rescaling() -> DimensionWiseRescaling:
    """Return a rescaling of the size of H, C, N and O in an even-tempered basis."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, N_BASIS, generator=generator)
    return DimensionWiseRescaling(*values)


def plain(module: DimensionWiseRescaling, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return what the artifact does, in PyTorch's words."""
    coeffs, index, *gradient = inputs
    scaled = module.lambda_z[index] * (coeffs - module.coeff_biases[index])
    return (scaled, *(g / (module.lambda_z[index] + module.epsilon) for g in gradient))


def copy_of(n_bytes: int) -> Call:
    """Return a call that moves this many bytes: half of them read, half written."""
    source = torch.zeros(n_bytes // 8)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def variants(n: int, gradient: bool, folder: Path) -> dict[str, tuple[Call, int]]:
    """Return the calls to time, with the bytes that each has to move."""
    module = rescaling()
    generator = torch.Generator().manual_seed(1)
    coeffs, slope = torch.randn(2, n, generator=generator)
    index = torch.randint(N_BASIS, (n,), generator=generator)
    inputs = [coeffs, index, slope] if gradient else [coeffs, index]
    frozen = MoleculeRescaling(
        [], N_BASIS, module.lambda_z[index], module.coeff_biases[index], 1e-8
    )
    frozen_inputs = [coeffs, slope] if gradient else [coeffs]
    n_bytes = (24 if gradient else 16) * n
    calls: dict[str, tuple[Call, int]] = {
        "PyTorch expression": (lambda: plain(module, inputs), n_bytes)
    }
    for suffix in (".pt", ".onnx", ".pt2"):
        run = runner(module, folder / f"any-{gradient}{suffix}", gradient)
        calls[f"{suffix}, any molecules"] = (lambda run=run: run(inputs), n_bytes)
    # A package with 10^7 constants takes minutes to compile; LibTorch holds them as they are.
    run = runner(frozen, folder / f"frozen-{n}-{gradient}.pt", gradient)
    n_bytes = (28 if gradient else 16) * n
    calls[".pt, frozen molecules"] = (lambda: run(frozen_inputs), n_bytes)
    return calls


def runner(
    module: DimensionWiseRescaling | MoleculeRescaling, path: Path, gradient: bool
) -> Callable[[list[Tensor]], object]:
    """Export a module, unless the file is there, and return what runs the file."""
    if not path.exists():
        ofcv.export(module, path, gradient=gradient)
    file_format = format_of(path)
    run = file_format.load(path.read_bytes(), path, "cpu")
    return run if file_format.on_torch else on_tensors(run)


def measure(n: int, gradient: bool, folder: Path) -> dict[str, tuple[Spread, Spread]]:
    """Return the times of every variant and of its limit."""
    found = variants(n, gradient, folder)
    limits = {f"{size} bytes": copy_of(size) for _, size in found.values()}
    calls = {name: call for name, (call, _) in found.items()}
    times = in_turns(calls | limits, N_SECONDS, N_ROUNDS)
    return {name: (times[name], times[f"{size} bytes"]) for name, (_, size) in found.items()}


def keep_memory(module: str) -> None:
    """Start a benchmark again with settings that make glibc keep large arrays."""
    if any(os.environ.get(name) != value for name, value in KEEP_MEMORY.items()):
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | KEEP_MEMORY)


def main() -> None:
    """Print one table."""
    keep_memory("benchmarks.rescaling")
    torch.set_num_threads(1)
    console = Console(width=90)
    console.print(machine("torch", "onnxruntime"))
    table = Table("coefficients", "variant", "ns / coefficient", "limit", "time / limit")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), console.status("Timing"):
        for gradient in (False, True):
            for n in SIZES:
                size = f"{n:.0e}" + (" + gradient" if gradient else "")
                for name, (spread, limit) in measure(n, gradient, Path(folder)).items():
                    cells = (
                        f"{1e9 * each.median / n:.2f} {each.width}" for each in (spread, limit)
                    )
                    table.add_row(size, name, *cells, f"{spread.median / limit.median:.1f}")
                    size = ""
                table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
