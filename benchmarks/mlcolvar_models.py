"""Trained mlcolvar models in every format: parity with mlcolvar's float64 autograd, time per call.

``python -m benchmarks.mlcolvar_models``. One frame of five atoms, float32, one thread; files for
one frame. Times are medians of calls from Python that take turns, the check of the input included,
with half the distance of the quartiles. The row "mlcolvar" is its own value and derivative by
autograd.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import ofcv_export as ofcv
from benchmarks.timing import in_turns, machine
from benchmarks.trained_models import MODELS, N_ATOMS

FORMATS = {".pt": "LibTorch", ".onnx": "ONNX Runtime", ".pt2": "AOTInductor"}
# Calls in a row, as an engine makes them: the first of a turn finds cold caches.
N_TURNS, N_CALLS = 15, 20


def main() -> None:
    """Print one table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = Table("model", "format", "max rel error", "time per call", "mlcolvar / ours")
    generator = torch.Generator().manual_seed(2)
    positions = torch.randn(5, N_ATOMS, 3, generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        for make in track(MODELS[:6], "Training and exporting"):
            model, _ = make()
            for row in rows(model.eval(), positions, Path(folder)):
                table.add_row(*row)
            table.add_section()
    console = Console(width=100)
    console.print(machine("torch", "onnxruntime", "mlcolvar"))
    console.print(table)


def rows(model: Any, positions: Tensor, folder: Path) -> list[tuple[str, ...]]:
    """Return the table's rows for one model."""
    one = positions[:1]
    exact = by_autograd(copy_in_float64(model), positions.double())
    cv = ofcv.from_mlcolvar(model)
    artifacts = {}
    for suffix in FORMATS:
        ofcv.export(cv, folder / f"cv{suffix}", batch=1)
        artifacts[suffix] = ofcv.load(folder / f"cv{suffix}")
    calls = {suffix: partial(artifact, one) for suffix, artifact in artifacts.items()}
    times = in_turns({"mlcolvar": lambda: by_autograd(model, one), **calls}, 1.0, N_TURNS, N_CALLS)
    theirs = times["mlcolvar"]
    found: list[tuple[str, ...]] = [(type(model).__name__, "mlcolvar", "", str(theirs), "")]
    for suffix, runtime in FORMATS.items():
        error = largest_error(artifacts[suffix], positions, exact)
        ratio = theirs.median / times[suffix].median
        cells = (f"{error:.1e}", str(times[suffix]), f"{ratio:.1f}x")
        found.append(("", f"{suffix}, {runtime}", *cells))
    return found


def largest_error(
    artifact: ofcv.Artifact, positions: Tensor, exact: tuple[Tensor, Tensor]
) -> float:
    """Return the largest difference over the frames, relative to each output's largest number."""
    frames = [artifact(frame) for frame in positions.split(1)]
    outputs = [torch.cat(each) for each in zip(*frames, strict=True)]
    return max(
        float((ours - judge).abs().max() / judge.abs().max())
        for ours, judge in zip(outputs, exact, strict=True)
    )


def copy_in_float64(model: Any) -> Any:
    """Return a float64 copy of a model, without the training graph that its tensors may hold."""
    with torch.no_grad():
        for part in model.modules():
            for key, value in vars(part).items():
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    setattr(part, key, value.detach())
            for key, buffer in part._buffers.items():
                if buffer is not None and buffer.grad_fn is not None:
                    part._buffers[key] = buffer.detach()
    return copy.deepcopy(model).double()


def by_autograd(model: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return mlcolvar's values and their derivatives with respect to positions."""
    leaf = positions.detach().clone().requires_grad_()
    values = model(leaf)
    gradients = [
        torch.autograd.grad(values[:, k].sum(), leaf, retain_graph=True)[0]
        for k in range(values.shape[1])
    ]
    return values.detach(), torch.stack(gradients, dim=1)


if __name__ == "__main__":
    main()
