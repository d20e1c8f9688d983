"""Machine code for no more of the CPU than the instruction set that Inductor has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NATIVE = "march=native"


@contextmanager
def plain_code() -> Iterator[None]:
    """Keep Inductor from compiling for all that the CPU of this machine has."""
    from torch._inductor import config, cpp_builder

    if hasattr(config.cpp, "march"):
        with config.patch({"cpp.march": ""}):
            yield
        return
    # PyTorch 2.11 has no such setting.
    optimizing: Any = cpp_builder._get_optimization_cflags

    def flags(*args: Any, **options: Any) -> tuple[list[str], list[str]]:
        of_compiler, of_linker = optimizing(*args, **options)
        return [flag for flag in of_compiler if flag != _NATIVE], of_linker

    cpp_builder._get_optimization_cflags = flags
    try:
        yield
    finally:
        cpp_builder._get_optimization_cflags = optimizing
