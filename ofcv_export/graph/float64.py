"""Evaluating a module in float64, whatever it asks for."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class _Float64Only(TorchDispatchMode):
    """Turns conversions to float32, and new tensors of it, into those of float64."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator with float64 in the place of float32."""
        given = dict(kwargs or {})
        if given.get("dtype") is torch.float32:
            given["dtype"] = torch.float64
        return func(*args, **given)


class InFloat64(nn.Module):
    """A float64 copy of a module, on the CPU; a ``.float()`` in it stays in float64.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it stays as it is.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).cpu().double()

    def forward(self, *inputs: Any) -> Any:
        """Return the outputs of the copy."""
        with _Float64Only():
            return self.module(*inputs)
