"""Sums, in an order that no compiler can change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from ofcv_export.c_source.extent import is_free
from ofcv_export.c_source.index import Index
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, mapped
from ofcv_export.c_source.writer import Writer, tree

# A sum along an axis before so few components is one of numbers side by side.
_FEW = 4


@register("sum.dim_IntList", "sum.default")
def total(
    call: Call, x: Value, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any
) -> Value:
    """Return the sum along some axes, or all."""
    writer = call.writer
    over = sorted(a % len(x.shape) for a in (axes or range(len(x.shape))))
    kept = [a for a in range(len(x.shape)) if a not in over]
    sizes = [x.shape[a] for a in over]
    target = writer.declare_kept([x.shape[a] for a in kept], "real")

    def whole(outer: Sequence[Index], inner: Sequence[Index]) -> list[Index]:
        out = [Index()] * len(x.shape)
        for a, e in zip([*kept, *over], [*outer, *inner], strict=True):
            out[a] = e
        return out

    is_fixed = not any(map(is_free, sizes))
    if is_fixed and writer.is_written_out(math.prod(sizes), target.size):
        places = [[Index({}, e) for e in place] for place in product(*map(range, sizes))]
        writer.loops(target.shape, lambda outer: writer.line(
            f"{target.at(outer)} = {tree([x.at(whole(outer, place)) for place in places])};"
        ))  # fmt: skip
    elif len(over) == 1 and math.prod(x.shape[over[0] + 1 :]) <= _FEW:
        writer.loops(target.shape, lambda outer: writer.sum(
            sizes[0], lambda k: x.at(whole(outer, [k])), target.at(outer)
        ))  # fmt: skip
    else:
        _sum_in_steps(writer, target, sizes, lambda outer, inner: x.at(whole(outer, inner)))
    if call.shape == target.shape:
        return target
    return mapped(target, call.shape, lambda i: [i[a] for a in kept])


def _sum_in_steps(
    writer: Writer,
    target: Value,
    sizes: Sequence[int],
    term: Callable[[Sequence[Index], Sequence[Index]], str],
) -> None:
    """Write sums to which the terms are added for all entries of the target in turn."""
    writer.loops(
        target.shape, lambda outer: writer.line(f"{target.at(outer)} = {writer.number(0)};")
    )

    def step(inner: list[Index]) -> None:
        writer.loops(
            target.shape, lambda outer: writer.line(f"{target.at(outer)} += {term(outer, inner)};")
        )

    writer.loops(sizes, step)
