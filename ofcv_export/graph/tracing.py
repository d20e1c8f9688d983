"""Functions of tensors as graphs of plain aten operators, whatever made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ofcv_export.base.validation import first_line
from ofcv_export.graph.attention import plain_attention
from ofcv_export.graph.folding import fold_constants
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import COUNTED, TensorSpec, symbols

aten = torch.ops.aten

Outputs = tuple[Tensor, ...]

# Activations with numbers among their arguments are written out, so that the numbers are seen.
_WITH_NUMBERS = [
    aten.leaky_relu,
    aten.leaky_relu_backward,
    aten.elu,
    aten.elu_backward,
    aten.softplus,
    aten.softplus_backward,
    aten.threshold_backward,
    aten.hardtanh,
    aten.hardtanh_backward,
]
# Engines read the memory of results, where a negation that is only noted is not to be seen.
IN_MEMORY: dict[Any, Callable[..., Tensor]] = {aten._neg_view.default: torch.neg}


def traced(
    function: Callable[..., Tensor | Outputs],
    specs: Sequence[TensorSpec],
    what: str = "module",
    decompositions: Mapping[Any, Callable[..., Any]] | None = None,
    outputs: Sequence[TensorSpec] = (),
) -> fx.GraphModule:
    """Return a function's graph, in which symbolic sizes of the inputs stay free.

    Parameters
    ----------
    function : callable
        Takes tensors, returns one or several.
    specs : sequence of TensorSpec
        Its inputs.
    what : str
        What an error calls the function.
    decompositions : mapping, optional
        Operators to be written out, beside activations with numbers, and the functions to do so.
    outputs : sequence of TensorSpec, optional
        Its outputs; by default the last one has as many rows as the first symbolic size says.

    Returns
    -------
    torch.fx.GraphModule
        Plain aten operators, with the function's parameters and constants as buffers; what depends
        on no input is computed.

    Raises
    ------
    ValueError
        If the function has operations that cannot be traced, or fixes a symbolic size.
    """
    free = symbols(specs)
    sizes = distinct_sizes(specs)
    examples = probe(specs, sizes)
    trace = make_fx(
        function,
        decomposition_table=get_decompositions(_WITH_NUMBERS)  # type: ignore[arg-type]
        | IN_MEMORY
        | dict(decompositions or {}),
        tracing_mode="symbolic" if free else "real",
        _allow_non_fake_inputs=True,
    )
    try:
        with plain_attention():
            graph_module: fx.GraphModule = trace(*examples)
    except Exception as error:
        raise ValueError(
            f"{what}: expected operations that torch.export can see, got {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    _fix_sizes(graph_module, specs)
    freeze(graph_module)
    fold_constants(graph_module)
    for symbol, size in sizes.items():
        _require_free(graph_module, specs, outputs, what, symbol, sizes | {symbol: size - 1})
    return graph_module.eval()


def distinct_sizes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Return values for the symbolic sizes, unlike one another and every other size."""
    return dict(zip(symbols(specs), _unlike_other_sizes(specs), strict=False))


def _unlike_other_sizes(specs: Sequence[TensorSpec]) -> Iterator[int]:
    """Yield primes that are no size of any input.

    The tracer takes sizes that are equal in the examples for one and the same.
    """
    fixed = {size for spec in specs for size in spec.shape}
    for number in range(5, max((size for size in fixed if isinstance(size, int)), default=0) + 50):
        if number not in fixed and all(number % divisor for divisor in range(2, number)):
            yield number


def _require_free(
    graph_module: fx.GraphModule,
    specs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    what: str,
    symbol: str,
    sizes: dict[str, int],
) -> None:
    """Raise ValueError if the graph does not take inputs with one frame or coefficient less."""
    try:
        with torch.no_grad():
            found = graph_module(*probe(specs, sizes))
        results = found if isinstance(found, tuple) else (found,)
        if outputs:
            free = all(map(partial(_fits, sizes=sizes), results, outputs))
        else:
            free = len(results[-1]) == sizes[symbol]
    except RuntimeError:
        free = False
    if not free:
        raise ValueError(
            f"{what}: expected one that takes any number of {COUNTED[symbol]}, "
            f"got one that fixes it at {sizes[symbol] + 1} when it is traced"
        )


def _fits(result: Tensor, spec: TensorSpec, sizes: Mapping[str, int]) -> bool:
    """Return whether a result has its shape, as far as the sizes of the inputs tell."""
    expected = [size if isinstance(size, int) else sizes.get(size, -1) for size in spec.shape]
    return len(expected) == result.dim() and all(
        size in (-1, given) for size, given in zip(expected, result.shape, strict=True)
    )


def _fix_sizes(graph_module: fx.GraphModule, specs: Sequence[TensorSpec]) -> None:
    """Replace every size of an input that is no symbol by its number."""
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(inputs, specs, strict=True):
        for user in list(node.users):
            if user.target is not aten.sym_size.int:
                continue
            size = spec.shape[user.args[1]]
            if isinstance(size, int):
                user.replace_all_uses_with(size)
                graph_module.graph.erase_node(user)


def freeze(graph_module: fx.GraphModule) -> None:
    """Turn traced parameters and constants into buffers, so that they move and cast together."""
    tensors = [*graph_module.named_parameters(), *graph_module.named_buffers()]
    for name, value in [*tensors, *vars(graph_module).items()]:
        if isinstance(value, Tensor):
            delattr(graph_module, name)
            graph_module.register_buffer(name, value.detach().clone())
