"""What reading and running does for every file format: check a file, say what it is, load it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ofcv_export.graph.metadata import Metadata

# Of tensors or of arrays, see `Runtime.on_torch`.
Runner = Callable[[Sequence[Any]], tuple[Any, ...]]


class Runtime(ABC):
    """The reading half of one file format.

    Attributes
    ----------
    name : str
        Name in the metadata.
    suffix : str
        Suffix of the file's name.
    runtime : str
        What runs the file from Python.
    on_torch : bool
        Whether its runners take and return torch tensors; otherwise NumPy arrays.
    """

    name: str
    suffix: str
    runtime: str
    on_torch: bool

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

        Raises
        ------
        ImportError
            If what runs it is not installed.
        """

    @abstractmethod
    def devices(self, metadata: Metadata) -> list[str]:
        """Return the devices on which this machine can run a file.

        Raises
        ------
        ImportError
            If what runs it is not installed.
        ValueError
            If the file was compiled for another machine.
        """

    def runners(self, content: bytes, path: Path, metadata: Metadata) -> dict[str, Runner]:
        """Return what verification runs: the file on each device, by the device's name."""
        return {device: self.load(content, path, device) for device in self.devices(metadata)}


def foreign(path: Path, why: str) -> ValueError:
    """Return the error for a file that is not one of ours."""
    return ValueError(f"path: expected an ofcv-export artifact, got {str(path)!r} ({why})")


def damaged(path: Path) -> ValueError:
    """Return the error for a file whose content does not match its digest."""
    return foreign(path, "its content does not match its digest")
