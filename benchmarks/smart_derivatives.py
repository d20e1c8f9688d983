"""Set-up and forward of SmartDerivatives against mlcolvar's, on the same frames in one run.

``python -m benchmarks.smart_derivatives [--large]``. One thread; medians over repetitions that
alternate between the peers; the ratios are what to look at, times depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata

import torch
from mlcolvar.core.loss.utils.smart_derivatives import SmartDerivatives as Peer
from mlcolvar.core.transform import PairwiseDistances
from mlcolvar.data import DictDataset
from rich.console import Console
from rich.table import Table

from ofcv_export import SmartDerivatives

# Ratios that this project promises for 10 atoms.
PROMISED = {"forward": 150, "set-up, PairwiseDistances": 20, "set-up, any callable": 4}
console = Console()


def main() -> None:
    """Print the tables; exit with 1 if a promised ratio is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--large", action="store_true", help="add 30 atoms, where mlcolvar's set-up takes minutes"
    )
    large = parser.parse_args().large
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "mlcolvar"))
    console.print(f"{platform.processor() or platform.machine()}, one thread, {versions}")
    kept = compare(n_atoms=10, n_frames=10_000, batch=500, setups=3, promised=PROMISED)
    if large:
        kept &= compare(n_atoms=30, n_frames=2_000, batch=200, setups=1, promised={})
    sys.exit(not kept)


def compare(
    n_atoms: int, n_frames: int, batch: int, setups: int, promised: Mapping[str, float]
) -> bool:
    """Print a table for one system; return whether every promised ratio is reached."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(n_frames, n_atoms, 3, generator=generator)
    dataset = DictDataset(
        {
            "data": positions.reshape(n_frames, -1),
            "labels": torch.arange(n_frames) % 4,
            "weights": torch.ones(n_frames),
        }
    )
    distances = PairwiseDistances(n_atoms=n_atoms, PBC=False, cell=[1.0, 1.0, 1.0])
    peer, recognised, disguised = Peer(), SmartDerivatives(), SmartDerivatives()

    def disguise(positions: torch.Tensor) -> torch.Tensor:
        return distances(positions)

    with console.status(f"Set-ups with {n_atoms} atoms, {n_frames} frames"):
        times = medians(
            {
                "mlcolvar": lambda: peer.setup(dataset, distances, n_atoms),
                "recognised": lambda: recognised.setup(dataset, distances, n_atoms),
                "disguised": lambda: disguised.setup(dataset, disguise, n_atoms),
            },
            repetitions=setups,
            warm_up=0,
        )
    rows = {
        "set-up, PairwiseDistances": (times["mlcolvar"], times["recognised"]),
        "set-up, any callable": (times["mlcolvar"], times["disguised"]),
    }
    x = torch.randn(batch, distances.out_features, generator=generator)
    ref_idx = torch.randperm(n_frames, generator=generator)[:batch]
    forward = medians(
        {"mlcolvar": lambda: peer(x, ref_idx), "ours": lambda: recognised(x, ref_idx)},
        repetitions=20,
        warm_up=3,
        calls_in_a_row=5,
    )
    rows["forward"] = (forward["mlcolvar"], forward["ours"])
    torch.testing.assert_close(recognised(x, ref_idx), peer(x, ref_idx), rtol=1e-4, atol=1e-4)

    table = Table(
        "step", "mlcolvar", "ofcv-export", "ratio", "promised",
        title=f"{batch} of {n_frames} frames, {n_atoms} atoms, {distances.out_features} distances",
    )  # fmt: skip
    for name, (theirs, ours) in rows.items():
        promise = f"{promised[name]:.0f}x" if name in promised else ""
        table.add_row(name, text(theirs), text(ours), f"{theirs / ours:.0f}x", promise)
    console.print(table)
    return all(rows[name][0] / rows[name][1] >= ratio for name, ratio in promised.items())


def medians(
    calls: Mapping[str, Callable[[], object]],
    repetitions: int,
    warm_up: int,
    calls_in_a_row: int = 1,
) -> dict[str, float]:
    """Return the median time in seconds of each call, the peers taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(warm_up + repetitions):
        for name, call in calls.items():
            elapsed = [timed(call) for _ in range(calls_in_a_row)]
            if repetition >= warm_up:
                times[name] += elapsed
    return {name: statistics.median(values) for name, values in times.items()}


def timed(call: Callable[[], object]) -> float:
    """Return the time of one call in seconds; what it prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


def text(seconds: float) -> str:
    """Return a time with its unit."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


if __name__ == "__main__":
    main()
