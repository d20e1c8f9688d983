"""Computes at export what a graph would compute anew with every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ofcv_export.graph.editing import add_constant, shape_of, tidy, weights_of

aten = torch.ops.aten

# Weights may grow so many times when selections are folded into them.
_LARGEST_GROWTH = 4


def fold_constants(graph_module: fx.GraphModule) -> None:
    """Evaluate now what does not depend on the inputs and is not larger than what it is made of.

    A graph with operators that change their inputs is left as it is.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A graph of aten operators with constants as buffers; changed in place.
    """
    if any(map(_changes_its_input, graph_module.graph.nodes)):
        tidy(graph_module)
        return
    values: dict[fx.Node, Tensor] = {}
    for node in list(graph_module.graph.nodes):
        if node.op == "get_attr":
            values[node] = graph_module.get_buffer(str(node.target))
        elif _is_constant(node, values):
            arguments, options = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            value = node.target(*arguments, **options)
            largest = max(values[entry].numel() for entry in node.all_input_nodes)
            if isinstance(value, Tensor) and value.numel() <= largest:
                replacement = add_constant(graph_module, node, value.contiguous())
                values[replacement] = value
                node.replace_all_uses_with(replacement)
    tidy(graph_module)


def fold_selection(graph_module: fx.GraphModule) -> None:
    """Fold selections of descriptors into the weights that they are multiplied with.

    ``index_select(x, 1, index) @ weights`` becomes ``x @ weights[rows]``, and
    ``index_select(pad(x @ weights), 1, index)`` becomes ``x @ weights[columns]``.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A graph of one frame after `fold_constants`, with shapes; changed in place.
    """
    for node in list(graph_module.graph.nodes):
        if node.target is not aten.index_select.default or node.args[1] != 1:
            continue
        source, _, place = node.args
        if place.op != "get_attr":
            continue
        index = graph_module.get_buffer(str(place.target))
        if not _fold_into_rows(graph_module, node, source, index):
            _fold_into_columns(graph_module, node, source, index)
    tidy(graph_module)


def _fold_into_rows(
    graph_module: fx.GraphModule, node: fx.Node, source: fx.Node, index: Tensor
) -> bool:
    """Fold into the products that use a selection; return whether it was done."""
    products: list[Any] = list(node.users)
    if not all(
        weights_of(product) is not None and product.args[-2] is node for product in products
    ):
        return False
    if shape_of(source)[1] > _LARGEST_GROWTH * len(index):
        return False
    for product in products:
        weights = graph_module.get_buffer(str(weights_of(product).target))
        rows = weights.new_zeros(shape_of(source)[1], weights.shape[1])
        rows.index_add_(0, index, weights)
        folded = add_constant(graph_module, product, rows)
        product.args = (*product.args[:-2], source, folded)
    return True


def _fold_into_columns(
    graph_module: fx.GraphModule, node: fx.Node, source: Any, index: Tensor
) -> None:
    """Fold into the product that is selected from, perhaps filled up with one 0 before."""
    is_padded = (
        source.target is aten.constant_pad_nd.default
        and list(source.args[1]) == [0, 1]
        and (len(source.args) == 2 or source.args[2] == 0)
    )
    product = source.args[0] if is_padded else source
    if product.target is not aten.mm.default or weights_of(product) is None:
        return
    weights = graph_module.get_buffer(str(weights_of(product).target))
    if len(index) > _LARGEST_GROWTH * weights.shape[1]:
        return
    if is_padded:
        weights = torch.nn.functional.pad(weights, (0, 1))
    with graph_module.graph.inserting_before(node):
        columns = add_constant(graph_module, node, weights.index_select(1, index))
        folded = graph_module.graph.call_function(aten.mm.default, (product.args[0], columns))
    folded.meta = dict(node.meta)
    node.replace_all_uses_with(folded)


def _changes_its_input(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _is_constant(node: fx.Node, values: dict[fx.Node, Tensor]) -> bool:
    """Return whether a node is an operator on constants only."""
    sources = node.all_input_nodes
    return (
        node.op == "call_function" and bool(sources) and all(entry in values for entry in sources)
    )
