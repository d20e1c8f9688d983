"""Sums in a fixed order on CUDA, so that the same input gives the same bits.

Some of PyTorch's operators add with atomics on a CUDA device, in whatever order the threads come:
``index_add``, ``scatter_add``, and the backward pass of ``index_select``. Each has a second
implementation that sorts the indices first and adds in their order. On the CPU the order is fixed
anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def fixed_order(device: torch.device | str, atomics: bool = False) -> Iterator[None]:
    """Let operators on a CUDA device add in a fixed order while the context lasts.

    It switches PyTorch's deterministic algorithms on, which are a setting of the whole process, and
    puts it back at the end. An operator that has no such algorithm, such as a floating-point
    ``cumsum``, gives a warning. Where the setting is on already nothing is changed. For one thread
    at a time: the first of several to leave would end it for the others.

    Parameters
    ----------
    device : torch.device or str
        Where the operators run. Nothing happens unless it is a CUDA device.
    atomics : bool
        Whether to leave the operators as they are.
    """
    is_cuda = torch.device(device).type == "cuda"
    if atomics or not is_cuda or torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The setting would also fill all new memory with NaN, which costs time and proves nothing here.
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(False, warn_only=warn_only)
