"""What networks ask of constants while their graph is traced.

A tracer knows shapes and no numbers. Networks over graphs of atoms look at numbers all the same: at
a cutoff that they keep as a buffer, at the largest index of a batch, at which edges a mask selects.
Here the first two are answered, since they are the same in every call, and selections by a mask
become choices between all rows, whose number is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

# What leaves the entries of a tensor of zeros, or of a selection, what they are.
_VIEWS = ("view", "reshape", "unsqueeze", "expand", "squeeze", "flatten", "__getitem__", "select")
# What takes rows by an index.
_BY_ROWS = ("__getitem__", "index_select", "index_copy", "index_copy_")
# Python's statements that change a tensor.
_IN_PLACE = (
    *("__setitem__", "__set__", "__iadd__", "__isub__", "__imul__", "__itruediv__"),
    *("__ifloordiv__", "__imod__", "__ipow__", "__iand__", "__ior__", "__ixor__"),
)


class KnownValues(TorchFunctionMode):
    """Answers what depends on no input, while a function is traced.

    - Functions of constants alone are evaluated, so that their numbers can be asked for.
    - The largest entry of a tensor that `zeros` made is 0.
    - ``mask.nonzero()`` selects all rows, and ``x.index_copy(0, selected, y)`` takes rows of y
      where the mask is set. Other uses of a selection are refused, and so is a result (`whole`)
      that selected rows come to in another way, as by a sum.
    """

    def __init__(self) -> None:
        super().__init__()
        self._zeros = WeakIdKeyDictionary()
        self._masks = WeakIdKeyDictionary()
        # What is made of selected rows, of which there are too many here.
        self._selected = WeakIdKeyDictionary()

    def whole(self, values: Tensor) -> Tensor:
        """Return a function's values, or raise ValueError if selected rows have gone into them."""
        if values in self._selected:
            raise ValueError(
                "network: expected selected rows to be put back by index_copy, got others"
            )
        return values

    def zeros(self, like: Tensor) -> Tensor:
        """Return zeros whose largest entry is known to be 0."""
        made = torch.zeros_like(like)
        self._zeros[made] = True
        return made

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of tensors."""
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        if tensors and not _in_place(name) and not any(map(_is_traced, tensors)):
            with _disable_current_modes(), torch.no_grad():
                return func(*args, **options)
        if name == "max" and len(args) == 1 and not options and args[0] in self._zeros:
            with _disable_current_modes():
                return torch.tensor(0)
        if name == "nonzero" and not options and args[0].dtype == torch.bool:
            return self._all_rows(args[0])
        if any(tensor in self._masks for tensor in tensors):
            return self._of_selection(func, name, args, options)
        result = func(*args, **options)
        if any(tensor in self._selected for tensor in tensors):
            self._mark(result, args[0] if _in_place(name) else None)
        if name in _VIEWS and args[0] in self._zeros:
            self._zeros[result] = True
        return result

    def _all_rows(self, mask: Tensor) -> Tensor:
        """Return the indices of all rows of a mask (n,) or (n, 1), in place of those selected."""
        if mask.dim() > 2 or (mask.dim() == 2 and mask.shape[1] != 1):
            raise ValueError(f"nonzero: expected a mask of rows, got shape {tuple(mask.shape)}")
        rows = torch.arange(mask.shape[0], device=mask.device)
        selected = (
            torch.stack([rows, torch.zeros_like(rows)], 1) if mask.dim() == 2 else rows[:, None]
        )
        self._masks[selected] = mask.reshape(-1)
        return selected

    def _of_selection(
        self, func: Callable[..., Any], name: str, args: Sequence[Any], options: dict[str, Any]
    ) -> Any:
        """Return the result of a function of selected rows, for all rows."""
        if name in _VIEWS and args[0] in self._masks:
            result = func(*args, **options)
            self._masks[result] = self._masks[args[0]]
            return result
        if name not in _BY_ROWS or options:
            raise ValueError(f"network: expected no {name} of the places of a mask, got one")
        if not name.startswith("index_copy"):
            result = func(*args)
            self._mark(result)
            return result
        target, axis, index, source = args
        mask = self._masks[index]
        if axis != 0:
            raise ValueError(f"index_copy: expected rows, got axis {axis}")
        result = torch.where(mask.reshape([-1] + [1] * (source.dim() - 1)), source, target)
        return target.copy_(result) if name.endswith("_") else result

    def _mark(self, *made: Any) -> None:
        """Note what is made of selected rows."""
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._selected[leaf] = True


def _in_place(name: str) -> bool:
    """Return whether a function of this name changes its first argument."""
    if name.endswith("__"):
        return name in _IN_PLACE
    return name.endswith("_")


def _is_traced(tensor: Tensor) -> bool:
    return (
        isinstance(tensor, FakeTensor)
        or torch._is_functional_tensor(tensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
