"""Least and largest entries, and their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ofcv_export.c_source.extent import require_fixed
from ofcv_export.c_source.index import Index
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, array, mapped
from ofcv_export.c_source.writer import LANES, Writer


@register("argmin.default")
def _argmin(call: Call, x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    return _first(call, x, axis, "<")


@register("argmax.default")
def _argmax(call: Call, x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    return _first(call, x, axis, ">")


@register("max.dim")
def _largest(call: Call, x: Value, axis: int, keepdim: bool = False) -> list[Value]:
    return _extreme(call, x, axis, keepdim, ">")


@register("min.dim")
def _smallest(call: Call, x: Value, axis: int, keepdim: bool = False) -> list[Value]:
    return _extreme(call, x, axis, keepdim, "<")


def _extreme(call: Call, x: Value, axis: int, keepdim: bool, symbol: str) -> list[Value]:
    """Return the least or largest entries along an axis, and their places."""
    x, axis = call.writer.in_memory(x), axis % len(x.shape)
    others = (*x.shape[:axis], *x.shape[axis + 1 :])
    place = _first(replace(call, shape=others), x, axis, symbol)

    def own(indices: Sequence[Index]) -> Sequence[Index]:
        return (*indices[:axis], *indices[axis + 1 :]) if keepdim else indices

    def entries(indices: Sequence[Index]) -> list[Index]:
        kept = own(indices)
        return [*kept[:axis], Index.looked_up(place.at(kept)), *kept[axis:]]

    shape = (*others[:axis], 1, *others[axis:]) if keepdim else others
    return [mapped(x, shape, entries), mapped(place, shape, lambda i: list(own(i)))]


def _first(call: Call, x: Value, axis: int | None, symbol: str) -> Value:
    """Return the place of the first entry that no other one is below, or above."""
    writer, x = call.writer, call.writer.in_memory(x)
    if axis is None:
        require_fixed(*x.shape)
        assert x.array is not None
        x, axis = array(x.array, (x.size,), x.kind), 0
    axis %= len(x.shape)
    require_fixed(x.shape[axis])
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
