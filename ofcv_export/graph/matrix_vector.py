"""Products of one frame with matrices of weights, written for Inductor.

With one frame every matrix product of a network is that of a matrix of weights and a vector. It is
bound by the memory that the weights are read from, and the libraries of matrix products are slow
at it. Written as a product and a sum it becomes a plain loop in the code that Inductor makes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ofcv_export.graph.editing import register, row_major, shape_of, tidy, weights_of

aten = torch.ops.aten

# A sum of so many terms is added up in registers before the next one starts, so that the processor
# has several sums under way at a time.
_LONGEST_SUM = 16
KEEPS_VIEWS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
# Matrices with fewer columns are summed along their rows, to fill vector instructions.
_NARROW = 8


def as_vectors(graph_module: fx.GraphModule, along_rows: bool = False) -> None:
    """Write products with constant matrices as sums over vectors, for Inductor.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A graph of one frame after `fold_constants`, with shapes; changed in place.
    along_rows : bool
        Whether each product is one sum along the rows of its matrix, one kernel of a GPU.
    """
    matrices: list[tuple[Tensor, str]] = []
    for node in list(graph_module.graph.nodes):
        if weights_of(node) and shape_of(node.args[-2])[0] == 1:
            with graph_module.graph.inserting_before(node):
                product = _product(graph_module, node, matrices, along_rows)
                if node.target is aten.addmm.default:
                    product = graph_module.graph.call_function(
                        aten.add.Tensor, (product, node.args[0])
                    )
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
    tidy(graph_module)


def _product(
    graph_module: fx.GraphModule, node: Any, matrices: list[tuple[Tensor, str]], along_rows: bool
) -> fx.Node:
    """Return x @ weights, shape (1, m), of x (1, k) and weights (k, m).

    The matrix lies in memory with the longer side first, once for both directions of the chain
    rule: a long vector is summed over row by row, a short one along each row.
    """
    call = graph_module.graph.call_function
    weights = graph_module.get_buffer(str(weights_of(node).target))
    k, m = weights.shape
    x = _in_memory(graph_module, node.args[-2])
    along_rows = along_rows or k <= m or m < _NARROW
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
    name = register(graph_module, weights.contiguous())
    matrices.append((weights, name))
    return graph_module.graph.get_attr(name)


def _in_memory(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return a node whose value Inductor computes once, where it would do so at every use.

    Inductor before PyTorch 2.13 reads a view by strides from the wrong place where it is one of a
    part of an array: there the node is left alone.
    """
    if not KEEPS_VIEWS:
        return node
    shape = list(shape_of(node))
    call = graph_module.graph.call_function
    whole = call(aten.clone.default, (node,), {"memory_format": torch.contiguous_format})
    kept = call(aten.as_strided.default, (whole, shape, row_major(shape)))
    kept.meta = dict(node.meta)
    return kept
