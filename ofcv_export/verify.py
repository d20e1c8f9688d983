"""Replaying an artifact in its own runtime and comparing it with float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofcv_export.artifact import Metadata
from ofcv_export.export_graph import Exportable, ExportGraph, TensorSpec
from ofcv_export.files import require_file
from ofcv_export.formats import format_of
from ofcv_export.formats.format import Runner
from ofcv_export.inputs import STYLES, probe, sample

# Accepted difference relative to the largest value of a row.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# A network may lose more than that to rounding, wherever it runs. Its file may lose a few times as
# much as the module itself, and never more than a hundred times the tolerance.
_ROUNDING_MARGIN = 4
_LARGEST_TOLERANCE = 100
_SIZES = (1, 2, 5, 64)
_PROBE_SIZE = 2
_PROBE_VALUES = 64


@dataclass(frozen=True)
class Comparison:
    """Differences of one output in one replay.

    Parameters
    ----------
    device : str
        Device of the replay.
    inputs : str
        Which inputs were replayed.
    size : int
        Value of the symbolic sizes; 0 where there are none.
    output : str
        Name of the output.
    max_abs_error : float
        Largest difference from float64.
    max_rel_error : float
        The same, relative to the largest float64 value of the row (of the element, in vectors).
    """

    device: str
    inputs: str
    size: int
    output: str
    max_abs_error: float
    max_rel_error: float


@dataclass(frozen=True)
class VerificationReport:
    """What `verify` found.

    Parameters
    ----------
    path : Path
        The artifact.
    metadata : Metadata
        Its metadata.
    runtime : str
        What ran it.
    reference : str
        What it was compared with.
    tolerance : float
        Largest accepted relative error.
    comparisons : tuple of Comparison
        All replays.
    """

    path: Path
    metadata: Metadata
    runtime: str
    reference: str
    tolerance: float
    comparisons: tuple[Comparison, ...]

    @property
    def max_abs_error(self) -> float:
        """Largest difference from float64 over all replays."""
        return max(entry.max_abs_error for entry in self.comparisons)

    @property
    def max_rel_error(self) -> float:
        """Largest relative difference from float64 over all replays."""
        return max(entry.max_rel_error for entry in self.comparisons)

    @property
    def passed(self) -> bool:
        """Whether every replay is within the tolerance."""
        # A NaN compares false, so it fails.
        return all(entry.max_rel_error <= self.tolerance for entry in self.comparisons)

    def __str__(self) -> str:
        """Return one line."""
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{self.path.name}: {verdict} in {self.runtime}, max relative error "
            f"{self.max_rel_error:.1e} (tolerance {self.tolerance:.0e}) in "
            f"{len(self.comparisons)} comparisons with {self.reference}"
        )


def verify(path: str | PathLike[str], reference: Exportable | None = None) -> VerificationReport:
    """Replay an artifact in its own runtime and compare it with float64.

    With a reference the inputs are random and adversarial (tiny, huge, over twelve decades, zero,
    repeated indices), at several batch sizes, and the judge is the module in float64. Without one
    the file's own probe is replayed: inputs that any language can make again and the float64
    outputs that were recorded at export. That tells whether a file still gives its numbers on
    another machine, or in another version of the runtime.

    Parameters
    ----------
    path : path-like
        The artifact.
    reference : module, optional
        The module that was exported.

    Returns
    -------
    VerificationReport
        Errors of every replay; `passed` tells whether all are within the tolerance: 1e-5 in
        float32 and 1e-12 in float64, or four times what rounding costs a collective variable that
        autograd evaluates in the same precision.

    Raises
    ------
    ValueError
        If the file is damaged or foreign, or the reference has other inputs or outputs.
    FileNotFoundError
        If there is no such file.
    """
    target = require_file("path", path)
    metadata = format_of(target).read_metadata(target)
    if reference is None:
        return _replay_probe(target, metadata)
    graph = _graph_of(reference, metadata)
    return verify_graph(target, metadata, graph)


def verify_graph(path: Path, metadata: Metadata, graph: ExportGraph) -> VerificationReport:
    """Compare an artifact with a graph evaluated in float64, see `verify`."""
    exact = graph.in_float64()
    scales = _typical_scales(graph, exact)
    comparisons: list[Comparison] = []
    file_format = format_of(path)
    for device in file_format.devices(metadata):
        run = file_format.load(path, device)
        for style, size, inputs in _replays(graph):
            expected = run_graph(exact, inputs)
            found = run(inputs)
            comparisons += _compare(graph.outputs, device, style, size, expected, found, scales)
    tolerance = _tolerance(graph, exact, scales)
    return _report(path, metadata, "the module in float64", comparisons, tolerance)


def record_probe(graph: ExportGraph) -> dict[str, Any]:
    """Return what the metadata records of the probe: sizes, places and float64 outputs."""
    sizes = dict.fromkeys(_symbols(graph.inputs), _PROBE_SIZE)
    exact = graph.in_float64()
    outputs = run_graph(exact, probe(graph.inputs, sizes))
    scales = _typical_scales(graph, exact)
    recorded = {}
    for spec, output, scale in zip(graph.outputs, outputs, scales, strict=True):
        places = _probe_places(output.numel())
        values = output.flatten()[places].tolist()
        recorded[spec.name] = {"places": places.tolist(), "values": values, "scale": scale}
    return {"sizes": sizes, "outputs": recorded}


def run_graph(module: torch.nn.Module, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Run a graph's float64 module on inputs of any floating dtype."""
    doubled = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    with torch.no_grad():
        outputs = module(*doubled)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _graph_of(reference: Exportable, metadata: Metadata) -> ExportGraph:
    """Return the reference's graph, with the options and fixed sizes of an artifact."""
    if not isinstance(reference, Exportable):
        raise TypeError(
            "reference: expected a module with an export_graph method, "
            f"got {type(reference).__name__}"
        )
    graph = reference.export_graph(**metadata.options)
    for symbol in _symbols(graph.inputs):
        for ours, theirs in zip(graph.inputs, metadata.inputs, strict=False):
            if symbol in ours.shape and len(ours.shape) == len(theirs.shape):
                size = theirs.shape[ours.shape.index(symbol)]
                if isinstance(size, int):
                    graph = graph.with_size(symbol, size)
    if graph.kind != metadata.kind or (graph.inputs, graph.outputs) != (
        metadata.inputs,
        metadata.outputs,
    ):
        raise ValueError(
            f"reference: expected a {metadata.kind} with the artifact's inputs and outputs, "
            f"got a {graph.kind} with others"
        )
    return graph


def _replay_probe(path: Path, metadata: Metadata) -> VerificationReport:
    """Compare an artifact with the float64 outputs that its metadata records."""
    comparisons: list[Comparison] = []
    file_format = format_of(path)
    for device in file_format.devices(metadata):
        run: Runner = file_format.load(path, device)
        outputs = run(probe(metadata.inputs, metadata.probe["sizes"]))
        for spec, output in zip(metadata.outputs, outputs, strict=True):
            recorded = metadata.probe["outputs"][spec.name]
            expected = torch.tensor(recorded["values"], dtype=torch.float64)
            found = output.cpu().double().flatten()[torch.tensor(recorded["places"])]
            # The recorded values are those of a few rows; they count as one.
            comparisons += _compare(
                (spec,),
                device,
                "probe",
                _PROBE_SIZE,
                (expected[None],),
                (found[None],),
                (recorded["scale"],),
            )
    tolerance = float(metadata.parity["tolerance"])
    return _report(path, metadata, "the float64 outputs recorded in it", comparisons, tolerance)


def _report(
    path: Path,
    metadata: Metadata,
    reference: str,
    comparisons: list[Comparison],
    tolerance: float,
) -> VerificationReport:
    return VerificationReport(
        path=path,
        metadata=metadata,
        runtime=format_of(path).runtime,
        reference=reference,
        tolerance=tolerance,
        comparisons=tuple(comparisons),
    )


def _symbols(specs: tuple[TensorSpec, ...]) -> set[str]:
    return {size for spec in specs for size in spec.shape if isinstance(size, str)}


def _replays(graph: ExportGraph) -> Iterator[tuple[str, int, list[Tensor]]]:
    """Yield style, size and inputs of every replay."""
    specs, box_shape = graph.inputs, graph.details.get("box")
    symbols = _symbols(specs)
    for size in _SIZES if symbols else (0,):
        sizes: Mapping[str, int] = dict.fromkeys(symbols, size)
        for seed, style in enumerate(STYLES):
            yield style, size, sample(specs, sizes, style, seed, box_shape)


def _compare(
    specs: tuple[TensorSpec, ...],
    device: str,
    style: str,
    size: int,
    expected: tuple[Tensor, ...],
    found: tuple[Tensor, ...],
    scales: tuple[float, ...],
) -> Iterator[Comparison]:
    for spec, exact, output, scale in zip(specs, expected, found, scales, strict=True):
        absolute, relative = errors(exact, output, scale)
        yield Comparison(device, style, size, spec.name, absolute, relative)


def errors(expected: Tensor, found: Tensor, smallest_scale: float = 0.0) -> tuple[float, float]:
    """Return the largest absolute and relative difference.

    The relative one is taken row by row, with the row's largest value as the scale, or
    `smallest_scale` where that is larger; in a vector every element is a row.
    """
    if expected.shape != found.shape:
        return float("inf"), float("inf")
    difference = (found.cpu().double() - expected).abs().reshape(len(expected), -1)
    scale = _row_scales(expected).clamp(min=smallest_scale)
    relative = torch.where(difference == 0, 0.0, difference / scale)
    return float(difference.max()), float(relative.max())


def _row_scales(values: Tensor) -> Tensor:
    return values.abs().reshape(len(values), -1).amax(dim=1, keepdim=True)


def _typical_scales(graph: ExportGraph, exact: torch.nn.Module) -> tuple[float, ...]:
    """Return for each output the size below which a relative error means nothing.

    The value of a collective variable crosses zero where the terms of its network cancel, and its
    rounding error does not shrink with it; a typical row is the scale there. The outputs of the
    other kinds are sums of products, whose every row has to be right.
    """
    if graph.kind != "collective_variable":
        return (0.0,) * len(graph.outputs)
    sizes = dict.fromkeys(_symbols(graph.inputs), max(_SIZES))
    outputs = run_graph(exact, sample(graph.inputs, sizes, STYLES[0], 0, graph.details.get("box")))
    return tuple(float(_row_scales(output).median()) for output in outputs)


def _tolerance(graph: ExportGraph, exact: torch.nn.Module, scales: tuple[float, ...]) -> float:
    """Return the accepted relative error.

    A collective variable is evaluated in float32 by autograd as well: what that loses to rounding,
    scaled to the precision of the file, is no fault of the file.
    """
    dtype = graph.outputs[0].torch_dtype
    tolerance = TOLERANCE[graph.outputs[0].dtype]
    if graph.kind != "collective_variable":
        return tolerance
    single = copy.deepcopy(exact).float()
    worst = 0.0
    for _, _, inputs in _replays(graph):
        rounded = [tensor.float() for tensor in inputs]
        expected = run_graph(exact, rounded)
        with torch.no_grad():
            found = single(*rounded)
        for judge, output, scale in zip(expected, found, scales, strict=True):
            worst = max(worst, errors(judge, output, scale)[1])
    precision = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    return min(max(tolerance, _ROUNDING_MARGIN * worst * precision), _LARGEST_TOLERANCE * tolerance)


def _probe_places(n_values: int) -> Tensor:
    """Return up to 64 places, evenly spread over a flattened output."""
    return torch.linspace(0, n_values - 1, min(n_values, _PROBE_VALUES)).round().long()
