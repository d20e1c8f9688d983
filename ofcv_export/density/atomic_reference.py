"""The atomic reference of a learned density functional: a linear fit of the energy.

Appendix B.3.1 of M-OFDFT, https://arxiv.org/abs/2309.16578, and mldft's ``AtomRef``: with the mean
gradient g of every element and basis function, a bias t of every element Z and a global one,

    E = sum over coefficients of g p  +  sum over atoms of t_Z  +  t_global
"""

# TorchScript reads the class's annotations, so they are not postponed here.

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofcv_export.base.indexing import select
from ofcv_export.base.validation import (
    require_finite,
    require_floats,
    require_shape,
    to_float_tensor,
)
from ofcv_export.density.basis import BasisLayout, element_text
from ofcv_export.density.rescaling import Shells, Statistics


class Basis(BasisLayout, Shells, Protocol):
    """A basis as its layout and its shells; mldft's ``BasisInfo`` is one too."""


class AtomicReference(nn.Module):
    """The energy that is linear in the coefficients and in the numbers of atoms.

    Every atom has exactly one coefficient of its element's first basis function. The sum over atoms
    is taken there, so that no list of atoms is needed.

    Parameters
    ----------
    g_z : torch.Tensor or array_like, shape (n_basis,)
        Mean gradient of every basis function, element after element. A tensor keeps its dtype
        (float32 or float64); an array becomes a tensor of torch's default dtype.
    t_z : torch.Tensor or array_like, shape (n_types,)
        Bias of every element, in the order of the basis.
    t_global : float
        Bias of every molecule.
    basis_info : BasisInfo
        Ours or mldft's.

    Raises
    ------
    ValueError
        For lengths other than the basis has, and values that are NaN or infinite; an element is
        named.
    TypeError
        For values that are not floating-point numbers, or tensors of different dtypes.

    Examples
    --------
    >>> from ofcv_export.density.basis import BasisInfo
    >>> basis = BasisInfo([1, 8], ["1x0e", "2x0e"])
    >>> reference = AtomicReference(
    ...     torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 10.0]), 100.0, basis
    ... )
    >>> index = torch.as_tensor(basis.basis_function_ind([8, 1]))
    >>> reference(torch.ones(3), index, torch.zeros(3, dtype=torch.int64), 1)
    tensor([116.5000])
    """

    g_z: Tensor
    t_z: Tensor
    first_function: Tensor

    def __init__(
        self,
        g_z: Tensor | NDArray[Any],
        t_z: Tensor | NDArray[Any],
        t_global: float,
        basis_info: BasisLayout,
    ) -> None:
        super().__init__()
        slope, bias = to_float_tensor("g_z", g_z), to_float_tensor("t_z", t_z)
        functions = basis_info.atom_ind_to_basis_function_ind
        require_shape("g_z", slope, (int(basis_info.n_basis),))
        require_floats("t_z", bias, (len(functions),), slope.dtype, slope.device)
        for row, of_element in enumerate(functions):
            element = element_text(_atomic_number(basis_info, row))
            require_finite(f"t_z of {element}", bias[row])
            require_finite(f"g_z of {element}", slope[torch.as_tensor(np.asarray(of_element))])
        require_finite("t_global", torch.tensor(float(t_global), dtype=torch.float64))
        self.t_global = float(t_global)
        self.register_buffer("g_z", slope.detach().clone())
        self.register_buffer("t_z", bias.detach().clone())
        first = torch.tensor([int(of_element[0]) for of_element in functions], device=slope.device)
        # Not in the state dict, so that it is mldft's.
        self.register_buffer("first_function", first, persistent=False)

    @classmethod
    def from_dataset_statistics(
        cls,
        statistics: Statistics,
        basis_info: Basis,
        weigher_key: str = "has_energy_label",
        scalar_only: bool = False,
    ) -> "AtomicReference":
        """Build the reference from the statistics of a data set.

        Parameters
        ----------
        statistics : DatasetStatistics
            Ours or mldft's.
        basis_info : BasisInfo
            Ours or mldft's.
        weigher_key : str
            Samples that the statistics were taken over.
        scalar_only : bool
            Only coefficients of l = 0 take part, so that the energy does not depend on the
            molecule's orientation; for an equivariant rescaling.

        Raises
        ------
        KeyError
            If a statistic is absent.
        ValueError
            If the statistics are not those of the basis.
        """
        prefix = "scalar_atom_ref" if scalar_only else "atom_ref"

        def load(statistic_key: str) -> NDArray[Any]:
            return np.asarray(statistics.load_statistic(weigher_key, statistic_key))

        g_z = load("gradient_label/mean")
        if scalar_only:
            is_scalar = np.asarray(basis_info.l_per_basis_func) == 0
            require_shape("gradient_label/mean", torch.as_tensor(g_z), (len(is_scalar),))
            g_z = np.where(is_scalar, g_z, 0.0)
        return cls(
            g_z,
            load(f"{prefix}_atom_type_bias"),
            float(load(f"{prefix}_global_bias")),
            basis_info,
        )

    def forward(
        self, coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor, n_molecules: int
    ) -> Tensor:
        """Return the energy of every molecule, shape (n_molecules,).

        Parameters
        ----------
        coeffs : torch.Tensor
            Coefficients of all molecules, shape (n,).
        basis_function_ind : torch.Tensor of int64, shape (n,)
            Basis function behind each coefficient.
        batch : torch.Tensor of int64, shape (n,)
            Molecule of each coefficient.
        n_molecules : int
            Number of molecules.
        """
        t_first = torch.zeros_like(self.g_z).index_copy(0, self.first_function, self.t_z)
        slope = select(self.g_z, basis_function_ind)
        bias = select(t_first, basis_function_ind)
        summed = coeffs.new_zeros(n_molecules).index_add(0, batch, slope * coeffs + bias)
        return summed + self.t_global


def _atomic_number(basis_info: BasisLayout, row: int) -> int:
    """Return the element in a row of the basis."""
    return int(np.flatnonzero(np.asarray(basis_info.atomic_number_to_atom_index) == row)[0])
