"""Replaying an artifact in its own runtime and comparing it with float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofcv_export.artifacts.atom_graphs import GraphReplays
from ofcv_export.artifacts.frames import Frames, to_frames
from ofcv_export.artifacts.geometry import has_geometry
from ofcv_export.artifacts.graph_frames import Inputs, to_graph_frames
from ofcv_export.artifacts.replays import (
    PROBE,
    WITH_NETWORK,
    Calls,
    Replay,
    Replays,
    derivative,
    doubled,
    row_scales,
    run,
)
from ofcv_export.artifacts.source_options import bounded, graph_options
from ofcv_export.base.files import require_file
from ofcv_export.base.modes import on_cpu, ordinary_modes, without_inference_tensors
from ofcv_export.base.options import require_options
from ofcv_export.base.validation import require_finite
from ofcv_export.contracts import contract_graph
from ofcv_export.formats import format_of
from ofcv_export.formats.torchscript import TorchScript
from ofcv_export.graph.details import ContractDetails, Details, GraphVariableDetails, variable_of
from ofcv_export.graph.export_graph import Exportable, ExportGraph
from ofcv_export.graph.metadata import Metadata, Probe, ProbeOutput
from ofcv_export.graph.probe import probe, probe_sizes
from ofcv_export.graph.tensor_spec import TensorSpec, symbols
from ofcv_export.jacobian.smart_derivatives import SmartDerivatives
from ofcv_export.variables.variable import Variable

# Accepted difference relative to the largest value of a row.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# A network may lose more than that to rounding, wherever it runs. Its file may lose a few times as
# much as the module itself, and never more than a hundred times the tolerance.
_ROUNDING_MARGIN = 4
_LARGEST_TOLERANCE = 100
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
        return largest([entry.max_abs_error for entry in self.comparisons])

    @property
    def max_rel_error(self) -> float:
        """Largest relative difference from float64 over all replays."""
        return largest([entry.max_rel_error for entry in self.comparisons])

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


def verify(
    path: str | PathLike[str], reference: Exportable | None = None, *, frames: Any = None
) -> VerificationReport:
    """Replay an artifact in its own runtime and compare it with float64.

    With a reference the inputs are random and adversarial (tiny, huge, over twelve decades, zero,
    repeated indices), at several batch sizes, once with 10^5 rows where that is cheap. The judge is
    the module's own parts in float64, by autograd and by formulas that no file is made of.
    Positions follow the unit, the boxes and the variable, see `ofcv_export.artifacts.geometry`.

    Without one the file's own probe is replayed: inputs that any language can make again and the
    float64 outputs that were recorded at export. That tells whether a file still gives its numbers
    on another machine, or in another version of the runtime.

    Parameters
    ----------
    path : path-like
        The artifact.
    reference : module, optional
        The module that was exported.
    frames : optional
        Positions to compare at, see `export`; with a reference only.

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
            if frames is not None:
                raise ValueError("frames: expected a reference to compare with, got none")
            return _replay_probe(target, content, metadata)
        graph = _graph_of(reference, metadata)
        given = checked_frames(frames, graph, metadata)
        return compare(target, content, metadata, replays_of(graph, given))


def replays_of(graph: ExportGraph, frames: Frames | list[Inputs] | None) -> Calls:
    """Return the calls with which files of a graph are compared with its judge."""
    if isinstance(frames, Frames):
        return Replays(graph, graph.in_float64(), frames)
    if isinstance(graph.details, GraphVariableDetails):
        return GraphReplays(graph, graph.in_float64(), frames or ())
    return Replays(graph, graph.in_float64())


def compare(path: Path, content: bytes, metadata: Metadata, replays: Calls) -> VerificationReport:
    """Compare an artifact's content with its judge, see `verify`."""
    graph, exact = replays.graph, replays.exact
    comparisons: list[Comparison] = []
    runners = format_of(path).tensor_runners(content, path, metadata)
    rounding = _Rounding(replays)
    program = TorchScript().program(content, path, "cpu") if graph.differentiable else None
    slopes: list[Comparison] = []
    for replay in replays:
        expected = run_graph(exact, replay.inputs)
        scales = replays.scales(replay.style)
        for device, runner in runners.items():
            first, *others = runner(replay.inputs)
            found = (_nearest_image(first, expected[0], graph.details), *others)
            comparisons += _compare(
                graph.outputs, device, replay.style, replay.size, expected, found, scales
            )
        slope = None
        if program is not None:
            slope = derivative(exact, doubled(replay.inputs))
            slopes.append(_compare_derivatives(program, replays, replay, slope))
        rounding.add(replay, expected, slope)
    tolerance = rounding.tolerance()
    return _report(path, metadata, "the module in float64", comparisons + slopes, tolerance)


def checked_frames(
    frames: Any, graph: ExportGraph, metadata: Metadata
) -> Frames | list[Inputs] | None:
    """Return a user's frames as the graph takes them.

    Raises
    ------
    ValueError, TypeError
        If they do not fit, or the graph takes no frames.
    """
    if frames is None:
        return None
    if isinstance(graph.details, GraphVariableDetails):
        return to_graph_frames(frames, metadata, graph.largest)
    if not has_geometry(graph):
        raise ValueError(
            f"frames: expected none for a {graph.kind}, which takes no frames, got some"
        )
    return to_frames(frames, metadata)


def record_probe(replays: Calls) -> Probe:
    """Return what the metadata records of the probe: sizes, places and float64 outputs."""
    graph = replays.graph
    sizes = probe_sizes(graph.inputs)
    outputs = run_graph(replays.exact, probe(graph.inputs, sizes))
    scales = replays.scales(PROBE)
    recorded = {}
    for spec, output, scale in zip(graph.outputs, outputs, scales, strict=True):
        places = _probe_places(output.numel())
        values = output.flatten()[places]
        require_finite(f"{spec.name} of the probe", values)
        require_finite(f"usual size of {spec.name}", torch.tensor(scale, dtype=torch.float64))
        recorded[spec.name] = ProbeOutput(
            places=tuple(places.tolist()), values=tuple(values.tolist()), scale=scale
        )
    return Probe(sizes=sizes, outputs=recorded)


def run_graph(module: torch.nn.Module, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Run a graph's float64 module on inputs of any floating dtype."""
    return run(module, doubled(inputs))


def require_exportable(name: str, module: object) -> None:
    """Raise TypeError unless a module can be exported, with a hint for one of mlcolvar."""
    if isinstance(module, Exportable):
        return
    bases = [f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__]
    hint = "; ofcv_export.from_mlcolvar makes one of it" * ("mlcolvar.cvs.cv.BaseCV" in bases)
    raise TypeError(
        f"{name}: expected a module with an export_graph method, got {type(module).__name__}{hint}"
    )


def graph_of(
    name: str,
    module: Exportable,
    atoms: Sequence[int] | None,
    contract: str | None,
    options: Mapping[str, Any],
) -> ExportGraph:
    """Return the graph of a module for atoms of an engine; `name` is what an error calls it."""
    options = graph_options(options)
    require_exportable(name, module)
    if atoms is not None and isinstance(module, Variable):
        module = module.with_atoms(atoms)
    if isinstance(module, torch.nn.Module):
        module = without_inference_tensors(module)
        # A frozen dataset chooses its form by where it is, and is as large as it is.
        module = module if isinstance(module, SmartDerivatives) else on_cpu(module)
    if contract is not None:
        return contract_graph(contract, module, **options)
    require_options(module.export_graph, options, type(module).__name__)
    return module.export_graph(**options)


def _graph_of(reference: Exportable, metadata: Metadata) -> ExportGraph:
    """Return the reference's graph, with the atoms, options and fixed sizes of an artifact."""
    details = metadata.details
    contract = details.contract if isinstance(details, ContractDetails) else None
    graph = graph_of("reference", reference, metadata.atoms, contract, metadata.options)
    graph = bounded(graph, metadata.options)
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


def _nearest_image(
    found: Tensor, expected: Tensor, details: Details, places: Tensor | None = None
) -> Tensor:
    """Return a file's first output, values with a period as the images nearest to the judge's.

    Parameters
    ----------
    found, expected : torch.Tensor
        The whole output, or some of its values.
    details : Details
        What the file says of the variable, if it holds one.
    places : torch.Tensor, optional
        Which values of the flattened output these are; by default all.
    """
    variable = variable_of(details)
    if variable is None or not any(variable.periods):
        return found
    if places is None:
        places = torch.arange(found.numel()).reshape(found.shape)
    periods = torch.tensor([period or 0.0 for period in variable.periods], dtype=torch.float64)
    period = periods[places % len(periods)]
    values = found.cpu().double()
    turns = torch.round((values - expected.cpu()) / period)
    return torch.where(period > 0, values - turns * period, values)


def _replay_probe(path: Path, content: bytes, metadata: Metadata) -> VerificationReport:
    """Compare an artifact with the float64 outputs that its metadata records."""
    comparisons: list[Comparison] = []
    for device, runner in format_of(path).tensor_runners(content, path, metadata).items():
        outputs = runner(probe(metadata.inputs, metadata.probe.sizes))
        for spec, output in zip(metadata.outputs, outputs, strict=True):
            recorded = metadata.probe.outputs[spec.name]
            expected = torch.tensor(recorded.values, dtype=torch.float64)
            places = torch.tensor(recorded.places)
            found = output.cpu().double().flatten()[places]
            if spec == metadata.outputs[0]:
                found = _nearest_image(found, expected, metadata.details, places)
            # The recorded values are those of a few rows; they count as one.
            comparisons += _compare(
                (spec,),
                device,
                PROBE,
                max(metadata.probe.sizes.values(), default=0),
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


def _compare_derivatives(
    program: torch.nn.Module, replays: Calls, replay: Replay, expected: Tensor
) -> Comparison:
    """Return the differences of what an engine gets when it differentiates the first output."""
    name = f"derivative of {replays.graph.outputs[0].name}"
    found = derivative(program, replay.inputs)
    scale = replays.derivative_scale(replay.style)
    return Comparison("cpu", replay.style, replay.size, name, *errors(expected, found, scale))


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
    scale = row_scales(expected).clamp(min=smallest_scale)
    relative = torch.where(difference == 0, 0.0, difference / scale)
    return float(difference.max()), float(relative.max())


class _Rounding:
    """What evaluating a network in float32 by autograd loses, which is no fault of a file.

    Parameters
    ----------
    replays : Replays
        The graph, its judge, and the scales of its outputs.
    """

    def __init__(self, replays: Calls) -> None:
        self.graph = replays.graph
        self.replays = replays
        self.single: torch.nn.Module | None = None
        if self.graph.kind in WITH_NETWORK:
            self.single = copy.deepcopy(self.graph.exact).cpu()
            # What a float32 module keeps in float64, such as a superposition, its file does too.
            if self.graph.outputs[0].dtype != "float32":
                self.single = self.single.float()
        self.worst = 0.0

    def add(self, replay: Replay, expected: tuple[Tensor, ...], slope: Tensor | None) -> None:
        """Evaluate the network with the inputs of a call.

        Parameters
        ----------
        replay : Replay
            The call.
        expected : tuple of torch.Tensor
            Its exact outputs.
        slope : torch.Tensor or None
            Its exact derivatives, of a graph that engines differentiate.
        """
        if self.single is None:
            return
        rounded = [t.float() if t.is_floating_point() else t for t in replay.inputs]
        if self.graph.outputs[0].dtype != "float32":
            expected = run_graph(self.replays.exact, rounded)
            slope = None if slope is None else derivative(self.replays.exact, doubled(rounded))
        scales = self.replays.scales(replay.style)
        for judge, output, scale in zip(expected, run(self.single, rounded), scales, strict=True):
            self._note(judge, output, scale)
        if slope is not None:
            found = derivative(self.single, rounded)
            self._note(slope, found, self.replays.derivative_scale(replay.style))

    def _note(self, expected: Tensor, found: Tensor, scale: float) -> None:
        self.worst = max(self.worst, errors(expected, found, scale)[1])

    def tolerance(self) -> float:
        """Return the accepted relative error, the loss scaled to the precision of the file."""
        spec = self.graph.outputs[0]
        tolerance = TOLERANCE[spec.dtype]
        precision = torch.finfo(spec.torch_dtype).eps / torch.finfo(torch.float32).eps
        lost = _ROUNDING_MARGIN * self.worst * precision
        return min(max(tolerance, lost), _LARGEST_TOLERANCE * tolerance)


def largest(numbers: list[float]) -> float:
    """Return the largest number; NaN if one is NaN, wherever it stands."""
    return float(np.max(numbers))


def _probe_places(n_values: int) -> Tensor:
    """Return up to 64 places, evenly spread over a flattened output."""
    return torch.linspace(0, n_values - 1, min(n_values, _PROBE_VALUES)).round().long()
