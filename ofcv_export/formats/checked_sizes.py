"""Checks of inputs in the code that AOTInductor writes.

Compiled code reads as many numbers as it was compiled for. Its own checks are off unless an
environment variable says otherwise, so that a caller with fewer frames would make it read beyond
them. These are always on, and take nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ofcv_export.base.validation import shape_text
from ofcv_export.graph.tensor_spec import TensorSpec, symbols

_HELPER = """
    static bool _check_aoti_runtime_check_inputs_env() { return false; }

    // A size that is free: what it is in this call, and where it was first.
    struct Symbol { const char* name; int64_t size; const char* first; };

    static std::string dtype_text(int32_t dtype) {
        if (dtype == aoti_torch_dtype_float32()) { return "float32"; }
        if (dtype == aoti_torch_dtype_float64()) { return "float64"; }
        if (dtype == aoti_torch_dtype_int32()) { return "int32"; }
        if (dtype == aoti_torch_dtype_int64()) { return "int64"; }
        if (dtype == aoti_torch_dtype_bool()) { return "bool"; }
        return "another";
    }

    static std::string tuple_text(const int64_t* sizes, int64_t n_axes) {
        std::string text = "(";
        for (int64_t axis = 0; axis < n_axes; ++axis) {
            text += (axis ? ", " : "") + std::to_string(sizes[axis]);
        }
        return text + (n_axes == 1 ? ",)" : ")");
    }

    [[noreturn]] AOTI_NOINLINE static void refuse(
        const std::string& name, const std::string& expected, const std::string& got) {
        throw std::runtime_error(name + ": expected " + expected + ", got " + got);
    }

    static void require_input(
        AtenTensorHandle input, const char* name, int32_t dtype, const int64_t* expected,
        int64_t n_axes, const char* shape, Symbol* symbols) {
        int32_t given;
        int64_t n_given, *sizes, *strides;
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(input, &given));
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(input, &n_given));
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(input, &sizes));
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(input, &strides));
        if (given != dtype) { refuse(name, "dtype " + dtype_text(dtype), dtype_text(given)); }
        bool fits = n_given == n_axes;
        for (int64_t axis = 0; fits && axis < n_axes; ++axis) {
            fits = expected[axis] < 0 || sizes[axis] == expected[axis];
        }
        if (!fits) { refuse(name, std::string("shape ") + shape, tuple_text(sizes, n_given)); }
        int64_t stride = 1, n_values = 1;
        for (int64_t axis = 0; axis < n_axes; ++axis) { n_values *= sizes[axis]; }
        for (int64_t axis = n_axes - 1; axis >= 0; --axis) {
            int64_t size = sizes[axis];
            if (expected[axis] < 0) {
                Symbol& symbol = symbols[-1 - expected[axis]];
                if (symbol.first == nullptr) { symbol.size = size, symbol.first = name; }
                if (symbol.size != size) {
                    refuse(name, symbol.name + (" = " + std::to_string(symbol.size)) + " as in " +
                        symbol.first, std::to_string(size));
                }
            }
            if (size >= 2 && n_values > 0 && strides[axis] != stride) {
                refuse(name, "row-major order", "strides " + tuple_text(strides, n_axes));
            }
            stride *= size;
        }
    }
"""


@contextmanager
def checked_sizes(specs: Sequence[TensorSpec]) -> Iterator[None]:
    """Let compiled code refuse inputs of another dtype, shape or order in memory.

    Parameters
    ----------
    specs : sequence of TensorSpec
        The inputs of the code that is compiled meanwhile.

    Raises
    ------
    RuntimeError
        If this version of PyTorch writes code without the checks.
    """
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    written = False

    def write(writer: Any) -> None:
        nonlocal written
        written = True
        # PyTorch 2.11 has one text where later versions have one of ahead-of-time code as well.
        splice = getattr(writer.prefix, "splice_aot", writer.prefix.splice)
        splice(_code(specs))

    before = CppWrapperCpu.generate_input_output_runtime_checks
    CppWrapperCpu.generate_input_output_runtime_checks = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        CppWrapperCpu.generate_input_output_runtime_checks = before  # type: ignore[method-assign]
    if not written:
        raise RuntimeError(
            "torch: expected a version whose AOTInductor writes checks of inputs, "
            f"got {torch.__version__}"
        )


def _code(specs: Sequence[TensorSpec]) -> str:
    """Return C++ code that checks the inputs."""
    free = symbols(specs)
    free_sizes = ", ".join(f'{{"{symbol}", 0, nullptr}}' for symbol in free)
    lines = [
        _HELPER,
        "AOTI_NOINLINE static void __check_inputs_outputs(",
        "    AtenTensorHandle* input_handles, AtenTensorHandle* output_handles) {",
        f"    Symbol symbols[] = {{{free_sizes or '{}'}}};",
    ]
    for number, spec in enumerate(specs):
        sizes = [-1 - free.index(size) if isinstance(size, str) else size for size in spec.shape]
        lines += [
            f"    const int64_t sizes_{number}[] = {{{', '.join(map(str, sizes)) or '0'}}};",
            f'    require_input(input_handles[{number}], "{spec.name}", '
            f"aoti_torch_dtype_{spec.dtype}(), sizes_{number}, {len(sizes)}, "
            f'"{shape_text(spec.shape)}", symbols);',
        ]
    return "\n".join([*lines, "}"]) + "\n"
