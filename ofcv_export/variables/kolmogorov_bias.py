"""The Kolmogorov bias of a committor, an energy with exact forces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofcv_export.base.validation import require_finite, require_floating, require_shape
from ofcv_export.variables.bias import Bias, require_one_value
from ofcv_export.variables.collective_variable import CollectiveVariable

OVER = ("positions", "descriptors")


class KolmogorovBias(Bias):
    r"""Kolmogorov bias of a committor q.

    .. math:: V = -\frac{\lambda}{\beta} [\log(|\nabla q|^2 + \epsilon) - \log \epsilon]

    It is lowest where the committor changes fastest, and so holds a simulation in the transition
    region: P. Kang, E. Trizio and M. Parrinello, Nat. Comput. Sci. 4, 451 (2024).

    The gradient is the one with respect to positions, with masses
    :math:`|\nabla q|^2 = \sum_i |\partial q / \partial x_i|^2 / m_i`, or, as in mlcolvar's
    ``KolmogorovBias``, the one with respect to the descriptors. The bias is a function of positions
    either way: values are energies (batch, 1), and minus its derivatives are the forces.

    Parameters
    ----------
    cv : CollectiveVariable
        The committor, with one value.
    beta : float
        Inverse temperature 1 / (k_B T), in one over the energy unit of the bias.
    lambd : float
        Factor of the whole bias.
    epsilon : float
        Regularises the logarithm; the unit is that of the squared gradient.
    over : {"positions", "descriptors"}
        What the gradient is with respect to.
    masses : torch.Tensor or array_like, optional
        Masses of the committor's atoms, shape (n_atoms,), over positions only; by default all 1.
    energy_unit : str
        Unit of the energy: kJ/mol, kcal/mol, eV or Hartree.

    Raises
    ------
    TypeError
        If `cv` is not a collective variable, or the masses are not floating-point numbers.
    ValueError
        If it has more than one value, a number is not positive, or the masses do not fit.

    Examples
    --------
    >>> import ofcv_export as ofcv
    >>> from ofcv_export.descriptors.distances import PairDistances
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Sigmoid())
    >>> q = ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 1]]), 2), network)
    >>> bias = ofcv.KolmogorovBias(q, beta=0.4, lambd=1.0, masses=[12.0, 1.0])
    >>> energy, derivatives = bias.values_and_derivatives(torch.randn(5, 2, 3))
    >>> energy.shape, derivatives.shape
    (torch.Size([5, 1]), torch.Size([5, 1, 2, 3]))
    """

    inverse_masses: Tensor
    height: Tensor
    regularisation: Tensor

    def __init__(
        self,
        cv: CollectiveVariable,
        beta: float,
        lambd: float = 1.0,
        epsilon: float = 1e-6,
        over: str = "positions",
        masses: object | None = None,
        energy_unit: str = "kJ/mol",
    ) -> None:
        if over not in OVER:
            raise ValueError(f"over: expected {' or '.join(OVER)}, got {over!r}")
        if masses is not None and over != "positions":
            raise ValueError("masses: expected none for a gradient over descriptors, got some")
        super().__init__(cv, energy_unit)
        require_one_value(cv)
        self.beta = _positive("beta", beta)
        self.lambd = _positive("lambd", lambd)
        self.epsilon = _positive("epsilon", epsilon)
        self.over = over
        masses = _masses(masses, cv.descriptors.n_atoms)
        self.masses = None if masses is None else masses.tolist()
        inverse_masses = torch.ones(cv.descriptors.n_atoms) if masses is None else 1 / masses
        self.register_buffer("inverse_masses", inverse_masses.to(cv.dtype))
        # Tensors, because ONNX rounds plain numbers to float32.
        self.register_buffer("height", torch.tensor(self.lambd / self.beta, dtype=cv.dtype))
        self.register_buffer("regularisation", torch.tensor(self.epsilon, dtype=cv.dtype))

    @property
    def reads_positions(self) -> bool:
        """Whether the gradient is over positions."""
        return self.over == "positions"

    def forward(self, positions: Tensor, box: Tensor | None = None, *parameters: Tensor) -> Tensor:
        """Return the bias (batch, 1) of positions (batch, n_atoms, 3)."""
        if self.over == "descriptors":
            gradient = _gradient(self.network, self.descriptors(positions, box))
            squared = gradient.square().sum(1, keepdim=True)
        else:
            committor = super().forward
            gradient = _gradient(lambda leaf: committor(leaf, box), positions)
            squared = (gradient.square().sum(2) * self.inverse_masses).sum(1, keepdim=True)
        # log((g + eps) / eps) keeps the digits where g is much smaller than eps.
        return -self.height * torch.log1p(squared / self.regularisation)

    def specification(self) -> dict[str, Any]:
        """Return the JSON-able description of the energy, written to the metadata."""
        return {
            "type": "kolmogorov",
            "beta": self.beta,
            "lambda": self.lambd,
            "epsilon": self.epsilon,
            "over": self.over,
            "masses": self.masses,
        }


def _gradient(function: Callable[[Tensor], Tensor], leaf: Tensor) -> Tensor:
    """Return the gradient of one value per frame, itself differentiable and traceable."""
    values, pullback = torch.func.vjp(function, leaf)  # type: ignore[misc]
    (gradient,) = pullback(torch.ones_like(values))
    return gradient


def _masses(masses: object | None, n_atoms: int) -> Tensor | None:
    """Return the masses in float64, checked."""
    if masses is None:
        return None
    # By way of numpy, so that a list of numbers keeps its digits.
    values = masses if isinstance(masses, Tensor) else torch.as_tensor(np.asarray(masses))
    require_floating("masses", values)
    values = values.detach().cpu().double()
    require_shape("masses", values, (n_atoms,))
    require_finite("masses", values)
    if bool((values <= 0).any()):
        raise ValueError(f"masses: expected positive numbers, got {values.tolist()}")
    return values


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)
