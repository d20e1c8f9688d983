"""Set-up and forward of SmartDerivatives against mlcolvar's, on the same frames in one run.

``python -m benchmarks.smart_derivatives [--large]``. One thread; medians over repetitions that
alternate between the peers, with half the distance of the quartiles; the ratios are what to look
at, times depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Mapping

import torch
from mlcolvar.core.loss.utils.smart_derivatives import SmartDerivatives as Peer
from mlcolvar.core.transform import PairwiseDistances
from mlcolvar.data import DictDataset
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Spread, in_turns, machine
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
    console.print(machine("torch", "mlcolvar"), "one thread", sep=", ")
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
        times = times_of(
            {
                "mlcolvar": lambda: peer.setup(dataset, distances, n_atoms),
                "recognised": lambda: recognised.setup(dataset, distances, n_atoms),
                "disguised": lambda: disguised.setup(dataset, disguise, n_atoms),
            },
            turns=setups,
        )
    rows = {
        "set-up, PairwiseDistances": (times["mlcolvar"], times["recognised"]),
        "set-up, any callable": (times["mlcolvar"], times["disguised"]),
    }
    x = torch.randn(batch, distances.out_features, generator=generator)
    ref_idx = torch.randperm(n_frames, generator=generator)[:batch]
    forward = times_of(
        {"mlcolvar": lambda: peer(x, ref_idx), "ours": lambda: recognised(x, ref_idx)},
        turns=20,
        calls_in_a_row=5,
    )
    rows["forward"] = (forward["mlcolvar"], forward["ours"])
    torch.testing.assert_close(recognised(x, ref_idx), peer(x, ref_idx), rtol=1e-4, atol=1e-4)

    table = Table(
        "step", "mlcolvar", "ofcv-export", "ratio", "promised",
        title=f"{batch} of {n_frames} frames, {n_atoms} atoms, {distances.out_features} distances",
    )  # fmt: skip
    kept = True
    for name, (theirs, ours) in rows.items():
        promise = f"{promised[name]:.0f}x" if name in promised else ""
        ratio = theirs.median / ours.median
        kept &= ratio >= promised.get(name, 0)
        table.add_row(name, str(theirs), str(ours), f"{ratio:.0f}x", promise)
    console.print(table)
    return kept


def times_of(
    calls: Mapping[str, Callable[[], object]], turns: int, calls_in_a_row: int = 1
) -> dict[str, Spread]:
    """Return the times of the peers' calls, whose prints are dropped."""
    with contextlib.redirect_stdout(io.StringIO()):
        return in_turns(calls, seconds=0, at_least=turns, calls_in_a_row=calls_in_a_row)


if __name__ == "__main__":
    main()
