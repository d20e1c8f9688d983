"""Means, variances and lengths of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ofcv_export.c_source.extent import require_fixed
from ofcv_export.c_source.index import Index
from ofcv_export.c_source.pointwise import square_root
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.sums import total
from ofcv_export.c_source.value import Value, broadcast, mapped


@register("mean.dim", "mean.default")
def _mean(
    call: Call, x: Value, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any
) -> Value:
    added = total(call, x, axes, keepdim)
    n = " * ".join(str(x.shape[axis]) for axis in (axes or range(len(x.shape))))
    count = f"({call.writer.real})({n or 1})"
    return Value(call.shape, "real", lambda i: f"({added.at(i)} / {count})", 1)


@register("var_mean.correction")
def _variance_and_mean(
    call: Call, x: Value, axes: Sequence[int], *, correction: float = 1, keepdim: bool = False
) -> list[Value]:
    """Return sum (x - m)^2 / (n - correction) and the mean m of n entries."""
    writer, x = call.writer, call.writer.once(x)
    axes = [axis % len(x.shape) for axis in axes]
    require_fixed(*(x.shape[axis] for axis in axes))
    n = math.prod(x.shape[axis] for axis in axes)
    whole = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    shape = whole if keepdim else [size for axis, size in enumerate(x.shape) if axis not in axes]

    def average(terms: Value, of: float) -> Value:
        whole_sum = total(replace(call, shape=tuple(whole)), terms, axes, True)
        return Value(
            whole_sum.shape, "real", lambda i: f"({whole_sum.at(i)} / {writer.number(of)})", 1
        )

    mean = writer.kept(average(x, n))
    centre = broadcast(mean, x.shape)
    squares = Value(
        x.shape,
        "real",
        lambda i: f"(({x.at(i)} - {centre.at(i)}) * ({x.at(i)} - {centre.at(i)}))",
        3,
    )
    variance = average(squares, n - correction)
    if keepdim:
        return [variance, mean]

    def places(indices: Sequence[Index]) -> list[Index]:
        left = iter(indices)
        return [Index() if axis in axes else next(left) for axis in range(len(x.shape))]

    return [mapped(value, shape, places) for value in (variance, mean)]


@register("linalg_vector_norm.default")
def _norm(
    call: Call,
    x: Value,
    order: float = 2,
    axes: Sequence[int] | None = None,
    keepdim: bool = False,
    **_: Any,
) -> Value:
    """Return the square root of the sum of squares."""
    if order != 2:
        raise ValueError(f"module: expected norms of order 2 in C source, got {order}")
    x = call.writer.once(x)
    squares = Value(x.shape, "real", lambda i: f"({x.at(i)} * {x.at(i)})", 1)
    return square_root(call, total(call, squares, axes, keepdim))
