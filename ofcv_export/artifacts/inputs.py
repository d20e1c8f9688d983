"""Inputs of an artifact, checked when a user gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.arrays import as_numbers, as_tensor, has_dtype, is_tensor, to_array
from ofcv_export.base.lattice import require_box
from ofcv_export.base.validation import (
    dtype_name,
    require_finite,
    require_shape,
    shape_text,
)
from ofcv_export.graph.tensor_spec import MAY_BE_NONE, TensorSpec, require_allowed

if TYPE_CHECKING:
    from torch import Tensor


def bind(
    specs: Sequence[TensorSpec],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    box_shape: str = "triclinic",
    *,
    on_torch: bool = True,
) -> list[Any]:
    """Return the inputs as checked tensors or arrays, in order.

    Parameters
    ----------
    specs : sequence of TensorSpec
        What an artifact takes.
    args, kwargs
        Tensors or numpy arrays, by position or by name.
    box_shape : {"triclinic", "orthorhombic", "optional"}
        Of an input of the name ``box``; optional where one of zeros stands for none.
    on_torch : bool
        Whether to return torch tensors; otherwise NumPy arrays, which take no PyTorch to make.

    Raises
    ------
    TypeError
        For a missing, surplus or unknown input or a wrong dtype.
    ValueError
        For a wrong shape, sizes that disagree, or values that are not finite.
    IndexError
        For an index out of range.
    """
    names = [spec.name for spec in specs]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    if len(args) + len(kwargs) != len(given) or set(given) != set(names):
        got = [f"{len(args)} by position"] * bool(args) + sorted(kwargs)
        raise TypeError(f"inputs: expected {', '.join(names)}, got {', '.join(got) or 'none'}")
    checked = [_checked(spec, given[spec.name], on_torch) for spec in specs]
    sizes: dict[str, tuple[str, int]] = {}
    for spec, values in zip(specs, checked, strict=True):
        for symbol, size in zip(spec.shape, values.shape, strict=True):
            if isinstance(symbol, str):
                first, known = sizes.setdefault(symbol, (spec.name, size))
                if known != size:
                    raise ValueError(
                        f"{spec.name}: expected {symbol} = {known} as in {first}, got {size}"
                    )
        if spec.is_integer:
            require_allowed(spec, values, {symbol: size for symbol, (_, size) in sizes.items()})
        if spec.name == "box":
            box = to_array(values) if is_tensor(values) else values
            if box_shape != "optional" or box.any():
                require_box(box, orthorhombic=box_shape == "orthorhombic")
    return [_as_run(spec, values, on_torch) for spec, values in zip(specs, checked, strict=True)]


def _checked(spec: TensorSpec, value: Any, on_torch: bool) -> Any:
    """Return an input as a tensor, where it is one or has to become one, or as an array."""
    values: Any = value
    if not is_tensor(value):
        values = as_tensor(spec.name, value) if on_torch else _array(spec, value)
    dtype = dtype_name(values.dtype)
    if dtype != spec.dtype and not (spec.is_integer and dtype == "int32"):
        raise TypeError(f"{spec.name}: expected dtype {spec.dtype}, got {dtype}")
    if any(
        size == 0 and symbol != MAY_BE_NONE
        for symbol, size in zip(spec.shape, values.shape, strict=False)
    ):
        raise ValueError(
            f"{spec.name}: expected shape {shape_text(spec.shape)}, got {tuple(values.shape)}"
        )
    require_shape(spec.name, values, spec.shape)
    if not spec.is_integer:
        require_finite(spec.name, values)
    return values


def _array(spec: TensorSpec, value: Any) -> NDArray[Any]:
    """Return an input as an array; plain numbers have the dtype that is wanted."""
    array = as_numbers(spec.name, value)
    fits = array.dtype.kind == np.dtype(spec.dtype).kind
    return array if has_dtype(value) or not fits else array.astype(spec.dtype)


def _as_run(spec: TensorSpec, values: Any, on_torch: bool) -> Tensor | NDArray[Any]:
    """Return a checked input as what runs takes it."""
    if on_torch:
        return values.to(spec.torch_dtype)
    array = to_array(values) if is_tensor(values) else values
    return np.require(array, spec.dtype, ("C", "A"))
