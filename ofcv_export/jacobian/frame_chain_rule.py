"""The chain rule on frozen frames that are looked up where they lie, without a copy of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from ofcv_export.jacobian.chain_rule import ChainRule


class FrameChainRule(ChainRule):
    """A chain rule given by its product and its transpose.

    The derivative of either is the other, so it is differentiable to any order, and a backward
    pass reads the frozen values again instead of keeping a copy of them.
    """

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
        if ref_idx is None:
            ref_idx = torch.arange(len(x), device=x.device)
        out: Tensor = _Product.apply(x, values, ref_idx, self)  # type: ignore[no-untyped-call]
        return out


class _Product(torch.autograd.Function):
    """x (batch, n_descriptors[, n_outputs]) -> sums (batch, n_atoms, 3[, n_outputs])."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, ref_idx: Tensor, rule: FrameChainRule
    ) -> Tensor:
        ctx.save_for_backward(values, ref_idx)
        ctx.rule = rule
        out = rule.product(_outputs_first(x, 2), values, ref_idx)
        # mlcolvar looks at the result through views, which want it contiguous.
        return _outputs_last(out, x.dim() == 3).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Projection.apply(gradient, *ctx.saved_tensors, ctx.rule), None, None, None


class _Projection(torch.autograd.Function):
    """The transposed map, of a gradient (batch, n_atoms, 3[, n_outputs])."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, values: Tensor, ref_idx: Tensor, rule: FrameChainRule
    ) -> Tensor:
        ctx.save_for_backward(values, ref_idx)
        ctx.rule = rule
        x = rule.projection(_outputs_first(gradient, 3), values, ref_idx)
        return _outputs_last(x, gradient.dim() == 4)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Product.apply(gradient, *ctx.saved_tensors, ctx.rule), None, None, None


def _outputs_first(tensor: Tensor, n_other: int) -> Tensor:
    """Return a tensor (batch, ...[, n_outputs]) as (batch, n_outputs, ...)."""
    return tensor.unsqueeze(1) if tensor.dim() == n_other else tensor.movedim(-1, 1)


def _outputs_last(tensor: Tensor, several: bool) -> Tensor:
    """Return a tensor (batch, n_outputs, ...) as (batch, ...[, n_outputs])."""
    return tensor.movedim(1, -1) if several else tensor.squeeze(1)
