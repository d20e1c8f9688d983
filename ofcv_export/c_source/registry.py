"""The operators that C source can hold, by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx

from ofcv_export.c_source.writer import Writer


@dataclass(frozen=True)
class Call:
    """A call of an operator: where to write, and what its result looks like.

    Attributes
    ----------
    writer : Writer
        Takes loops and arrays.
    node : torch.fx.Node
        The call.
    shape : tuple of int
        Of the result.
    kind : str
        Of its entries, see `Value`.
    """

    writer: Writer
    node: fx.Node
    shape: tuple[int, ...]
    kind: str


Operator = Callable[..., Any]
TABLE: dict[str, Operator] = {"<built-in function getitem>": lambda call, values, i: values[i]}


def register(*names: str) -> Callable[[Operator], Operator]:
    """Return a decorator that enters a function for aten operators of these names."""

    def add(function: Operator) -> Operator:
        TABLE.update({f"aten.{name}": function for name in names})
        return function

    return add
