"""A small learned energy: every coefficient contributes on its own, by its basis function.

An example of the network that `ofcv_export.EnergyFunctional` takes, and no more: M-OFDFT's network
lets the coefficients of all atoms act on one another. With x the scaled coefficients and z an
embedding of a coefficient's basis function,

    E = sum over coefficients of  k(z) x^2 / 2  +  MLP(x / 10, z)

The stiffness k is positive and the perceptron's slope bounded, so that the energy has a minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

# Scaled coefficients are of the order of ten: M-OFDFT lets them grow to 50 standard deviations.
_SIZE_OF_COEFFS = 10.0
# Scaled gradients are at most 0.05, of scaled coefficients up to 50.
_INITIAL_LOG_STIFFNESS = -7.0


class CoefficientNetwork(nn.Module):
    """An energy per coefficient, summed over each molecule.

    Parameters
    ----------
    n_basis : int
        Number of basis functions of all elements together.
    n_embedding : int
        Length of the embedding.
    hidden : sequence of int
        Widths of the perceptron's hidden layers.
    """

    def __init__(self, n_basis: int, n_embedding: int = 8, hidden: Sequence[int] = (32, 32)):
        super().__init__()
        self.embedding = nn.Embedding(n_basis, n_embedding)
        self.log_stiffness = nn.Embedding(n_basis, 1)
        nn.init.constant_(self.log_stiffness.weight, _INITIAL_LOG_STIFFNESS)
        widths = [1 + n_embedding, *hidden]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.Tanh()]
        self.perceptron = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(
        self, scaled_coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor, n_molecules: int
    ) -> Tensor:
        """Return the energy of every molecule, see `EnergyNetwork`."""
        stiffness = self.log_stiffness(basis_function_ind).squeeze(1).exp()
        features = [scaled_coeffs[:, None] / _SIZE_OF_COEFFS, self.embedding(basis_function_ind)]
        learned = self.perceptron(torch.cat(features, dim=1)).squeeze(1)
        energy = 0.5 * stiffness * scaled_coeffs**2 + learned
        # In float64: the rounding error of a sum in float32 grows with the number of terms.
        energies = scaled_coeffs.new_zeros(n_molecules).double()
        return energies.index_add(0, batch, energy.double())
