"""NumPy arrays and torch tensors, one as the other and as plain memory.

PyTorch is imported where a tensor is made, and not before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

# Kinds of NumPy's dtypes that hold numbers: flags, integers, real and complex numbers.
_NUMBERS = "biufc"


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Return whether a value is a torch tensor; there is none before PyTorch is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_tensor(name: str, value: Any) -> Tensor:
    """Return a tensor, or whatever NumPy takes for an array, as a tensor of the same dtype.

    Arrays of another byte order, with negative strides or that may only be read are copied;
    others share their memory.

    Raises
    ------
    TypeError
        If the argument of this name holds anything but numbers.
    """
    if is_tensor(value):
        return value
    import torch

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


def as_numbers(name: str, value: Any) -> NDArray[Any]:
    """Return whatever NumPy takes for an array of numbers, of the same dtype.

    Raises
    ------
    TypeError
        If the argument of this name is none, or holds anything but numbers.
    """
    array = as_array(name, value)
    with _numbers(name, value):
        # Nothing has numbers of 80 bits but NumPy.
        if array.dtype.kind not in _NUMBERS or array.dtype.char in "gG":
            raise TypeError
    return array


def has_dtype(value: object) -> bool:
    """Return whether values say what their dtype is, as arrays and lists of arrays do."""
    if isinstance(value, list | tuple):
        return any(has_dtype(entry) for entry in value)
    return hasattr(value, "dtype")


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's numbers as an array, in row-major order, shared where they lie so."""
    array: NDArray[Any] = in_memory(tensor.cpu()).numpy()
    return array


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
