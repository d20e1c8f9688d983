"""Operators that make new arrays: joined, padded, filled, and sums over indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ofcv_export.c_source.extent import is_free, require_fixed
from ofcv_export.c_source.index import Index, linear
from ofcv_export.c_source.pointwise import operand_value
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, constant, part
from ofcv_export.graph.editing import row_major


@register("cat.default")
def _cat(call: Call, parts: Sequence[Value], axis: int = 0) -> Value:
    if len(parts) == 1:
        return parts[0]
    axis %= len(call.shape)
    target, start = call.writer.declare(call.shape, call.kind), Index()
    for entry in parts:
        call.writer.put(part(target, entry.shape, axis, start), entry)
        start = start + Index.of(entry.shape[axis])
    return target


@register("stack.default")
def _stack(call: Call, parts: Sequence[Value], axis: int = 0) -> Value:
    axis %= len(call.shape)
    target, strides = call.writer.declare(call.shape, call.kind), row_major(call.shape)
    others = [stride for a, stride in enumerate(strides) if a != axis]
    for k, entry in enumerate(parts):
        call.writer.store(target, entry, k * strides[axis], others)
    return target


@register("constant_pad_nd.default")
def _pad(call: Call, x: Value, pads: Sequence[int], number: float = 0) -> Value:
    if not any(pads):
        return x
    target, strides = call.writer.declare(call.shape, call.kind), row_major(call.shape)
    call.writer.store(target, constant(call.writer.number(number), call.shape, x.kind))
    before = [0] * len(x.shape)
    for k in range(len(pads) // 2):
        before[-1 - k] = pads[2 * k]
    offset = sum(b * stride for b, stride in zip(before, strides, strict=True))
    call.writer.store(target, x, offset, strides)
    return target


@register(
    "zeros.default",
    "new_zeros.default",
    "zeros_like.default",
    "empty_permuted.default",
    "empty.memory_format",
    "new_empty.default",
)
def _zeros(call: Call, *_: Any, **__: Any) -> Value:
    return constant(call.writer.number(0), call.shape, call.kind)


@register("ones_like.default", "new_ones.default")
def _ones(call: Call, *_: Any, **__: Any) -> Value:
    return constant(call.writer.number(1), call.shape, call.kind)


@register("full.default", "full_like.default", "scalar_tensor.default", "new_full.default")
def _full(call: Call, *args: Any, **_: Any) -> Value:
    number = args[0] if len(args) == 1 else args[1]
    if is_free(number):
        return operand_value(call, number)
    if call.kind != "real":
        return constant(str(int(number)), call.shape, call.kind)
    return constant(call.writer.number(float(number)), call.shape, "real")


@register("arange.start_step")
def _arange(call: Call, start: int, end: int, step: int = 1, **_: Any) -> Value:
    if is_free(end):
        if (start, step) != (0, 1):
            require_fixed(end)
        return Value(call.shape, "int64_t", lambda i: str(i[0]), 1)
    return call.writer.known(torch.arange(start, end, step))


# Parts of a list that are added up side by side: neighbours often add to the same place, and the
# second would wait for the first.
_AT_ONCE = 4


@register("index_add.default")
def _index_add(call: Call, onto: Value, axis: int, index: Value, x: Value) -> Value:
    axis %= len(call.shape)
    writer, strides = call.writer, row_major(call.shape)
    target = onto
    if not (writer.owns(onto) and len(call.node.all_input_nodes[0].users) == 1):
        target = writer.declare(call.shape, call.kind)
        writer.store(target, onto)

    def add(indices: list[Index]) -> None:
        place = [Index.looked_up(index.at([e])) if a == axis else e for a, e in enumerate(indices)]
        writer.line(f"{target.array}[{linear(place, strides)}] += {x.at(indices)};")

    def from_place(n_parts: int, length: int, first: int) -> None:
        """Add parts of the list, one after the other."""

        def body(indices: list[Index]) -> None:
            part, *rest = indices
            rest[axis] = rest[axis] + part * length + first
            add(rest)

        sizes = list(x.shape)
        sizes[axis] = length
        writer.loops([n_parts, *sizes], body)

    if is_free(x.shape[axis]):
        writer.loops(x.shape, add)
        return target
    length, rest = divmod(x.shape[axis], _AT_ONCE)
    if length:
        from_place(_AT_ONCE, length, 0)
    if rest:
        from_place(1, rest, length * _AT_ONCE)
    return target


@register("index_put.default")
def _index_put(
    call: Call, onto: Value, indices: Sequence[Value | None], x: Value, accumulate: bool = False
) -> Value:
    (axis,) = [a for a, index in enumerate(indices) if index is not None]
    if not accumulate:
        raise ValueError("module: expected sums in C source, got index_put without accumulate")
    return _index_add(call, onto, axis, indices[axis], x)


@register("scatter_add.default")
def _scatter_add(call: Call, onto: Value, axis: int, index: Value, x: Value) -> Value:
    return _scattered(call, onto, axis, index, x, lambda place, entry: f"{place} += {entry};")


@register("scatter.src")
def _scatter(call: Call, onto: Value, axis: int, index: Value, x: Value) -> Value:
    return _scattered(call, onto, axis, index, x, lambda place, entry: f"{place} = {entry};")


def _scattered(
    call: Call,
    onto: Value,
    axis: int,
    index: Value,
    x: Value,
    line: Callable[[str, str], str],
) -> Value:
    """Return a value into which entries are put by a line of C, each at the place of an index."""
    axis %= len(call.shape)
    writer, strides = call.writer, row_major(call.shape)
    target = writer.declare(call.shape, call.kind)
    writer.store(target, onto)

    def body(indices: list[Index]) -> None:
        place = [Index.of(index.at(indices)) if a == axis else e for a, e in enumerate(indices)]
        writer.line(line(f"{target.array}[{linear(place, strides)}]", x.at(indices)))

    writer.loops(index.shape, body)
    return target


# How an entry outdoes another, and what every entry outdoes.
_EXTREMES = {"amax": (">", float("-inf")), "amin": ("<", float("inf"))}


@register("scatter_reduce.two")
def _scatter_reduce(
    call: Call,
    onto: Value,
    axis: int,
    index: Value,
    x: Value,
    reduce: str,
    include_self: bool = True,
) -> Value:
    if reduce == "sum" and include_self:
        return _scatter_add(call, onto, axis, index, x)
    if reduce not in _EXTREMES:
        raise ValueError(
            f"module: expected sums with what is there, or extremes, in C source, got {reduce}"
        )
    symbol, outdone = _EXTREMES[reduce]
    if not include_self:
        start = call.writer.number(outdone)
        onto = _scattered(call, onto, axis, index, x, lambda place, _: f"{place} = {start};")
    return _scattered(
        call, onto, axis, index, call.writer.once(x),
        lambda place, entry: f"{place} = {entry} {symbol} {place} ? {entry} : {place};",
    )  # fmt: skip
