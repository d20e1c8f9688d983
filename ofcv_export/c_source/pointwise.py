"""Operators entry by entry; chains of them become one expression."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ofcv_export.c_source.extent import is_free
from ofcv_export.c_source.index import Index
from ofcv_export.c_source.registry import Call, Operator, register
from ofcv_export.c_source.value import Value, as_real, broadcast, constant


def operand_value(call: Call, operand: Any) -> Value:
    """Return an operand, a number among them, in the shape of the result."""
    if isinstance(operand, Value):
        is_repeated = operand.size < math.prod(call.shape)
        # What is not cheap is computed once for all repetitions.
        once = call.writer.kept(operand) if is_repeated and operand.cost > 1 else operand
        whole = broadcast(once, call.shape)
        return as_real(whole, call.writer.real) if call.kind == "real" else whole
    if is_free(operand):
        text = f"(({call.writer.type_of(call.kind)})({operand!s}))"
        return constant(text, call.shape, call.kind)
    if isinstance(operand, int) and call.kind != "real":
        return constant(str(int(operand)), call.shape, "int64_t")
    return constant(call.writer.number(float(operand)), call.shape, "real")


def _pointwise(call: Call, expression: Callable[..., str], *operands: Any, cost: int = 1) -> Value:
    values = [operand_value(call, operand) for operand in operands]

    def at(indices: Sequence[Index]) -> str:
        return expression(*(value.at(indices) for value in values))

    return Value(call.shape, call.kind, at, sum(value.cost for value in values) + cost)


def _binary(symbol: str) -> Operator:
    return lambda call, a, b: _pointwise(call, lambda x, y: f"({x} {symbol} {y})", a, b)


_SYMBOLS = {
    "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="
}  # fmt: skip
for _name, _symbol in _SYMBOLS.items():
    register(f"{_name}.Tensor", f"{_name}.Scalar")(_binary(_symbol))
register("logical_and.default", "bitwise_and.Tensor")(_binary("&&"))
register("logical_or.default", "bitwise_or.Tensor")(_binary("||"))


def _added(symbol: str) -> Operator:
    def apply(call: Call, a: Any, b: Any, alpha: float = 1) -> Value:
        if alpha == 1:
            return _pointwise(call, lambda x, y: f"({x} {symbol} {y})", a, b)
        factor = call.writer.number(alpha)
        return _pointwise(call, lambda x, y: f"({x} {symbol} {factor} * {y})", a, b, cost=2)

    return apply


register("add.Tensor", "add.Scalar")(_added("+"))
register("sub.Tensor", "sub.Scalar")(_added("-"))


def _unary(template: str, cost: int = 1) -> Operator:
    return lambda call, x: _pointwise(call, lambda e: template.format(e), x, cost=cost)


def _function(name: str) -> Operator:
    def apply(call: Call, *xs: Value) -> Value:
        if name == "acos":
            call.writer.depends_on_arguments_alone("sqrt")
        return _pointwise(
            call, lambda *es: f"{call.writer.own(name)}({', '.join(es)})", *xs, cost=10
        )

    return apply


register("isnan.default")(_unary("({0} != {0})"))
register("neg.default")(_unary("(-{})"))
register("logical_not.default", "bitwise_not.default")(_unary("(!{})"))
for _name in (
    "exp",
    "expm1",
    "tanh",
    "sigmoid",
    "log",
    "log1p",
    "sin",
    "cos",
    "acos",
    "erf",
    "atan2",
):
    register(f"{_name}.default")(_function(_name))


def _library(call: Call, name: str) -> str:
    """Return the name that a function of C's library has for the type of the numbers."""
    return f"{name}f" if call.writer.real == "float" else name


def _exact(name: str, cost: int = 1) -> Operator:
    """Return an operator that IEEE 754 and C's library leave no choice about."""
    return lambda call, x: _pointwise(call, lambda e: f"{_library(call, name)}({e})", x, cost=cost)


def _root(call: Call) -> str:
    """Return the name of the square root."""
    name = _library(call, "sqrt")
    call.writer.depends_on_arguments_alone(name)
    return name


@register("sqrt.default")
def square_root(call: Call, x: Value) -> Value:
    """Return the square root of every entry."""
    root = _root(call)
    return _pointwise(call, lambda e: f"{root}({e})", x, cost=5)


register("abs.default")(_exact("fabs"))
register("round.default")(_exact("rint"))
register("floor.default")(_exact("floor"))


@register("fmod.Tensor", "fmod.Scalar")
def _fmod(call: Call, a: Any, b: Any) -> Value:
    """Return the remainder, which is exact and so the same everywhere."""
    name = _library(call, "fmod")
    return _pointwise(call, lambda x, y: f"{name}({x}, {y})", a, b, cost=10)


@register("rsqrt.default")
def _rsqrt(call: Call, x: Value) -> Value:
    root, one = _root(call), call.writer.number(1)
    return _pointwise(call, lambda e: f"({one} / {root}({e}))", x, cost=10)


@register("reciprocal.default")
def _reciprocal(call: Call, x: Value) -> Value:
    return _pointwise(call, lambda e: f"({call.writer.number(1)} / {e})", x, cost=3)


@register("sign.default")
def _sign(call: Call, x: Value) -> Value:
    x = call.writer.once(x)
    real = call.writer.real
    return _pointwise(call, lambda e: f"({real})(({e} > 0) - ({e} < 0))", x)


@register("pow.Tensor_Scalar")
def _power(call: Call, x: Value, exponent: float) -> Value:
    whole, half = divmod(abs(exponent), 1)
    if half not in (0, 0.5) or abs(exponent) > 16:
        raise ValueError(
            f"module: expected whole and half powers of -16 to 16 in C source, got {exponent}"
        )
    one = call.writer.number(1)
    if exponent == 0:
        return constant(one, call.shape, "real")
    x, root = call.writer.once(x), _root(call) if half else ""

    def text(e: str) -> str:
        factors = [e] * int(whole) + [f"{root}({e})"] * bool(half)
        product = f"({' * '.join(factors)})"
        return product if exponent > 0 else f"({one} / {product})"

    return _pointwise(call, text, x, cost=int(whole) + 5 * bool(half))


@register("pow.Tensor_Tensor")
def _power_of_constant(call: Call, x: Value, exponent: Value) -> Value:
    if exponent.tensor is None or exponent.size != 1:
        raise ValueError("module: expected one exponent that is known in C source, got others")
    return _power(call, x, exponent.tensor.item())


@register("clamp.default")
def _clamp(call: Call, x: Value, low: float | None = None, high: float | None = None) -> Value:
    x = call.writer.once(x)

    def text(e: str) -> str:
        out = e
        if low is not None:
            out = f"({out} < {call.writer.number(low)} ? {call.writer.number(low)} : {out})"
        if high is not None:
            out = f"({e} > {call.writer.number(high)} ? {call.writer.number(high)} : {out})"
        return out

    return _pointwise(call, text, x)


@register("tanh_backward.default")
def _tanh_backward(call: Call, gradient: Value, y: Value) -> Value:
    one, y = call.writer.number(1), call.writer.once(y)
    return _pointwise(call, lambda g, e: f"({g} * ({one} - {e} * {e}))", gradient, y, cost=3)


@register("sigmoid_backward.default")
def _sigmoid_backward(call: Call, gradient: Value, y: Value) -> Value:
    one, y = call.writer.number(1), call.writer.once(y)
    return _pointwise(call, lambda g, e: f"({g} * (({one} - {e}) * {e}))", gradient, y, cost=3)


@register("gelu.default")
def _gelu(call: Call, x: Value, approximate: str = "none") -> Value:
    if approximate != "none":
        raise ValueError("module: expected GELU without approximation in C source, got tanh")
    x = call.writer.once(x)
    half, root, one = (call.writer.number(v) for v in (0.5, 0.5**0.5, 1.0))
    erf = call.writer.own("erf")
    return _pointwise(call, lambda e: f"({half} * {e} * ({one} + {erf}({e} * {root})))", x, cost=20)


@register("where.self")
def _where(call: Call, condition: Value, a: Any, b: Any) -> Value:
    choice = broadcast(condition, call.shape)
    values = [operand_value(call, operand) for operand in (a, b)]

    def at(indices: Sequence[Index]) -> str:
        x, y = (value.at(indices) for value in values)
        return f"({choice.at(indices)} ? {x} : {y})"

    return Value(call.shape, call.kind, at, choice.cost + sum(v.cost for v in values) + 1)


@register("masked_fill.Scalar")
def _masked_fill(call: Call, x: Value, mask: Value, number: float) -> Value:
    return _where(call, mask, number, x)


@register("maximum.default")
def _maximum(call: Call, a: Value, b: Value) -> Value:
    a, b = call.writer.once(a), call.writer.once(b)
    return _pointwise(call, lambda x, y: f"({x} > {y} ? {x} : {y})", a, b)


@register("minimum.default")
def _minimum(call: Call, a: Value, b: Value) -> Value:
    a, b = call.writer.once(a), call.writer.once(b)
    return _pointwise(call, lambda x, y: f"({x} < {y} ? {x} : {y})", a, b)


@register("relu.default")
def _relu(call: Call, x: Value) -> Value:
    zero, x = call.writer.number(0), call.writer.once(x)
    return _pointwise(call, lambda e: f"({e} > {zero} ? {e} : {zero})", x)
