"""What a node of a graph is in C: an array, or an expression for each of its entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ofcv_export.c_source.extent import is_free
from ofcv_export.c_source.index import Index, linear
from ofcv_export.graph.editing import row_major

At = Callable[[Sequence[Index]], str]


@dataclass(frozen=True)
class Value:
    """The entries of a tensor.

    Attributes
    ----------
    shape : tuple of int
        Its sizes.
    kind : str
        Type of an entry in C: ``real`` (float or double), ``int64_t`` or ``int``.
    at : callable
        The expression of an entry, by its indices.
    cost : int
        Operations of that expression; 0 for a read.
    array : str, optional
        The array that holds the entries, contiguous.
    tensor : torch.Tensor, optional
        The entries, where they are known.
    """

    shape: tuple[int, ...]
    kind: str
    at: At
    cost: int = 0
    array: str | None = None
    tensor: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def by_component(name: str, shape: Sequence[int], n_last: int, kind: str) -> Value:
    """Return the value that an array holds with its last axes outermost.

    Then loops over the other axes read x, y and z of vectors each from memory without gaps.
    """
    first, last = tuple(shape[: len(shape) - n_last]), tuple(shape[len(shape) - n_last :])
    if not n_last:
        return array(name, shape, kind)
    whole = row_major((*last, *first))
    strides = [*whole[n_last:], *whole[:n_last]]
    return Value(tuple(shape), kind, lambda i: f"{name}[{linear(i, strides)}]")


def array(name: str, shape: Sequence[int], kind: str) -> Value:
    """Return the value that an array holds."""
    strides = row_major(shape)
    return Value(tuple(shape), kind, lambda i: f"{name}[{linear(i, strides)}]", 0, name)


def packed(name: str, shape: Sequence[int], kind: str) -> Value:
    """Return the value of an array without gaps: one of the caller's, who knows all sizes."""

    def at(indices: Sequence[Index]) -> str:
        place = Index()
        for axis, index in enumerate(indices):
            rest = shape[axis + 1 :]
            factor = math.prod(size for size in rest if not is_free(size))
            for size in filter(is_free, rest):
                index = index.times(str(size))
            place = place + index * factor
        return f"{name}[{place}]"

    return Value(tuple(shape), kind, at)


def constant(text: str, shape: Sequence[int], kind: str) -> Value:
    """Return a value of which all entries are the same."""
    return Value(tuple(shape), kind, lambda _: text)


def broadcast(value: Value, shape: Sequence[int]) -> Value:
    """Return a value repeated along axes that it lacks, or of which it has one entry."""
    extra = len(shape) - len(value.shape)
    if tuple(shape) == value.shape:
        return value

    def at(indices: Sequence[Index]) -> str:
        own = indices[extra:]
        return value.at([Index() if n == 1 else i for i, n in zip(own, value.shape, strict=True)])

    return Value(tuple(shape), value.kind, at, value.cost)


def mapped(
    value: Value, shape: Sequence[int], places: Callable[[Sequence[Index]], list[Index]]
) -> Value:
    """Return a view: entries of a value at other indices."""
    return Value(tuple(shape), value.kind, lambda i: value.at(places(i)), value.cost)


def part(value: Value, shape: Sequence[int], axis: int, start: Index | int) -> Value:
    """Return a view: the entries from a place of an axis on."""
    return mapped(value, shape, lambda i: [e + start if a == axis else e for a, e in enumerate(i)])


def as_real(value: Value, real: str) -> Value:
    """Return a value as floating-point numbers, so that C divides them as such."""
    if value.kind == "real":
        return value
    return Value(value.shape, "real", lambda i: f"(({real}){value.at(i)})", value.cost)


def plus(a: Value, b: Value) -> Value:
    """Return the sum of a value and another, repeated to its shape."""
    other = broadcast(b, a.shape)
    at = lambda i: f"({a.at(i)} + {other.at(i)})"  # noqa: E731
    return Value(a.shape, a.kind, at, a.cost + other.cost + 1)
