"""Traced graphs in the words of TorchScript."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def scriptable(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph in the words of TorchScript, which knows operators but no overloads."""
    copied = copy.deepcopy(graph_module)
    for node in copied.graph.nodes:
        if node.target is aten.sym_size.int:
            node.target = aten.size
        elif node.target is aten._local_scalar_dense.default:
            node.target = aten.Int
        elif isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
    _split_addmm(copied)
    follow_input(copied, "device", lambda device: device is not None)
    copied.recompile()
    return copied


def follow_input(graph_module: fx.GraphModule, name: str, replaced: Callable[[Any], bool]) -> None:
    """Let operators make tensors on the device, or of the dtype, of the first input.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        Changed in place.
    name : {"device", "dtype"}
        An option of operators, and an attribute of tensors.
    replaced : callable
        Whether an option from the trace gives way to the input's.
    """
    graph = graph_module.graph
    first = next(node for node in graph.nodes if node.op == "placeholder")
    for node in list(graph.nodes):
        if replaced(node.kwargs.get(name)):
            with graph.inserting_before(node):
                current = graph.call_function(getattr, (first, name))
            node.kwargs = {**node.kwargs, name: current}


def _split_addmm(graph_module: fx.GraphModule) -> None:
    """Write a @ b + c as a product and a sum.

    The shape propagation of TorchScript's executor fails on some frozen graphs with both together.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is aten.addmm and len(node.args) == 3 and not node.kwargs:
            bias, left, right = node.args
            with graph.inserting_before(node):
                product = graph.call_function(aten.mm, (left, right))
                node.replace_all_uses_with(graph.call_function(aten.add, (product, bias)))
            graph.erase_node(node)
