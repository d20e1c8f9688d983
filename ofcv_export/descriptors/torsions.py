"""The torsional angle of four atoms, its sine and its cosine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import cross

from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.geometry import OrthorhombicBox
from ofcv_export.sparsity_pattern import SparsityPattern

MODES = ("angle", "sin", "cos")


class Torsion(Descriptor):
    """Torsional angle in radians, IUPAC sign, and its sine and cosine.

    Parameters
    ----------
    atoms : torch.Tensor
        The four zero-based atom indices A-B-C-D, int64, shape (4,).
    n_atoms : int
        Number of atoms in a frame.
    modes : tuple of str
        Which of ``angle``, ``sin`` and ``cos`` to return; they come in this order.
    box : OrthorhombicBox
        Boundary conditions.
    """

    atoms: Tensor

    def __init__(
        self, atoms: Tensor, n_atoms: int, modes: tuple[str, ...], box: OrthorhombicBox
    ) -> None:
        super().__init__()
        self.register_buffer("atoms", atoms, persistent=False)
        self.n_atoms = n_atoms
        self.modes = [MODES.index(mode) for mode in MODES if mode in modes]
        self.n_descriptors = len(self.modes)
        self.box = box

    def _bonds(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chain = positions.index_select(1, self.atoms)
        ab, bc, cd = self.box.displacement(chain[:, :-1], chain[:, 1:]).unbind(1)
        return ab, bc, cd

    def _values(self, angle: Tensor) -> Tensor:
        values = torch.stack([angle, torch.sin(angle), torch.cos(angle)], dim=1)
        return values[:, self.modes]

    def forward(self, positions: Tensor) -> Tensor:
        """Return the chosen modes, shape (batch, n_modes)."""
        return self._values(_angle(*self._bonds(positions)))

    def pattern(self) -> SparsityPattern:
        """Return four blocks per mode."""
        descriptors = torch.arange(self.n_descriptors).repeat_interleave(4)
        atoms = self.atoms.cpu().repeat(self.n_descriptors)
        return SparsityPattern(descriptors, atoms, self.n_descriptors, self.n_atoms)

    def jacobian(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the modes and their derivatives.

        Derivatives of the angle: A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996),
        which have no singularity at 0 and pi; only three atoms on a line have none.
        """
        ab, bc, cd = self._bonds(positions)
        angle = _angle(ab, bc, cd)
        m, n = cross(ab, bc), cross(bc, cd)
        length = torch.linalg.vector_norm(bc, dim=1, keepdim=True)
        m = m / m.square().sum(1, keepdim=True)
        n = n / n.square().sum(1, keepdim=True)
        towards_a = -length * m
        towards_d = length * n
        shear = (ab * bc).sum(1, keepdim=True) / length * m
        shear = shear + (bc * cd).sum(1, keepdim=True) / length * n
        per_atom = torch.stack([towards_a, shear - towards_a, -shear - towards_d, towards_d], dim=1)
        outer = torch.stack([torch.ones_like(angle), torch.cos(angle), -torch.sin(angle)], dim=1)
        blocks = outer[:, self.modes, None, None] * self.box.to_positions(per_atom).unsqueeze(1)
        return self._values(angle), blocks.flatten(1, 2)


def _angle(ab: Tensor, bc: Tensor, cd: Tensor) -> Tensor:
    """Return the torsional angle in radians, shape (batch,)."""
    m, n = cross(ab, bc), cross(bc, cd)
    length = torch.linalg.vector_norm(bc, dim=1)
    return torch.atan2(length * (ab * n).sum(1), (m * n).sum(1))
