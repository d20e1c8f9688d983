"""Checks of arguments. Every message reads ``<argument>: expected <what>, got <what came>``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ofcv_export.base.arrays import as_array, as_tensor

FLOATING = (torch.float32, torch.float64)
INTEGER = (torch.int32, torch.int64)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype as numpy spells it, e.g. ``float32``."""
    return str(dtype).removeprefix("torch.")


def shape_text(shape: Sequence[int | str]) -> str:
    """Return a shape as text, e.g. ``(batch, 45)``."""
    return "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, the name of its class where there is none.

    Colours for a terminal are left out.
    """
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message, see `first_line`."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    return _COLOUR.sub("", str(error)).strip().splitlines() or [type(error).__name__]


def require_tensor(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a torch tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch tensor, got {type(value).__name__}")


def require_shape(name: str, tensor: Tensor, shape: Sequence[int | str]) -> None:
    """Raise ValueError unless `tensor` has `shape`; a string stands for any size."""
    matches = len(tensor.shape) == len(shape) and all(
        isinstance(expected, str) or expected == size
        for expected, size in zip(shape, tensor.shape, strict=True)
    )
    if not matches:
        raise ValueError(f"{name}: expected shape {shape_text(shape)}, got {tuple(tensor.shape)}")


def require_floating(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless `tensor` is float32 or float64."""
    require_floating_dtype(name, tensor.dtype)


def require_floating_dtype(name: str, dtype: torch.dtype) -> None:
    """Raise TypeError unless `dtype` is float32 or float64."""
    if dtype not in FLOATING:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {dtype_name(dtype)}")


def require_dtype(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise TypeError unless `tensor` has `dtype`."""
    if tensor.dtype != dtype:
        raise TypeError(
            f"{name}: expected dtype {dtype_name(dtype)}, got {dtype_name(tensor.dtype)}"
        )


def require_integer(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless `tensor` is int32 or int64."""
    if tensor.dtype not in INTEGER:
        raise TypeError(f"{name}: expected dtype int64 or int32, got {dtype_name(tensor.dtype)}")


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise ValueError at the first NaN or infinite value of `tensor`."""
    # While PyTorch makes a graph there are no values to look at.
    if torch.compiler.is_compiling():
        return
    # One pass without a mask of the tensor's size: the extremes of a tensor with NaN are NaN.
    if tensor.numel() == 0 or all(math.isfinite(end.item()) for end in torch.aminmax(tensor)):
        return
    index = tuple(torch.nonzero(~torch.isfinite(tensor))[0].tolist())
    raise ValueError(f"{name}: expected finite values, got {tensor[index].item()} at index {index}")


def require_in_range(name: str, tensor: Tensor, low: int, high: int) -> None:
    """Raise IndexError unless every integer of `tensor` lies in [low, high)."""
    if torch.compiler.is_compiling() or tensor.numel() == 0:
        return
    smallest, largest = torch.aminmax(tensor)
    if int(smallest) >= low and int(largest) < high:
        return
    position = int(torch.nonzero((tensor < low) | (tensor >= high))[0, 0])
    value = int(tensor.flatten()[position])
    raise IndexError(
        f"{name}: expected indices in [{low}, {high}), got {value} at position {position}"
    )


def require_device(name: str, tensor: Tensor, device: torch.device) -> None:
    """Raise ValueError unless `tensor` lives on `device`."""
    if tensor.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {tensor.device}")


def require_floats(
    name: str,
    value: object,
    shape: Sequence[int | str],
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> None:
    """Raise unless `value` is a floating tensor of this shape and, if given, dtype and device."""
    require_tensor(name, value)
    assert isinstance(value, Tensor)
    require_shape(name, value, shape)
    if dtype is None:
        require_floating(name, value)
    else:
        require_dtype(name, value, dtype)
    if device is not None:
        require_device(name, value, device)


def require_integers(
    name: str, value: object, shape: Sequence[int | str], device: torch.device | None = None
) -> None:
    """Raise unless `value` is an integer tensor of this shape and, if given, on this device."""
    require_tensor(name, value)
    assert isinstance(value, Tensor)
    require_integer(name, value)
    require_shape(name, value, shape)
    if device is not None:
        require_device(name, value, device)


def require_positive(name: str, value: int) -> None:
    """Raise ValueError unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def require_positive_number(name: str, value: float) -> float:
    """Return `value` as a float, or raise unless it is a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


def require_non_negative(name: str, value: float) -> float:
    """Return `value` as a float, or raise unless it is a finite number of at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return float(value)


def require_known(name: str, known: Iterable[str]) -> None:
    """Raise ValueError unless `name` is one of the parameters that are known."""
    names = list(known)
    if name not in names:
        raise ValueError(f"parameters: expected {', '.join(names) or 'none'}, got {name}")


def to_float_tensor(name: str, value: object, dtype: torch.dtype | None = None) -> Tensor:
    """Return `value` as a floating tensor.

    Parameters
    ----------
    name : str
        Name of the argument, for the error message.
    value : torch.Tensor or array_like
        Tensors and NumPy arrays keep their dtype, which has to be float32 or float64. Plain numbers
        have none.
    dtype : torch.dtype, optional
        Of plain numbers; by default torch's default dtype.

    Raises
    ------
    TypeError
        If the values are not floating-point numbers, of either precision.
    """
    if isinstance(value, Tensor):
        require_floating(name, value)
        return value
    array = as_array(name, value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected floating-point values, got dtype {array.dtype}")
    if not _has_dtype(value):
        return torch.as_tensor(array, dtype=dtype or torch.get_default_dtype())
    if array.dtype.itemsize not in (4, 8):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
    return as_tensor(name, array)


def _has_dtype(value: object) -> bool:
    """Return whether values say what their dtype is, as arrays and lists of arrays do."""
    if isinstance(value, list | tuple):
        return any(_has_dtype(entry) for entry in value)
    return hasattr(value, "dtype")
