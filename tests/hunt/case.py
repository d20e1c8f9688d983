"""What is exported and called, and what the call must give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

# From the inputs in float64, in the file's order, to its outputs.
Judge = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """A module, the inputs of a call of its file, and the judge of the outputs.

    Parameters
    ----------
    module : torch.nn.Module
        What is exported.
    inputs : mapping
        Tensors by name, in the file's order and dtypes.
    judge : callable
        Formulas in float64 that share no code with the package.
    options : mapping
        Options of the export.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    judge: Judge
    options: Mapping[str, Any] = field(default_factory=dict)
