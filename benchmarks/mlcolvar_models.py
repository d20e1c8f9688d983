"""Trained mlcolvar models in every format: parity with mlcolvar's float64 autograd, time per call.

``python -m benchmarks.mlcolvar_models``. One frame of five atoms, float32, one thread; median wall
time of a call from Python, the check of its input included. The row "mlcolvar" is its own value and
derivative by autograd.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import ofcv_export as ofcv
from benchmarks.trained_models import MODELS, N_ATOMS

FORMATS = {".pt": "LibTorch", ".onnx": "ONNX Runtime", ".pt2": "AOTInductor"}
N_CALLS = 300


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
    Console(width=90).print(table)


def rows(model: Any, positions: Tensor, folder: Path) -> list[tuple[str, ...]]:
    """Return the table's rows for one model."""
    name, one = type(model).__name__, positions[:1]
    theirs = median_seconds(lambda: by_autograd(model, one))
    exact = by_autograd(copy_in_float64(model), positions.double())
    found: list[tuple[str, ...]] = [(name, "mlcolvar", "", f"{1e6 * theirs:.0f} µs", "")]
    cv = ofcv.from_mlcolvar(model)
    for suffix, runtime in FORMATS.items():
        path = folder / f"cv{suffix}"
        ofcv.export(cv, path)
        artifact = ofcv.load(path)
        error = max(
            float((ours - judge).abs().max() / judge.abs().max())
            for ours, judge in zip(artifact(positions), exact, strict=True)
        )
        seconds = median_seconds(lambda: artifact(one))  # noqa: B023 (called at once)
        cells = (f"{error:.1e}", f"{1e6 * seconds:.0f} µs", f"{theirs / seconds:.1f}x")
        found.append(("", f"{suffix}, {runtime}", *cells))
    return found


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


def median_seconds(call: Callable[[], object]) -> float:
    """Return the median wall time of a call."""
    times = []
    for number in range(N_CALLS + 20):
        start = time.perf_counter()
        call()
        if number >= 20:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
