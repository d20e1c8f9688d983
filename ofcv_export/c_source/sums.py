"""Sums and smallest entries, in an order that no compiler can change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ofcv_export.c_source.index import Index
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, array, constant


@register("sum.dim_IntList", "sum.default")
def _sum(
    call: Call, x: Value, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any
) -> Value:
    writer = call.writer
    over = sorted(a % len(x.shape) for a in (axes or range(len(x.shape))))
    kept = [a for a in range(len(x.shape)) if a not in over]
    target = writer.declare([x.shape[a] for a in kept], "real")

    def whole(outer: Sequence[Index], inner: Sequence[Index]) -> list[Index]:
        out = [Index()] * len(x.shape)
        for a, e in zip([*kept, *over], [*outer, *inner], strict=True):
            out[a] = e
        return out

    if len(over) == 1 and over[0] == len(x.shape) - 1:
        n = x.shape[-1]

        def row(outer: list[Index]) -> None:
            term = lambda k: x.at(whole(outer, [k]))  # noqa: E731
            writer.sum(n, term, target.at(outer), of=target.size)

        writer.loops(target.shape, row)
    else:
        writer.store(target, constant(writer.number(0), target.shape, "real"))

        def column(inner: list[Index]) -> None:
            def add(outer: list[Index]) -> None:
                writer.line(f"{target.at(outer)} += {x.at(whole(outer, inner))};")

            writer.loops(target.shape, add)

        writer.loops([x.shape[a] for a in over], column)
    assert target.array is not None
    return array(target.array, call.shape, "real")


@register("argmin.default")
def _argmin(call: Call, x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
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

        best, k = writer.name("m"), writer.name("i")
        writer.line(f"int {best} = 0;")
        writer.line(f"for (int {k} = 1; {k} < {x.shape[axis]}; ++{k}) {{")
        writer.line(f"if ({at(Index.of(k))} < {at(Index.of(best))}) {best} = {k};")
        writer.line("}")
        writer.line(f"{target.at(outer)} = {best};")

    writer.line("{")
    writer.loops(others, entry)
    writer.line("}")
    assert target.array is not None
    return array(target.array, call.shape, "int64_t")
