"""Which inputs an artifact is replayed with, and how large its outputs usually are there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ofcv_export.artifacts.cost import is_cheap
from ofcv_export.artifacts.frames import Frames
from ofcv_export.artifacts.geometry import Drawn, Geometry, has_geometry
from ofcv_export.artifacts.samples import STYLES, sample, sample_one
from ofcv_export.graph.details import ContractDetails, box_shape, variable_of
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.float64 import InFloat64
from ofcv_export.graph.probe import probe, probe_sizes
from ofcv_export.graph.tensor_spec import TensorSpec, symbols

# Kinds with a network inside, whose outputs cross zero where its terms cancel.
WITH_NETWORK = (
    "collective_variable",
    "graph_collective_variable",
    "energy_functional",
    "contract",
)
SIZES = (1, 2, 5, 64)
# Errors of sums and indices that grow with the size show here.
MANY = 100_000
PROBE = "probe"
# Calls of a graph of fixed size for each kind of inputs.
_CALLS = 3
# Frames that tell how large outputs usually are; single calls of a contract are slower.
_FRAMES, _SINGLE_FRAMES = 64, 9
# Where a network or a switching function saturates, its derivatives are lost to rounding at values
# that nobody misses. Their scale is at least this part of the one where it does not.
_SATURATED = 0.01

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Replay:
    """Inputs of one call.

    Parameters
    ----------
    style : str
        How they were made.
    size : int
        Value of the symbolic sizes; 0 where there are none.
    inputs : list of torch.Tensor
        In order.
    """

    style: str
    size: int
    inputs: list[Tensor]


class Calls(ABC):
    """All calls with which an artifact is compared with its judge.

    Attributes
    ----------
    graph : ExportGraph
        What was exported.
    exact : torch.nn.Module
        The judge, in float64.
    """

    graph: ExportGraph
    exact: torch.nn.Module
    # Typical sizes by style: of each output, and of the derivatives that engines take, if any do.
    _scales: list[dict[str, float]]
    _derivative_scales: dict[str, float]

    @abstractmethod
    def __iter__(self) -> Iterator[Replay]:
        """Yield the calls, the largest last."""

    def scales(self, style: str) -> tuple[float, ...]:
        """Return for each output the size below which a relative error means nothing.

        The value of a network crosses zero where its terms cancel, and its rounding error does not
        shrink with it; a typical row is the scale there. The outputs of the other kinds are sums of
        products, whose every row has to be right.
        """
        return tuple(_of_style(scales, style) for scales in self._scales)

    def derivative_scale(self, style: str) -> float:
        """Return the size of derivatives below which a relative error means nothing."""
        return _of_style(self._derivative_scales, style)


class Replays(Calls):
    """All calls with which an artifact is compared with its judge.

    Parameters
    ----------
    graph : ExportGraph
        What was exported.
    exact : torch.nn.Module
        The judge, in float64.
    frames : Frames, optional
        A user's own positions.
    """

    def __init__(
        self, graph: ExportGraph, exact: torch.nn.Module, frames: Frames | None = None
    ) -> None:
        self.graph = graph
        self.exact = exact
        self._free = symbols(graph.inputs)
        self._most = min([MANY, *graph.largest.values()])
        self._one_by_one = isinstance(graph.details, ContractDetails)
        self._descriptors = None if graph.descriptors is None else InFloat64(graph.descriptors)
        self.geometry: Geometry | None = None
        if has_geometry(graph):
            n_frames = _SINGLE_FRAMES if self._one_by_one else _FRAMES
            self.geometry = Geometry(graph, self._values, frames)
            self._pool = {
                kind: self.geometry.draw(kind, n_frames, seed)
                for seed, kind in enumerate(self.geometry.kinds)
            }
        self._scales = self._typical_outputs()
        self._derivative_scales = self._typical_derivatives() if graph.differentiable else {}

    def __iter__(self) -> Iterator[Replay]:
        """Yield the calls, that of most rows last."""
        free = probe_sizes(self.graph.inputs)
        yield Replay(PROBE, max(free.values(), default=0), probe(self.graph.inputs, free))
        for call, size in enumerate(sizes_up_to(self._most) if self._free else [0] * _CALLS):
            for number, style in enumerate(self.styles):
                yield Replay(style, size, self._inputs(style, size, call, number))
        if self._free and is_cheap(self.exact, self._small_calls(), self._most):
            yield Replay(self.styles[0], self._most, self._inputs(self.styles[0], self._most, 0, 0))

    @property
    def styles(self) -> Sequence[str]:
        """Names of how inputs are made."""
        return STYLES if self.geometry is None else self.geometry.kinds

    def _inputs(self, style: str, size: int, call: int, number: int) -> list[Tensor]:
        """Return the inputs of a call."""
        sizes = dict.fromkeys(self._free, size)
        shape = box_shape(self.graph.details)
        if self.geometry is None:
            return sample(self.graph.inputs, sizes, style, number, shape)
        drawn = self._pool[style]
        # Other frames in every call; from the last one on again from the first.
        start = sum(SIZES[:call]) if self._free else call
        rows = (start + torch.arange(self._n_frames(size))) % len(drawn.positions)
        # The parameters of a bias behind a contract stay as they are: one of 1e6 scales the
        # rounding error of a saturated network to any size.
        parameters = STYLES[0] if self._one_by_one else STYLES[number % len(STYLES)]
        generator = np.random.default_rng(number)
        return self._assembled(Drawn(drawn.positions[rows], drawn.box), parameters, generator)

    def _n_frames(self, size: int) -> int:
        """Return the number of frames in a call."""
        shape = self.graph.inputs[0].shape
        if self._one_by_one:
            return 1
        return size if isinstance(shape[0], str) else shape[0]

    def _assembled(
        self, drawn: Drawn, style: str, generator: np.random.Generator | None = None
    ) -> list[Tensor]:
        """Return the inputs of frames; parameters are ordinary ones or of a style."""
        return [
            self._input(spec, drawn, style, generator).to(spec.torch_dtype)
            for spec in self.graph.inputs
        ]

    def _input(
        self, spec: TensorSpec, drawn: Drawn, style: str, generator: np.random.Generator | None
    ) -> Tensor:
        if spec.name == "positions":
            return drawn.positions if len(spec.shape) == 3 else drawn.positions[0]
        if spec.name == "box" and drawn.box is not None:
            return drawn.box
        if spec.name == "descriptors" and self._descriptors is not None:
            descriptors: Tensor = self._descriptors(drawn.positions, drawn.box)
            return descriptors
        if style == STYLES[0] or generator is None:
            default = self._default(spec)
            if default is not None:
                return default
        return sample_one(spec, {}, style, generator or np.random.default_rng(0))

    def _default(self, spec: TensorSpec) -> Tensor | None:
        """Return the default value of a bias's parameter."""
        variable = variable_of(self.graph.details)
        assert variable is not None
        if spec.name in variable.parameters:
            return torch.tensor(variable.parameters[spec.name], dtype=torch.float64)
        # Each value is a parameter of its own for an engine that knows numbers only.
        name, _, index = spec.name.rpartition("_")
        if name in variable.parameters and index.isdecimal():
            return torch.tensor([variable.parameters[name][int(index)]], dtype=torch.float64)
        return None

    def _single(self, drawn: Drawn) -> Iterator[list[Tensor]]:
        """Yield the inputs of as many calls as it takes to evaluate some frames, in float64."""
        count = len(drawn.positions)
        for rows in torch.arange(count).split(1 if self._one_by_one else count):
            inputs = self._assembled(Drawn(drawn.positions[rows], drawn.box), STYLES[0])
            yield doubled(inputs)

    def _outputs(self, drawn: Drawn) -> Outputs:
        """Return the judge's outputs for frames, one row each."""
        calls = [run(self.exact, inputs) for inputs in self._single(drawn)]
        if not self._one_by_one:
            return calls[0]
        return tuple(
            torch.stack([output.flatten() for output in outputs])
            for outputs in zip(*calls, strict=True)
        )

    def _values(self, drawn: Drawn) -> Tensor:
        return self._outputs(drawn)[0].flatten(1)

    def _typical_outputs(self) -> list[dict[str, float]]:
        """Return for each output its typical size with each style of inputs."""
        if self.graph.kind not in WITH_NETWORK:
            return [{} for _ in self.graph.outputs]
        if self.geometry is None:
            sizes = dict.fromkeys(self._free, max(SIZES))
            ordinary = sample(self.graph.inputs, sizes, STYLES[0], 0)
            outputs = run(self.exact, doubled(ordinary))
            return [dict.fromkeys(STYLES, _median(output)) for output in outputs]
        by_style = {kind: self._outputs(drawn) for kind, drawn in self._pool.items()}
        names = [spec.name for spec in self.graph.outputs]
        # Derivatives with respect to the box are those of the pairs that it cuts, if there are any.
        alike = {"box_derivatives": ("derivatives", "box_derivatives")}
        return [
            {
                kind: max(_median(outputs[names.index(one)]) for one in alike.get(name, (name,)))
                for kind, outputs in by_style.items()
            }
            for name in names
        ]

    def _typical_derivatives(self) -> dict[str, float]:
        return {
            kind: _median(
                torch.stack(
                    [derivative(self.exact, call).flatten() for call in self._single(drawn)]
                )
            )
            for kind, drawn in self._pool.items()
        }

    def _small_calls(self) -> list[list[Tensor]]:
        style = self.styles[0]
        return [doubled(self._inputs(style, size, 0, 0)) for size in (32, 64)]


def sizes_up_to(most: int) -> list[int]:
    """Return the sizes of calls, none above the most that a file is made for."""
    return [size for size in SIZES if size <= most]


def run(module: torch.nn.Module, inputs: Sequence[Tensor]) -> Outputs:
    """Return a module's outputs as a tuple."""
    with torch.no_grad():
        outputs = module(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def doubled(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return inputs with floating-point numbers in float64."""
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]


def derivative(module: torch.nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Return the derivatives of the sum of the first output with respect to the first input."""
    leaf = inputs[0].detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = module(leaf, *inputs[1:])
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        return torch.autograd.grad(first.sum(), leaf)[0]


def row_scales(values: Tensor) -> Tensor:
    """Return the largest absolute value of each row, shape (n_rows, 1)."""
    values = torch.atleast_1d(values)
    return values.abs().reshape(len(values), -1).amax(dim=1, keepdim=True)


def _median(values: Tensor) -> float:
    return float(row_scales(values).median())


def _of_style(scales: dict[str, float], style: str) -> float:
    """Return the scale of a style; a small part of the largest one at least."""
    return max([scales.get(style, 0.0), _SATURATED * max(scales.values(), default=0.0)])
