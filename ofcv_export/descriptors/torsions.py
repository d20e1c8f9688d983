"""Torsional angles of four atoms, their sines and their cosines."""

import math

import torch
from torch import Tensor
from torch.linalg import cross

from ofcv_export.descriptors.angle_modes import AngleTuples
from ofcv_export.descriptors.vectors import norm, reciprocal


class Torsions(AngleTuples):
    """Torsional angles A-B-C-D in radians, IUPAC sign, and their sines and cosines.

    With A, B, C or B, C, D exactly on a line, where no torsion is defined, the angle is 0 and so
    are its derivatives.

    Parameters
    ----------
    atoms : torch.Tensor
        Zero-based atom indices A, B, C, D, int64, shape (n_torsions, 4).
    n_atoms : int
        Number of atoms in a frame.
    modes : tuple of str
        Which of ``angle``, ``sin`` and ``cos`` to return, in this order for each torsion.
    box : Boundaries, optional
        Boundary conditions; open by default.
    """

    type_name = "torsions"
    bonds = ((0, 1), (1, 2), (2, 3))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the chosen modes of every torsion, shape (batch, n_torsions * n_modes)."""
        ab, bc, cd = torch.chunk(self.vectors(positions, box), 3, dim=1)
        x, y = _point(bc, cross(ab, bc, dim=-1), cross(bc, cd, dim=-1))
        return self.modes(x, y)

    def periods(self) -> list[float | None]:
        """Return 2 pi for angles; sines and cosines have no period of their own."""
        if type(self) is not Torsions:
            return super().periods()
        of_mode = [2 * math.pi if mode == "angle" else None for mode in self.modes.specification()]
        return of_mode * (self.n_descriptors // len(of_mode))

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the modes and their derivatives.

        Derivatives of the angle: A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996),
        which have no singularity at 0 and pi; only three atoms on a line have none.
        """
        ab, bc, cd = torch.chunk(self.vectors(positions, box), 3, dim=1)
        m, n = cross(ab, bc, dim=-1), cross(bc, cd, dim=-1)
        x, y = _point(bc, m, n)
        length = norm(bc).unsqueeze(2)
        defined = (x != 0) | (y != 0)
        m = m * (reciprocal(m.square().sum(-1)) * defined).unsqueeze(2)
        n = n * (reciprocal(n.square().sum(-1)) * defined).unsqueeze(2)
        towards_a = -length * m
        towards_d = length * n
        per_length = reciprocal(length)
        shear = (ab * bc).sum(-1, keepdim=True) * per_length * m
        shear = shear + (bc * cd).sum(-1, keepdim=True) * per_length * n
        per_atom = torch.stack([towards_a, shear - towards_a, -shear - towards_d, towards_d], dim=2)
        per_atom = self.box.to_positions(per_atom, box)
        blocks = self.modes.slopes(x, y)[:, :, :, None, None] * per_atom.unsqueeze(2)
        return self.modes(x, y), blocks.flatten(1, 3)


def _point(bc: Tensor, m: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Return a point (x, y) at the torsional angle, (0, 0) where a normal m or n is 0."""
    x = norm(bc) * (m * n).sum(-1)
    y = (bc * cross(m, n, dim=-1)).sum(-1)
    return x, y
