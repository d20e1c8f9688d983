"""Interfaces of a file of C source for Fortran 2003."""

from __future__ import annotations

from collections.abc import Sequence

from ofcv_export.graph.tensor_spec import TensorSpec, free_sizes

_KINDS = {
    "float32": "real(c_float)",
    "float64": "real(c_double)",
    "int64": "integer(c_int64_t)",
}
_LONGEST_LINE = 100


def fortran_text(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], symbol: str) -> str:
    """Return a module with the interface of a file's function.

    Arrays are those of C, whose last axis changes fastest: an array of Fortran has its axes in the
    opposite order.

    Parameters
    ----------
    inputs, outputs : sequence of TensorSpec
        Of the function, in order.
    symbol : str
        Beginning of its name.
    """
    # A dummy argument may not have the name of the function.
    specs = [*inputs, *outputs]
    sizes = free_sizes(inputs)
    names = _broken(", ".join([*sizes, *(spec.name for spec in specs)]))
    declared = [f"      integer(c_int64_t), value, intent(in) :: {size}" for size in sizes]
    declared += [
        f"      {_KINDS[spec.dtype]}, intent({'in' if spec in inputs else 'out'}) :: {spec.name}(*)"
        f"  ! {', '.join(str(size) for size in reversed(spec.shape))}"
        for spec in specs
    ]
    return "\n".join([
        f"! Interface of {symbol}, written by ofcv-export.",
        f"module {symbol}_model",
        "  use, intrinsic :: iso_c_binding",
        "  implicit none",
        "  interface",
        f"    function {symbol}_evaluate({names}) &",
        f'        bind(c, name="{symbol}_evaluate") result(code)',
        "      import :: c_int, c_int64_t, c_float, c_double",
        *declared,
        "      integer(c_int) :: code  ! 0, or what went wrong",
        "    end function",
        "  end interface",
        f"end module {symbol}_model",
        "",
    ])  # fmt: skip


def _broken(names: str) -> str:
    """Return names on lines that Fortran takes."""
    return names.replace(", ", ", &\n        ") if len(names) > _LONGEST_LINE else names
