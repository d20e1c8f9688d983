"""Local frames: rotations of real harmonics, axes at atoms, invariance in PySCF's basis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyscf import gto
from torch import Tensor

from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.local_frames import (
    local_frame_transform,
    local_frames,
    real_harmonics,
    rotation_of_harmonics,
)

METHANOL = [6, 8, 1, 1, 1, 1]
POSITIONS = np.array(
    [
        [-0.09, 1.26, 0.0],
        [-0.09, -1.43, 0.0],
        [-2.03, 1.93, 0.0],
        [0.85, 2.00, 1.68],
        [0.85, 2.00, -1.68],
        [1.62, -1.99, 0.0],
    ]
)


def rotation(seed: int) -> Tensor:
    draw = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turn = torch.linalg.qr(draw).Q
    return turn * torch.linalg.det(turn)


def close(found: Tensor, expected: Tensor, atol: float = 1e-13) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("ell", range(7))
def test_rotations_of_harmonics(ell):
    """Orthogonal, a representation, and right for points that took no part in the fit."""
    first, second = rotation(1), rotation(2)
    turn = rotation_of_harmonics(ell, first)
    close(turn @ turn.T, torch.eye(2 * ell + 1, dtype=torch.float64))
    close(rotation_of_harmonics(ell, second @ first), rotation_of_harmonics(ell, second) @ turn)
    points = torch.nn.functional.normalize(torch.from_numpy(POSITIONS), dim=1)
    close(real_harmonics(ell, points @ first.T), real_harmonics(ell, points) @ turn.T)


def test_harmonics_are_those_of_the_textbook():
    """Condon-Shortley's sign is left out, as in PySCF: x, xy and xz are positive."""
    x, y, z = torch.nn.functional.normalize(torch.from_numpy(POSITIONS), dim=1).T
    close(real_harmonics(1, torch.stack([x, y, z], dim=1)), torch.stack([y, z, x], dim=1))
    root = np.sqrt(3)
    d = [root * x * y, root * y * z, (3 * z**2 - 1) / 2, root * x * z, root * (x**2 - y**2) / 2]
    close(real_harmonics(2, torch.stack([x, y, z], dim=1)), torch.stack(d, dim=1))


def test_axes():
    """z points to the nearest heavy atom, x lies on the side of the second."""
    positions = np.array([[0.0, 0, 0], [0, 0, 3.0], [4.0, 0, 1.0], [0.5, 0.5, 0.0]])
    frames = local_frames(positions, [6, 7, 8, 1])
    close(frames[0], torch.eye(3, dtype=torch.float64))
    toward_nitrogen = torch.tensor([-0.5, -0.5, 3.0], dtype=torch.float64)
    hydrogen_z = -frames.new_tensor([0.5, 0.5, 0]) / np.sqrt(0.5)
    close(frames[3, 2], hydrogen_z)
    assert frames[3, 0] @ toward_nitrogen > 0


def test_hydrogens_stand_in_for_heavy_atoms():
    """The oxygen of water has no heavy neighbour."""
    water = np.array([[0.0, 0, 0], [0, 0, 1.8], [1.9, 0, -0.5]])
    frames = local_frames(water, [8, 1, 1])
    close(frames[0], torch.eye(3, dtype=torch.float64))
    close(frames[1, 2], torch.tensor([0.0, 0, -1], dtype=torch.float64))


def test_axes_turn_with_the_molecule():
    turn = rotation(3)
    turned = local_frames(POSITIONS @ turn.numpy().T + 1.0, METHANOL)
    close(turned, local_frames(POSITIONS, METHANOL) @ turn.T)


def test_axes_are_right_handed():
    frames = local_frames(POSITIONS, METHANOL)
    close(frames @ frames.mT, torch.eye(3, dtype=torch.float64).expand(6, 3, 3))
    close(torch.linalg.det(frames), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("axis", [[0.0, 0, 1], [1.0, 2, 3], [0.6, -0.8, 0]])
def test_linear_molecules_have_some_axes(axis):
    places = np.outer([0.0, 1.2, -1.1], axis)
    frames = local_frames(places, [6, 7, 1])
    close(frames @ frames.mT, torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    close(frames[0, 2], torch.tensor(axis, dtype=torch.float64) / np.linalg.norm(axis))


def test_a_single_atom_keeps_the_axes_of_space():
    close(local_frames([[1.0, 2.0, 3.0]], [8]), torch.eye(3, dtype=torch.float64)[None])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([[0.0, 0, 0]], r"positions: expected shape \(2, 3\), got \(1, 3\)"),
        ([[0.0, 0, 0], [np.nan, 0, 0]], "positions: expected finite values, got nan"),
        ([[1.0, 0, 0], [1.0, 0, 0]], "positions: expected distinct atoms, got 0 and 1 together"),
    ],
)
def test_bad_positions_are_refused(positions, message):
    with pytest.raises(ValueError, match=message):
        local_frames(positions, [8, 1])


def molecule(turn: Tensor) -> gto.Mole:
    places = POSITIONS @ turn.numpy().T
    atoms = list(zip("COHHHH", places.tolist(), strict=True))
    return gto.M(atom=atoms, unit="Bohr", basis="cc-pvtz")


def local_overlap(turn: Tensor) -> tuple[Tensor, Tensor]:
    mol = molecule(turn)
    transform = local_frame_transform(mol.atom_coords(), METHANOL, BasisInfo.from_mol(mol))
    overlap = torch.from_numpy(mol.intor("int1e_ovlp"))
    return transform @ overlap @ transform.T, transform


def test_integrals_in_local_frames_do_not_depend_on_the_orientation():
    """With PySCF's own functions up to l = 3, in its order and with its signs."""
    found, transform = local_overlap(rotation(4))
    expected, _ = local_overlap(torch.eye(3, dtype=torch.float64))
    close(found, expected, atol=1e-10)
    close(transform @ transform.T, torch.eye(len(transform), dtype=torch.float64), atol=1e-12)


def test_elements_absent_from_the_basis_are_refused():
    with pytest.raises(ValueError, match=r"atomic_numbers: expected .* got C \(6\) at position 0"):
        local_frame_transform(POSITIONS, METHANOL, BasisInfo([1, 8], ["1x0e", "1x0e"]))
