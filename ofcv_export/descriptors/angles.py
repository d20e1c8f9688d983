"""Angles between two bonds."""

import torch
from torch import Tensor

from ofcv_export.descriptors.angle_modes import AngleModes
from ofcv_export.descriptors.atom_tuples import AtomTuples
from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.vectors import norm


class Angles(AtomTuples):
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
    facts = ("n_atoms", "atoms", "modes", "box")
    bonds = ((1, 0), (1, 2))

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

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the chosen modes of every angle, shape (batch, n_angles * n_modes)."""
        ba, bc = torch.chunk(self.vectors(positions, box), 2, dim=1)
        return self.modes((ba * bc).sum(-1), norm(torch.linalg.cross(ba, bc, dim=-1)))
