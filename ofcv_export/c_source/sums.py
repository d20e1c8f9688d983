"""Sums and smallest entries, in an order that no compiler can change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from ofcv_export.c_source.extent import is_free, require_fixed
from ofcv_export.c_source.index import Index
from ofcv_export.c_source.pointwise import square_root
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, array, mapped
from ofcv_export.c_source.writer import LANES, Writer, tree

# A sum along an axis before so few components is one of numbers side by side.
_FEW = 4


@register("sum.dim_IntList", "sum.default")
def _sum(
    call: Call, x: Value, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any
) -> Value:
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
    return square_root(call, _sum(call, squares, axes, keepdim))


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


@register("argmin.default")
def _argmin(call: Call, x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    return _first(call, x, axis, "<")


@register("argmax.default")
def _argmax(call: Call, x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    return _first(call, x, axis, ">")


def _first(call: Call, x: Value, axis: int | None, symbol: str) -> Value:
    """Return the place of the first entry that no other one is below, or above."""
    require_fixed(*x.shape)
    writer, x = call.writer, call.writer.in_memory(x)
    if axis is None:
        assert x.array is not None
        x, axis = array(x.array, (x.size,), x.kind), 0
    axis %= len(x.shape)
    others = [n for a, n in enumerate(x.shape) if a != axis]
    target = writer.declare(others, "int64_t")

    def entry(outer: list[Index]) -> None:
        def at(k: Index) -> str:
            return x.at([*outer[:axis], k, *outer[axis:]])

        best, n = writer.name("m"), x.shape[axis]
        most = _most(writer, writer.type_of(x.kind), n, at, symbol)
        writer.line(f"int {best} = 0;")
        writer.line(f"while ({best} < {n - 1} && {at(Index.of(best))} != {most}) ++{best};")
        writer.line(f"{target.at(outer)} = {best};")

    writer.line("{")
    writer.loops(others, entry)
    writer.line("}")
    assert target.array is not None
    return array(target.array, call.shape, "int64_t")


def _most(writer: Writer, kind: str, n: int, at: Callable[[Index], str], symbol: str) -> str:
    """Return the least or largest of n entries, found in lanes where there are many."""
    lanes, n_lanes = writer.name("s"), min(n, LANES)

    def take(entry: str, place: str) -> None:
        writer.line(f"{place} = {entry} {symbol} {place} ? {entry} : {place};")

    writer.line(f"{kind} {lanes}[{n_lanes}];")
    with writer.loop(n_lanes) as c:
        writer.line(f"{lanes}[{c}] = {at(c)};")
    if n >= 2 * LANES:
        with writer.loop(n // LANES - 1) as block, writer.loop(LANES) as c:
            take(at(block * LANES + c + LANES), f"{lanes}[{c}]")
    if n > LANES and n % LANES:
        with writer.loop(n % LANES) as c:
            take(at(c + (n - n % LANES)), f"{lanes}[{c}]")
    if n_lanes > 1:
        with writer.loop(n_lanes - 1) as c:
            take(f"{lanes}[{c + 1}]", f"{lanes}[0]")
    return f"{lanes}[0]"
