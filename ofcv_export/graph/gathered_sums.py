"""Sums over constant indices without atomics and without sorting, for CUDA.

An ``index_add`` or ``scatter_add`` whose index is a constant is a sum that is known at export: each
place gathers its own terms and adds them up, always in the same order. PyTorch's own sums in a
fixed order sort the indices at every call, and wait for the device to look at them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ofcv_export.base.groups import Groups
from ofcv_export.graph.editing import add_constant, shape_of, tidy

aten = torch.ops.aten

# Terms that one thread adds up before the partial sums of a place are added.
_TERMS = 16


def gather_sums(graph_module: fx.GraphModule) -> None:
    """Write sums over constant indices as sums over gathered terms.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A graph of aten operators with constants as buffers, with shapes; changed in place.
    """
    for node in list(graph_module.graph.nodes):
        index = _constant_index(graph_module, node)
        if index is not None:
            total = _gathered(graph_module, node, index)
            total.meta = dict(node.meta)
            node.replace_all_uses_with(total)
    tidy(graph_module)


def _constant_index(graph_module: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """Return the constant index of a sum along one axis, or None for anything else."""
    if node.kwargs or node.target not in (aten.index_add.default, aten.scatter_add.default):
        return None
    index: Any = node.args[2]
    if node.target is aten.scatter_add.default:
        # The same index for every row: one that was expanded along the other axes.
        if index.target is not aten.expand.default:
            return None
        index = index.args[0]
    if index.op != "get_attr":
        return None
    value = graph_module.get_buffer(str(index.target))
    axis = int(node.args[1])  # type: ignore[arg-type]
    is_one_axis = value.dim() < 2 or value.numel() == value.shape[axis]
    return value.flatten() if is_one_axis else None


def _gathered(graph_module: fx.GraphModule, node: fx.Node, index: Tensor) -> fx.Node:
    """Return what is added to plus, for each place along an axis, the sum of its terms."""
    onto, axis, _, terms = node.args
    assert isinstance(onto, fx.Node)
    assert isinstance(terms, fx.Node)
    assert isinstance(axis, int)
    n_axes, n_places = len(shape_of(node)), shape_of(node)[axis]
    axis %= n_axes
    one_after = [0, 0] * (n_axes - 1 - axis) + [0, 1]
    for table in tables(index.cpu(), n_places):
        place = add_constant(graph_module, node, table.flatten().to(index.device))
        with graph_module.graph.inserting_before(node):
            call = graph_module.graph.call_function
            padded = call(aten.constant_pad_nd.default, (terms, one_after))
            picked = call(aten.index_select.default, (padded, axis, place))
            rows = call(aten.unflatten.int, (picked, axis, list(table.shape)))
            terms = call(aten.sum.dim_IntList, (rows, [axis + 1]))
    with graph_module.graph.inserting_before(node):
        return graph_module.graph.call_function(aten.add.Tensor, (onto, terms))


def tables(index: Tensor, n_places: int) -> list[Tensor]:
    """Return which terms to add up, step by step, for the sum of all terms of each place.

    Parameters
    ----------
    index : torch.Tensor
        Place of each term, int64 (n_terms,).
    n_places : int
        Number of places.

    Returns
    -------
    list of torch.Tensor
        Tables, int64 (n_sums, width): each row numbers terms that are added, where the number of
        terms itself stands for a zero. The sums of a table are the terms of the next one; those of
        the last are the places'.
    """
    steps = []
    while True:
        groups = Groups.by(index, n_places)
        counts, rank = groups.counts, groups.rank
        mean = -(-len(index) // max(n_places, 1))
        width = max(min(groups.width, max(_TERMS, 2 * mean)), 1)
        n_rows = -(-counts // width)
        is_last = int(n_rows.max()) <= 1
        if is_last:
            n_rows = torch.ones_like(counts)
        first_row = n_rows.cumsum(0) - n_rows
        row = first_row.repeat_interleave(counts) + rank // width
        table = torch.full((int(n_rows.sum()), width), len(index))
        table[row, rank % width] = groups.order
        steps.append(table)
        if is_last:
            return steps
        index = torch.arange(n_places).repeat_interleave(n_rows)
