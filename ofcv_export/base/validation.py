"""Checks of arguments. Every message reads ``<argument>: expected <what>, got <what came>``.

Those of values take torch tensors and NumPy arrays. PyTorch is imported for tensors alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.arrays import as_array, as_tensor, has_dtype, is_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Values = Tensor | NDArray[Any]

FLOATING = ("float32", "float64")
INTEGER = ("int32", "int64")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def dtype_name(dtype: torch.dtype | np.dtype[Any]) -> str:
    """Return the name of a dtype as numpy spells it, e.g. ``float32``."""
    # Of a dtype of NumPy the name leaves out the order of bytes.
    return dtype.name if isinstance(dtype, np.dtype) else str(dtype).removeprefix("torch.")


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
    if not is_tensor(value):
        raise TypeError(f"{name}: expected a torch tensor, got {type(value).__name__}")


def require_shape(name: str, tensor: Values, shape: Sequence[int | str]) -> None:
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
    if dtype_name(dtype) not in FLOATING:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {dtype_name(dtype)}")


def require_dtype(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise TypeError unless `tensor` has `dtype`."""
    if tensor.dtype != dtype:
        raise TypeError(
            f"{name}: expected dtype {dtype_name(dtype)}, got {dtype_name(tensor.dtype)}"
        )


def require_integer(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless `tensor` is int32 or int64."""
    if dtype_name(tensor.dtype) not in INTEGER:
        raise TypeError(f"{name}: expected dtype int64 or int32, got {dtype_name(tensor.dtype)}")


def require_finite(name: str, values: Values) -> None:
    """Raise ValueError at the first NaN or infinite value."""
    # One pass without a mask of the values' size: the extremes of values with NaN are NaN.
    extremes = _extremes(values)
    if extremes is None or all(map(math.isfinite, extremes)):
        return
    finite = np.isfinite(values) if isinstance(values, np.ndarray) else values.isfinite()
    index = _first(~finite)
    raise ValueError(f"{name}: expected finite values, got {values[index].item()} at index {index}")


def require_in_range(name: str, values: Values, low: int, high: int) -> None:
    """Raise IndexError unless every integer lies in [low, high)."""
    extremes = _extremes(values)
    if extremes is None or (extremes[0] >= low and extremes[1] < high):
        return
    flat = values.reshape(-1)
    (position,) = _first((flat < low) | (flat >= high))
    value = int(flat[position])
    raise IndexError(
        f"{name}: expected indices in [{low}, {high}), got {value} at position {position}"
    )


def require_choice(name: str, values: NDArray[Any], choices: Sequence[int]) -> None:
    """Raise ValueError at the first integer that is not among the choices."""
    wrong = ~np.isin(values, choices)
    if wrong.any():
        (position,) = _first(wrong.reshape(-1))
        expected = " or ".join(map(str, sorted(choices)))
        raise ValueError(
            f"{name}: expected {expected}, "
            f"got {values.reshape(-1)[position]} at position {position}"
        )


def _extremes(values: Values) -> tuple[float, float] | None:
    """Return the smallest and the largest value, None where there are none to look at."""
    if isinstance(values, np.ndarray):
        return (values.min().item(), values.max().item()) if values.size else None
    import torch

    # While PyTorch makes a graph there are none yet.
    if torch.compiler.is_compiling() or values.numel() == 0:
        return None
    smallest, largest = torch.aminmax(values)
    return smallest.item(), largest.item()


def _first(mask: Values) -> tuple[int, ...]:
    """Return the index of the first entry that is true."""
    places = np.argwhere(mask) if isinstance(mask, np.ndarray) else mask.nonzero()
    return tuple(places[0].tolist())


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
    assert is_tensor(value)
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
    assert is_tensor(value)
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
    _require_number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


def require_non_negative(name: str, value: float) -> float:
    """Return `value` as a float, or raise unless it is a finite number of at least 0."""
    _require_number(name, value)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return float(value)


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")


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
    if is_tensor(value):
        require_floating(name, value)
        return value
    import torch

    array = as_array(name, value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected floating-point values, got dtype {array.dtype}")
    if not has_dtype(value):
        return torch.as_tensor(array, dtype=dtype or torch.get_default_dtype())
    if array.dtype.itemsize not in (4, 8):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
    return as_tensor(name, array)
