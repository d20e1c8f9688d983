"""Natural reparametrisation of density coefficients: an orthonormal basis for a given molecule.

Section 4.3 and appendix B.3.2 of M-OFDFT, https://arxiv.org/abs/2309.16578. With the overlap W of
the density basis and M M^T = W, the coefficients M^T p measure densities as a Euclidean vector:
the integral of a difference of densities squared is the squared norm of the difference. M is
W^(1/2), the symmetric orthogonalisation of Löwdin (J. Chem. Phys. 18, 365 (1950)), as in the code
of the paper and in mldft: of all orthogonalisations it stays closest to the basis, and it commutes
with rotations within it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Below this part of the largest eigenvalue an eigenvalue is rounding error.
_SMALLEST_EIGENVALUE = np.finfo(np.float64).eps
# W is computed element by element, (i, j) apart from (j, i).
_SYMMETRY = 1e-9


def natural_transform(overlap: Tensor | NDArray[Any]) -> Tensor:
    """Return M = W^(1/2), which takes coefficients p to M p.

    Parameters
    ----------
    overlap : torch.Tensor or array_like, shape (n, n)
        Overlap matrix W of the molecule's density basis.

    Returns
    -------
    torch.Tensor
        Shape (n, n), float64, symmetric. A gradient goes back with its transpose.

    Raises
    ------
    ValueError
        For a matrix that is not square, finite, symmetric and positive definite.

    Examples
    --------
    >>> natural_transform([[4.0, 0.0], [0.0, 9.0]]).round(decimals=12)
    tensor([[2., 0.],
            [0., 3.]], dtype=torch.float64)
    """
    matrix = np.asarray(overlap, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"overlap: expected shape (n, n), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("overlap: expected finite values, got NaN or infinite ones")
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > _SYMMETRY * np.abs(matrix).max():
        raise ValueError(f"overlap: expected a symmetric matrix, got W - W^T up to {asymmetry:.1e}")
    eigenvalues, eigenvectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if eigenvalues[0] <= _SMALLEST_EIGENVALUE * eigenvalues[-1]:
        raise ValueError(
            f"overlap: expected a positive definite matrix, got eigenvalues from "
            f"{eigenvalues[0]:.1e} to {eigenvalues[-1]:.1e}"
        )
    return torch.from_numpy((eigenvectors * np.sqrt(eigenvalues)) @ eigenvectors.T)
