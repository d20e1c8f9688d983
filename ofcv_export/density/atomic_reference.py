"""The atomic reference of a learned density functional: a linear fit of the energy.

Appendix B.3.1 of M-OFDFT, https://arxiv.org/abs/2309.16578, and mldft's ``AtomRef``: with the mean
gradient g of every element and basis function, a bias t of every element Z and a global one,

    E = sum over coefficients of g p  +  sum over atoms of t_Z  +  t_global
"""

# TorchScript reads the class's annotations, so they are not postponed here.

from typing import Any

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
from ofcv_export.density.rescaling import (
    Basis,
    Statistics,
    load_statistics,
    statistics_basis,
)


class AtomicReference(nn.Module):
    """The energy that is linear in the coefficients and in the numbers of atoms.

    Every atom has exactly one coefficient of its element's first basis function. The sum over atoms
    is taken there, so that no list of atoms is needed.

    Parameters
    ----------
    g_z : torch.Tensor or array_like, shape (n_basis,)
        Mean gradient of every basis function, element after element. Tensors and arrays keep their
        dtype (float32 or float64); plain numbers become tensors of torch's default dtype.
    t_z : torch.Tensor or array_like, shape (n_types,)
        Bias of every element, in the order of the basis.
    t_global : float
        Bias of every molecule.
    basis_info : BasisInfo
        Ours or mldft's.

    Attributes
    ----------
    basis_info : BasisInfo

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
        self.basis_info = basis_info
        self.register_buffer("g_z", slope.detach().clone())
        self.register_buffer("t_z", bias.detach().clone())
        first = torch.tensor([int(of_element[0]) for of_element in functions], device=slope.device)
        # Not in the state dict, so that it is mldft's.
        self.register_buffer("first_function", first, persistent=False)

    @classmethod
    def from_dataset_statistics(
        cls,
        statistics: Statistics,
        basis_info: Basis | None = None,
        weigher_key: str = "has_energy_label",
        scalar_only: bool = False,
        dtype: torch.dtype | None = None,
    ) -> "AtomicReference":
        """Build the reference from the statistics of a data set.

        Parameters
        ----------
        statistics : DatasetStatistics
            Ours or mldft's.
        basis_info : BasisInfo, optional
            Ours or mldft's; by default the one kept with the statistics.
        weigher_key : str
            Samples that the statistics were taken over.
        scalar_only : bool
            Only coefficients of l = 0 take part, so that the energy does not depend on the
            molecule's orientation; for an equivariant rescaling.
        dtype : torch.dtype, optional
            float32 or float64; by default that of the statistics, the wider where they differ.

        Raises
        ------
        KeyError
            If a statistic is absent.
        ValueError
            If there is no basis, or the statistics are of another one.
        """
        prefix = "scalar_atom_ref" if scalar_only else "atom_ref"
        basis_info = statistics_basis(statistics, basis_info)
        g_z, t_z, t_global = load_statistics(
            statistics,
            weigher_key,
            ("gradient_label/mean", f"{prefix}_atom_type_bias", f"{prefix}_global_bias"),
            dtype,
        )
        if scalar_only:
            is_scalar = torch.as_tensor(np.asarray(basis_info.l_per_basis_func) == 0)
            require_shape("gradient_label/mean", g_z, (len(is_scalar),))
            g_z = torch.where(is_scalar, g_z, 0.0)
        return cls(g_z, t_z, float(t_global), basis_info)

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
        return self.in_float64(coeffs, basis_function_ind, batch, n_molecules).to(coeffs.dtype)

    def in_float64(
        self, coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor, n_molecules: int
    ) -> Tensor:
        """Return what `forward` does in float64, whatever the dtype of the coefficients.

        Large terms of both signs nearly cancel: the rounding error of a sum in float32 grows with
        the number of coefficients, far beyond the precision of the result.
        """
        g_z = self.g_z.double()
        t_first = torch.zeros_like(g_z).index_copy(0, self.first_function, self.t_z.double())
        slope = select(g_z, basis_function_ind)
        bias = select(t_first, basis_function_ind)
        terms = slope * coeffs.double() + bias
        return terms.new_zeros(n_molecules).index_add(0, batch, terms) + self.t_global


def _atomic_number(basis_info: BasisLayout, row: int) -> int:
    """Return the element in a row of the basis."""
    return int(np.flatnonzero(np.asarray(basis_info.atomic_number_to_atom_index) == row)[0])
