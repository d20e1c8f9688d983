"""Angles, their sines and their cosines, from points of the plane."""

import torch
from torch import Tensor, nn

from ofcv_export.descriptors.atom_tuples import AtomTuples
from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.vectors import unit_circle

MODES = ("angle", "sin", "cos")


class AngleModes(nn.Module):
    """Those of the angle, its sine and its cosine that were asked for, always in this order.

    Parameters
    ----------
    modes : tuple of str
        Some of ``angle`` (radians), ``sin`` and ``cos``.

    Raises
    ------
    ValueError
        For none or another mode.
    """

    def __init__(self, modes: tuple[str, ...]) -> None:
        super().__init__()
        if not modes or any(mode not in MODES for mode in modes):
            raise ValueError(f'modes: expected some of "angle", "sin" and "cos", got {modes!r}')
        self.angle = "angle" in modes
        self.sin = "sin" in modes
        self.cos = "cos" in modes
        self.n_modes = int(self.angle) + int(self.sin) + int(self.cos)

    def specification(self) -> list[str]:
        """Return the names of the modes in their order."""
        return [mode for mode in MODES if getattr(self, mode)]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the modes of the angle of the points (x, y) to the x axis.

        The origin has the angle 0 with derivatives 0.

        Parameters
        ----------
        x, y : torch.Tensor
            Shape (batch, n_angles).

        Returns
        -------
        torch.Tensor
            Shape (batch, n_angles * n_modes), all modes of one angle next to each other.
        """
        x, y = unit_circle(x, y)
        radius = torch.sqrt(x * x + y * y)
        cos, sin = x / radius, y / radius
        modes = []
        if self.angle:
            modes.append(_angle(cos, sin))
        if self.sin:
            modes.append(sin)
        if self.cos:
            modes.append(cos)
        return torch.stack(modes, dim=2).flatten(1)

    def slopes(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the modes' derivatives with respect to the angle, (batch, n_angles, n_modes)."""
        x, y = unit_circle(x, y)
        radius = torch.sqrt(x * x + y * y)
        by_mode = {"angle": torch.ones_like(x), "sin": x / radius, "cos": -y / radius}
        return torch.stack([by_mode[mode] for mode in self.specification()], dim=2)


class AngleTuples(AtomTuples):
    """Angles between the bonds of tuples of atoms, their sines and their cosines.

    Parameters
    ----------
    atoms : torch.Tensor
        Zero-based atom indices, int64, shape (n_tuples, width).
    n_atoms : int
        Number of atoms in a frame.
    modes : tuple of str
        Which of ``angle`` (radians), ``sin`` and ``cos`` to return, in this order for each tuple.
    box : Boundaries, optional
        Boundary conditions; open by default.
    """

    facts = ("n_atoms", "atoms", "modes", "box")

    def __init__(
        self,
        atoms: Tensor,
        n_atoms: int,
        modes: tuple[str, ...] = ("angle",),
        box: Boundaries | None = None,
    ) -> None:
        angle_modes = AngleModes(modes)
        super().__init__(atoms, n_atoms, box, angle_modes.n_modes)
        self.modes = angle_modes


def _angle(cos: Tensor, sin: Tensor) -> Tensor:
    """Return the angle in radians.

    ONNX Runtime has no arctangent in float64. This takes it in float32 and adds the arcsine of the
    small rest, whose series ends after two terms; the derivatives are those of the rest.
    """
    rough = torch.atan2(sin.detach().to(torch.float32), cos.detach().to(torch.float32)).to(cos)
    rest = sin * torch.cos(rough) - cos * torch.sin(rough)
    return rough + rest * (1.0 + rest * rest / 6.0)
