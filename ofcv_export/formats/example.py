"""Example inputs, with which torch.export traces a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ofcv_export.graph.tensor_spec import TensorSpec

# Different primes, so that no two symbols are taken for one.
_SIZES = {"batch": 3, "n": 7}


def example(spec: TensorSpec) -> Tensor:
    """Return an input of zeros, of some size where the size is symbolic."""
    shape = [_SIZES[size] if isinstance(size, str) else size for size in spec.shape]
    return torch.zeros(shape, dtype=spec.torch_dtype)


def dynamic(spec: TensorSpec) -> dict[int, Any]:
    """Return the axes of an input whose size is symbolic."""
    free = torch.export.Dim.DYNAMIC
    return {axis: free for axis, size in enumerate(spec.shape) if isinstance(size, str)}
