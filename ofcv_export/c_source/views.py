"""The same entries at other indices: nothing is computed, and seldom anything copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ofcv_export.c_source.extent import is_free, require_fixed
from ofcv_export.c_source.index import Index, linear
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, array, as_real, broadcast, mapped, part
from ofcv_export.graph.editing import row_major

# What it costs to look up a place in a table, in operations.
_FETCH = 2
_FEW = 4


@register(
    "clone.default",
    "alias.default",
    "lift_fresh_copy.default",
    "detach.default",
    "contiguous.default",
)
def _same(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    return x


@register("_to_copy.default")
def _converted(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    if call.kind == "real" or call.kind == x.kind:
        return as_real(x, call.writer.real) if call.kind == "real" else x
    if call.kind == "int":
        return Value(x.shape, "int", lambda i: f"({x.at(i)} != 0)", x.cost + 1)
    return Value(x.shape, call.kind, lambda i: f"((int64_t){x.at(i)})", x.cost + 1)


@register("as_strided.default")
def _as_strided(call: Call, x: Value, sizes: Any, strides: Sequence[int], *offset: Any) -> Value:
    """Return the same entries; any other view by strides is refused."""
    source = call.node.args[0].meta["tensor_meta"]  # type: ignore[union-attr]
    is_whole = x.shape == call.shape and list(strides) == row_major(call.shape) and not any(offset)
    if not is_whole or list(source.stride) != row_major(x.shape):
        raise ValueError("module: expected no view by strides in C source, got as_strided")
    return x


@register("copy.default")
def _copy(call: Call, x: Value, source: Value, *_: Any, **__: Any) -> Value:
    if source.shape != call.shape:
        raise ValueError("module: expected whole copies in C source, got one of a part")
    return source


@register("slice_scatter.default")
def _slice_scatter(
    call: Call, x: Value, source: Value, dim: int = 0, start: int | None = None,
    end: int | None = None, step: int = 1,
) -> Value:  # fmt: skip
    """Return entries of which some, neighbours along an axis, are those of another array."""
    if source.shape == call.shape:
        return source
    if step != 1:
        raise ValueError("module: expected parts of neighbours in C source, got slice_scatter")
    first, last, _ = slice(start, end).indices(call.shape[dim])
    x, source = call.writer.once(x), call.writer.once(source)

    def at(indices: Sequence[Index]) -> str:
        places = list(indices)
        places[dim] = places[dim] + -first
        here = indices[dim]
        return f"(({here}) >= {first} && ({here}) < {last} ? {source.at(places)} : {x.at(indices)})"

    return Value(call.shape, call.kind, at, x.cost + source.cost + 1)


@register(
    "view.default",
    "_unsafe_view.default",
    "reshape.default",
    "unsqueeze.default",
    "squeeze.dim",
    "squeeze.dims",
    "unflatten.int",
)
def _view(call: Call, x: Value, *_: Any) -> Value:
    parts = _parts(x.shape, call.shape)
    if parts is not None:

        def places(indices: Sequence[Index]) -> list[Index]:
            found = []
            for axes in parts:
                strides = row_major([call.shape[axis] for axis in axes])
                found.append(linear([indices[axis] for axis in axes], strides))
            return found

        view = mapped(x, call.shape, places)
        return Value(call.shape, x.kind, view.at, x.cost, x.array)
    _require_leading(x.shape, call.shape)
    whole = call.writer.in_memory(x)
    assert whole.array is not None
    return array(whole.array, call.shape, x.kind)


def _parts(shape: Sequence[int], split: Sequence[int]) -> list[list[int]] | None:
    """Return the axes into which a view splits each axis of a shape; None where it joins some."""
    rest = [axis for axis, n in enumerate(split) if n != 1]
    parts: list[list[int]] = []
    for size in shape:
        own: list[int] = []
        while math.prod(split[axis] for axis in own) < size and rest:
            own.append(rest.pop(0))
        # What a free size is a part of is laid out for the largest of its sizes.
        if math.prod(split[axis] for axis in own) != int(size):
            return None
        require_fixed(*(split[axis] for axis in own[1:]))
        parts.append(own)
    return parts


def _require_leading(shape: Sequence[int], joined: Sequence[int]) -> None:
    """Raise FreeSizeError if a view joins axes of which one after the first is free."""
    left, right = list(shape), list(joined)
    while left and right:
        own, other = [left.pop(0)], [right.pop(0)]
        while math.prod(own) != math.prod(other):
            if math.prod(own) < math.prod(other):
                own.append(left.pop(0))
            else:
                other.append(right.pop(0))
        for axes in (own, other):
            sizes = [size for size in axes if size != 1]
            require_fixed(*sizes[1:])


@register("expand.default")
def _expand(call: Call, x: Value, *_: Any) -> Value:
    return broadcast(x, call.shape)


@register("slice.Tensor")
def _slice(
    call: Call, x: Value, axis: int = 0, start: int | None = None, end: Any = None, step: int = 1
) -> Value:
    axis %= len(x.shape)
    first = Index.of(_first(x.shape[axis], start or 0))
    return mapped(
        x, call.shape, lambda i: [e * step + first if a == axis else e for a, e in enumerate(i)]
    )


def _first(n: int, start: int) -> int:
    """Return the place at which a part of an axis begins."""
    if is_free(n) or is_free(start):
        if start < 0:
            require_fixed(n, start)
        return start
    return min(max(start + n if start < 0 else start, 0), n)


@register("diagonal.default")
def _diagonal(call: Call, x: Value, offset: int = 0, first: int = 0, second: int = 1) -> Value:
    first, second = first % len(x.shape), second % len(x.shape)
    starts = {first: max(-offset, 0), second: max(offset, 0)}

    def places(indices: Sequence[Index]) -> list[Index]:
        left = iter(indices[:-1])
        return [indices[-1] + starts[a] if a in starts else next(left) for a in range(len(x.shape))]

    return mapped(x, call.shape, places)


@register("t.default")
def _t(call: Call, x: Value) -> Value:
    return mapped(x, call.shape, lambda i: list(reversed(i)))


@register("transpose.int")
def _transpose(call: Call, x: Value, a: int, b: int) -> Value:
    def places(indices: Sequence[Index]) -> list[Index]:
        out = list(indices)
        out[a], out[b] = out[b], out[a]
        return out

    return mapped(x, call.shape, places)


@register("permute.default")
def _permute(call: Call, x: Value, axes: Sequence[int]) -> Value:
    def places(indices: Sequence[Index]) -> list[Index]:
        out = [Index()] * len(axes)
        for index, axis in zip(indices, axes, strict=True):
            out[axis] = index
        return out

    return mapped(x, call.shape, places)


@register("flip.default")
def _flip(call: Call, x: Value, axes: Sequence[int]) -> Value:
    axes = [axis % len(x.shape) for axis in axes]
    require_fixed(*(x.shape[axis] for axis in axes))
    return mapped(
        x, call.shape,
        lambda i: [e * -1 + (x.shape[a] - 1) if a in axes else e for a, e in enumerate(i)],
    )  # fmt: skip


@register("unfold.default")
def _unfold(call: Call, x: Value, axis: int, size: int, step: int) -> Value:
    axis %= len(x.shape)
    return mapped(
        x,
        call.shape,
        lambda i: [e * step + i[-1] if a == axis else e for a, e in enumerate(i[:-1])],
    )


@register("split_with_sizes.default")
def _split(call: Call, x: Value, sizes: Sequence[int], axis: int = 0) -> list[Value]:
    axis %= len(x.shape)
    parts, start = [], 0
    for size in sizes:
        parts.append(part(x, (*x.shape[:axis], size, *x.shape[axis + 1 :]), axis, start))
        start += size
    return parts


@register("split.Tensor")
def _split_equally(call: Call, x: Value, size: int, axis: int = 0) -> list[Value]:
    n = x.shape[axis]
    return _split(call, x, [min(size, n - start) for start in range(0, n, size)], axis)


def _one(x: Value, axis: int, place: int) -> Value:
    """Return the entries at one place of an axis, without the axis."""
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return mapped(x, shape, lambda i: [*i[:axis], Index.of(place), *i[axis:]])


@register("select.int")
def _select(call: Call, x: Value, axis: int, index: int) -> Value:
    axis %= len(x.shape)
    n = x.shape[axis]
    return _one(x, axis, index if is_free(n) and index >= 0 else index % n)


@register("unbind.int")
def _unbind(call: Call, x: Value, axis: int = 0) -> list[Value]:
    axis %= len(x.shape)
    require_fixed(x.shape[axis])
    return [_one(x, axis, place) for place in range(x.shape[axis])]


@register("index_select.default")
def _index_select(call: Call, x: Value, axis: int, index: Value) -> Value:
    axis %= len(x.shape)
    # What is read in any order is better computed once.
    source = call.writer.once(x)
    fetched = mapped(
        source, call.shape,
        lambda i: [Index.looked_up(index.at([e])) if a == axis else e for a, e in enumerate(i)],
    )  # fmt: skip
    # The places of a few components are known where they are written out.
    is_known = index.tensor is not None and index.size <= _FEW
    return fetched if is_known else replace(fetched, cost=_FETCH)


@register("index.Tensor")
def _index(call: Call, x: Value, indices: Sequence[Value | None]) -> Value:
    (axis,) = [a for a, index in enumerate(indices) if index is not None]
    return _index_select(call, x, axis, indices[axis])


@register("embedding.default")
def _embedding(call: Call, weights: Value, index: Value, *_: Any) -> Value:
    """Return rows of weights."""
    source, n = call.writer.once(weights), len(index.shape)

    def places(indices: Sequence[Index]) -> list[Index]:
        return [Index.looked_up(index.at(indices[:n])), indices[n]]

    return replace(mapped(source, call.shape, places), cost=_FETCH)


@register("gather.default")
def _gather(call: Call, x: Value, axis: int, index: Value) -> Value:
    x, index, axis = call.writer.once(x), call.writer.once(index), axis % len(x.shape)
    fetched = mapped(
        x, call.shape,
        lambda i: [Index.looked_up(index.at(i)) if a == axis else e for a, e in enumerate(i)],
    )  # fmt: skip
    return replace(fetched, cost=_FETCH)
