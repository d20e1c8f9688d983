"""Products of matrices, with constant ones in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ofcv_export.c_source.index import Index, linear
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, broadcast, constant, mapped
from ofcv_export.c_source.writer import LANES, Writer, tree
from ofcv_export.graph.editing import row_major

# Rows of weights that are added to the sums in one go, so that sums are stored less often.
_ROWS = 8
# Sums of a vector's entries that are under way at a time.
_LANES = 8


def _product(call: Call, x: Value, w: Value, start: Value | None = None) -> Value:
    """Return x (n, k) @ w (k, m), plus a start (m).

    A matrix of weights is laid out once for both directions of the chain rule: in blocks of columns
    along its longer side, see `_in_blocks`.
    """
    writer, m = call.writer, w.shape[1]
    x = writer.in_memory(x)
    zeros = constant(writer.number(0), (m,), "real")
    begin = zeros if start is None else broadcast(start, (m,))
    if (min(w.shape) < LANES and m < LANES) or w.tensor is None:
        return _products_of_rows(call, x, w, begin)
    width = _width(writer)
    along, across = _in_blocks(w.tensor, width), _in_blocks(w.tensor.t(), width)
    k = w.shape[0]
    is_across = k > m or (k == m and writer.has_table(across))
    product = _across_blocks if is_across else _along_blocks
    return product(writer, x, writer.known(across if is_across else along), begin)


def _width(writer: Writer) -> int:
    """Return the number of columns of a block: as many as vector registers hold."""
    return 64 if writer.real == "float" else 32


def _in_blocks(weights: Tensor, width: int) -> Tensor:
    """Return weights (rows, columns) as blocks of columns, row by row, one after the other."""
    return torch.cat([block.flatten() for block in weights.split(width, dim=1)])


def _blocks(writer: Writer, n_columns: int, block: Callable[[Index, int], None]) -> None:
    """Write what is done with each block, from its first column and its width."""
    width = _width(writer)
    whole = n_columns // width
    if whole:
        with writer.loop(whole) as number:
            block(number * width, width)
    if n_columns % width:
        block(Index({}, whole * width), n_columns % width)


def _along_blocks(writer: Writer, x: Value, weights: Value, begin: Value) -> Value:
    """Return x @ w plus a start, for blocks of w: rows times entries of x are added up."""
    (n, k), m = x.shape, begin.shape[0]
    target = writer.declare((n, m), "real")

    def block(r: Index, first: Index, width: int) -> None:
        def rows(row: Index, n_rows: int, before: Value) -> None:
            names = [writer.name("f") for _ in range(n_rows)]
            for e, name in enumerate(names):
                writer.line(f"const {writer.real} {name} = {x.at([r, row + e])};")
            with writer.loop(width) as c:
                place = target.at([r, first + c])
                terms = [
                    f"{name} * {weights.at([first * k + row * width + (c + e * width)])}"
                    for e, name in enumerate(names)
                ]
                writer.line(f"{place} = {before.at([r, first + c])} + {tree(terms)};")

        n_first = k % _ROWS or min(k, _ROWS)
        rows(Index(), n_first, broadcast(begin, (n, m)))
        if k > n_first:
            with writer.loop((k - n_first) // _ROWS) as group:
                rows(group * _ROWS + n_first, _ROWS, target)

    with writer.loop(n) as r:
        _blocks(writer, m, lambda first, width: block(r, first, width))
    return target


def _across_blocks(writer: Writer, x: Value, weights: Value, begin: Value) -> Value:
    """Return x @ w plus a start, for blocks of w transposed.

    An entry is a sum of products along a row of each block, in lanes, which are added up last.
    """
    (n, k), m = x.shape, begin.shape[0]
    target, sums = writer.declare((n, m), "real"), writer.declare((m, _LANES), "real")

    def block(r: Index, first: Index, width: int) -> None:
        with writer.loop(m) as row:
            start = first * m + row * width

            def add(n_lanes: int, places: range) -> None:
                with writer.loop(n_lanes) as c:
                    terms = [
                        f"{x.at([r, first + c + e])} * {weights.at([start + c + e])}"
                        for e in places
                    ]
                    writer.line(f"{sums.at([row, c])} += {tree(terms)};")

            rest = width % _LANES
            if width >= _LANES:
                add(_LANES, range(0, width - rest, _LANES))
            if rest:
                add(rest, range(width - rest, width - rest + 1))

    with writer.loop(n) as r:
        writer.store(sums, constant(writer.number(0), sums.shape, "real"))
        _blocks(writer, k, lambda first, width: block(r, first, width))

        lanes = _halved(writer, sums)
        writer.loops([m], lambda c: writer.line(
            f"{target.at([r, c[0]])} = {begin.at(c)} + "
            f"({lanes.at([c[0], Index()])} + {lanes.at([c[0], Index({}, 1)])});"
        ))  # fmt: skip
    return target


def _products_of_rows(call: Call, x: Value, w: Value, begin: Value) -> Value:
    """Return x @ w plus a start, each entry as one sum."""
    writer, (n, k), m = call.writer, x.shape, w.shape[1]
    target = writer.declare((n, m), "real")
    columns = writer.known(w.tensor.t().contiguous()) if w.tensor is not None else None

    def entry(indices: list[Index]) -> None:
        r, c = indices
        place = f"{target.array}[{linear([r, c], (m, 1))}]"
        weight = (lambda e: columns.at([c, e])) if columns else (lambda e: w.at([e, c]))
        writer.sum(k, lambda e: f"{x.at([r, e])} * {weight(e)}", place)
        writer.line(f"{place} += {begin.at([c])};")

    writer.loops([n, m], entry)
    return target


def _halved(writer: Writer, sums: Value) -> Value:
    """Return two lanes of sums (m, lanes): the second half added to the first, over and over."""
    m, n_lanes = sums.shape
    if n_lanes == 2:
        return sums
    half = n_lanes // 2
    target = writer.declare((m, half), sums.kind)
    with writer.loop(m) as row, writer.loop(half) as c:
        writer.line(f"{target.at([row, c])} = {sums.at([row, c])} + {sums.at([row, c + half])};")
    return _halved(writer, target)


@register("mm.default")
def _mm(call: Call, x: Value, w: Value) -> Value:
    return _product(call, x, w)


@register("addmm.default")
def _addmm(call: Call, start: Value, x: Value, w: Value) -> Value:
    return _product(call, x, w, start)


@register("bmm.default")
def _bmm(call: Call, a: Value, b: Value) -> Value:
    """Return small products, each entry as one sum."""
    writer, (_, _, k) = call.writer, a.shape
    a, b = writer.in_memory(a), writer.in_memory(b)
    target = writer.declare(call.shape, "real")

    def entry(indices: list[Index]) -> None:
        g, r, c = indices
        place = f"{target.array}[{linear([g, r, c], row_major(call.shape))}]"
        writer.sum(k, lambda e: f"{a.at([g, r, e])} * {b.at([g, e, c])}", place)

    writer.loops(call.shape, entry)
    return target


@register("mv.default")
def _mv(call: Call, a: Value, x: Value) -> Value:
    column = mapped(x, (*x.shape, 1), lambda i: [i[0]])
    product = _product(call, a, column)
    return mapped(product, call.shape, lambda i: [i[0], Index()])
