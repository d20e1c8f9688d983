"""NumPy arrays and lazy tensors as plain memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(value: Any) -> Tensor:
    """Return a tensor, or whatever NumPy takes for an array, as a tensor of the same dtype.

    Arrays of another byte order, with negative strides or that may only be read are copied;
    others share their memory.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        array = value.astype(value.dtype.newbyteorder("="), copy=False)
        is_plain = array.flags.writeable and min(array.strides, default=0) >= 0
        return torch.as_tensor(array if is_plain else array.copy())
    return torch.as_tensor(value)


def in_memory(tensor: Tensor) -> Tensor:
    """Return a tensor whose numbers lie in memory as they are, in row-major order.

    Views such as ``z.conj().imag`` keep the negated numbers, and a note. Whatever reads raw memory
    does not see it.
    """
    return tensor.detach().resolve_conj().resolve_neg().contiguous()
