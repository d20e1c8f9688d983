"""Small steps that rewrite graphs: shapes, constants, and tidying up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.passes.shape_prop import ShapeProp

aten = torch.ops.aten


def with_shapes(graph_module: fx.GraphModule, examples: Sequence[Tensor]) -> None:
    """Record the shape of every node."""
    with torch.no_grad():
        ShapeProp(graph_module).propagate(*examples)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape that `with_shapes` recorded."""
    shape: tuple[int, ...] = tuple(node.meta["tensor_meta"].shape)
    return shape


def row_major(shape: Sequence[int]) -> list[int]:
    """Return the strides of an array that is contiguous."""
    strides = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


def weights_of(node: fx.Node) -> Any:
    """Return the constant matrix that a vector is multiplied with, or None."""
    is_plain = node.target is aten.mm.default or (
        node.target is aten.addmm.default and len(node.args) == 3 and not node.kwargs
    )
    if not is_plain:
        return None
    weights = node.args[-1]
    return weights if isinstance(weights, fx.Node) and weights.op == "get_attr" else None


def add_constant(graph_module: fx.GraphModule, before: fx.Node, value: Tensor) -> fx.Node:
    """Return a constant with this value, placed before a node."""
    name = register(graph_module, value)
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(name)


def register(graph_module: fx.GraphModule, value: Tensor) -> str:
    """Return the name of a new buffer with this value."""
    taken = dict(graph_module.named_buffers())
    name = next(name for name in map("constant_{}".format, count()) if name not in taken)
    graph_module.register_buffer(name, value.detach().clone())
    return name


def tidy(graph_module: fx.GraphModule) -> None:
    """Drop nodes and constants that nothing uses."""
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph_module.named_buffers() if name not in used]:
        delattr(graph_module, name)
