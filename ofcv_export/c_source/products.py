"""Products of matrices, with constant ones in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ofcv_export.c_source.index import Index, linear
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value, broadcast, constant, mapped
from ofcv_export.c_source.writer import LANES, Writer
from ofcv_export.graph.editing import row_major

# Rows of weights that are added to the sums in one go, so that these are read less often.
_ROWS = 8
# Sums of a product that are under way at a time.
_TILE = 64


def _product(call: Call, x: Value, w: Value, start: Value | None = None) -> Value:
    """Return x (n, k) @ w (k, m), plus a start (m)."""
    writer, (n, k), m = call.writer, x.shape, w.shape[1]
    x = writer.in_memory(x)
    begin = broadcast(constant(writer.number(0), (m,), "real") if start is None else start, (m,))
    if m < LANES or w.tensor is None:
        return _products_of_rows(call, x, w, begin)
    n_tiles = -(-m // _TILE)
    width = m if n_tiles == 1 else _TILE
    padded = n_tiles * width
    target = writer.declare((n, padded), "real")
    weights = writer.known(_tiles(w.tensor, n_tiles, width))
    if begin.tensor is not None:
        begin = writer.known(torch.nn.functional.pad(begin.tensor, (0, padded - m)))

    def tile(outer: list[Index]) -> None:
        r, t = outer
        s = writer.name("s")
        writer.line(f"{writer.real} {s}[{width}];")
        writer.loops(
            [width], lambda c: writer.line(f"{s}[{c[0]}] = {begin.at([t * width + c[0]])};")
        )
        _accumulate(writer, s, k, width, lambda e: x.at([r, e]), lambda e, c: weights.at([t, e, c]))
        writer.loops([width], lambda c: writer.line(
            f"{target.array}[{linear([r, t * width + c[0]], (padded, 1))}] = {s}[{c[0]}];"
        ))  # fmt: skip

    writer.line("{")
    writer.loops([n, n_tiles], tile)
    writer.line("}")
    return mapped(target, (n, m), lambda i: list(i))


def _tiles(weights: Tensor, n_tiles: int, width: int) -> Tensor:
    """Return weights (k, m) as (n_tiles, k, width), in the order that they are read in."""
    k, m = weights.shape
    padded = torch.nn.functional.pad(weights, (0, n_tiles * width - m))
    return padded.reshape(k, n_tiles, width).transpose(0, 1).contiguous()


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


def _accumulate(
    writer: Writer,
    sums: str,
    n_terms: int,
    width: int,
    factor: Callable[[Index], str],
    weight: Callable[[Index, Index], str],
) -> None:
    """Add factors times rows of weights to sums, one after the other, some rows in one go."""
    whole = n_terms // _ROWS

    def rows(first: Index, n_rows: int) -> None:
        names = [writer.name("f") for _ in range(n_rows)]
        for e, name in enumerate(names):
            writer.line(f"const {writer.real} {name} = {factor(first + e)};")

        def add(c: list[Index]) -> None:
            total = f"{sums}[{c[0]}]"
            for e, name in enumerate(names):
                total = f"({total} + {name} * {weight(first + e, c[0])})"
            writer.line(f"{sums}[{c[0]}] = {total};")

        writer.loops([width], add)

    if whole:
        variable = writer.name("i")
        writer.line(f"for (int {variable} = 0; {variable} < {whole}; ++{variable}) {{")
        rows(Index({variable: _ROWS}), _ROWS)
        writer.line("}")
    if n_terms % _ROWS:
        writer.line("{")
        rows(Index({}, whole * _ROWS), n_terms % _ROWS)
        writer.line("}")


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
