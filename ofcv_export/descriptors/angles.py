"""Angles between two bonds."""

import torch
from torch import Tensor

from ofcv_export.descriptors.angle_modes import AngleTuples
from ofcv_export.descriptors.vectors import norm


class Angles(AngleTuples):
    """Angles A-B-C at the atoms B, from 0 to pi, their sines and cosines.

    With the three atoms exactly on a line, where the angle and its sine have no derivative, all
    derivatives are 0; with A or C at B the angle is 0.

    Parameters
    ----------
    atoms : torch.Tensor
        Zero-based atom indices A, B, C, int64, shape (n_angles, 3).
    n_atoms : int
        Number of atoms in a frame.
    modes : tuple of str
        Which of ``angle`` (radians), ``sin`` and ``cos`` to return, in this order for each angle.
    box : Boundaries, optional
        Boundary conditions; open by default.
    """

    type_name = "angles"
    bonds = ((1, 0), (1, 2))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the chosen modes of every angle, shape (batch, n_angles * n_modes)."""
        ba, bc = torch.chunk(self.vectors(positions, box), 2, dim=1)
        return self.modes((ba * bc).sum(-1), norm(torch.linalg.cross(ba, bc, dim=-1)))
