"""Whether an engine's box is one that a variable can take."""

# No postponed annotations: torch.jit.script wants those of `forward` to be types.

import torch
from torch import Tensor, nn

from ofcv_export.base.lattice import SAME_BOX
from ofcv_export.descriptors.lattice import is_along_axes


class BoxCheck(nn.Module):
    """What a variable asks of the engine's box.

    Parameters
    ----------
    orthorhombic : bool
        Whether the lattice vectors must lie along x, y and z.
    fixed : torch.Tensor, optional
        The box that the variable was made for, shape (3, 3).
    """

    fixed: Tensor

    def __init__(self, orthorhombic: bool, fixed: Tensor | None) -> None:
        super().__init__()
        self.orthorhombic = orthorhombic
        self.has_fixed = fixed is not None
        self.tolerance = SAME_BOX
        self.register_buffer("fixed", torch.zeros(3, 3) if fixed is None else fixed)

    def forward(self, box: Tensor) -> str:
        """Return what is wrong with a box (3, 3), the empty string if nothing is."""
        if self.has_fixed:
            fixed = self.fixed.to(box)
            if bool((box - fixed).abs().max() > self.tolerance * fixed.abs().max()):
                own, got = vectors_text(fixed), vectors_text(box)
                return f"box: expected the artifact's own {own}, got {got}"
        if self.orthorhombic and not is_along_axes(box):
            return f"box: expected lattice vectors along x, y and z, got {vectors_text(box)}"
        return ""


def vectors_text(box: Tensor) -> str:
    """Return lattice vectors (3, 3) as text."""
    vectors: list[list[float]] = box.tolist()
    return str(vectors)
