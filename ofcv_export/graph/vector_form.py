"""Rewrites the graph of a single frame for speed: constants, matrix-vector products, memory.

With one frame every matrix product of a network is that of a matrix of weights and a vector. It is
bound by the memory that the weights are read from, and the libraries of matrix products are slow
at it. Written as a product and a sum it becomes a plain loop in the code that Inductor makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.passes.shape_prop import ShapeProp

aten = torch.ops.aten

# A sum of so many terms is added up in registers before the next one starts, so that the processor
# has several sums under way at a time.
_LONGEST_SUM = 16
# Weights may grow so many times when selections are folded into them.
_LARGEST_GROWTH = 4
# Matrices with fewer columns are summed along their rows, to fill vector instructions.
_NARROW = 8


def fold_constants(graph_module: fx.GraphModule) -> None:
    """Evaluate now what does not depend on the inputs and is not larger than what it is made of.

    A graph with operators that change their inputs is left as it is.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A graph of aten operators with constants as buffers; changed in place.
    """
    if any(map(_changes_its_input, graph_module.graph.nodes)):
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
                constant = _constant(graph_module, node, value.contiguous())
                values[constant] = value
                node.replace_all_uses_with(constant)
    _tidy(graph_module)


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
    _tidy(graph_module)


def _fold_into_rows(
    graph_module: fx.GraphModule, node: fx.Node, source: fx.Node, index: Tensor
) -> bool:
    """Fold into the products that use a selection; return whether it was done."""
    products: list[Any] = list(node.users)
    if not all(_weights(product) is not None and product.args[-2] is node for product in products):
        return False
    if _shape(source)[1] > _LARGEST_GROWTH * len(index):
        return False
    for product in products:
        weights = graph_module.get_buffer(str(_weights(product).target))
        rows = weights.new_zeros(_shape(source)[1], weights.shape[1])
        rows.index_add_(0, index, weights)
        folded = _constant(graph_module, product, rows)
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
    if product.target is not aten.mm.default or _weights(product) is None:
        return
    weights = graph_module.get_buffer(str(_weights(product).target))
    if len(index) > _LARGEST_GROWTH * weights.shape[1]:
        return
    if is_padded:
        weights = torch.nn.functional.pad(weights, (0, 1))
    with graph_module.graph.inserting_before(node):
        columns = _constant(graph_module, node, weights.index_select(1, index))
        folded = graph_module.graph.call_function(aten.mm.default, (product.args[0], columns))
    folded.meta = dict(node.meta)
    node.replace_all_uses_with(folded)


def as_vectors(graph_module: fx.GraphModule) -> None:
    """Write products with constant matrices as sums over vectors, for Inductor.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A graph of one frame after `fold_constants`, with shapes; changed in place.
    """
    matrices: list[tuple[Tensor, str]] = []
    for node in list(graph_module.graph.nodes):
        if _weights(node) and _shape(node.args[-2])[0] == 1:
            with graph_module.graph.inserting_before(node):
                product = _product(graph_module, node, matrices)
                if node.target is aten.addmm.default:
                    product = graph_module.graph.call_function(
                        aten.add.Tensor, (product, node.args[0])
                    )
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
    _tidy(graph_module)


def _product(
    graph_module: fx.GraphModule, node: Any, matrices: list[tuple[Tensor, str]]
) -> fx.Node:
    """Return x @ weights, shape (1, m), of x (1, k) and weights (k, m).

    The matrix lies in memory with the longer side first, once for both directions of the chain
    rule: a long vector is summed over row by row, a short one along each row.
    """
    call = graph_module.graph.call_function
    weights = graph_module.get_buffer(str(_weights(node).target))
    k, m = weights.shape
    x = _in_memory(graph_module, node.args[-2])
    along_rows = k <= m or m < _NARROW
    matrix = _matrix(graph_module, weights.t() if along_rows else weights, matrices)
    if along_rows:
        terms = call(aten.mul.Tensor, (matrix, x))
        return call(aten.view.default, (call(aten.sum.dim_IntList, (terms, [1])), [1, m]))
    length = max(size for size in range(1, _LONGEST_SUM + 1) if k % size == 0)
    rows = call(aten.view.default, (matrix, [k // length, length, m]))
    factors = call(aten.view.default, (x, [k // length, length, 1]))
    terms = call(aten.mul.Tensor, (rows, factors))
    parts = call(aten.sum.dim_IntList, (terms, [1]))
    parts = call(aten.as_strided.default, (parts, [k // length, m], [m, 1]))
    return call(aten.sum.dim_IntList, (parts, [0], True))


def _matrix(
    graph_module: fx.GraphModule, weights: Tensor, matrices: list[tuple[Tensor, str]]
) -> fx.Node:
    """Return a constant with these weights, the same one for the same weights."""
    for known, name in matrices:
        if torch.equal(known, weights):
            return graph_module.graph.get_attr(name)
    name = _register(graph_module, weights.contiguous())
    matrices.append((weights, name))
    return graph_module.graph.get_attr(name)


def _in_memory(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return a node whose value Inductor computes once, where it would do so at every use."""
    shape = list(_shape(node))
    strides = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    call = graph_module.graph.call_function
    whole = call(aten.clone.default, (node,), {"memory_format": torch.contiguous_format})
    kept = call(aten.as_strided.default, (whole, shape, strides))
    kept.meta = dict(node.meta)
    return kept


def with_shapes(graph_module: fx.GraphModule, examples: Sequence[Tensor]) -> None:
    """Record the shape of every node."""
    with torch.no_grad():
        ShapeProp(graph_module).propagate(*examples)


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = tuple(node.meta["tensor_meta"].shape)
    return shape


def _weights(node: fx.Node) -> Any:
    """Return the constant matrix that a vector is multiplied with, or None."""
    is_plain = node.target is aten.mm.default or (
        node.target is aten.addmm.default and len(node.args) == 3 and not node.kwargs
    )
    if not is_plain:
        return None
    weights = node.args[-1]
    return weights if isinstance(weights, fx.Node) and weights.op == "get_attr" else None


def _changes_its_input(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _is_constant(node: fx.Node, values: dict[fx.Node, Tensor]) -> bool:
    """Return whether a node is an operator on constants only."""
    sources = node.all_input_nodes
    return (
        node.op == "call_function" and bool(sources) and all(entry in values for entry in sources)
    )


def _constant(graph_module: fx.GraphModule, before: fx.Node, value: Tensor) -> fx.Node:
    """Return a constant with this value, placed before a node."""
    name = _register(graph_module, value)
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(name)


def _register(graph_module: fx.GraphModule, value: Tensor) -> str:
    taken = dict(graph_module.named_buffers())
    name = next(name for name in map("constant_{}".format, count()) if name not in taken)
    graph_module.register_buffer(name, value.detach().clone())
    return name


def _tidy(graph_module: fx.GraphModule) -> None:
    """Drop nodes and constants that nothing uses."""
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph_module.named_buffers() if name not in used]:
        delattr(graph_module, name)
