"""A loaded artifact as one CUDA graph, for calls of one fixed shape.

A single frame is little work for a GPU, and most of a step's time goes into launching kernels one
by one. A CUDA graph records them once and launches them together. It works on the memory that it
was recorded with: inputs are copied there, and outputs stay there until the next call.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ofcv_export.base.validation import first_line, shape_text
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.runtimes.runtime import Runner

# TorchScript looks at its first call and compiles at the second. Libraries make their handles and
# compiled code loads its kernels in the first, which cannot be recorded.
_WARM_UP_CALLS = 5
_FORMATS = ("torchscript", "aotinductor")


def require_capturable(metadata: Metadata, device: str) -> None:
    """Raise ValueError unless an artifact on a device can be recorded as a CUDA graph.

    Parameters
    ----------
    metadata : Metadata
        Of the artifact.
    device : str
        Where it runs.
    """
    if torch.device(device).type != "cuda":
        raise ValueError(f"cuda_graph: expected a CUDA device, got {device}")
    if metadata.format not in _FORMATS:
        raise ValueError(f"cuda_graph: expected a .pt or .pt2 file, got format {metadata.format}")
    for spec in metadata.inputs:
        if any(isinstance(size, str) for size in spec.shape):
            raise ValueError(
                "cuda_graph: expected fixed shapes (exported with batch=1), "
                f"got {spec.name} of shape {shape_text(spec.shape)}"
            )


class CapturedRunner:
    """Runs an artifact by replaying a CUDA graph of it.

    Parameters
    ----------
    run : callable
        The artifact's runner.
    specs : sequence of TensorSpec
        Its inputs, of fixed shapes.
    device : str
        ``cuda`` or ``cuda:<index>``.

    Attributes
    ----------
    inputs : tuple of torch.Tensor
        The recorded inputs. What is written there needs not be copied there.

    Raises
    ------
    ValueError
        If an operation cannot be recorded, such as one that waits for the device.
    """

    def __init__(self, run: Runner, specs: Sequence[TensorSpec], device: str) -> None:
        self._names = [spec.name for spec in specs]
        # The recording reads weights and code that belong to it.
        self._recorded = run
        self.inputs = tuple(tensor.to(device) for tensor in probe(specs, {}))
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            try:
                self._warm_up(run)
                with torch.cuda.graph(self._graph):
                    self._outputs = run(self.inputs)
            except RuntimeError as error:
                raise ValueError(
                    "cuda_graph: expected operations that a CUDA graph can record, "
                    f"got one that it cannot: {first_line(error)}"
                ) from error

    def _warm_up(self, run: Runner) -> None:
        """Call the artifact on another stream, as PyTorch wants it before a recording."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_CALLS):
                run(self.inputs)
            # A recording that fails leaves CUDA in disorder, and what waits for the device fails.
            with _refusing_to_wait():
                run(self.inputs)
        current.wait_stream(side)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs, in memory that the next call overwrites.

        Raises
        ------
        ValueError
            If an input has another shape than the recorded one.
        """
        for name, recorded, tensor in zip(self._names, self.inputs, inputs, strict=True):
            if tensor.shape != recorded.shape:
                raise ValueError(
                    f"{name}: expected shape {tuple(recorded.shape)} as in the CUDA graph, "
                    f"got {tuple(tensor.shape)}"
                )
            if tensor is not recorded:
                recorded.copy_(tensor)
        self._graph.replay()
        return self._outputs


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Raise a RuntimeError where PyTorch waits for the device."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        # That not all waiting is noticed.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
