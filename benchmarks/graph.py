"""Graph variables: time of a step against eager PyTorch and TorchScript, growth, and neighbours.

``python -m benchmarks.graph --program build/cpp_demo/ofcv_demo``. NaCl in 216 waters
(tests/reference), SchNet and PaiNN with the reference weights, float32, one thread, one graph of
69 nodes and 426 edges. Calls from Python take turns; the rows "C++" are the medians that the
program prints after them. "TorchScript" is the traced network with autograd, what engines do
elsewhere. The library is made for 80 nodes and 600 edges.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import ofcv_export as ofcv
from benchmarks.timing import in_turns, machine, text
from ofcv_export.neighbours import Neighbourhood
from tests.graph_networks import graph, reference, variable

NETWORKS = ("nacl_schnet", "nacl_painn")
SUFFIXES = (".pt", ".onnx", ".pt2", ".so")
IN_CPP = (".pt2", ".so")
LARGEST: dict[str, Any] = {"n_nodes": 80, "n_edges": 600}
# Copies of the graph side by side, up to some 10^6 edges.
COPIES = (1, 4, 24, 240, 2400)
SECONDS = 6.0
N_CALLS = 20
SKIN = 1.0

Graph = dict[str, Tensor]


def main(
    program: Annotated[Path | None, typer.Option(help="The built ofcv_demo.")] = None,
) -> None:
    """Print three tables."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    console = Console(width=100)
    console.print(machine("torch", "onnxruntime", "vesin"))
    steps = Table("network", "how", "time of a step", "eager / this", "TorchScript / this")
    with tempfile.TemporaryDirectory() as folder:
        for name in track(NETWORKS, "Exporting and timing"):
            for row in rows(name, Path(folder), program):
                steps.add_row(*row)
            steps.add_section()
        growth = growth_of(Path(folder) / f"{NETWORKS[0]}.pt2")
    for table in (steps, growth, neighbours()):
        console.print(table)


def single(name: str) -> tuple[ofcv.GraphCollectiveVariable, Graph]:
    """Return a variable in float32 and the first frame's graph."""
    arrays = reference(name)
    cv = variable(name, arrays).float()
    return cv, {key: value.contiguous() for key, value in graph(cv, arrays, 0).items()}


def rows(name: str, folder: Path, program: Path | None) -> list[tuple[str, ...]]:
    """Return the rows of one network."""
    cv, inputs = single(name)
    calls: dict[str, Callable[[], object]] = {"eager": partial(gradient, cv, inputs)}
    traced = torch.jit.trace(cv, tuple(inputs.values()), check_trace=False)
    calls["TorchScript"] = partial(unfused_gradient, traced, inputs)
    for suffix in SUFFIXES:
        ofcv.export(cv, folder / f"{name}{suffix}", **(LARGEST if suffix == ".so" else {}))
        artifact = ofcv.load(folder / f"{name}{suffix}")
        calls[suffix] = partial(artifact.run, list(inputs.values()))
        if not artifact.on_torch:
            calls[suffix] = partial(artifact.run, [value.numpy() for value in inputs.values()])
    times = {how: spread.median for how, spread in in_turns(calls, SECONDS, 7, N_CALLS).items()}
    if program is not None:
        for suffix in IN_CPP:
            times[f"{suffix}, C++"] = in_cpp(folder / f"{name}{suffix}", inputs, program)
    return [
        (
            name,
            how,
            text(time),
            f"{times['eager'] / time:.1f}",
            f"{times['TorchScript'] / time:.1f}",
        )
        for how, time in times.items()
    ]


def gradient(function: Callable[..., Tensor], inputs: Graph) -> None:
    """Evaluate values and their derivatives with respect to positions by autograd."""
    leaf = inputs["positions"].detach().requires_grad_()
    values = function(leaf, *list(inputs.values())[1:])
    for value in values:
        torch.autograd.grad(value, leaf, retain_graph=True)


def unfused_gradient(program: Callable[..., Tensor], inputs: Graph) -> None:
    """As `gradient`, of TorchScript, whose optimised backward passes fail here (PyTorch 2.13)."""
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        gradient(program, inputs)


def in_cpp(path: Path, inputs: Graph, program: Path) -> float:
    """Return the time of a call from C++ in seconds."""
    command: list[object] = [program, "--model", path, "--repeat", 500]
    for name, value in inputs.items():
        np.save(path.with_name(f"{name}.npy"), value.numpy())
        command += ["--input", f"{name}={path.with_name(f'{name}.npy')}"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    found = re.search(r"time +([\d.]+) us per call", done.stdout)
    assert found is not None, done.stdout
    return 1e-6 * float(found[1])


def growth_of(path: Path) -> Table:
    """Return the time per edge of many copies of one graph."""
    _, inputs = single(path.stem)
    artifact = ofcv.load(path)
    table = Table("nodes", "edges", "time of a step", "time per edge")
    for n_copies in COPIES:
        large = list(side_by_side(inputs, n_copies).values())
        n_nodes, n_edges = len(large[0]), len(large[3])
        call = {"": partial(artifact.run, large)}
        time = in_turns(call, SECONDS / len(COPIES), at_least=3)[""].median
        table.add_row(f"{n_nodes}", f"{n_edges}", text(time), text(time / n_edges))
    return table


def side_by_side(inputs: Graph, n_copies: int) -> Graph:
    """Return a graph of some copies of another one, which are not joined."""
    n_nodes = len(inputs["positions"])
    starts = n_nodes * torch.arange(n_copies)
    copied = {
        name: value if name == "box" else torch.cat([value] * n_copies)
        for name, value in inputs.items()
        if name != "edge_index"
    }
    edges = inputs["edge_index"].unsqueeze(1) + starts[None, :, None]
    return {
        name: edges.reshape(2, -1).contiguous() if name == "edge_index" else copied[name]
        for name in inputs
    }


def neighbours() -> Table:
    """Return the time that it takes to find the graph of 650 atoms in Python."""
    arrays = reference(NETWORKS[0])
    cv = variable(NETWORKS[0], arrays)
    positions, box = arrays["all_positions_0"], arrays["box_0"]
    search = partial(
        Neighbourhood,
        cv.cutoff,
        n_atoms=len(positions),
        system=cv.system,
        environment=cv.environment,
        buffer=cv.buffer,
    )
    calls: dict[str, Callable[[], object]] = {
        "a search": partial(search().find, positions, box),
        "used again": partial(search(skin=SKIN).find, positions, box),
    }
    table = Table("neighbours of 650 atoms, Python", "time")
    for name, spread in in_turns(calls, 1.0, 7, N_CALLS).items():
        table.add_row(name, str(spread))
    return table


if __name__ == "__main__":
    typer.run(main)
