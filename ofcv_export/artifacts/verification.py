"""Replaying an artifact in its own runtime and comparing it with float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ofcv_export.artifacts.inputs import STYLES, sample
from ofcv_export.base.files import require_file
from ofcv_export.base.modes import ordinary_modes
from ofcv_export.base.validation import require_finite
from ofcv_export.contracts import contract_graph
from ofcv_export.formats import format_of
from ofcv_export.formats.format import Runner
from ofcv_export.formats.torchscript import TorchScript
from ofcv_export.graph.details import ContractDetails, box_shape
from ofcv_export.graph.export_graph import Exportable, ExportGraph
from ofcv_export.graph.metadata import Metadata, Probe, ProbeOutput
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec, symbols

# Kinds with a network inside, whose outputs cross zero where its terms cancel.
_WITH_NETWORK = ("collective_variable", "energy_functional", "contract")

# Accepted difference relative to the largest value of a row.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# A network may lose more than that to rounding, wherever it runs. Its file may lose a few times as
# much as the module itself, and never more than a hundred times the tolerance.
_ROUNDING_MARGIN = 4
_LARGEST_TOLERANCE = 100
_SIZES = (1, 2, 5, 64)
_FRAMES = 9
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
    content = target.read_bytes()
    metadata = format_of(target).metadata(content, target)
    with ordinary_modes():
        if reference is None:
            return _replay_probe(target, content, metadata)
        graph = _graph_of(reference, metadata)
        return verify_graph(target, content, metadata, graph)


def verify_graph(
    path: Path, content: bytes, metadata: Metadata, graph: ExportGraph
) -> VerificationReport:
    """Compare an artifact's content with a graph evaluated in float64, see `verify`."""
    exact = graph.in_float64()
    scales = _typical_scales(graph, exact)
    comparisons: list[Comparison] = []
    file_format = format_of(path)
    for device in file_format.devices(metadata):
        run = file_format.load(content, path, device)
        for style, size, inputs in _replays(graph):
            expected = run_graph(exact, inputs)
            found = run(inputs)
            comparisons += _compare(graph.outputs, device, style, size, expected, found, scales)
    if graph.differentiable:
        comparisons += _compare_derivatives(path, content, graph, exact)
    tolerance = _tolerance(graph, exact, scales)
    return _report(path, metadata, "the module in float64", comparisons, tolerance)


def record_probe(graph: ExportGraph) -> Probe:
    """Return what the metadata records of the probe: sizes, places and float64 outputs."""
    sizes = dict.fromkeys(symbols(graph.inputs), _PROBE_SIZE)
    exact = graph.in_float64()
    outputs = run_graph(exact, probe(graph.inputs, sizes))
    scales = _typical_scales(graph, exact)
    recorded = {}
    for spec, output, scale in zip(graph.outputs, outputs, scales, strict=True):
        places = _probe_places(output.numel())
        values = output.flatten()[places]
        require_finite(f"{spec.name} of the probe", values)
        recorded[spec.name] = ProbeOutput(
            places=tuple(places.tolist()), values=tuple(values.tolist()), scale=scale
        )
    return Probe(sizes=sizes, outputs=recorded)


def run_graph(module: torch.nn.Module, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Run a graph's float64 module on inputs of any floating dtype."""
    return _run(module, _doubled(inputs))


def _run(module: torch.nn.Module, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        outputs = module(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _doubled(inputs: list[Tensor]) -> list[Tensor]:
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]


def _graph_of(reference: Exportable, metadata: Metadata) -> ExportGraph:
    """Return the reference's graph, with the options and fixed sizes of an artifact."""
    if not isinstance(reference, Exportable):
        raise TypeError(
            "reference: expected a module with an export_graph method, "
            f"got {type(reference).__name__}"
        )
    details, options = metadata.details, metadata.options
    graph = (
        contract_graph(details.contract, reference, **options)
        if isinstance(details, ContractDetails)
        else reference.export_graph(**options)
    )
    for symbol in symbols(graph.inputs):
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


def _replay_probe(path: Path, content: bytes, metadata: Metadata) -> VerificationReport:
    """Compare an artifact with the float64 outputs that its metadata records."""
    comparisons: list[Comparison] = []
    file_format = format_of(path)
    for device in file_format.devices(metadata):
        run: Runner = file_format.load(content, path, device)
        outputs = run(probe(metadata.inputs, metadata.probe.sizes))
        for spec, output in zip(metadata.outputs, outputs, strict=True):
            recorded = metadata.probe.outputs[spec.name]
            expected = torch.tensor(recorded.values, dtype=torch.float64)
            found = output.cpu().double().flatten()[torch.tensor(recorded.places)]
            # The recorded values are those of a few rows; they count as one.
            comparisons += _compare(
                (spec,),
                device,
                "probe",
                _PROBE_SIZE,
                (expected[None],),
                (found[None],),
                (recorded.scale,),
            )
    if metadata.parity is None:
        raise ValueError("metadata: expected a measured parity, got none")
    tolerance = metadata.parity.tolerance
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


def _replays(graph: ExportGraph) -> Iterator[tuple[str, int, list[Tensor]]]:
    """Yield style, size and inputs of every replay."""
    free, shape = symbols(graph.inputs), box_shape(graph.details)
    for size in _SIZES if free else (0,):
        sizes = dict.fromkeys(free, size)
        for seed, style in enumerate(_styles(graph)):
            yield style, size, sample(graph.inputs, sizes, style, seed, shape)


def _styles(graph: ExportGraph) -> Sequence[str]:
    """Return how inputs are sampled, one replay each.

    The parameters of a bias stay ordinary: one of 1e6 scales the rounding error of a saturated
    network to any size.
    """
    if graph.kind == "contract" and any(spec.name == "positions" for spec in graph.inputs):
        return STYLES[:1] * len(STYLES)
    return STYLES


def _compare_derivatives(
    path: Path, content: bytes, graph: ExportGraph, exact: torch.nn.Module
) -> Iterator[Comparison]:
    """Yield the differences of what an engine gets when it differentiates the first output."""
    program = TorchScript().program(content, path, "cpu")
    scale = _typical_derivative(graph, exact)
    name = f"derivative of {graph.outputs[0].name}"
    for style, size, inputs in _replays(graph):
        expected, found = derivative(exact, _doubled(inputs)), derivative(program, inputs)
        absolute, relative = errors(expected, found, scale)
        yield Comparison("cpu", style, size, name, absolute, relative)


def derivative(module: torch.nn.Module, inputs: list[Tensor]) -> Tensor:
    """Return the derivatives of the sum of the first output with respect to the first input."""
    leaf = inputs[0].detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = module(leaf, *inputs[1:])
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        return torch.autograd.grad(first.sum(), leaf)[0]


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
    expected = torch.atleast_1d(expected)
    difference = (found.cpu().double() - expected).abs().reshape(len(expected), -1)
    scale = _row_scales(expected).clamp(min=smallest_scale)
    relative = torch.where(difference == 0, 0.0, difference / scale)
    return float(difference.max()), float(relative.max())


def _row_scales(values: Tensor) -> Tensor:
    values = torch.atleast_1d(values)
    return values.abs().reshape(len(values), -1).amax(dim=1, keepdim=True)


def _typical_scales(graph: ExportGraph, exact: torch.nn.Module) -> tuple[float, ...]:
    """Return for each output the size below which a relative error means nothing.

    The value of a network crosses zero where its terms cancel, and its rounding error does not
    shrink with it; a typical row is the scale there. The outputs of the other kinds are sums of
    products, whose every row has to be right.
    """
    if graph.kind not in _WITH_NETWORK:
        return (0.0,) * len(graph.outputs)
    if graph.kind == "contract":
        frames = [run_graph(exact, inputs) for inputs in _typical_inputs(graph)]
        return tuple(_typical_size(list(outputs)) for outputs in zip(*frames, strict=True))
    sizes = dict.fromkeys(symbols(graph.inputs), max(_SIZES))
    outputs = run_graph(exact, sample(graph.inputs, sizes, STYLES[0], 0, box_shape(graph.details)))
    return tuple(float(_row_scales(output).median()) for output in outputs)


def _typical_derivative(graph: ExportGraph, exact: torch.nn.Module) -> float:
    """Return the typical size of what `derivative` gives."""
    return _typical_size([derivative(exact, _doubled(inputs)) for inputs in _typical_inputs(graph)])


def _typical_inputs(graph: ExportGraph) -> list[list[Tensor]]:
    """Return ordinary inputs of a contract, whose calls hold one frame each."""
    shape = box_shape(graph.details)
    return [sample(graph.inputs, {}, STYLES[0], seed, shape) for seed in range(_FRAMES)]


def _typical_size(tensors: list[Tensor]) -> float:
    """Return the median over calls of the largest value."""
    return float(torch.stack([tensor.abs().max() for tensor in tensors]).median())


def _tolerance(graph: ExportGraph, exact: torch.nn.Module, scales: tuple[float, ...]) -> float:
    """Return the accepted relative error.

    A network is evaluated in float32 by autograd as well: what that loses to rounding, scaled to
    the precision of the file, is no fault of the file.
    """
    dtype = graph.outputs[0].torch_dtype
    tolerance = TOLERANCE[graph.outputs[0].dtype]
    if graph.kind not in _WITH_NETWORK:
        return tolerance
    single = copy.deepcopy(exact).float()
    worst = 0.0
    for _, _, inputs in _replays(graph):
        rounded = [t.float() if t.is_floating_point() else t for t in inputs]
        expected = run_graph(exact, rounded)
        found = _run(single, rounded)
        for judge, output, scale in zip(expected, found, scales, strict=True):
            worst = max(worst, errors(judge, output, scale)[1])
        if graph.differentiable:
            judge, output = derivative(exact, _doubled(rounded)), derivative(single, rounded)
            worst = max(worst, errors(judge, output, _typical_derivative(graph, exact))[1])
    precision = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    return min(max(tolerance, _ROUNDING_MARGIN * worst * precision), _LARGEST_TOLERANCE * tolerance)


def _probe_places(n_values: int) -> Tensor:
    """Return up to 64 places, evenly spread over a flattened output."""
    return torch.linspace(0, n_values - 1, min(n_values, _PROBE_VALUES)).round().long()
