"""The chain rule on frozen frames that are looked up where they lie, without a copy of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.jacobian.chain_rule import ChainRule, ScatterChainRule, rows


class FrameChainRule(ChainRule):
    """A chain rule given by its product and its transpose.

    The derivative of either is the other, so it is differentiable to any order, and a backward
    pass reads the frozen values again instead of keeping a copy of them.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    """

    def __init__(self, pattern: SparsityPattern) -> None:
        super().__init__()
        self.operators = ScatterChainRule(pattern)

    @abstractmethod
    def product(self, x: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the sums by atom, (batch, n_outputs, n_atoms, 3).

        From x (batch, n_outputs, n_descriptors), the values of all frames (n_frames, n_values) and
        the frame of each row, ref_idx (batch,).
        """

    @abstractmethod
    def projection(self, gradient: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the transposed product, (batch, n_outputs, n_descriptors).

        From gradient (batch, n_outputs, n_atoms, 3) and the others as in `product`.
        """

    def forward(self, x: Tensor, values: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(pos), see `ChainRule.forward`."""
        if torch.compiler.is_compiling():
            # A graph that PyTorch makes of this holds torch's operators.
            operators: Tensor = self.operators(x, self.blocks(rows(values, ref_idx)).flatten(1))
            return operators
        if ref_idx is None:
            ref_idx = torch.arange(len(x), device=x.device)
        out: Tensor = _Linear.apply(x, values, ref_idx, self, False)  # type: ignore[no-untyped-call]
        return out


class _Linear(torch.autograd.Function):
    """The product of a rule, x (batch, n_descriptors[, n_outputs]), or its transpose.

    The former gives sums (batch, n_atoms, 3[, n_outputs]), which the latter takes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        ref_idx: Tensor,
        rule: FrameChainRule,
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(values, ref_idx)
        ctx.rule, ctx.transposed = rule, transposed
        linear = rule.projection if transposed else rule.product
        n_other = 3 if transposed else 2
        out = linear(_outputs_first(x, n_other), values, ref_idx)
        # mlcolvar looks at the result through views, which want it contiguous.
        return _outputs_last(out, x.dim() > n_other).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        out = _Linear.apply(gradient, *ctx.saved_tensors, ctx.rule, not ctx.transposed)
        return out, None, None, None, None


def _outputs_first(tensor: Tensor, n_other: int) -> Tensor:
    """Return a tensor (batch, ...[, n_outputs]) as (batch, n_outputs, ...)."""
    return tensor.unsqueeze(1) if tensor.dim() == n_other else tensor.movedim(-1, 1)


def _outputs_last(tensor: Tensor, several: bool) -> Tensor:
    """Return a tensor (batch, n_outputs, ...) as (batch, ...[, n_outputs])."""
    return tensor.movedim(1, -1) if several else tensor.squeeze(1)
