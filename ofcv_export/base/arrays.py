"""NumPy arrays and lazy tensors as plain memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_tensor(name: str, value: Any) -> Tensor:
    """Return a tensor, or whatever NumPy takes for an array, as a tensor of the same dtype.

    Arrays of another byte order, with negative strides or that may only be read are copied;
    others share their memory.

    Raises
    ------
    TypeError
        If the argument of this name holds anything but numbers.
    """
    if isinstance(value, Tensor):
        return value
    with _numbers(name, value):
        if isinstance(value, np.ndarray):
            array = value.astype(value.dtype.newbyteorder("="), copy=False)
            is_plain = array.flags.writeable and min(array.strides, default=0) >= 0
            return torch.as_tensor(array if is_plain else array.copy())
        return torch.as_tensor(value)


def as_array(name: str, value: Any) -> NDArray[Any]:
    """Return whatever NumPy takes for an array, of the same dtype.

    Raises
    ------
    TypeError
        If the argument of this name is none, such as rows of different lengths.
    """
    with _numbers(name, value):
        return np.asarray(value)


@contextmanager
def _numbers(name: str, value: Any) -> Iterator[None]:
    """Say in one line that a value holds no numbers, where it cannot be converted meanwhile."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        dtype = getattr(value, "dtype", None)
        got = type(value).__name__ if dtype is None else f"dtype {dtype}"
        raise TypeError(f"{name}: expected an array of numbers, got {got}") from error


def in_memory(tensor: Tensor) -> Tensor:
    """Return a tensor whose numbers lie in memory as they are, in row-major order.

    Views such as ``z.conj().imag`` keep the negated numbers, and a note. Whatever reads raw memory
    does not see it.
    """
    return tensor.detach().resolve_conj().resolve_neg().contiguous()
