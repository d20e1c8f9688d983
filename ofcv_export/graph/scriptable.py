"""Traced graphs in the words of TorchScript."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ofcv_export.base.validation import shape_text
from ofcv_export.graph.tensor_spec import TensorSpec

aten = torch.ops.aten


def require_sizes(tensor: Tensor, sizes: list[int], message: str) -> Tensor:
    """Return a tensor of these sizes, where -1 stands for any, or raise the message."""
    fits = tensor.dim() == len(sizes)
    if fits:
        for given, size in zip(tensor.shape, sizes):  # noqa: B905 (TorchScript)
            fits = fits and (size < 0 or given == size)
    if not fits:
        raise ValueError(f"{message}, got {tensor.shape}")
    return tensor


def scriptable(graph_module: fx.GraphModule, specs: Sequence[TensorSpec] = ()) -> fx.GraphModule:
    """Return the graph in the words of TorchScript, which knows operators but no overloads.

    It refuses inputs of other sizes than the specs', however it is called.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A graph of aten operators.
    specs : sequence of TensorSpec
        Its inputs; without them nothing is checked.
    """
    copied = copy.deepcopy(graph_module)
    if specs:
        _check_sizes(copied, specs)
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


def _check_sizes(graph_module: fx.GraphModule, specs: Sequence[TensorSpec]) -> None:
    """Let the graph look at the sizes of its inputs first."""
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    place = inputs[-1]
    for node, spec in zip(inputs, specs, strict=True):
        sizes = [-1 if isinstance(size, str) else size for size in spec.shape]
        message = f"{spec.name}: expected shape {shape_text(spec.shape)}"
        with graph_module.graph.inserting_after(place):
            place = graph_module.graph.call_function(require_sizes, (node, sizes, message))
        node.replace_all_uses_with(place, delete_user_cb=lambda user, made=place: user is not made)


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
