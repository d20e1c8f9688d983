"""A functional of density coefficients as buffers and tensor operations, and nothing else."""

# TorchScript reads the classes' annotations, so they are not postponed here.

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ofcv_export.density.rescaling_core import RescalingCore


class EnergyCore(nn.Module):
    """Energies of molecules.

    Parameters
    ----------
    network : torch.nn.Module
        See `ofcv_export.density.energy_functional.EnergyNetwork`.
    rescaling : RescalingCore
        From coefficients to the network's scale.
    atomic_reference : torch.nn.Module, optional
        Added to the network's energy.
    """

    if TYPE_CHECKING:  # TorchScript takes annotations of modules for interfaces.
        rescaling: RescalingCore

    def __init__(
        self, network: nn.Module, rescaling: RescalingCore, atomic_reference: nn.Module | None
    ) -> None:
        super().__init__()
        self.network = network
        self.rescaling = rescaling
        self.atomic_reference = atomic_reference

    def forward(self, coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor) -> Tensor:
        """Return the energy of every molecule, shape (n_molecules,); nothing is checked.

        Parameters
        ----------
        coeffs : torch.Tensor
            Coefficients of all molecules, shape (n,).
        basis_function_ind, batch : torch.Tensor of int64, shape (n,)
            Basis function behind each coefficient, and its molecule.
        """
        return self.energies(coeffs, basis_function_ind, batch, count_molecules(batch))

    def energies(
        self, coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor, n_molecules: int
    ) -> Tensor:
        """Return the energies of a known number of molecules, shape (n_molecules,)."""
        # A negative molecule would be counted from the end by some runtimes; one too large is
        # refused by all of them.
        batch = torch.where(batch < 0, n_molecules, batch)
        scaled_coeffs = self.rescaling.scaled(coeffs, basis_function_ind)
        energy: Tensor = self.network(scaled_coeffs, basis_function_ind, batch, n_molecules)
        if self.atomic_reference is None:
            return energy.to(coeffs.dtype)
        # One rounding, of the sum: the two are large and nearly cancel.
        reference: Tensor = self.atomic_reference.in_float64(  # type: ignore[operator]
            coeffs, basis_function_ind, batch, n_molecules
        )
        return (energy + reference).to(coeffs.dtype)


class MoleculeEnergyCore(nn.Module):
    """Energy of one molecule, a map of its coefficients alone.

    Parameters
    ----------
    functional : EnergyCore
        Of any molecule.
    basis_function_ind : torch.Tensor of int64, shape (n_coeffs,)
        Basis function behind each coefficient.
    transform : torch.Tensor, shape (n_coeffs, n_coeffs), optional
        Applied to the coefficients first.
    """

    basis_function_ind: Tensor
    batch: Tensor
    transform: Tensor | None

    def __init__(
        self, functional: EnergyCore, basis_function_ind: Tensor, transform: Tensor | None
    ) -> None:
        super().__init__()
        self.functional = functional
        self.register_buffer("basis_function_ind", basis_function_ind)
        self.register_buffer("batch", torch.zeros_like(basis_function_ind))
        self.register_buffer("transform", transform)

    def forward(self, coeffs: Tensor) -> Tensor:
        """Return the energy, shape (1,), of coefficients (n_coeffs,); nothing is checked."""
        transform = self.transform
        if transform is not None:
            coeffs = torch.mv(transform, coeffs)
        return self.functional.energies(coeffs, self.basis_function_ind, self.batch, 1)


def count_molecules(batch: Tensor) -> int:
    """Return the largest molecule's index plus one.

    While a graph is traced the number is a symbol, which `int` would ask the value of; TorchScript
    wants it to be one.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return int(batch.max()) + 1
    return batch.max().item() + 1  # type: ignore[return-value]
