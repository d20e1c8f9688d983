"""Loading an artifact of any format as one callable."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from ofcv_export.artifact import Metadata
from ofcv_export.files import require_file
from ofcv_export.formats import format_of
from ofcv_export.inputs import bind


class Artifact:
    """An artifact ready to run; call it with its inputs by position or by name.

    Attributes
    ----------
    path : Path
        The file.
    metadata : Metadata
        What the file says about itself.
    device : str
        Where it runs.
    """

    def __init__(self, path: Path, metadata: Metadata, device: str) -> None:
        self.path = path
        self.metadata = metadata
        self.device = device
        self._run = format_of(path).load(path, device)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        """Return the output, or a tuple of the outputs in the metadata's order.

        Parameters
        ----------
        *args, **kwargs : torch.Tensor or numpy.ndarray
            The inputs named in ``metadata.inputs``, in their dtypes; int32 serves as an index too.

        Raises
        ------
        TypeError, ValueError, IndexError
            For inputs that do not fit, see `ofcv_export.inputs.bind`.
        """
        box_shape = self.metadata.details.get("box")
        outputs = self.run(bind(self.metadata.inputs, args, kwargs, box_shape))
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of inputs that are known to fit, in the metadata's order, unchecked.

        Parameters
        ----------
        inputs : sequence of torch.Tensor
            Of the dtypes and shapes in ``metadata.inputs``.
        """
        return self._run(inputs)

    def __repr__(self) -> str:
        """Return kind, format, inputs and outputs in one line."""
        inputs = ", ".join(spec.name for spec in self.metadata.inputs)
        outputs = ", ".join(spec.name for spec in self.metadata.outputs)
        kind = f"{self.metadata.kind}, {self.metadata.format}"
        return f"Artifact({self.path.name!r}: {kind}, ({inputs}) -> ({outputs}))"


def load(path: str | PathLike[str], device: str = "cpu") -> Artifact:
    """Load an artifact, whatever its format.

    The content is checked against its digest before a runtime sees the file.

    Parameters
    ----------
    path : path-like
        The artifact.
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or foreign, or the device cannot be had.
    """
    target = require_file("path", path)
    file_format = format_of(target)
    metadata = file_format.read_metadata(target)
    if device.split(":")[0] not in file_format.devices(metadata):
        available = " or ".join(file_format.devices(metadata))
        raise ValueError(f"device: expected {available} on this machine, got {device!r}")
    return Artifact(target, metadata, device)


def read_metadata(path: str | PathLike[str]) -> Metadata:
    """Return an artifact's metadata without executing it; the digest is checked.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or foreign.
    """
    target = require_file("path", path)
    return format_of(target).read_metadata(target)
