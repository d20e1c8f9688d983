"""Equivalents of operators that some version of ONNX Runtime computes wrongly, or not at all.

- A vector times a transposed matrix: its optimiser fuses both, and reads the matrix as it lay
  before. Products with a vector become products with a matrix of one column.
- ``ScatterND`` that adds runs on several threads without a lock, and two of them may add to one
  place at a time. Sums over indices become ``ScatterElements``, which runs on one.
- ``scatter_reduce`` with the mean is written as a sum.
- In float64, ``Gemm`` fused with the activation that follows it has no kernel in ONNX Runtime
  1.17. Its optimiser makes one of every product and sum, so that sums become differences.
- Nor has a product fused with the transpose of a matrix, up to 1.20 at least; and ``Cos``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def _mv(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.mm(matrix, vector.unsqueeze(1)).squeeze(1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.mm(a, b)
    return (product if alpha == 1 else alpha * product) - (-bias if beta == 1 else -beta * bias)


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    if x.dim() == 0:
        return NotImplemented
    shape = [1] * x.dim()
    shape[dim] = index.shape[0]
    places = index.reshape(shape).expand(source.shape)
    return torch.scatter_add(x, dim, places, source if alpha == 1 else alpha * source)


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    chosen = [index for index in indices if index is not None]
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    if not accumulate or not adjacent or any(index.dtype == torch.bool for index in chosen):
        return NotImplemented
    # All chosen axes as one, counted in row-major order.
    place = torch.zeros_like(chosen[0])
    count = 1
    for axis, index in zip(axes, chosen, strict=True):
        size = x.shape[axis]
        place = place * size + torch.where(index < 0, index + size, index)
        count = count * size
    before, after = list(x.shape[: axes[0]]), list(x.shape[axes[-1] + 1 :])
    flat = x.reshape([*before, count, *after])
    source = values.expand([*before, *place.shape, *after])
    source = source.reshape([*before, place.numel(), *after])
    return _index_add(flat, axes[0], place.reshape(-1), source).reshape(x.shape)


def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    if reduce != "mean" or not x.is_floating_point():
        return NotImplemented
    added = torch.scatter_add(torch.zeros_like(x), dim, index, source)
    count = torch.scatter_add(torch.zeros_like(x), dim, index, torch.ones_like(source))
    if include_self:
        return (x + added) / (count + 1)
    return torch.where(count == 0, x, added / torch.where(count == 0, 1, count))


def _expm1(x: Tensor) -> Tensor:
    t = torch.tanh(x / 2)
    return torch.where(x.abs() < 1, 2 * t / (1 - t), torch.exp(x) - 1)


def _log1p(x: Tensor) -> Tensor:
    # The rounding error of 1 + x drops out of the quotient: HP-15C Advanced Functions Handbook,
    # Hewlett-Packard 1982, appendix "Accuracy of numerical calculations", by W. Kahan.
    sum_, one = 1 + x, torch.ones_like(x)
    is_small = (sum_ == 1) | torch.isinf(sum_)
    return torch.where(is_small, x, torch.log(sum_) * x / torch.where(is_small, one, sum_ - 1))


# Of e^(x^2) erfc(x) by powers of (x - 4) / (x + 4), 1 <= x <= 6.5, a fit of this project.
_ERFC = (
    0.13699945762506138, -0.259068048760172, 0.21871967891825891, -0.16425781669722314,
    0.10896317739992327, -0.0631078156453518, 0.031299056450726954, -0.01284394595109991,
    0.0040602656666894775, -0.0007991240949237063, -2.1786522911793684e-05,
    7.889819174426476e-05, -2.2537916997597093e-05, -1.342088424478919e-06,
    4.132520523854905e-06, 6.355093586710975e-07,
)  # fmt: skip
# Terms of the series of erf for |x| <= 1.
_ERF_TERMS = 20


def _erf(x: Tensor) -> Tensor:
    # ONNX Runtime has none for float64. Abramowitz and Stegun, 7.1.5, and 1 - erfc beyond 1, where
    # the error is that of rounding. From 6.5 on the result is 1 to the last digit.
    size = x.abs()
    square = torch.clamp(size, max=1.0) ** 2
    series = torch.zeros_like(x)
    for n in reversed(range(_ERF_TERMS)):
        term = (-1) ** n / (math.factorial(n) * (2 * n + 1))
        series = series * square + term * 2 / math.sqrt(math.pi)
    far = torch.clamp(size, 1.0, 6.5)
    t = (far - 4) / (far + 4)
    scaled = torch.zeros_like(x)
    for coefficient in reversed(_ERFC):
        scaled = scaled * t + coefficient
    beyond = torch.sign(x) * (1 - scaled * torch.exp(-far * far))
    return torch.where(size <= 1, x * series, torch.where(torch.isnan(x), x, beyond))


# Of activations; exporters know only the forward passes.
BACKWARD = (
    aten.gelu_backward,
    aten.glu_backward,
    aten.hardsigmoid_backward,
    aten.hardswish_backward,
    aten.log_sigmoid_backward,
    aten.mish_backward,
    aten.silu_backward,
    aten.softshrink_backward,
)
EQUIVALENTS: dict[Any, Callable[..., Tensor]] = {
    aten.mv.default: _mv,
    aten.dot.default: _dot,
    aten.index_add.default: _index_add,
    aten.index_put.default: _index_put,
    aten._unsafe_index_put.default: _index_put,
    aten.scatter_reduce.two: _scatter_reduce,
}
# Exporters write the number of each in float32, or lose the digits of small arguments.
FLOAT64_EQUIVALENTS: dict[Any, Callable[..., Tensor]] = {
    aten.addmm.default: _addmm,
    aten.deg2rad.default: lambda x: x * (math.pi / 180),
    aten.rad2deg.default: lambda x: x * (180 / math.pi),
    # Exact in its argument, unlike sin(x + pi / 2).
    aten.cos.default: lambda x: 1 - 2 * torch.sin(x / 2) ** 2,
    aten.exp2.default: lambda x: torch.exp(x * math.log(2)),
    aten.log2.default: lambda x: torch.log(x) / math.log(2),
    aten.log10.default: lambda x: torch.log(x) / math.log(10),
    aten.expm1.default: _expm1,
    aten.log1p.default: _log1p,
    aten.erf.default: _erf,
}


_PRODUCTS = (aten.mm.default, aten.bmm.default)
_TRANSPOSES = (aten.t.default, aten.transpose.int, aten.permute.default)


def subtract_from_products(graph_module: fx.GraphModule) -> None:
    """Write sums of a product of matrices and something else as differences, see above."""
    for node in list(graph_module.graph.nodes):
        if node.target is not aten.add.Tensor or node.kwargs:
            continue
        first, second = node.args
        if not _is_product(first):
            first, second = second, first
        if _is_product(first) and isinstance(second, fx.Node):
            with graph_module.graph.inserting_before(node):
                negative = graph_module.graph.call_function(aten.neg.default, (second,))
            negative.meta = dict(second.meta)
            node.target, node.args = aten.sub.Tensor, (first, negative)
    graph_module.recompile()


def transpose_apart_from_products(graph_module: fx.GraphModule) -> None:
    """Transpose factors of products where the optimiser does not see it, in one dimension more."""
    call = graph_module.graph.call_function
    for node in list(graph_module.graph.nodes):
        if node.target not in _PRODUCTS:
            continue
        for factor in node.args:
            if factor.target not in _TRANSPOSES:
                continue
            with graph_module.graph.inserting_before(node):
                deeper = call(aten.unsqueeze.default, (factor.args[0], 0))
                n_axes = 2 if node.target is aten.mm.default else 3
                turned = call(aten.permute.default, (deeper, _axes(factor, n_axes)))
                node.replace_input_with(factor, call(aten.squeeze.dim, (turned, 0)))
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()


def _axes(transpose: fx.Node, n_axes: int) -> list[int]:
    """Return the permutation of a transposed tensor's axes, behind a first one that stays."""
    axes = list(range(n_axes))
    if transpose.target is aten.permute.default:
        axes = [int(axis) % n_axes for axis in transpose.args[1]]  # type: ignore[union-attr, arg-type]
    else:
        pair: Any = transpose.args[1:] or (0, 1)
        one, other = (axis % n_axes for axis in pair)
        axes[one], axes[other] = axes[other], axes[one]
    return [0, *(axis + 1 for axis in axes)]


def _is_product(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is aten.mm.default
