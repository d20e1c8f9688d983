"""Which tiles of Triton's kernels are fastest: a sweep for a CUDA device that is new to them.

``python -m benchmarks.triton_tiles``, on a CUDA device. For all pair distances of 30 and 100 atoms
and batches of 4096 frames it prints the time of each pass as a CUDA graph, so without the host, and
its share of the bandwidth, for several sizes of a tile and numbers of warps. The sizes in
`ofcv_export.jacobian.triton_chain_rule` are the best of an H200.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.cuda import Clock, bandwidth, batch_inputs, described, on_device
from benchmarks.training_batch import distances
from ofcv_export.jacobian import triton_chain_rule
from ofcv_export.jacobian.triton_chain_rule import PairKernel

BATCH = 4096
# Numbers of a tile, and those of a warp.
PRODUCTS = (
    (64, 256), (128, 256), (256, 256), (512, 512), (1024, 1024), (256, 128), (512, 256), (512, 128),
)  # fmt: skip
# Pairs of a program, rows, and warps.
PROJECTIONS = (
    (256, 4, 2), (256, 4, 4), (512, 2, 4), (512, 4, 4), (512, 4, 8), (1024, 2, 8), (1024, 1, 8),
)  # fmt: skip
console = Console(width=100)


def main() -> None:
    """Print a table for each number of atoms."""
    if not torch.cuda.is_available():
        console.print("No CUDA device: nothing was measured.")
        return
    device = torch.device("cuda")
    clock = Clock(device, 9, 0.05)
    speed = bandwidth(clock)
    console.print(described(device))
    for n_atoms in (30, 100):
        smart = on_device(distances(n_atoms), 2 * BATCH, device, "triton")
        x, gradient, frames = batch_inputs(smart, BATCH)
        rule, values, rows = smart.chain_rule, smart.values, next(frames)
        assert isinstance(rule, PairKernel)
        n_bytes = values[:BATCH].nbytes + x.nbytes + gradient.nbytes
        table = Table("pass", "sizes", "µs", "% of bandwidth", title=f"{n_atoms} atoms")

        def product(rule=rule, x=x, values=values, rows=rows) -> Tensor:
            return rule.product(x.unsqueeze(1), values, rows)

        def projection(rule=rule, gradient=gradient, values=values, rows=rows) -> Tensor:
            return rule.projection(gradient.unsqueeze(1), values, rows)

        sweeps = (
            ("forward", ("_RUN_TILE", "_PER_RUN_WARP"), PRODUCTS, product),
            ("backward", ("_PAIRS", "_ROWS", "_PROJECTION_WARPS"), PROJECTIONS, projection),
        )
        for name, constants, choices, call in sweeps:
            before = [getattr(triton_chain_rule, constant) for constant in constants]
            for sizes in choices:
                choose(constants, sizes)
                seconds = clock.median(recorded(call))
                share = f"{100 * n_bytes / seconds / speed:.0f}"
                table.add_row(name, ", ".join(map(str, sizes)), f"{1e6 * seconds:.1f}", share)
            choose(constants, before)
        console.print(table)


def choose(constants: tuple[str, ...], sizes: tuple[int, ...] | list[int]) -> None:
    """Set the sizes that kernels are launched with."""
    for constant, size in zip(constants, sizes, strict=True):
        setattr(triton_chain_rule, constant, size)


def recorded(call: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a call as a CUDA graph."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> None:
        graph.replay()
        assert out is not None

    return replay


if __name__ == "__main__":
    typer.run(main)
