"""Angles between two bonds."""

from typing import Any

import torch
from torch import Tensor

from ofcv_export.descriptors.angle_modes import AngleModes
from ofcv_export.descriptors.boundaries import Boundaries, open_boundaries
from ofcv_export.descriptors.descriptor import Descriptor, require_atoms
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.vectors import norm


class Angles(Descriptor):
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

    atoms: Tensor
    ends: Tensor
    centre: Tensor

    def __init__(
        self,
        atoms: Tensor,
        n_atoms: int,
        modes: tuple[str, ...] = ("angle",),
        box: Boundaries | None = None,
    ) -> None:
        atoms = require_atoms("atoms", atoms, n_atoms, width=3)
        box = open_boundaries() if box is None else box
        angle_modes = AngleModes(modes)
        super().__init__(n_atoms, len(atoms) * angle_modes.n_modes, box.takes_box)
        self.register_buffer("atoms", atoms, persistent=False)
        self.register_buffer("ends", atoms[:, [0, 2]].t().flatten(), persistent=False)
        self.register_buffer("centre", atoms[:, 1].repeat(2), persistent=False)
        self.modes = angle_modes
        self.box = box

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the chosen modes of every angle, shape (batch, n_angles * n_modes)."""
        centre = positions.index_select(1, self.centre)
        bonds = self.box.displacement(centre, positions.index_select(1, self.ends), box)
        ba, bc = torch.chunk(bonds, 2, dim=1)
        return self.modes((ba * bc).sum(-1), norm(torch.linalg.cross(ba, bc, dim=-1)))

    def specification(self) -> dict[str, Any]:
        """Return the JSON-able description, see `Descriptor.specification`."""
        return {
            "type": "angles",
            "n_atoms": self.n_atoms,
            "atoms": self.atoms.tolist(),
            "modes": self.modes.names(),
            "box": self.box.specification(),
        }

    def pattern(self) -> SparsityPattern:
        """Return three blocks for each mode of each angle."""
        descriptors = torch.arange(self.n_descriptors).repeat_interleave(3)
        atoms = self.atoms.cpu().repeat_interleave(self.modes.n_modes, dim=0).flatten()
        return SparsityPattern(descriptors, atoms, self.n_descriptors, self.n_atoms)
