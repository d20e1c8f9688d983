"""What every file format does: compile a graph, write it, check it, load it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata

Runner = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


class Format(ABC):
    """One file format.

    Attributes
    ----------
    name : str
        Name in the metadata.
    suffix : str
        Suffix of the file's name.
    runtime : str
        What runs the file from Python.
    contracts : tuple of str
        Engines' own conventions that its files can have.
    fixes_sizes : bool
        Whether a file is made for a number of frames, one unless another is asked for.
    """

    name: str
    suffix: str
    runtime: str
    contracts: tuple[str, ...] = ()
    fixes_sizes: bool = False

    def require(self, metadata: Metadata) -> None:  # noqa: B027 (most formats take anything)
        """Raise ValueError unless a file can be what its metadata are about to say."""

    @abstractmethod
    def compile(self, graph: ExportGraph) -> Any:
        """Turn a graph into what `write` writes."""

    @abstractmethod
    def write(self, compiled: Any, metadata: Metadata, path: Path) -> None:
        """Write a compiled graph and its metadata, and a digest of both."""

    @abstractmethod
    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest of a file's content and return its metadata; nothing is executed.

        Parameters
        ----------
        content : bytes
            All of the file. It is read once, so that what was checked is what runs.
        path : Path
            Where it came from, for errors.

        Raises
        ------
        ValueError
            If the content is damaged, or is not one of ours.
        """

    @abstractmethod
    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Return a function from inputs to outputs, both in the metadata's order.

        Parameters
        ----------
        content : bytes
            All of a file, whose digest `metadata` has checked.
        path : Path
            Where it came from, for errors.
        device : str
            Where to run.
        """

    @abstractmethod
    def devices(self, metadata: Metadata) -> list[str]:
        """Return the devices on which this machine can run a file.

        Raises
        ------
        ValueError
            If the file was compiled for another machine.
        """

    def runners(self, content: bytes, path: Path, metadata: Metadata) -> dict[str, Runner]:
        """Return what verification runs: the file on each device, by the device's name."""
        return {device: self.load(content, path, device) for device in self.devices(metadata)}

    def target(self, graph: ExportGraph) -> dict[str, Any]:
        """Return what files of this graph are made for: device, instruction set, ONNX opset."""
        return {"device": "cpu", "instruction_set": None, "opset": None}


def foreign(path: Path, why: str) -> ValueError:
    """Return the error for a file that is not one of ours."""
    return ValueError(f"path: expected an ofcv-export artifact, got {str(path)!r} ({why})")


def damaged(path: Path) -> ValueError:
    """Return the error for a file whose content does not match its digest."""
    return foreign(path, "its content does not match its digest")
