"""Modes of a thread or process that a caller may have switched on, kept from changing numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from ofcv_export.base.fixed_order import fixed_order

Module = TypeVar("Module", bound=nn.Module)


@contextmanager
def full_precision(device: torch.device | str, atomics: bool = False) -> Iterator[None]:
    """Compute in the precision of the numbers, and on CUDA in a fixed order.

    Autocast, which would round the operands of products to half precision, is off meanwhile, and so
    is inference mode, in which nothing can be differentiated.

    Parameters
    ----------
    device : torch.device or str
        Where the operators run.
    atomics : bool
        See `ofcv_export.base.fixed_order`.
    """
    inference = torch.is_inference_mode_enabled()
    ordinary = without_inference_mode() if inference else nullcontext()
    with ordinary, without_autocast(device), fixed_order(device, atomics):
        yield


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """Leave inference mode; gradients stay as they are, off in it and under ``torch.no_grad``."""
    before = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(before):
        yield


def without_autocast(device: torch.device | str) -> AbstractContextManager[Any]:
    """Return a context in which operators on a device keep the precision of their operands."""
    kind = torch.device(device).type
    # Asked first, for a call of one MD step.
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


@contextmanager
def ordinary_modes() -> Iterator[None]:
    """Leave inference mode, anomaly detection and autocast, in which graphs are not the module's.

    They are the caller's again at the end.
    """
    with ExitStack() as stack:
        stack.enter_context(without_inference_mode())
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        for kind in ("cpu", "cuda"):
            stack.enter_context(without_autocast(kind))
        yield


def without_inference_tensors(module: Module) -> Module:
    """Return a module, a copy of it where it was made in inference mode.

    Nothing can be differentiated through tensors that were made in it; through a copy it can.
    """
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module) if any(entry.is_inference() for entry in tensors) else module


def on_cpu(module: Module) -> Module:
    """Return a module, a copy of it on the CPU where it is elsewhere: graphs are made there."""
    tensors = [*module.parameters(), *module.buffers()]
    return module if all(entry.is_cpu for entry in tensors) else copy.deepcopy(module).cpu()
