"""Values and derivatives of a function, of positions or of coefficients.

Twice: by autograd, and as functions whose reverse pass is traced together with the forward pass, so
that nothing differentiates at run time (autograd under ``make_fx`` leaves plain aten operations;
``torch.func`` would too, but turns free sizes into numbers where a layer is applied to a tensor of
more than two dimensions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Outputs = tuple[Tensor, ...]


class ValuesAndDerivatives(nn.Module):
    """Values and derivatives by autograd: what the written-out graph must equal.

    Parameters
    ----------
    function : torch.nn.Module
        Maps positions (batch, n_atoms, 3), a box for each (batch, 3, 3) or None, and parameters to
        values (batch, n_outputs), every frame on its own.
    n_outputs : int
        Number of values.
    periodic : bool
        Whether a box is an input.
    """

    def __init__(self, function: nn.Module, n_outputs: int, periodic: bool) -> None:
        super().__init__()
        self.function = function
        self.n_outputs = n_outputs
        self.periodic = periodic

    def forward(self, positions: Tensor, *others: Tensor) -> Outputs:
        """Return values and derivatives, and derivatives with respect to the box.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (batch, n_atoms, 3).
        *others : torch.Tensor
            Lattice vectors as rows, shape (3, 3), when periodic; then the parameters.

        Returns
        -------
        tuple of torch.Tensor
            (batch, n_outputs), (batch, n_outputs, n_atoms, 3) and, when periodic,
            (batch, n_outputs, 3, 3).
        """
        box, parameters = _split(others, self.periodic)
        n_frames = len(positions)
        leaves = [positions.detach().clone()]
        # Every frame gets a box of its own, so that the derivatives come out frame by frame; there
        # is one for descriptors to look at where there are no frames.
        leaves += [entry.detach().expand(max(n_frames, 1), 3, 3).clone() for entry in box]
        for leaf in leaves:
            leaf.requires_grad_()
        with torch.enable_grad():
            # Likewise.
            values = _apply(self.function, leaves, [entry.clone() for entry in parameters])
            gradients = [
                torch.autograd.grad(
                    values[:, k].sum(), leaves, retain_graph=True, materialize_grads=True
                )
                for k in range(self.n_outputs)
            ]
        stacked = [torch.stack(entries, dim=1) for entries in zip(*gradients, strict=True)]
        return (values.detach(), *(entry[:n_frames] for entry in stacked))


class EnergyAndGradient(nn.Module):
    """Energies and their gradient by autograd: what the written-out graph must equal.

    Parameters
    ----------
    function : torch.nn.Module
        Maps coefficients (n,), and indices (n,) if it takes any, to energies (n_molecules,).
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, coeffs: Tensor, *indices: Tensor) -> Outputs:
        """Return energies (n_molecules,) and the gradient (n,) of their sum.

        A coefficient belongs to one molecule, so that its entry is the derivative of that
        molecule's energy.
        """
        leaf = coeffs.detach().clone().requires_grad_()
        with torch.enable_grad():
            # Copies are ordinary tensors, also of what was made in inference mode.
            energy = self.function(leaf, *(index.clone() for index in indices))
            (gradient,) = torch.autograd.grad(energy.sum(), leaf, materialize_grads=True)
        return energy.detach(), gradient


def values_and_derivatives(
    function: Callable[..., Tensor], n_outputs: int, dtype: torch.dtype, periodic: bool
) -> Callable[..., Outputs]:
    """Return a function that gives values and derivatives, to be traced into one graph.

    Reverse mode, one pass per output: a CV has few outputs and many inputs.

    Parameters
    ----------
    function : callable
        Maps positions (batch, n_atoms, 3), a box or None, and parameters to values
        (batch, n_outputs).
    n_outputs : int
        Number of values.
    dtype : torch.dtype
        Of the values.
    periodic : bool
        Whether a box is among the inputs.
    """
    seeds = torch.eye(n_outputs, dtype=dtype)

    def by_reverse_mode(positions: Tensor, *others: Tensor) -> Outputs:
        box, parameters = _split(others, periodic)
        boxes = [entry.expand(positions.shape[0], 3, 3) for entry in box]
        leaves = [leaf.detach().requires_grad_() for leaf in (positions, *boxes)]
        with torch.enable_grad():
            values = _apply(function, leaves, parameters)
            gradients = [
                torch.autograd.grad(
                    values,
                    leaves,
                    seeds[k].expand_as(values),
                    retain_graph=True,
                    materialize_grads=True,
                )
                for k in range(n_outputs)
            ]
        stacked = [torch.stack(entries, dim=1) for entries in zip(*gradients, strict=True)]
        return (values.detach(), *stacked)

    return by_reverse_mode


def energy_and_gradient(function: Callable[..., Tensor]) -> Callable[..., Outputs]:
    """Return a function that gives energies and their gradient, to be traced into one graph.

    Parameters
    ----------
    function : callable
        Maps coefficients (n,), and indices (n,) if it takes any, to energies (n_molecules,).
    """

    def with_gradient(coeffs: Tensor, *indices: Tensor) -> Outputs:
        leaf = coeffs.detach().requires_grad_()
        with torch.enable_grad():
            energy = function(leaf, *indices)
            (gradient,) = torch.autograd.grad(
                energy, leaf, torch.ones_like(energy), materialize_grads=True
            )
        return energy.detach(), gradient

    return with_gradient


def _split(others: Sequence[Tensor], periodic: bool) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return the box, if there is one, and the parameters."""
    return others[:periodic], others[periodic:]


def _apply(
    function: Callable[..., Tensor], leaves: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Tensor:
    """Return the function's values at positions and perhaps a box."""
    positions, *box = leaves
    values: Tensor = function(positions, box[0] if box else None, *parameters)
    return values
