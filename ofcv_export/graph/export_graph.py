"""What a module hands to an exporter: its graph and the names and shapes that go in and out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one input or output of an artifact.

    Parameters
    ----------
    name : str
        Name of the tensor, the same in every format.
    dtype : str
        ``float32``, ``float64`` or ``int64``; in contracts ``int32`` and ``bool`` too.
    shape : tuple of int or str
        Sizes; a string is a symbolic size such as ``batch``.
    low : int, optional
    high : int or str, optional
        Half-open range of an integer input; a string is a symbolic size of the same tensor.
    example : tuple of float, optional
        Values, in row-major order, with which the input is tested where not any will do.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: int | None = None
    high: int | str | None = None
    example: tuple[float, ...] | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch names it."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def is_integer(self) -> bool:
        """Whether the tensor holds integers: indices, atomic numbers, flags."""
        return self.dtype in ("int32", "int64", "bool")

    def index_range(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return the half-open range of an index in a tensor of a given shape.

        Raises
        ------
        ValueError
            If an integer input has none.
        """
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: expected a range of indices, got none")
        high = self.high if isinstance(self.high, int) else shape[self.shape.index(self.high)]
        return self.low, high

    def with_size(self, symbol: str, size: int) -> TensorSpec:
        """Return the same spec with the symbolic size `symbol` fixed to `size`."""
        shape = tuple(size if entry == symbol else entry for entry in self.shape)
        high = size if self.high == symbol else self.high
        return TensorSpec(self.name, self.dtype, shape, self.low, high, self.example)


@dataclass(frozen=True)
class ExportGraph:
    """A module reduced to tensor operations, ready for any format.

    Parameters
    ----------
    kind : str
        Kind of artifact, see ``ofcv_export.graph.metadata``.
    module : torch.nn.Module
        Takes the inputs in order, returns one tensor or a tuple in the order of the outputs. It
        holds tensor operations and frozen buffers only, so that TorchScript and torch.export both
        take it.
    inputs, outputs : tuple of TensorSpec
        What goes in and out.
    details : dict
        JSON-able facts about this kind, written to the metadata.
    exact : torch.nn.Module, optional
        What the graph must equal in float64, with the same inputs and outputs; by default
        `module` itself.
    atoms, length_unit : optional
        The engine's atoms and the unit of lengths, where the module knows them.
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
        Makes another module, for a batch of 1, and the name of its form; its argument says whether
        the module will be compiled.
    stack_buffers : bool
        Whether AOTInductor puts intermediate results on the stack.
    device : str
        Device that AOTInductor compiles for.
    """

    kind: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    details: dict[str, Any] = field(default_factory=dict)
    exact: nn.Module | None = None
    atoms: list[int] | None = None
    length_unit: str | None = None
    output_units: dict[str, str] = field(default_factory=dict)
    freeze: bool = True
    differentiable: bool = False
    scalar_code: bool = False
    one_frame: Callable[[bool], tuple[nn.Module, str]] | None = None
    stack_buffers: bool = False
    device: str = "cpu"

    def for_one_frame(self, compiled: bool) -> ExportGraph:
        """Return the graph in its form for one frame, if it has one, named in the details."""
        if self.one_frame is None:
            return self
        module, form = self.one_frame(compiled)
        details = {**self.details, "form": form}
        return replace(self, module=module, details=details, stack_buffers=compiled)

    def with_size(self, symbol: str, size: int) -> ExportGraph:
        """Return the same graph with the symbolic size `symbol` fixed to `size`."""
        return replace(
            self,
            inputs=tuple(spec.with_size(symbol, size) for spec in self.inputs),
            outputs=tuple(spec.with_size(symbol, size) for spec in self.outputs),
        )

    def in_float64(self) -> nn.Module:
        """Return the judge of the graph: a float64 copy, on the CPU."""
        judge = self.module if self.exact is None else self.exact
        return copy.deepcopy(judge).cpu().double()


@runtime_checkable
class Exportable(Protocol):
    """A module that can be exported."""

    def export_graph(self, *args: Any, **options: Any) -> ExportGraph:
        """Return the graph to export, made with the module's own options."""
        ...
