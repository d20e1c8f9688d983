"""Plain numbers of a float64 graph in float64, which ONNX exporters write as float32.

Operators that carry numbers of their own, such as ``celu``, are written out as elementary ones.
There every number that float32 does not hold becomes a constant tensor, for which operators have
an overload of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx

from ofcv_export.graph.editing import add_constant, tidy

aten = torch.ops.aten

# With numbers among their arguments, or in what ONNX exporters write for them.
WRITTEN_OUT = (
    aten.addcdiv,
    aten.addcmul,
    aten.baddbmm,
    aten.addmm,
    aten.addmv,
    aten.celu,
    aten.selu,
    aten.gelu,
    aten.gelu_backward,
    aten.glu_backward,
    aten.hardshrink,
    aten.hardshrink_backward,
    aten.hardswish,
    aten.hardswish_backward,
    aten.huber_loss,
    aten.huber_loss_backward,
    aten.mish,
    aten.mish_backward,
    aten.linalg_vector_norm,
    aten.native_batch_norm,
    aten.native_batch_norm_backward,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional,
    aten._native_batch_norm_legit_no_training,
    aten.native_group_norm,
    aten.native_group_norm_backward,
    aten.native_layer_norm,
    aten.native_layer_norm_backward,
    aten.rsub,
    aten.smooth_l1_loss,
    aten.smooth_l1_loss_backward,
    aten.softshrink,
    aten.softshrink_backward,
    aten.threshold,
    aten.threshold_backward,
    aten.xlogy,
)
_FEW_BITS = 12
_CASTS = ("Cast", "CastLike")
_SCALED_SECOND = (aten.add, aten.sub)
_FILLED = (aten.full.default, aten.full_like.default, aten.new_full.default)


def exact_numbers(graph_module: fx.GraphModule) -> None:
    """Turn the numbers of a graph into tensors of its own precision, where float32 rounds them.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        A traced graph with `WRITTEN_OUT` written out; changed in place.

    Raises
    ------
    ValueError
        If an operator with such a number takes no tensor in its place.
    """
    for node in list(graph_module.graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload):
            _factor_of_second(graph_module, node)
            if _rounded(node):
                _without_numbers(graph_module, node)
    tidy(graph_module)


def float32_rounds(value: Any) -> bool:
    """Return whether a number is none of float32's."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    with np.errstate(over="ignore"):
        return value == value and float(np.float32(value)) != value


def require_exact_numbers(model: onnx.ModelProto, graph_module: fx.GraphModule) -> None:
    """Raise ValueError if a float64 model holds a number that was rounded to float32.

    Exporters have such numbers in what they write for some operators. Integers, and fractions of a
    few bits such as 0.5, are the same in both precisions.

    Parameters
    ----------
    model : onnx.ModelProto
        What was written.
    graph_module : torch.fx.GraphModule
        What was to be written, whose own constants are as they should be.
    """
    known = {
        value.item()
        for value in graph_module.buffers()
        if value.numel() == 1 and value.is_floating_point()
    }
    for node in graph_module.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        # PyTorch itself computes some in float32: torch.where(mask, 0.3, 0.1).
        single = _dtype(graph_module, node) == torch.float32
        for number in _operands(node):
            if single or not float32_rounds(number):
                known.add(float(np.float32(number)))
    for operator, value in _numbers(model):
        if value not in known and not float32_rounds(value) and _has_many_bits(value):
            raise ValueError(
                "module: expected operators with float64 numbers in a float64 ONNX file, "
                f"got {operator} with {value:.9g} in float32"
            )


def _numbers(model: onnx.ModelProto) -> Iterator[tuple[str, float]]:
    """Yield the single numbers of a model, each with the operator that takes it.

    What an operator of float32 takes as it is has the precision that it should have.
    """
    tensors = [(tensor.name, tensor) for tensor in model.graph.initializer]
    # The first of several.
    users: dict[str, str] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, node.op_type)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.FLOAT:
                yield node.op_type, attribute.f
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append((node.output[0], attribute.t))
    for name, tensor in tensors:
        user = users.get(name, name)
        if tensor.data_type == onnx.TensorProto.DOUBLE or user in _CASTS:
            yield from ((user, value) for value in _single(tensor))


def _single(tensor: onnx.TensorProto) -> list[float]:
    is_floating = tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if not is_floating or math.prod(tensor.dims) != 1:
        return []
    return [float(onnx.numpy_helper.to_array(tensor).item())]


def _has_many_bits(value: float) -> bool:
    """Return whether a number is a fraction that most likely was rounded."""
    if not math.isfinite(value) or value == round(value):
        return False
    mantissa = math.ldexp(math.frexp(value)[0], _FEW_BITS)
    return mantissa != round(mantissa)


def _rounded(node: fx.Node) -> list[Any]:
    """Return the numbers among a node's operands that float32 rounds."""
    return [number for number in _operands(node) if float32_rounds(number)]


def _operands(node: fx.Node) -> list[Any]:
    """Return the numbers among a node's operands."""
    found: list[Any] = []
    for argument, value in _arguments(node).items():
        entries = value if isinstance(value, list | tuple) else [value]
        if _is_number(node.target, argument):
            found += [entry for entry in entries if isinstance(entry, int | float)]
    return found


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments that a node gives, by name."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _is_number(target: Any, name: str) -> bool:
    """Return whether an argument of an operator is an operand: no axis, size or index."""
    (argument,) = (entry for entry in target._schema.arguments if entry.name == name)
    return str(argument.type).removeprefix("Optional[").rstrip("]") in (
        "number", "float", "Tensor", "List[float", "List[number"
    )  # fmt: skip


def _factor_of_second(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Write a + alpha b as the sum of a and a product."""
    alpha = node.kwargs.get("alpha", 1)
    if node.target.overloadpacket not in _SCALED_SECOND or not float32_rounds(alpha):  # type: ignore[union-attr]
        return
    with graph_module.graph.inserting_before(node):
        scaled = graph_module.graph.call_function(aten.mul.Tensor, (node.args[1], alpha))
    scaled.meta = dict(node.meta)
    node.args = (node.args[0], scaled)
    node.kwargs = {}
    node.target = node.target.overloadpacket.Tensor  # type: ignore[union-attr]
    _without_numbers(graph_module, scaled)


def _without_numbers(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Let a node take tensors in the place of numbers."""
    if not node.all_input_nodes:
        _evaluate(graph_module, node)
        return
    dtype = _dtype(graph_module, node)
    if dtype != torch.float64:
        return
    if node.target in _FILLED:
        _fill(graph_module, node)
    else:
        _take_tensors(graph_module, node, dtype)


def _evaluate(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Put a constant in the place of an operator without inputs."""
    value = node.target(*node.args, **node.kwargs)  # type: ignore[operator]
    node.replace_all_uses_with(add_constant(graph_module, node, value))


def _fill(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Write a tensor filled with a number as one filled with 1, times the number."""
    place = list(_arguments(node)).index("fill_value")
    value = node.args[place]
    node.args = (*node.args[:place], 1.0, *node.args[place + 1 :])
    number = add_constant(graph_module, node, torch.tensor(value, dtype=torch.float64))
    with graph_module.graph.inserting_after(node):
        product = graph_module.graph.call_function(aten.mul.Tensor, (node, number))
    node.replace_all_uses_with(product, delete_user_cb=lambda user: user is not product)


def _take_tensors(graph_module: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    """Choose the overload of an operator that takes tensors, and give it constants."""
    given = _arguments(node)
    numbers = [
        name
        for name, value in given.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and _is_number(node.target, name)
    ]
    overload = _overload(node.target, numbers)
    if overload is None:
        number = _rounded(node)[0]
        raise ValueError(
            "module: expected operators with tensors for the numbers of a float64 ONNX file, "
            f"got {node.target} with {number!r}"
        )
    for name in numbers:
        number = torch.tensor(given[name], dtype=dtype)
        given[name] = add_constant(graph_module, node, number)
    node.target = overload
    node.args, node.kwargs = (), given


def _overload(target: Any, numbers: list[str]) -> Any:
    """Return the overload of an operator with tensors for these arguments, or None."""
    for name in target.overloadpacket.overloads():
        candidate = getattr(target.overloadpacket, name)
        pairs = list(zip(target._schema.arguments, candidate._schema.arguments, strict=False))
        fits = len(target._schema.arguments) == len(candidate._schema.arguments) and all(
            ours.name == theirs.name
            and (
                str(theirs.type) in ("Tensor", "Optional[Tensor]")
                if ours.name in numbers
                else str(theirs.type).removeprefix("Optional[").rstrip("]")
                == str(ours.type).removeprefix("Optional[").rstrip("]")
                or ours.name == "alpha"
            )
            for ours, theirs in pairs
        )
        if fits:
            return candidate
    return None


def _dtype(graph_module: fx.GraphModule, node: fx.Node) -> torch.dtype | None:
    """Return the dtype in which an operator takes its numbers: that of the floats around it."""
    for entry in [*node.all_input_nodes, node]:
        if entry.op == "get_attr":
            value: Any = graph_module.get_buffer(str(entry.target))
        else:
            value = entry.meta.get("val")
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.dtype
    return None
