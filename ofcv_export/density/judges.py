"""What the graphs of rescalings and functionals must equal, by formulas of their own.

Nothing here is exported, and nothing that is exported is used here, but a functional's network and
the numbers that a user gave. With the scale lambda and the bias b of a coefficient's basis
function, after a molecule's transform T::

    p = T c        E = network(lambda (p - b))  +  g p + sum t_Z + t_global
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ScaledCoefficients(nn.Module):
    """lambda (c - b), and g / (lambda + epsilon) where a gradient is given.

    Parameters
    ----------
    scale, bias : torch.Tensor
        Of every basis function, or of every coefficient of one molecule.
    epsilon : float
        Added to lambda where gradients are divided by it.
    by_function : bool
        Whether the basis function of each coefficient is an input.
    """

    lambda_z: Tensor
    coeff_biases: Tensor

    def __init__(self, scale: Tensor, bias: Tensor, epsilon: float, by_function: bool) -> None:
        super().__init__()
        self.register_buffer("lambda_z", scale.detach().clone())
        self.register_buffer("coeff_biases", bias.detach().clone())
        self.epsilon = epsilon
        self.by_function = by_function

    def forward(self, coeffs: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Return the scaled coefficients, and the scaled gradient if there is one."""
        scale, bias, given = self.lambda_z, self.coeff_biases, list(others)
        if self.by_function:
            function = given.pop(0)
            scale, bias = scale[function], bias[function]
        scaled = (coeffs - bias).mul(scale)
        return (scaled, *(gradient / (scale + self.epsilon) for gradient in given))


class FunctionalEnergies(nn.Module):
    """Energies of molecules.

    Parameters
    ----------
    network : torch.nn.Module
        The user's own.
    scale, bias : torch.Tensor
        lambda and b of every basis function.
    reference : AtomicReference or None
        Holds g, t_Z, t_global, and the first function of every element.
    function : torch.Tensor, optional
        Basis function of each coefficient, of one molecule.
    transform : torch.Tensor, optional
        T of one molecule.
    """

    lambda_z: Tensor
    coeff_biases: Tensor
    g_z: Tensor | None
    t_z: Tensor | None
    function: Tensor | None
    transform: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        scale: Tensor,
        bias: Tensor,
        reference: Any | None,
        function: Tensor | None = None,
        transform: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        slope = of_atom = None
        self.of_molecule = 0.0
        if reference is not None:
            slope = reference.g_z
            # Every atom has one coefficient of its element's first function.
            of_atom = torch.zeros_like(slope)
            of_atom[reference.first_function] = reference.t_z
            self.of_molecule = float(reference.t_global)
        for name, tensor in {
            "lambda_z": scale,
            "coeff_biases": bias,
            "g_z": slope,
            "t_z": of_atom,
            "function": function,
            "transform": transform,
        }.items():
            self.register_buffer(name, None if tensor is None else tensor.detach().clone())

    def forward(self, coeffs: Tensor, *indices: Tensor) -> Tensor:
        """Return the energies (n_molecules,) of coefficients (n,)."""
        if self.transform is not None:
            coeffs = (self.transform * coeffs).sum(1)
        if self.function is not None:
            function, molecule = self.function, torch.zeros_like(self.function)
        else:
            function, molecule = indices
        n_molecules = int(molecule.max()) + 1
        scaled = (coeffs - self.coeff_biases[function]).mul(self.lambda_z[function])
        energies: Tensor = self.network(scaled, function, molecule, n_molecules)
        if self.g_z is None or self.t_z is None:
            return energies
        terms = self.g_z[function] * coeffs + self.t_z[function]
        # Molecule by molecule, in the pairwise order in which torch adds up a tensor.
        order = torch.argsort(molecule, stable=True)
        parts = terms[order].split(torch.bincount(molecule, minlength=n_molecules).tolist())
        return energies + torch.stack([part.sum() for part in parts]) + self.of_molecule
