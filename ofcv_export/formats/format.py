"""What every file format does beyond reading and running: compile a graph and write it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofcv_export.base.arrays import to_array
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes.runtime import Runner, Runtime


class Format(Runtime):
    """One file format; its reading half is a `Runtime` of its own.

    Attributes
    ----------
    contracts : tuple of str
        Engines' own conventions that its files can have.
    needs_contract : bool
        Whether every file has one of them.
    fixes_sizes : bool
        Whether a file is made for a number of frames, one unless another is asked for.
    """

    contracts: tuple[str, ...] = ()
    needs_contract: bool = False
    fixes_sizes: bool = False

    def require_graph(self, graph: ExportGraph) -> None:
        """Raise ValueError unless files can hold such a graph, before it is made."""

    def require(self, metadata: Metadata) -> None:
        """Raise ValueError unless a file can be what its metadata are about to say."""

    @abstractmethod
    def compile(self, graph: ExportGraph) -> Any:
        """Turn a graph into what `write` writes."""

    @abstractmethod
    def write(self, compiled: Any, metadata: Metadata, path: Path) -> None:
        """Write a compiled graph and its metadata, and a digest of both."""

    def target(self, graph: ExportGraph) -> dict[str, Any]:
        """Return what files of this graph are made for: device, instruction set, ONNX opset."""
        return {"device": "cpu", "instruction_set": None, "opset": None}

    def tensor_runners(self, content: bytes, path: Path, metadata: Metadata) -> dict[str, Runner]:
        """Return what verification runs, see `Runtime.runners`, on torch tensors."""
        runners = self.runners(content, path, metadata)
        return runners if self.on_torch else {key: on_tensors(runners[key]) for key in runners}


def on_tensors(runner: Runner) -> Runner:
    """Return a runner of NumPy arrays as one of torch tensors."""

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, runner([to_array(tensor) for tensor in inputs])))

    return run
