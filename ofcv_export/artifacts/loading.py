"""Loading an artifact of any format as one callable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ofcv_export.artifacts.inputs import bind
from ofcv_export.base.arrays import as_tensor, is_tensor
from ofcv_export.base.files import require_file
from ofcv_export.base.packages import require_torch
from ofcv_export.graph.details import box_shape
from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes import runtime_of
from ofcv_export.runtimes.runtime import Runner

if TYPE_CHECKING:
    from torch import Tensor


class Artifact:
    """An artifact ready to run; call it with its inputs by position or by name.

    Attributes
    ----------
    path : Path
        The file.
    metadata : Metadata
        What the file says about itself.
    digest : str
        SHA-256 of the file's bytes, those that run.
    device : str
        Where it runs.
    on_torch : bool
        Whether it runs on torch tensors, as ``.pt`` and ``.pt2`` files do; otherwise on NumPy
        arrays, without PyTorch.
    cuda_graph : bool
        Whether it runs as one CUDA graph.
    recorded_inputs : tuple of torch.Tensor
        Memory of the CUDA graph's inputs, on the device; without a graph none. An engine that
        writes there and hands these very tensors to `run` saves the copy.
    """

    def __init__(
        self,
        path: Path,
        content: bytes,
        digest: str,
        metadata: Metadata,
        device: str,
        atomics: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.digest = digest
        self.device = device
        self.cuda_graph = cuda_graph
        self._atomics = atomics
        runtime = runtime_of(path)
        self.on_torch = runtime.on_torch
        self._run = runtime.load(content, path, device)
        may_use_atomics = atomics and metadata.format == "torchscript"
        if self.on_torch and _is_cuda(device) and not may_use_atomics:
            self._run = _in_fixed_order(self._run, device)
        self.recorded_inputs: tuple[Tensor, ...] = ()
        if cuda_graph:
            from ofcv_export.artifacts.cuda_graph import CapturedRunner

            captured = CapturedRunner(self._run, metadata.inputs, device)
            self._run, self.recorded_inputs = captured, captured.inputs

    def __call__(
        self, *args: Any, **kwargs: Any
    ) -> Tensor | NDArray[Any] | tuple[Tensor | NDArray[Any], ...]:
        """Return the output, or a tuple of the outputs in the metadata's order.

        They are torch tensors if an input is one or the file runs on PyTorch (``.pt``, ``.pt2``),
        otherwise NumPy arrays.

        Parameters
        ----------
        *args, **kwargs : torch.Tensor or numpy.ndarray
            The inputs named in ``metadata.inputs``, in their dtypes; int32 serves as an index too.

        Raises
        ------
        TypeError, ValueError, IndexError
            For inputs that do not fit, see `ofcv_export.artifacts.inputs.bind`.
        """
        shape = box_shape(self.metadata.details)
        inputs = bind(self.metadata.inputs, args, kwargs, shape, on_torch=self.on_torch)
        outputs = self.run(inputs)
        if self.cuda_graph:
            outputs = tuple(output.clone() for output in outputs)
        elif not self.on_torch and any(map(is_tensor, (*args, *kwargs.values()))):
            outputs = tuple(as_tensor("output", output) for output in outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Return the outputs of inputs that are known to fit, in the metadata's order, unchecked.

        With a CUDA graph the outputs stay where they are until the next call overwrites them.

        Parameters
        ----------
        inputs : sequence of torch.Tensor or numpy.ndarray
            Of the dtypes and shapes in ``metadata.inputs``; tensors if `on_torch`, otherwise
            arrays. The outputs are of the same kind.
        """
        return self._run(inputs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it as its file, which must be the same when it is loaded again."""
        again = partial(
            load,
            self.path.resolve(),
            self.device,
            atomics=self._atomics,
            cuda_graph=self.cuda_graph,
            digest=self.digest,
        )
        return again, ()

    def __repr__(self) -> str:
        """Return kind, format, inputs and outputs in one line."""
        inputs = ", ".join(spec.name for spec in self.metadata.inputs)
        outputs = ", ".join(spec.name for spec in self.metadata.outputs)
        kind = f"{self.metadata.kind}, {self.metadata.format}"
        return f"Artifact({self.path.name!r}: {kind}, ({inputs}) -> ({outputs}))"


def load(
    path: str | PathLike[str],
    device: str = "cpu",
    *,
    atomics: bool = False,
    cuda_graph: bool = False,
    digest: str | None = None,
) -> Artifact:
    """Load an artifact, whatever its format.

    The content is checked against its digest before a runtime sees the file.

    On CUDA a ``.pt`` file adds in a fixed order, see `ofcv_export.base.fixed_order`. A ``.pt2``
    file is compiled one way or the other. An ``.onnx`` file with a scatter-add adds with atomics,
    whatever is asked for here; the ``gather`` form of `SmartDerivatives` has none.

    Parameters
    ----------
    path : path-like
        The artifact.
    device : str
        ``cpu`` or ``cuda``.
    atomics : bool
        Whether a ``.pt`` file may add with atomics on CUDA: the last digits then differ from call
        to call.
    cuda_graph : bool
        Whether to record the artifact as one CUDA graph, which is faster for a single frame. For
        ``.pt`` and ``.pt2`` files of fixed shapes; one call at a time.
    digest : str, optional
        SHA-256 that the file must have, as `Artifact.digest` gives it; by default any.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If what runs the file is not installed: PyTorch for ``.pt`` and ``.pt2`` files, ONNX
        Runtime for ``.onnx`` files.
    ValueError
        If the file is damaged, foreign or another one, the device cannot be had, or a CUDA graph is
        asked for that cannot be made: not on CUDA, of an ONNX file, of shapes that are not fixed,
        or of operations that cannot be recorded.
    """
    target = require_file("path", path)
    runtime = runtime_of(target)
    # Read once, so that the bytes whose digest is checked are those that run.
    content = target.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if digest not in (None, found):
        raise ValueError(
            f"path: expected the file with SHA-256 {digest}, got {found} in {str(target)!r}"
        )
    metadata = runtime.metadata(content, target)
    if cuda_graph:
        require_torch("a CUDA graph")
        from ofcv_export.artifacts.cuda_graph import require_capturable

        require_capturable(metadata, device)
    if device.partition(":")[0] not in runtime.devices(metadata):
        available = " or ".join(runtime.devices(metadata))
        raise ValueError(f"device: expected {available} on this machine, got {device!r}")
    return Artifact(target, content, found, metadata, device, atomics, cuda_graph)


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
    return runtime_of(target).metadata(target.read_bytes(), target)


def _is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def _in_fixed_order(run: Runner, device: str) -> Runner:
    """Return a runner whose sums have a fixed order, the same in the first call and in later ones.

    TorchScript would fuse operators on CUDA after two calls, and give other last digits.
    """
    import torch

    from ofcv_export.base.modes import full_precision

    unfused = torch.jit.optimized_execution  # type: ignore[attr-defined]

    def run_in_fixed_order(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with full_precision(device), unfused(False):
            return run(inputs)

    return run_in_fixed_order
