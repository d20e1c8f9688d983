"""Intermediate results of AOTInductor's code on the stack, where a single frame fits.

An array from LibTorch's allocator costs 0.2 us, more than most operations on a single frame do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any


@contextmanager
def stack_buffers() -> Iterator[None]:
    """Let AOTInductor put intermediate results on the stack, if all of them are below 100 kB.

    Outputs stay arrays of their own. Inductor would keep those in memory of the thread, to be
    overwritten by the next call.
    """
    from torch._inductor import config, ir
    from torch._inductor.codegen.common import device_codegens, init_backend_registration
    from torch._inductor.codegen.cpp_wrapper_cpu_array_ref import CppWrapperCpuArrayRef
    from torch._inductor.virtualized import V

    class StackBuffers(CppWrapperCpuArrayRef):
        """Inductor's writer of code with stack buffers, for all but the outputs."""

        @staticmethod
        def create(*_: Any, **__: Any) -> CppWrapperCpuArrayRef:
            return StackBuffers()

        def can_stack_allocate_buffer(self, buffer: ir.Buffer) -> bool:
            is_output = buffer.get_name() in V.graph.get_output_names()
            return not is_output and bool(super().can_stack_allocate_buffer(buffer))

    settings = {
        "aot_inductor.allow_stack_allocation": True,
        # An output must not take over the memory of an intermediate result.
        "allow_buffer_reuse": False,
        "inplace_buffers": False,
    }
    init_backend_registration()
    before = device_codegens["cpu"]
    # Inductor chooses the writer once, when it is first used in a process.
    device_codegens["cpu"] = replace(before, cpp_wrapper_codegen=StackBuffers)
    try:
        with config.patch(settings):
            yield
    finally:
        device_codegens["cpu"] = before
