"""Products of matrices, with constant ones in the order in which they are read."""

from __future__ import annotations

import torch
from torch import Tensor

from ofcv_export.c_source.index import Index
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, broadcast, constant, mapped, plus
from ofcv_export.c_source.writer import LANES, Writer, tree

# Rows of weights that are added to the sums in one go, so that sums are stored less often.
_ROWS = 4
# Rows of weights whose products with a vector are under way at a time: it is read less often.
_SUMS = 2
# Sums of a vector's entries that are under way at a time.
_LANES = 8


def _product(call: Call, x: Value, w: Value, start: Value | None = None) -> Value:
    """Return x (n, k) @ w (k, m), plus a start (m).

    A matrix of weights is laid out once for both directions of the chain rule: in blocks of columns
    along its longer side, see `_in_blocks`.
    """
    writer, (k, m) = call.writer, w.shape
    if w.tensor is None or max(k, m) < LANES or (m < LANES and k <= _width(writer)):
        return _products_of_rows(call, writer.once(x), w, start)
    x = writer.in_memory(x)
    along, across = _in_blocks(w.tensor, _width(writer)), _in_blocks(w.tensor.t(), _width(writer))
    if k > m or (k == m and writer.has_table(across)):
        return _across_blocks(writer, x, writer.known(across), _begin(writer, start, m))
    if start is not None and start.tensor is None:
        return plus(_along_blocks(writer, x, writer.known(along), _begin(writer, None, m)), start)
    return _along_blocks(writer, x, writer.known(along), _begin(writer, start, m))


def _begin(writer: Writer, start: Value | None, m: int) -> Value:
    """Return a start (m), zeros if there is none."""
    if start is None:
        return constant(writer.number(0), (m,), "real")
    return broadcast(start, (m,))


def _width(writer: Writer) -> int:
    """Return the number of columns of a block: as many as vector registers hold."""
    return 64 if writer.real == "float" else 32


def _filled_up(size: int) -> int:
    """Return the least multiple of the lanes that is not below a size."""
    return -(-size // _LANES) * _LANES


def _in_blocks(weights: Tensor, width: int) -> Tensor:
    """Return weights (rows, columns) as blocks of columns, row by row, one after the other.

    Zeros fill the last block up to whole lanes.
    """
    columns = weights.shape[1]
    filled = torch.nn.functional.pad(weights, (0, _filled_up(columns) - columns))
    return torch.cat([block.flatten() for block in filled.split(width, dim=1)])


def _along_blocks(writer: Writer, x: Value, weights: Value, begin: Value) -> Value:
    """Return x @ w plus a start, for blocks of w: rows times entries of x are added up."""
    (n, k), m = x.shape, begin.shape[0]
    columns = _filled_up(m)
    target = writer.declare((n, columns), "real")
    if begin.tensor is not None:
        begin = writer.known(torch.nn.functional.pad(begin.tensor, (0, columns - m)))

    def block(r: Index, first: Index, width: int) -> None:
        def rows(row: Index, n_rows: int, before: Value) -> None:
            names = [writer.name("f") for _ in range(n_rows)]
            for e, name in enumerate(names):
                writer.line(f"const {writer.real} {name} = {x.at([r, row + e])};")
            with writer.loop(width) as c:
                terms = [
                    f"{name} * {weights.at([first * k + row * width + (c + e * width)])}"
                    for e, name in enumerate(names)
                ]
                place = [r, first + c]
                writer.line(f"{target.at(place)} = {before.at(place)} + {tree(terms)};")

        n_first = k % _ROWS or _ROWS
        rows(Index(), n_first, broadcast(begin, (n, columns)))
        if k > n_first:
            with writer.loop((k - n_first) // _ROWS) as group:
                rows(group * _ROWS + n_first, _ROWS, target)

    width = _width(writer)
    whole, rest = divmod(columns, width)
    with writer.loop(n) as r:
        if whole:
            with writer.loop(whole) as number:
                block(r, number * width, width)
        if rest:
            block(r, Index({}, whole * width), rest)
    return _first_columns(target, m)


def _first_columns(x: Value, m: int) -> Value:
    """Return the first m columns of an array."""
    n, columns = x.shape
    if n == 1 or m == columns:
        return Value((n, m), x.kind, x.at, 0, x.array)
    return mapped(x, (n, m), list)


def _across_blocks(writer: Writer, x: Value, weights: Value, begin: Value) -> Value:
    """Return x @ w plus a start, for blocks of w transposed.

    An entry is a sum of products along a row of each block, in lanes, which are added up last.
    """
    (n, k), m = x.shape, begin.shape[0]
    columns, widest = _filled_up(k), _width(writer)
    x = writer.filled_up(x, columns)
    target, sums = writer.declare((n, m), "real"), writer.declare((m, _LANES), "real")

    def block(r: Index, first: Index, width: int, operation: str) -> None:
        def rows(start: Index, n_rows: int) -> None:
            with writer.loop(_LANES) as c:
                for row in (start + e for e in range(n_rows)):
                    place = first * m + row * width + c
                    terms = [
                        f"{x.at([r, first + c + e])} * {weights.at([place + e])}"
                        for e in range(0, width, _LANES)
                    ]
                    writer.line(f"{sums.at([row, c])} {operation} {tree(terms)};")

        if m >= _SUMS:
            with writer.loop(m // _SUMS) as group:
                rows(group * _SUMS, _SUMS)
        if m % _SUMS:
            rows(Index({}, m - m % _SUMS), m % _SUMS)

    with writer.loop(n) as r:
        block(r, Index(), min(columns, widest), "=")
        whole, rest = divmod(columns, widest)
        if whole > 1:
            with writer.loop(whole - 1) as number:
                block(r, number * widest + widest, widest, "+=")
        if whole and rest:
            block(r, Index({}, whole * widest), rest, "+=")
        lanes = _halved(writer, sums)
        writer.loops([m], lambda c: writer.line(
            f"{target.at([r, c[0]])} = {begin.at(c)} + "
            f"({lanes.at([c[0], Index()])} + {lanes.at([c[0], Index({}, 1)])});"
        ))  # fmt: skip
    return target


def _products_of_rows(call: Call, x: Value, w: Value, start: Value | None) -> Value:
    """Return x @ w plus a start, each entry as one sum."""
    writer, (n, k), m = call.writer, x.shape, w.shape[1]
    target = writer.declare((n, m), "real")
    w = writer.once(w)
    columns = writer.known(w.tensor.t().contiguous()) if w.tensor is not None else None

    def entry(indices: list[Index]) -> None:
        r, c = indices
        place = target.at(indices)
        weight = (lambda e: columns.at([c, e])) if columns else (lambda e: w.at([e, c]))
        first = _begin(writer, start, m).at([c]) if start else ""
        writer.sum(k, lambda e: f"{x.at([r, e])} * {weight(e)}", place, n * m, first)

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
    a, b = writer.once(a), writer.once(b)
    target = writer.declare(call.shape, "real")

    def entry(indices: list[Index]) -> None:
        g, r, c = indices
        term = lambda e: f"{a.at([g, r, e])} * {b.at([g, e, c])}"  # noqa: E731
        writer.sum(k, term, target.at(indices), target.size)

    writer.loops(call.shape, entry)
    return target


@register("mv.default")
def _mv(call: Call, a: Value, x: Value) -> Value:
    column = mapped(x, (*x.shape, 1), lambda i: [i[0]])
    product = _product(call, a, column)
    return mapped(product, call.shape, lambda i: [i[0], Index()])
