"""Plain numbers of a float64 graph in float64, which ONNX exporters write as float32."""

from __future__ import annotations

import copy

import torch
from torch import fx

aten = torch.ops.aten

_ARITHMETIC = {
    aten.add.Tensor: aten.add.Tensor,
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}


def with_exact_numbers(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with the numbers in its arithmetic as tensors of its own precision.

    ONNX exporters write plain numbers as float32, even into a float64 graph.
    """
    copied = copy.deepcopy(graph_module)
    for count, node in enumerate(copied.graph.nodes):
        if node.target not in _ARITHMETIC or not isinstance(node.args[1], float):
            continue
        name = f"number_{count}"
        copied.register_buffer(name, torch.tensor(node.args[1], dtype=torch.float64))
        with copied.graph.inserting_before(node):
            number = copied.graph.get_attr(name)
        node.target = _ARITHMETIC[node.target]
        node.args = (node.args[0], number, *node.args[2:])
    copied.graph.lint()
    copied.recompile()
    return copied
