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

    static void require_input(
        AtenTensorHandle input, int32_t dtype, const int64_t* expected, int64_t n_axes,
        int64_t* symbols, const char* message) {
        int32_t given;
        int64_t n_given, *sizes, *strides;
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(input, &given));
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(input, &n_given));
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(input, &sizes));
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(input, &strides));
        bool fits = given == dtype && n_given == n_axes;
        int64_t stride = 1;
        for (int64_t axis = n_axes - 1; fits && axis >= 0; --axis) {
            int64_t size = sizes[axis];
            int64_t wanted = expected[axis];
            if (wanted < 0) {
                // A size that is free, and the same wherever it stands.
                int64_t& known = symbols[-1 - wanted];
                if (known < 0) { known = size; }
                wanted = known;
            }
            fits = size == wanted && (size < 2 || strides[axis] == stride);
            stride *= size;
        }
        if (!fits) { throw std::runtime_error(message); }
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
    lines = [
        _HELPER,
        "AOTI_NOINLINE static void __check_inputs_outputs(",
        "    AtenTensorHandle* input_handles, AtenTensorHandle* output_handles) {",
        f"    int64_t symbols[] = {{{', '.join(['-1'] * max(len(free), 1))}}};",
    ]
    for number, spec in enumerate(specs):
        sizes = [-1 - free.index(size) if isinstance(size, str) else size for size in spec.shape]
        shape = shape_text(spec.shape)
        message = f"{spec.name}: expected {spec.dtype} of shape {shape}, contiguous"
        lines += [
            f"    const int64_t sizes_{number}[] = {{{', '.join(map(str, sizes)) or '0'}}};",
            f"    require_input(input_handles[{number}], aoti_torch_dtype_{spec.dtype}(), "
            f'sizes_{number}, {len(sizes)}, symbols, "{message}");',
        ]
    return "\n".join([*lines, "}"]) + "\n"
