"""From a graph of aten operators to the body of a function in C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ofcv_export.c_source import (  # noqa: F401 (operators)
    arrays,
    eigenvalues,
    extremes,
    moments,
    pointwise,
    products,
    sums,
    views,
)
from ofcv_export.c_source.extent import FreeSizeError, has_fixed_strides
from ofcv_export.c_source.function import Function, written
from ofcv_export.c_source.registry import TABLE, Call
from ofcv_export.c_source.sizes import with_extents
from ofcv_export.c_source.value import Value, array, packed
from ofcv_export.c_source.writer import Writer
from ofcv_export.graph.editing import with_shapes
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec, free_sizes
from ofcv_export.graph.tracing import distinct_sizes

_TYPES = {torch.float32: "float", torch.float64: "double", torch.int64: "int64_t"}
_KINDS = {torch.float32: "real", torch.float64: "real", torch.int64: "int64_t"}
# What costs no more is computed anew at every use: one operation on entries that are in memory.
_CHEAP = 1
# What PyTorch counts among its core operators, and is made of others here.
_WRITTEN_OUT = [torch.ops.aten.native_layer_norm]
_FLAGS = (torch.bool, torch.uint8)


class Emitter:
    """Writes a graph node by node.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        The graph, with shapes.
    real : str
        ``float`` or ``double``.
    prefix : str
        Beginning of the names of tables.
    """

    def __init__(self, graph_module: fx.GraphModule, real: str, prefix: str) -> None:
        self.module = graph_module
        self.writer = Writer(real, prefix)
        self.values: dict[fx.Node, Any] = {}

    def run(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Write the body; inputs and outputs are the names of the function's arguments."""
        names = iter(inputs)
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._input(next(names), node)
            elif node.op == "get_attr":
                self.values[node] = self.writer.known(self.module.get_buffer(str(node.target)))
            elif node.op == "call_function":
                try:
                    self.values[node] = self._kept(node, self._called(node))
                except FreeSizeError as error:
                    raise ValueError(
                        f"module: expected operators that C source can hold for any {error}, "
                        f"got {node.target}"
                    ) from error
        for name, result in zip(outputs, self.outputs, strict=True):
            value = self.values[result]
            target = packed(name, value.shape, value.kind)
            self.writer.put(target, value)

    @property
    def inputs(self) -> list[fx.Node]:
        """The nodes of the inputs, in order."""
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]

    @property
    def outputs(self) -> list[fx.Node]:
        """The nodes of the results, in order."""
        (node,) = (node for node in self.module.graph.nodes if node.op == "output")
        results: Any = node.args[0]
        return list(results) if isinstance(results, (tuple, list)) else [results]

    def _input(self, name: str, node: fx.Node) -> Value:
        """Return an input, as an array of the type that is computed in."""
        shape = shape_of(node)
        given = (array if has_fixed_strides(shape) else packed)(name, shape, kind_of(node))
        if given.kind != "real" or _type(node) == self.writer.real:
            return given
        target = self.writer.declare(given.shape, "real")
        self.writer.put(target, given)
        return target

    def _called(self, node: fx.Node) -> Any:
        if "extent" in node.meta:
            return node.meta["extent"]
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
        call = Call(self.writer, node, shape_of(node), kind_of(node))
        return function(call, *args, **kwargs)

    def _kept(self, node: fx.Node, value: Any) -> Any:
        """Return a value, as an array where it is used more than once and is no cheap read."""
        if isinstance(value, Value) and value.cost > _CHEAP and len(node.users) > 1:
            return self.writer.kept(value)
        return value


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape that a node's result has, () for several results."""
    shape: Sequence[int] = getattr(node.meta.get("tensor_meta"), "shape", ())
    return tuple(node.meta.get("extents", shape))


def kind_of(node: fx.Node) -> str:
    """Return the kind of a node's entries."""
    meta = node.meta.get("tensor_meta")
    dtype = getattr(meta, "dtype", torch.float32)
    return "int" if dtype in _FLAGS else _KINDS[dtype]


def emit(
    graph_module: fx.GraphModule,
    examples: Sequence[Tensor],
    name: str,
    fast: bool = False,
    specs: Sequence[TensorSpec] = (),
) -> Function:
    """Return C99 source of a function for a graph.

    ``static int name(const float *in0, ..., float *out0, ...)`` returns 0; where sizes are free it
    takes them first, as ``int``. It allocates nothing and changes nothing but its outputs. Its
    results are the same bits whatever compiles it: sums are written out in lanes, elementary
    functions are polynomials of the project's own, and contraction is off. Where some of the graph
    is in double precision all of it is computed so.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        Operators of aten, with constants as buffers.
    examples : sequence of torch.Tensor
        An input of each: float32, float64 or int64. Where sizes are free these are the largest.
    name : str
        Of the function, with which the names of its tables begin, too.
    fast : bool
        Lets compilers fuse products with sums, so that the bits depend on them.
    specs : sequence of TensorSpec, optional
        The inputs, where some sizes are free.

    Raises
    ------
    ValueError
        For an operator that the source cannot hold, by name.
    """
    module = _decomposed(graph_module, examples, specs)
    real = _precision(module)
    emitter = Emitter(module, real, name)
    inputs = {f"in{k}": _type(node) for k, node in enumerate(emitter.inputs)}
    outputs = {f"out{k}": _type(node) for k, node in enumerate(emitter.outputs)}
    types = {name: f"const {kind}" for name, kind in inputs.items()} | outputs
    emitter.writer.arguments = types
    emitter.run(list(inputs), list(outputs))
    return written(name, free_sizes(specs), types, emitter.writer, fast)


def _decomposed(
    graph_module: fx.GraphModule, examples: Sequence[Tensor], specs: Sequence[TensorSpec]
) -> fx.GraphModule:
    """Return a graph of core operators that change nothing in place, with shapes."""
    table: Any = core_aten_decompositions()
    table.update(get_decompositions(_WRITTEN_OUT))
    # What is joined along a new axis may have free sizes, what is joined along one of its own not.
    del table[torch.ops.aten.stack.default]
    function = torch.func.functionalize(graph_module)
    free = free_sizes(specs)
    if free:
        given = probe(specs, distinct_sizes(specs))
        trace = make_fx(function, table, "symbolic", _allow_non_fake_inputs=True)
        module = trace(*given)
    else:
        module = make_fx(function, table)(*examples)
    module.graph.eliminate_dead_code()
    with_shapes(module, examples)
    if free:
        with_extents(module, specs, examples)
    return module


def _precision(module: fx.GraphModule) -> str:
    """Return the type that a graph is computed in: ``double`` if any of its numbers are that."""
    metas = [node.meta.get("tensor_meta") for node in module.graph.nodes]
    return "double" if any(getattr(m, "dtype", None) == torch.float64 for m in metas) else "float"


def _type(node: fx.Node) -> str:
    """Return the type in C of an input or output."""
    return _TYPES[node.meta["tensor_meta"].dtype]
