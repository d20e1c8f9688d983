"""From a graph of aten operators with fixed sizes to the body of a function in C."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ofcv_export.c_source import arrays, pointwise, products, sums, views  # noqa: F401 (operators)
from ofcv_export.c_source.registry import TABLE, Call
from ofcv_export.c_source.value import Value, array
from ofcv_export.c_source.writer import Writer
from ofcv_export.graph.editing import with_shapes

_KINDS = {torch.float32: "real", torch.float64: "real", torch.int64: "int64_t"}
# What costs no more is computed anew at every use: one operation on entries that are in memory.
_CHEAP = 1
_FLAGS = (torch.bool, torch.uint8)
# GCC would not vectorise square roots and choices that may set errno or raise a flag.
_HEAD = """#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-math-errno", "no-trapping-math")
#endif
"""


class Emitter:
    """Writes a graph node by node.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        The graph, with shapes.
    real : str
        ``float`` or ``double``.
    """

    def __init__(self, graph_module: fx.GraphModule, real: str) -> None:
        self.module = graph_module
        self.writer = Writer(real)
        self.values: dict[fx.Node, Any] = {}

    def run(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Write the body; inputs and outputs are the names of the function's arguments."""
        names = iter(inputs)
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = array(next(names), shape_of(node), kind_of(node))
            elif node.op == "get_attr":
                self.values[node] = self.writer.known(self.module.get_buffer(str(node.target)))
            elif node.op == "call_function":
                self.values[node] = self._kept(node, self._called(node))
            elif node.op == "output":
                results = (
                    node.args[0] if isinstance(node.args[0], (tuple, list)) else [node.args[0]]
                )
                for name, result in zip(outputs, results, strict=True):
                    value = self.values[result]
                    self.writer.store(array(name, value.shape, value.kind), value)

    def _called(self, node: fx.Node) -> Any:
        sources = [self.values[source] for source in node.all_input_nodes]
        if sources and all(getattr(source, "tensor", None) is not None for source in sources):
            known = {n: self.values[n].tensor for n in node.all_input_nodes}
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            result = node.target(*args, **kwargs)  # type: ignore[operator]
            if isinstance(result, Tensor):
                return self.writer.known(result)
        function = TABLE.get(str(node.target))
        if function is None:
            raise ValueError(
                f"module: expected operators that C source can hold, got {node.target}"
            )
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        return function(Call(self.writer, node, shape_of(node), kind_of(node)), *args, **kwargs)

    def _kept(self, node: fx.Node, value: Any) -> Any:
        """Return a value, as an array where it is used more than once and is no cheap read."""
        if isinstance(value, Value) and value.cost > _CHEAP and len(node.users) > 1:
            return self.writer.kept(value)
        return value


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape that a node's result has, () for several results."""
    shape: Sequence[int] = getattr(node.meta.get("tensor_meta"), "shape", ())
    return tuple(shape)


def kind_of(node: fx.Node) -> str:
    """Return the kind of a node's entries."""
    meta = node.meta.get("tensor_meta")
    dtype = getattr(meta, "dtype", torch.float32)
    return "int" if dtype in _FLAGS else _KINDS[dtype]


def emit(
    graph_module: fx.GraphModule,
    examples: Sequence[Tensor],
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> str:
    """Return C99 source of a function for a graph with fixed sizes, in float32.

    ``int name(const float *input, ..., float *output, ...)`` returns 0. It allocates nothing and
    changes nothing but its outputs. Its results are the same bits whatever compiles it: sums are
    written out in lanes, elementary functions are polynomials (``functions_float.c``), and
    contraction is off.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        Operators of aten, with constants as buffers.
    examples : sequence of torch.Tensor
        An input of each, float32 or int64.
    name : str
        Of the function.
    inputs, outputs : sequence of str
        Names of its arguments.

    Raises
    ------
    ValueError
        For an operator that the source cannot hold, by name.
    """
    table: Any = core_aten_decompositions()
    module = make_fx(torch.func.functionalize(graph_module), table)(*examples)
    module.graph.eliminate_dead_code()
    with_shapes(module, examples)
    emitter = Emitter(module, "float")
    emitter.run(inputs, outputs)
    kinds = ["float" if e.is_floating_point() else "int64_t" for e in examples]
    arguments = [f"const {kind} *{given}" for kind, given in zip(kinds, inputs, strict=True)]
    arguments += [f"float *{given}" for given in outputs]
    return "\n".join(
        [
            _HEAD,
            files(__package__).joinpath("functions_float.c").read_text(),
            *emitter.writer.tables,
            "",
            f"int {name}({', '.join(arguments)}) {{",
            *emitter.writer.lines,
            "return 0;",
            "}",
            "",
        ]
    )
