"""A learned density functional: coefficients in, energies and their gradient out.

The steps of M-OFDFT, https://arxiv.org/abs/2309.16578, sec. 4.3: for one molecule a frozen linear
map (local frames, natural reparametrisation), then the dimension-wise rescaling, the network on
scaled coefficients, and the atomic reference on unscaled ones::

    p = T c        E = network(lambda (p - b))  +  g p + sum t_Z + t_global

The gradient is that with respect to the coefficients c that came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofcv_export.base.modes import full_precision, without_inference_tensors
from ofcv_export.base.validation import (
    dtype_name,
    first_line,
    require_dtype,
    require_finite,
    require_floats,
    require_in_range,
    require_integers,
    require_shape,
    require_tensor,
    to_float_tensor,
)
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.basis import BasisLayout, chosen_basis
from ofcv_export.density.energy_core import EnergyCore, MoleculeEnergyCore
from ofcv_export.density.judges import FunctionalEnergies
from ofcv_export.density.rescaling import DimensionWiseRescaling
from ofcv_export.graph.derivatives import EnergyAndGradient, energy_and_gradient
from ofcv_export.graph.details import EnergyFunctionalDetails
from ofcv_export.graph.evaluation import evaluation_copy
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced

# Coefficients in each molecule of a batch that a network is tried with.
_TRIED_SIZES = (4, 2, 5)


class EnergyNetwork(Protocol):
    """A network as `EnergyFunctional` calls it.

    Any `torch.nn.Module` whose operations torch.export can see. `n_molecules` is a symbol while the
    graph is traced: it may give tensors their size, as in ``scaled_coeffs.new_zeros(n_molecules)
    .index_add(0, batch, energy_of_coefficient)``, and decide nothing.

    The rounding error of a sum in float32 grows with the number of terms. A network may add in
    float64 and return that: the functional rounds its energy once.
    """

    def __call__(
        self, scaled_coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor, n_molecules: int
    ) -> Tensor:
        """Return the energy of every molecule, shape (n_molecules,).

        Parameters
        ----------
        scaled_coeffs : torch.Tensor
            Scaled coefficients of all molecules, shape (n,).
        basis_function_ind : torch.Tensor of int64, shape (n,)
            Basis function behind each coefficient.
        batch : torch.Tensor of int64, shape (n,)
            Molecule of each coefficient.
        n_molecules : int
            Number of molecules.
        """
        ...


class EnergyFunctional(EnergyCore):
    """Energies of molecules, and the gradient with respect to their coefficients.

    Parameters
    ----------
    network : torch.nn.Module
        See `EnergyNetwork`; the functional holds a copy of it in evaluation mode.
    rescaling : DimensionWiseRescaling
        From coefficients to the network's scale.
    atomic_reference : AtomicReference, optional
        Added to the network's energy.

    Raises
    ------
    ValueError
        If the parts have different bases, or the network does not give one energy a molecule.
    TypeError
        If the parts have different floating dtypes.

    Examples
    --------
    >>> class SumOfSquares(nn.Module):
    ...     def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
    ...         return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, scaled_coeffs**2)
    >>> rescaling = DimensionWiseRescaling(
    ...     torch.tensor([1.0, 0.0]), torch.tensor([10.0, 1.0]), torch.tensor([0.1, 0.01])
    ... )
    >>> functional = EnergyFunctional(SumOfSquares(), rescaling)
    >>> functional.energy_and_gradient(
    ...     torch.tensor([3.0, 3.0, 4.0]), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
    ... )
    (tensor([25., 16.]), tensor([16.,  6.,  8.]))
    """

    if TYPE_CHECKING:  # TorchScript takes annotations of modules for interfaces.
        rescaling: DimensionWiseRescaling

    def __init__(
        self,
        network: nn.Module,
        rescaling: DimensionWiseRescaling,
        atomic_reference: AtomicReference | None = None,
    ) -> None:
        if not isinstance(rescaling, DimensionWiseRescaling):
            raise TypeError(
                f"rescaling: expected a DimensionWiseRescaling, got {type(rescaling).__name__}"
            )
        super().__init__(evaluation_copy(network), rescaling, atomic_reference)
        for tensor in [*self.network.parameters(), *self.network.buffers()]:
            if tensor.is_floating_point():
                require_dtype("network", tensor, self.dtype)
        if atomic_reference is not None:
            require_dtype("atomic_reference", atomic_reference.g_z, self.dtype)
            require_shape("atomic_reference", atomic_reference.g_z, (self.n_basis,))
            chosen_basis(atomic_reference.basis_info, rescaling.basis_info, "the rescaling")
        self._require_energies()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of coefficients and energies."""
        return self.rescaling.lambda_z.dtype

    @property
    def n_basis(self) -> int:
        """Number of basis functions of all elements together."""
        return self.rescaling.n_basis

    def core(self) -> EnergyCore:
        """Return the functional as buffers and tensor operations.

        It is what ``torch.jit.script`` takes for this module: where the module is part of another
        one that is scripted, PyTorch leaves the core in its place.
        """
        return EnergyCore(self.network, self.rescaling.core(), self.atomic_reference).eval()

    def __prepare_scriptable__(self) -> EnergyCore:
        """Return what ``torch.jit.script`` takes for this module."""
        return self.core()

    def energy_and_gradient(
        self, coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor
    ) -> tuple[Tensor, ...]:
        """Return energies and gradient by autograd.

        Parameters
        ----------
        coeffs : torch.Tensor
            Coefficients of all molecules, shape (n,), of the dtype of the functional.
        basis_function_ind : torch.Tensor of int64 or int32, shape (n,)
            Basis function behind each coefficient, in [0, n_basis).
        batch : torch.Tensor of int64 or int32, shape (n,)
            Molecule of each coefficient, counted from 0, see `molecule_indices`.

        Returns
        -------
        energy, gradient : torch.Tensor
            Shapes (n_molecules,) and (n,); each coefficient's entry is the derivative of its own
            molecule's energy.

        Raises
        ------
        ValueError, TypeError
            For a wrong shape or dtype, and values that are not finite.
        IndexError
            If an index is out of range.
        """
        require_floats("coeffs", coeffs, ("n",), self.dtype)
        require_finite("coeffs", coeffs)
        if not len(coeffs):
            raise ValueError("coeffs: expected at least one coefficient, got none")
        for name, index, high in (
            ("basis_function_ind", basis_function_ind, self.n_basis),
            ("batch", batch, len(coeffs)),
        ):
            require_integers(name, index, coeffs.shape)
            require_in_range(name, index, 0, high)
        with full_precision(coeffs.device):
            function = EnergyAndGradient(without_inference_tensors(self))
            outputs: tuple[Tensor, ...] = function(coeffs, basis_function_ind, batch)
        return outputs

    def for_molecule(
        self,
        atomic_numbers: Sequence[int] | NDArray[Any],
        basis_info: BasisLayout | None = None,
        transform: Tensor | NDArray[Any] | None = None,
    ) -> MoleculeFunctional:
        """Freeze the functional for one molecule: only its coefficients are left to give.

        Parameters
        ----------
        atomic_numbers : array_like of int, shape (n_atoms,)
            Elements, atom by atom, in the order of the coefficients.
        basis_info : BasisInfo, optional
            Ours or mldft's; by default that of the rescaling or of the atomic reference.
        transform : torch.Tensor or array_like, shape (n_coeffs, n_coeffs), optional
            Takes the molecule's coefficients to those that the rescaling was fitted on:
            `natural_transform`, `local_frame_transform`, or their product.

        Raises
        ------
        ValueError
            If an element is absent from the basis or from the statistics, the basis is not that of
            the functional, or the transform has the wrong shape or is not finite.
        """
        index = self._basis_function_ind(atomic_numbers, basis_info)
        if transform is not None:
            transform = to_float_tensor("transform", transform, self.dtype)
            transform = transform.to(self.rescaling.lambda_z)
            require_shape("transform", transform, (len(index), len(index)))
            require_finite("transform", transform)
        numbers = np.asarray(atomic_numbers).tolist()
        return MoleculeFunctional(self, numbers, index, transform)

    def molecule_indices(
        self,
        molecules: Iterable[Sequence[int] | NDArray[Any]],
        basis_info: BasisLayout | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the indices of a batch of molecules, whose coefficients follow one another.

        Parameters
        ----------
        molecules : iterable of array_like of int
            The elements of every molecule, atom by atom.
        basis_info : BasisInfo, optional
            See `for_molecule`.

        Returns
        -------
        basis_function_ind, batch : torch.Tensor of int64, shape (n,)
            What the functional takes beside the coefficients.

        Raises
        ------
        ValueError
            If there is no molecule, or see `for_molecule`.
        """
        indices = [self._basis_function_ind(entry, basis_info) for entry in molecules]
        if not indices:
            raise ValueError("molecules: expected at least one, got none")
        batch = [torch.full_like(index, number) for number, index in enumerate(indices)]
        return torch.cat(indices), torch.cat(batch)

    def export_graph(self) -> ExportGraph:
        """Return the graph of energies and gradient, with nothing left to differentiate."""
        name = dtype_name(self.dtype)
        core = self.core()
        return ExportGraph(
            EnergyFunctionalDetails(
                n_basis=self.n_basis, atomic_reference=self.atomic_reference is not None
            ),
            (
                TensorSpec("coeffs", name, ("n",)),
                TensorSpec("basis_function_ind", "int64", ("n",), low=0, high=self.n_basis),
                TensorSpec("batch", "int64", ("n",), low=0, high="n"),
            ),
            (TensorSpec("energy", name, ("n_molecules",)), TensorSpec("gradient", name, ("n",))),
            build=lambda graph: traced(energy_and_gradient(core), graph.inputs, "network"),
            exact=EnergyAndGradient(self.judge()),
        )

    def judge(
        self, function: Tensor | None = None, transform: Tensor | None = None
    ) -> FunctionalEnergies:
        """Return what the exported graph must equal, of any molecules or of one.

        Parameters
        ----------
        function, transform : torch.Tensor, optional
            As those of `ofcv_export.density.judges.FunctionalEnergies`.
        """
        return FunctionalEnergies(
            self.network,
            self.rescaling.lambda_z,
            self.rescaling.coeff_biases,
            self.atomic_reference,
            function,
            transform,
        )

    def _basis_function_ind(
        self, atomic_numbers: Sequence[int] | NDArray[Any], basis_info: BasisLayout | None
    ) -> Tensor:
        """Return a molecule's basis functions, by the basis that the parts agree on."""
        if self.atomic_reference is not None:
            basis_info = chosen_basis(
                basis_info, self.atomic_reference.basis_info, "the atomic reference"
            )
        return self.rescaling.basis_function_ind(atomic_numbers, basis_info)

    @property
    def _device(self) -> torch.device:
        return self.rescaling.lambda_z.device

    def _example(self) -> list[Tensor]:
        """Return coefficients, basis functions and molecules of a small batch."""
        batch = torch.repeat_interleave(torch.arange(len(_TRIED_SIZES)), torch.tensor(_TRIED_SIZES))
        k = torch.arange(len(batch))
        example = [torch.sin(k + 1.0).to(self.dtype), k % self.n_basis, batch]
        return [tensor.to(self._device) for tensor in example]

    def _require_energies(self) -> None:
        """Raise ValueError unless the network gives an energy for every molecule."""
        n_molecules = len(_TRIED_SIZES)
        coeffs, *indices = self._example()
        try:
            with torch.no_grad():
                scaled_coeffs = self.rescaling.scaled(coeffs, indices[0])
                energy = self.network(scaled_coeffs, *indices, n_molecules)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise ValueError(
                "network: expected one that takes scaled_coeffs, basis_function_ind, batch and "
                f"n_molecules, got: {first_line(error)}"
            ) from error
        require_tensor("network", energy)
        if energy.shape != (n_molecules,):
            raise ValueError(
                f"network: expected shape (n_molecules,) = ({n_molecules},), "
                f"got {tuple(energy.shape)}"
            )


class MoleculeFunctional(MoleculeEnergyCore):
    """The functional of one molecule: a map of its coefficients alone.

    Made by `EnergyFunctional.for_molecule`.

    Parameters
    ----------
    functional : EnergyFunctional
        Of any molecule.
    atomic_numbers : list of int
        Elements of the molecule.
    basis_function_ind : torch.Tensor of int64, shape (n_coeffs,)
        Basis function behind each coefficient.
    transform : torch.Tensor, shape (n_coeffs, n_coeffs), optional
        Applied to the coefficients first.
    """

    def __init__(
        self,
        functional: EnergyFunctional,
        atomic_numbers: list[int],
        basis_function_ind: Tensor,
        transform: Tensor | None,
    ) -> None:
        super().__init__(functional, basis_function_ind, transform)
        self.atomic_numbers = atomic_numbers

    def energy_and_gradient(self, coeffs: Tensor) -> tuple[Tensor, ...]:
        """Return energy and gradient by autograd.

        Parameters
        ----------
        coeffs : torch.Tensor
            Shape (n_coeffs,), of the dtype of the functional.

        Returns
        -------
        energy, gradient : torch.Tensor
            Shapes (1,) and (n_coeffs,).

        Raises
        ------
        ValueError, TypeError
            For a wrong shape or dtype, and values that are not finite.
        """
        require_floats("coeffs", coeffs, self.basis_function_ind.shape, self.dtype)
        require_finite("coeffs", coeffs)
        with full_precision(coeffs.device):
            function = EnergyAndGradient(without_inference_tensors(self))
            outputs: tuple[Tensor, ...] = function(coeffs)
        return outputs

    def export_graph(self) -> ExportGraph:
        """Return the graph of energy and gradient, with nothing left to differentiate."""
        size, name = len(self.basis_function_ind), dtype_name(self.dtype)
        core = self.core()
        return ExportGraph(
            EnergyFunctionalDetails(
                n_basis=len(self.functional.rescaling.lambda_z),
                atomic_reference=self.functional.atomic_reference is not None,
                atomic_numbers=tuple(self.atomic_numbers),
                transform=self.transform is not None,
            ),
            (TensorSpec("coeffs", name, (size,)),),
            (TensorSpec("energy", name, (1,)), TensorSpec("gradient", name, (size,))),
            build=lambda graph: traced(energy_and_gradient(core), graph.inputs, "network"),
            exact=EnergyAndGradient(
                self.functional.judge(self.basis_function_ind, self.transform)  # type: ignore[operator]
            ),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of coefficients and energy."""
        return self.functional.rescaling.lambda_z.dtype

    def core(self) -> MoleculeEnergyCore:
        """Return buffers and tensor operations alone, see `EnergyFunctional.core`."""
        functional = self.functional
        if isinstance(functional, EnergyFunctional):
            functional = functional.core()
        return MoleculeEnergyCore(functional, self.basis_function_ind, self.transform).eval()

    def __prepare_scriptable__(self) -> MoleculeEnergyCore:
        """Return what ``torch.jit.script`` takes for this module."""
        return self.core()
