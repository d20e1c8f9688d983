"""Free sizes of a traced graph, as C and as the most that they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from ofcv_export.c_source.extent import Extent
from ofcv_export.graph.tensor_spec import TensorSpec

_NUMBERS = (torch.SymInt, torch.SymFloat)


def with_extents(
    module: fx.GraphModule, specs: Sequence[TensorSpec], largest: Sequence[Tensor]
) -> None:
    """Record which sizes of each node are free, and what numbers of nodes are such sizes.

    Parameters
    ----------
    module : torch.fx.GraphModule
        A graph traced with symbolic sizes, with shapes for the largest; its nodes get ``extents``,
        or ``extent`` where they are a size.
    specs : sequence of TensorSpec
        Its inputs.
    largest : sequence of torch.Tensor
        Inputs of the largest sizes.

    Raises
    ------
    ValueError
        If a size is no polynomial of those of the inputs.
    """
    sizes = _Sizes(module, specs, largest)
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, _NUMBERS):
            node.meta["extent"] = sizes.of(value)
        elif isinstance(value, Tensor):
            node.meta["extents"] = tuple(map(sizes.of, value.shape))


class _Sizes:
    """What the tracer's symbols are called, and the most that they can be."""

    def __init__(
        self, module: fx.GraphModule, specs: Sequence[TensorSpec], largest: Sequence[Tensor]
    ) -> None:
        self._names: dict[Any, sympy.Symbol] = {}
        self._most: dict[Any, int] = {}
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        for node, spec, tensor in zip(inputs, specs, largest, strict=True):
            for size, name, most in zip(
                node.meta["val"].shape, spec.shape, tensor.shape, strict=True
            ):
                if isinstance(size, torch.SymInt):
                    # The tracer has symbols for fixed sizes, too.
                    self._names[size.node.expr] = _named(name)
                    self._most[size.node.expr] = most

    def of(self, size: Any) -> int:
        """Return a size of the tracer's."""
        expression = size.node.expr if isinstance(size, _NUMBERS) else sympy.Integer(size)
        while expression.func.__name__ == "ToFloat":
            (expression,) = expression.args
        most = int(expression.xreplace(self._most))
        named = expression.xreplace(self._names).expand()
        if named.is_Integer:
            return most
        if not named.is_polynomial():
            raise ValueError(
                "module: expected sizes that are sums and products of those of the inputs in C "
                f"source, got {named}"
            )
        return Extent(most, f"({named})" if named.is_Add else str(named))


def _named(size: int | str) -> Any:
    """Return a size of an input as SymPy has it."""
    if isinstance(size, int):
        return sympy.Integer(size)
    return sympy.Symbol(size, positive=True, integer=True)
