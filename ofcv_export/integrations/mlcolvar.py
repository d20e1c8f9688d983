"""A drop-in replacement for mlcolvar's SmartDerivatives, with mlcolvar's class as a base.

Set it up as mlcolvar's own and hand it over: ``Committor(..., descriptors_derivatives=smart)``.
"""

from __future__ import annotations

from mlcolvar.core.loss.utils.smart_derivatives import SmartDerivatives as MlcolvarSmartDerivatives
from torch import Tensor

from ofcv_export.jacobian.smart_derivatives import SmartDerivatives as OfcvSmartDerivatives


class SmartDerivatives(OfcvSmartDerivatives, MlcolvarSmartDerivatives):
    """`ofcv_export.SmartDerivatives` that passes mlcolvar's ``isinstance`` checks.

    Hand it to ``Committor(descriptors_derivatives=...)`` or ``Generator(...)``. Every public
    method is ours; nothing of mlcolvar's computation is used.
    """

    def forward(self, x: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(positions), see `ofcv_export.SmartDerivatives.forward`.

        As in mlcolvar, rows of `x` beyond the length of `ref_idx` are not looked at.
        """
        if ref_idx is not None and ref_idx.dim() == 1:
            x = x[: len(ref_idx)]
        return super().forward(x, ref_idx)
