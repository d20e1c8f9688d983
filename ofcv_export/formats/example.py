"""Example inputs, with which torch.export traces a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ofcv_export.graph.tensor_spec import TensorSpec

# Different primes, so that no two symbols are taken for one.
_SIZES = {"batch": 3, "n": 7}
# Inductor shapes the blocks of a GPU's threads for these numbers; with few, for a handful.
_SIZES_ON_GPU = {"batch": 4099, "n": 1_000_003}


def example(spec: TensorSpec, device: str = "cpu") -> Tensor:
    """Return an input of zeros, of a size that suits a device where the size is symbolic."""
    sizes = _SIZES if device == "cpu" else _SIZES_ON_GPU
    shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
    return torch.zeros(shape, dtype=spec.torch_dtype)


def dynamic(spec: TensorSpec) -> dict[int, Any]:
    """Return the axes of an input whose size is symbolic."""
    free = torch.export.Dim.DYNAMIC
    return {axis: free for axis, size in enumerate(spec.shape) if isinstance(size, str)}
