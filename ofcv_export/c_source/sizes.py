"""Free sizes of a traced graph, as C and as the most that they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from ofcv_export.c_source.extent import Extent
from ofcv_export.graph.tensor_spec import TOLD_BY_LARGEST, TensorSpec

aten = torch.ops.aten

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
        If a size is no polynomial of those of the inputs and those that their entries tell.
    """
    sizes = _Sizes(module, specs, largest)
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, _NUMBERS):
            node.meta["extent"] = sizes.of(value)
            # It is an argument, and what it was made of may go.
            node.args = ()
        elif isinstance(value, Tensor):
            node.meta["extents"] = tuple(map(sizes.of, value.shape))
    module.graph.eliminate_dead_code()


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
            if spec.name in TOLD_BY_LARGEST:
                for value in _largest_entries(node):
                    self._names[value.node.expr] = _named(TOLD_BY_LARGEST[spec.name]) - 1
                    self._most[value.node.expr] = int(tensor.max())

    def of(self, size: Any) -> int:
        """Return a size of the tracer's."""
        expression = size.node.expr if isinstance(size, _NUMBERS) else sympy.Integer(size)
        while expression.func.__name__ == "ToFloat":
            (expression,) = expression.args
        if not expression.free_symbols <= self._most.keys():
            raise ValueError(
                "module: expected sizes that the inputs' sizes tell in C source, got one that "
                "entries of a tensor tell"
            )
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


def _largest_entries(node: fx.Node) -> list[Any]:
    """Return what the tracer calls the largest entry of a tensor, once for each time it is read."""
    largest = [user for user in node.users if user.target in (aten.max.default, aten.amax.default)]
    read = [user for entry in largest for user in entry.users]
    return [user.meta["val"] for user in read if user.target == aten._local_scalar_dense.default]


def _named(size: int | str) -> Any:
    """Return a size of an input as SymPy has it."""
    if isinstance(size, int):
        return sympy.Integer(size)
    return sympy.Symbol(size, positive=True, integer=True)
