"""Local frames: density coefficients as an observer at each atom sees them.

Section 4.3 and appendix B.3.3 of M-OFDFT, https://arxiv.org/abs/2309.16578. Each atom gets axes
that turn with the molecule, and the coefficients of its shells, l > 0, are turned into them. A
function of the turned coefficients does not depend on how the molecule lies in space.

The axes are those of mldft: z points to the nearest heavy atom, x lies in the plane of the nearest
two, on the side of the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofcv_export.base.arrays import as_array, as_tensor
from ofcv_export.base.validation import require_finite, require_shape
from ofcv_export.density.basis import basis_function_ind
from ofcv_export.density.rescaling import Basis

# Directions whose sine of the angle between them is less are taken for parallel.
_COLLINEAR = 1e-3
_HYDROGEN = 1
# Rows of a unit matrix that put p functions in the order x, y, z into the order m = -1, 0, 1.
_P_ORDER = (1, 2, 0)


def local_frames(positions: Tensor | NDArray[Any], atomic_numbers: Sequence[int]) -> Tensor:
    """Return the axes of every atom's frame as the rows of a rotation matrix.

    Where an atom has fewer than two heavy neighbours in different directions, hydrogens follow
    them, nearest first. In a linear molecule the x axis is any: the coordinate axis furthest from
    the molecule's, made orthogonal to it. A single atom keeps the axes of space. (mldft puts dummy
    atoms at random places instead.) Of neighbours at equal distances the first one counts.

    Parameters
    ----------
    positions : torch.Tensor or array_like, shape (n_atoms, 3)
        Positions, in any unit.
    atomic_numbers : sequence of int, length n_atoms
        Elements.

    Returns
    -------
    torch.Tensor
        Shape (n_atoms, 3, 3), float64, right-handed: rows x, y and z.

    Raises
    ------
    TypeError
        If an argument holds no numbers.
    ValueError
        For a wrong shape, positions that are not finite, and atoms at the same place.

    Examples
    --------
    >>> water = [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]]
    >>> local_frames(water, [8, 1, 1])[0]
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]], dtype=torch.float64)
    """
    given = positions if isinstance(positions, Tensor) else as_array("positions", positions)
    places = as_tensor("positions", given).to(torch.float64)
    numbers = as_tensor("atomic_numbers", atomic_numbers)
    require_shape("atomic_numbers", numbers, ("n_atoms",))
    require_shape("positions", places, (len(numbers), 3))
    require_finite("positions", places)
    is_hydrogen = numbers == _HYDROGEN
    return torch.stack([_frame(places, is_hydrogen, atom) for atom in range(len(places))])


def local_frame_transform(
    positions: Tensor | NDArray[Any], atomic_numbers: Sequence[int], basis_info: Basis
) -> Tensor:
    """Return the matrix that takes a molecule's coefficients into the local frames.

    Parameters
    ----------
    positions : torch.Tensor or array_like, shape (n_atoms, 3)
        Positions, in any unit.
    atomic_numbers : sequence of int, length n_atoms
        Elements, in the order of the coefficients.
    basis_info : BasisInfo
        Ours or mldft's.

    Returns
    -------
    torch.Tensor
        Shape (n, n), float64, orthogonal: one block for each shell of each atom. Coefficients go in
        as PySCF orders them, p functions as x, y, z, and come out as m = -l, ..., l, as in mldft.

    Raises
    ------
    ValueError
        If an element is absent from the basis, or see `local_frames`.
    """
    index = basis_function_ind(basis_info, atomic_numbers)
    frames = local_frames(positions, atomic_numbers)
    momenta = np.asarray(basis_info.l_per_basis_func)
    of_element = [len(functions) for functions in basis_info.atom_ind_to_basis_function_ind]
    rows = np.asarray(basis_info.atomic_number_to_atom_index)[np.asarray(atomic_numbers)]
    blocks: list[Tensor] = []
    start = 0
    for frame, row in zip(frames, rows, strict=True):
        end = start + of_element[row]
        turn = {int(ell): _from_pyscf(int(ell), frame) for ell in np.unique(momenta[index])}
        while start < end:
            ell = int(momenta[index[start]])
            blocks.append(turn[ell])
            start += 2 * ell + 1
    return torch.block_diag(*blocks)


def rotation_of_harmonics(ell: int, rotation: Tensor) -> Tensor:
    """Return D with Y(R r) = D Y(r) for the real spherical harmonics of angular momentum l.

    The components are ordered m = -l, ..., l. D follows from the harmonics at more points than
    it has rows, before and after the rotation.

    Parameters
    ----------
    ell : int
        Angular momentum l.
    rotation : torch.Tensor
        R, shape (3, 3), float64.

    Returns
    -------
    torch.Tensor
        Shape (2 l + 1, 2 l + 1), float64, orthogonal.
    """
    points = _sphere(8 * (2 * ell + 1))
    before, after = real_harmonics(ell, points), real_harmonics(ell, points @ rotation.T)
    return torch.linalg.lstsq(before, after).solution.T


def real_harmonics(ell: int, points: Tensor) -> Tensor:
    """Return real spherical harmonics, up to one factor for all, without Condon-Shortley sign.

    Parameters
    ----------
    ell : int
        Angular momentum l.
    points : torch.Tensor
        Points on the unit sphere, shape (n_points, 3), float64.

    Returns
    -------
    torch.Tensor
        Shape (n_points, 2 l + 1), in the order m = -l, ..., l: sin(|m| phi), then cos(m phi).
    """
    x, y, z = points.unbind(dim=1)
    columns = {}
    for m in range(ell + 1):
        # (x + i y)^m = sin(theta)^m exp(i m phi); the rest of the Legendre function is in z alone.
        azimuth = torch.complex(x, y) ** m
        norm = math.sqrt((2 - (m == 0)) * math.factorial(ell - m) / math.factorial(ell + m))
        legendre = norm * _legendre(ell, m, z)
        columns[-m] = legendre * azimuth.imag
        columns[m] = legendre * azimuth.real
    return torch.stack([columns[m] for m in range(-ell, ell + 1)], dim=1)


def _legendre(ell: int, m: int, z: Tensor) -> Tensor:
    """Return P_l^m(z) / (1 - z^2)^(m/2), by recurrence in l from P_m^m = (2m - 1)!!."""
    previous = torch.zeros_like(z)
    current = torch.full_like(z, math.prod(range(1, 2 * m, 2)))
    for degree in range(m + 1, ell + 1):
        following = (2 * degree - 1) * z * current - (degree + m - 1) * previous
        previous, current = current, following / (degree - m)
    return current


def _sphere(n_points: int) -> Tensor:
    """Return points spread evenly over the unit sphere, along a spiral."""
    k = torch.arange(n_points, dtype=torch.float64)
    z = 1 - (2 * k + 1) / n_points
    phi = k * math.pi * (3 - math.sqrt(5))
    radius = torch.sqrt(1 - z**2)
    return torch.stack([radius * torch.cos(phi), radius * torch.sin(phi), z], dim=1)


def _from_pyscf(ell: int, frame: Tensor) -> Tensor:
    """Return the rotation of a shell into a frame, from PySCF's order of functions."""
    turn = rotation_of_harmonics(ell, frame)
    return turn @ torch.eye(3, dtype=turn.dtype)[list(_P_ORDER)] if ell == 1 else turn


def _frame(positions: Tensor, is_hydrogen: Tensor, atom: int) -> Tensor:
    """Return one atom's axes."""
    vectors = positions - positions[atom]
    distances = torch.linalg.vector_norm(vectors, dim=1)
    others = [other for other in range(len(positions)) if other != atom]
    if not others:
        return torch.eye(3, dtype=positions.dtype)
    nearest = min(others, key=lambda other: float(distances[other]))
    if float(distances[nearest]) == 0:
        raise ValueError(f"positions: expected distinct atoms, got {atom} and {nearest} together")
    # Heavy atoms first; sorted() keeps the order of equals.
    others.sort(key=lambda other: (bool(is_hydrogen[other]), float(distances[other])))
    first, *rest = (vectors[other] / distances[other] for other in others)
    second = next((v for v in rest if _sine(first, v) > _COLLINEAR), _furthest_axis(first))
    y = torch.linalg.cross(first, second)
    y = y / torch.linalg.vector_norm(y)
    return torch.stack([torch.linalg.cross(y, first), y, first])


def _sine(first: Tensor, second: Tensor) -> float:
    return float(torch.linalg.vector_norm(torch.linalg.cross(first, second)))


def _furthest_axis(direction: Tensor) -> Tensor:
    """Return the coordinate axis that makes the largest angle with a direction."""
    return torch.eye(3, dtype=direction.dtype)[int(direction.abs().argmin())]
