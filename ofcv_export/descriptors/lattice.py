"""Lattice reduction and the nearest image, as graphs without data-dependent control flow.

In a Minkowski-reduced basis the nearest image of a vector is among the 27 neighbours of the one
that rounding its fractional coordinates gives; in any other basis it may be farther away. A basis
of three dimensions is Minkowski-reduced when no b_k + s_i b_i + s_j b_j with s in {-1, 0, 1} is
shorter than b_k, and then the sum of its squared lengths is the smallest of all bases (P. Q. Nguyen
and D. Stehle, ACM Trans. Algorithms 5, 46 (2009)).
"""

import torch
from torch import Tensor, nn

from ofcv_export.base.lattice import N_STEPS, changes_of_basis, half_of_the_neighbours


class LatticeReduction(nn.Module):
    """Minkowski reduction of a basis by a fixed number of steps.

    Each step takes, from a table of changes of basis, the one with the smallest sum of squared
    lengths, see `ofcv_export.base.lattice.changes_of_basis`.

    Parameters
    ----------
    n_steps : int
        Number of steps.
    """

    changes: Tensor
    weights: Tensor

    def __init__(self, n_steps: int = N_STEPS) -> None:
        super().__init__()
        self.n_steps = n_steps
        changes = torch.tensor(changes_of_basis(), dtype=torch.float32)
        # Sum of squared lengths of T B = trace(T G T^T) = sum of (T^T T) * G, with G = B B^T.
        weights = torch.einsum("tki,tkj->tij", changes, changes).flatten(1)
        self.register_buffer("changes", changes.flatten(1), persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, basis: Tensor) -> Tensor:
        """Return a reduced basis of the same lattice.

        Parameters
        ----------
        basis : torch.Tensor
            Lattice vectors as rows, shape (3, 3), or a copy for each frame, (batch, 3, 3).

        Returns
        -------
        torch.Tensor
            Same shape: integer combinations of the rows of `basis`. The integers are constants
            of differentiation.
        """
        changes, weights = self.changes.to(basis), self.weights.to(basis)
        fixed = one_box(basis).detach()
        reduced = fixed
        combination = torch.eye(3, dtype=basis.dtype, device=basis.device)
        for _ in range(self.n_steps):
            gram = torch.mm(reduced, reduced.t())
            best = torch.argmin(torch.mv(weights, gram.flatten()), dim=0, keepdim=True)
            combination = torch.mm(changes.index_select(0, best).reshape(3, 3), combination)
            reduced = torch.mm(combination, fixed)
        return torch.matmul(combination, basis)


class NearestImage(nn.Module):
    """Shortest of all periodic images of vectors, exact in every reduced lattice."""

    neighbours: Tensor

    def __init__(self) -> None:
        super().__init__()
        # The zero vector first; of each pair s, -s of neighbours only one.
        half = torch.tensor(half_of_the_neighbours(), dtype=torch.float32)
        neighbours = torch.cat([torch.zeros(1, 3), half])
        self.register_buffer("neighbours", neighbours, persistent=False)

    def forward(self, vectors: Tensor, lattice: Tensor) -> Tensor:
        """Return the nearest images.

        Parameters
        ----------
        vectors : torch.Tensor
            Shape (..., 3).
        lattice : torch.Tensor
            Minkowski-reduced lattice vectors as rows, shape (3, 3), or a copy for each frame,
            (batch, 3, 3).

        Returns
        -------
        torch.Tensor
            vectors - n @ lattice, shape (..., 3). The integers n are constants of differentiation.
        """
        fixed, basis = vectors.detach(), one_box(lattice).detach()
        neighbours = self.neighbours.to(basis)
        images = torch.round(torch.matmul(fixed, inverse(basis)))
        remainder = fixed - torch.matmul(images, basis)

        # |r -/+ s|^2 - |r|^2 = |s|^2 -/+ 2 r.s: the better sign of each pair is that of r.s.
        shifts = torch.mm(neighbours, basis)
        along = torch.matmul(remainder, shifts.t())
        best = torch.argmin((shifts * shifts).sum(1) - 2 * along.abs(), dim=-1, keepdim=True)
        sign = torch.sign(along.gather(-1, best))
        steps = neighbours.index_select(0, best.flatten()).reshape(vectors.shape)
        return vectors - in_basis(images + sign * steps, lattice)


def one_box(box: Tensor) -> Tensor:
    """Return a box (3, 3) from itself or from copies for each frame (batch, 3, 3)."""
    return box if box.dim() == 2 else box[0]


def in_basis(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Return coefficients (batch, ..., 3) times a basis (3, 3) or (batch, 3, 3)."""
    if basis.dim() == 2:
        return torch.matmul(coefficients, basis)
    return torch.matmul(coefficients.flatten(1, -2), basis).reshape(coefficients.shape)


def inverse(basis: Tensor) -> Tensor:
    """Return the inverse of a 3 x 3 matrix from cross products of its rows."""
    normals = torch.linalg.cross(basis.roll(-1, 0), basis.roll(-2, 0), dim=1)
    volume = (basis[0] * normals[0]).sum()
    return (normals / volume).t()


def reduced_lattice(vectors: Tensor) -> Tensor:
    """Return the Minkowski-reduced basis of a lattice, with as many steps as it takes.

    Parameters
    ----------
    vectors : torch.Tensor
        Lattice vectors as rows, shape (3, 3), linearly independent.
    """
    reduction = LatticeReduction()
    basis, shorter = vectors, reduction(vectors)
    while bool(shorter.square().sum() < basis.square().sum() * (1 - 1e-12)):
        basis, shorter = shorter, reduction(shorter)
    return basis


def is_along_axes(box: Tensor) -> bool:
    """Return whether lattice vectors (3, 3) lie along x, y and z but for rounding errors."""
    diagonal = torch.diagonal(box)
    off_axes = (box - torch.diag(diagonal)).abs().max()
    # They move no image by more than float32 resolves.
    return bool(off_axes <= 1e-7 * diagonal.abs().max())
