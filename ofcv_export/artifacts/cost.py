"""Whether a module can be tried with many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Numbers in the largest intermediate result, 80 MB in float64.
_CHEAP = 10_000_000
# Growth of it that counts as proportional to the size.
_PROPORTIONAL = 1.2


def is_cheap(module: nn.Module, calls: Sequence[Sequence[Tensor]], n_rows: int) -> bool:
    """Return whether no intermediate result of a module with many rows is large.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    calls : sequence of two lists of torch.Tensor
        Inputs with some number of rows, and with twice as many.
    n_rows : int
        The number of rows to try.
    """
    small, large = (_largest_result(module, inputs) for inputs in calls)
    rows = len(calls[1][0])
    return large <= 2 * _PROPORTIONAL * small and large * n_rows <= _CHEAP * rows


class _Sizes(TorchDispatchMode):
    """Notes the number of entries of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 1

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator and note the size of what it returns."""
        results = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        self.largest = max([self.largest, *sizes])
        return results


def _largest_result(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    with torch.no_grad(), _Sizes() as sizes:
        module(*inputs)
    return sizes.largest
