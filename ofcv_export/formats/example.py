"""Example inputs, with which torch.export traces a graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ofcv_export.graph.tensor_spec import TensorSpec

# Different primes, so that no two symbols are taken for one.
_SIZES = {"batch": 3, "n": 7, "n_nodes": 11, "n_edges": 17}
# Inductor shapes the blocks of a GPU's threads for these numbers; with few, for a handful.
_BATCHES_ON_GPU = (4099, 521, 67)
_N_ON_GPU = 1_000_003
# Numbers that an input may have there: Inductor tries its code on arrays of such sizes.
_LARGEST = 2**24


def examples(specs: Sequence[TensorSpec], device: str = "cpu") -> tuple[Tensor, ...]:
    """Return inputs of zeros, of sizes that suit a device where the sizes are symbolic."""
    sizes = dict(_SIZES)
    if device != "cpu":
        sizes |= {"batch": _batch_on_gpu(specs), "n": _N_ON_GPU}
    return tuple(
        torch.zeros(
            [sizes[size] if isinstance(size, str) else size for size in spec.shape],
            dtype=spec.torch_dtype,
        )
        for spec in specs
    )


def _batch_on_gpu(specs: Sequence[TensorSpec]) -> int:
    """Return the largest batch of which all inputs together have not too many numbers."""
    per_frame = sum(
        math.prod(size for size in spec.shape if not isinstance(size, str)) for spec in specs
    )
    fitting = (batch for batch in _BATCHES_ON_GPU if batch * per_frame <= _LARGEST)
    return next(fitting, _SIZES["batch"])


def dynamic(spec: TensorSpec) -> dict[int, Any]:
    """Return the axes of an input whose size is symbolic."""
    free = torch.export.Dim.DYNAMIC
    return {axis: free for axis, size in enumerate(spec.shape) if isinstance(size, str)}
