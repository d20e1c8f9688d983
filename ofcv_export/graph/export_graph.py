"""What a module hands to an exporter: what to trace, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import msgspec
from torch import Tensor, nn

from ofcv_export.graph.details import Details, Form
from ofcv_export.graph.float64 import InFloat64
from ofcv_export.graph.tensor_spec import TensorSpec


@dataclass(frozen=True)
class Normalisation:
    """Which descriptors a network was trained on.

    Parameters
    ----------
    descriptors : torch.nn.Module
        Maps positions, and a box or None, to descriptors (batch, n_descriptors).
    mean, range : torch.Tensor
        What the network subtracts and divides by, float64, shape (n_descriptors,).
    """

    descriptors: nn.Module
    mean: Tensor
    range: Tensor


@dataclass(frozen=True)
class ExportGraph:
    """A module described for export; its graph is made when it is first asked for.

    Parameters
    ----------
    details : Details
        Kind of artifact and facts about it.
    inputs, outputs : tuple of TensorSpec
        What goes in and out.
    build : callable
        Makes `module` of this description, see `ofcv_export.graph.tracing.traced`.
    exact : torch.nn.Module
        What the graph must equal in float64, with the same inputs and outputs.
    pattern_digest : str, optional
        SHA-256 of the sparsity pattern.
    atoms, elements, length_unit : optional
        The engine's atoms, their chemical symbols and the unit of lengths, where the module knows
        them.
    output_units : dict
        Unit of each output by its name, where the module knows it.
    freeze : bool
        Whether TorchScript may turn weights into constants, out of reach of a later ``to``.
    differentiable : bool
        Whether an engine differentiates the first output with respect to the first input.
    scalar_code : bool
        Whether AOTInductor leaves out vector instructions, which is faster where every number is
        gathered.
    one_frame : callable, optional
        Returns what builds the graph in its form for one frame, and the name of that form; its
        arguments say whether the graph will be compiled, and for which device.
    stack_buffers : bool
        Whether AOTInductor puts intermediate results on the stack.
    device : str
        Device that AOTInductor compiles for.
    frame : ExportGraph, optional
        The graph of a single frame, which C source calls for one after the other.
    rows : str, optional
        A free size, the first of every input and output, along which each row of the outputs
        depends on that row of the inputs alone.
    largest : dict
        Largest values of free sizes, for C source.
    symbol : str
        Beginning of the names in C source.
    fast : bool
        Whether C source lets compilers fuse products with sums.
    descriptors : torch.nn.Module, optional
        Makes the input ``descriptors`` of positions and a box or None, where it is the only one.
    normalisation : Normalisation, optional
        Which descriptors the positions should have, where the network tells.
    """

    details: Details
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    build: Callable[[ExportGraph], nn.Module]
    exact: nn.Module
    pattern_digest: str | None = None
    atoms: list[int] | None = None
    elements: list[str] | None = None
    length_unit: str | None = None
    output_units: dict[str, str] = field(default_factory=dict)
    freeze: bool = True
    differentiable: bool = False
    scalar_code: bool = False
    one_frame: Callable[[bool, str], tuple[Callable[[ExportGraph], nn.Module], Form]] | None = None
    stack_buffers: bool = False
    device: str = "cpu"
    frame: ExportGraph | None = None
    rows: str | None = None
    largest: dict[str, int] = field(default_factory=dict)
    symbol: str = "model"
    fast: bool = False
    descriptors: nn.Module | None = None
    normalisation: Normalisation | None = None

    @property
    def kind(self) -> str:
        """Kind of artifact."""
        kind = self.details.__struct_config__.tag
        assert isinstance(kind, str)
        return kind

    @cached_property
    def module(self) -> nn.Module:
        """Takes the inputs in order, returns one tensor or a tuple in the order of the outputs.

        It holds tensor operations and frozen buffers only.
        """
        return self.build(self)

    def for_one_frame(self, compiled: bool) -> ExportGraph:
        """Return the graph in its form for one frame, if it has one, named in the details."""
        if self.one_frame is None:
            return self
        build, form = self.one_frame(compiled, self.device)
        details = msgspec.structs.replace(self.details, form=form)
        graph = self.with_size("batch", 1)
        return replace(graph, build=build, details=details, stack_buffers=compiled)

    def by_frames(self, n_frames: int) -> ExportGraph:
        """Return the graph of a number of frames, each in the form for one frame if it has one."""
        if self.one_frame is None or not any("batch" in spec.shape for spec in self.inputs):
            return self.with_size("batch", n_frames)
        frame = self.for_one_frame(compiled=False)
        return replace(self.with_size("batch", n_frames), details=frame.details, frame=frame)

    def with_size(self, symbol: str, size: int) -> ExportGraph:
        """Return the same graph with the symbolic size `symbol` fixed to `size`."""
        return replace(
            self,
            inputs=tuple(spec.with_size(symbol, size) for spec in self.inputs),
            outputs=tuple(spec.with_size(symbol, size) for spec in self.outputs),
        )

    def in_float64(self) -> nn.Module:
        """Return the judge of the graph: a float64 copy, on the CPU."""
        return InFloat64(self.exact)


@runtime_checkable
class Exportable(Protocol):
    """A module that can be exported."""

    def export_graph(self, *args: Any, **options: Any) -> ExportGraph:
        """Return the graph to export, made with the module's own options."""
        ...
