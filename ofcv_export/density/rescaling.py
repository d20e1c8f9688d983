"""Dimension-wise rescaling of density coefficients and gradients in orbital-free DFT.

Section 4.3 and eq. (4) of M-OFDFT, https://arxiv.org/abs/2309.16578: coefficients are centred and
scaled up until either their gradient or they themselves reach a target scale. The formulas are in
`ofcv_export.density.rescaling_core`.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofcv_export.base.arrays import as_array
from ofcv_export.base.validation import (
    dtype_name,
    require_finite,
    require_floats,
    require_in_range,
    require_integers,
    require_non_negative,
    require_positive_number,
    require_shape,
    to_float_tensor,
)
from ofcv_export.density.basis import (
    BasisLayout,
    basis_function_ind,
    chosen_basis,
    element_text,
)
from ofcv_export.density.dataset_statistics import DatasetStatistics, store_path
from ofcv_export.density.judges import ScaledCoefficients
from ofcv_export.density.rescaling_core import (
    MoleculeRescalingCore,
    RescalingCore,
    WithGradient,
    gradient_to_original,
    scale_coeffs,
    scale_gradient,
    unscale_coeffs,
    unscale_gradient,
)
from ofcv_export.graph.details import RescalingDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced

# What becomes of each statistic when the data set is rescaled; mldft leaves out all others.
MEAN_STATISTICS = ("coeffs/mean",)
SPREAD_STATISTICS = ("coeffs/std", "coeffs/abs_max")
GRADIENT_STATISTICS = (
    "gradient_label/abs_max",
    "gradient_label/max_after_atom_ref",
    "gradient_label/mean",
    "gradient_max_after_atom_ref",
)


class Statistics(Protocol):
    """What is needed of dataset statistics; mldft's ``DatasetStatistics`` has it too.

    Where there is an attribute ``basis_info``, it is the basis that the statistics are in.
    """

    def load_statistic(self, weigher_key: str, statistic_key: str) -> Any:
        """Return one statistic as an array."""
        ...

    def keys_recursive(self) -> Sequence[str]:
        """Return every key ``<weigher>/<statistic>``."""
        ...


class Basis(BasisLayout, Protocol):
    """A basis as its layout and its shells; mldft's ``BasisInfo`` is one too."""

    @property
    def basis_func_to_shell(self) -> Any:
        """Shell of each basis function, shape (n_basis,)."""
        ...

    @property
    def l_per_basis_func(self) -> Any:
        """Angular momentum of each basis function, shape (n_basis,)."""
        ...


class DimensionWiseRescaling(RescalingCore):
    r"""Centre and rescale coefficients and gradients per element and basis function.

    The scale is eq. (4) of M-OFDFT,

    .. math::

        \lambda = \begin{cases}
            \min(\mathrm{max\_grad} / s_\mathrm{grad}, s_\mathrm{coeff} / \mathrm{std})
            & \text{where } \mathrm{max\_grad} > s_\mathrm{grad} \\
            1 & \text{elsewhere}
        \end{cases}

    A standard deviation of zero puts no bound on the coefficient: the scale is then
    max_grad / s_grad.

    There are two ways back for a gradient, and they differ by epsilon. `unscale_gradient` undoes
    the division of a label by (lambda + epsilon). `gradient_to_original` is the chain rule, for the
    derivative of an energy with respect to the scaled coefficients: multiplication by lambda.

    The buffers carry mldft's names, so that a state dict of its module can be loaded. No buffer
    shares memory with what it was made from.

    Parameters
    ----------
    coeff_biases, coeff_stds, max_grads : torch.Tensor or array_like, shape (n_basis,)
        Mean and standard deviation of the coefficients and largest absolute gradient of every
        basis function, element after element. Tensors and arrays keep their dtype (float32 or
        float64); plain numbers become tensors of torch's default dtype.
    s_coeff : float
        Largest scale of a coefficient.
    s_grad : float
        Target scale of a gradient.
    epsilon : float
        Added to lambda where gradients are divided by it.
    basis_info : BasisInfo, optional
        Ours or mldft's: the basis of these numbers, and of molecules where none is given.

    Attributes
    ----------
    basis_info : BasisInfo or None

    Raises
    ------
    ValueError
        For lengths that differ, a negative standard deviation, NaN or infinite values, tensors on
        different devices, or a scale that is not positive.
    TypeError
        For values that are not floating-point numbers, or tensors of different dtypes.

    Examples
    --------
    >>> rescaling = DimensionWiseRescaling(
    ...     torch.tensor([1.0, 0.0]), torch.tensor([10.0, 1.0]), torch.tensor([0.1, 0.01])
    ... )
    >>> rescaling(torch.tensor([3.0, 3.0, 4.0]), torch.tensor([0, 1, 1]))
    tensor([4., 3., 4.])
    """

    coeff_biases: Tensor
    coeff_stds: Tensor
    max_grads: Tensor
    lambda_z: Tensor

    def __init__(
        self,
        coeff_biases: Tensor | NDArray[Any],
        coeff_stds: Tensor | NDArray[Any],
        max_grads: Tensor | NDArray[Any],
        s_coeff: float = 50,
        s_grad: float = 0.05,
        epsilon: float = 1e-8,
        basis_info: BasisLayout | None = None,
    ) -> None:
        biases = to_float_tensor("coeff_biases", coeff_biases)
        require_shape("coeff_biases", biases, ("n_basis",))
        require_non_negative("epsilon", epsilon)
        super().__init__(torch.ones_like(biases), biases, float(epsilon))
        for name, value in {
            "coeff_biases": biases,
            "coeff_stds": to_float_tensor("coeff_stds", coeff_stds),
            "max_grads": to_float_tensor("max_grads", max_grads),
        }.items():
            require_floats(name, value, biases.shape, biases.dtype, biases.device)
            require_finite(name, value)
            self.register_buffer(name, value.detach().clone())
        _require_non_negative("coeff_stds", self.coeff_stds)
        self.s_coeff = require_positive_number("s_coeff", s_coeff)
        self.s_grad = require_positive_number("s_grad", s_grad)
        self.basis_info = basis_info
        self.init_lambda_z()

    @classmethod
    def from_dataset_statistics(
        cls,
        statistics: Statistics,
        basis_info: Basis | None = None,
        weigher_key: str = "has_energy_label",
        equivariant: bool = False,
        s_coeff: float = 50,
        s_grad: float = 0.05,
        epsilon: float = 1e-8,
        dtype: torch.dtype | None = None,
    ) -> DimensionWiseRescaling:
        """Build the rescaling from the statistics of a data set.

        Parameters
        ----------
        statistics : DatasetStatistics
            Ours or mldft's; it is not changed.
        basis_info : BasisInfo, optional
            Ours or mldft's; by default the one kept with the statistics. Needed when
            `equivariant`.
        weigher_key : str
            Samples that the statistics were taken over.
        equivariant : bool
            Treat all components of a shell alike, so that rescaling commutes with rotations: the
            largest gradient within the shell (after an atomic reference of scalars only), the
            Euclidean norm of the shell's standard deviations, and no bias unless l = 0.
        s_coeff, s_grad, epsilon : float
            See `DimensionWiseRescaling`.
        dtype : torch.dtype, optional
            float32 or float64; by default that of the statistics, the wider where they differ.

        Raises
        ------
        KeyError
            If a statistic is absent.
        ValueError
            If `basis_info` is missing, or is not the basis of the statistics.
        """
        basis_info = statistics_basis(statistics, basis_info, needed=equivariant)
        max_grads_key = (
            "gradient_max_after_scalar_atom_ref" if equivariant else "gradient_max_after_atom_ref"
        )
        keys = ("coeffs/mean", "coeffs/std", max_grads_key)
        biases, stds, max_grads = load_statistics(statistics, weigher_key, keys, dtype)
        if basis_info is not None:
            for name, values in zip(keys, (biases, stds, max_grads), strict=True):
                require_shape(name, values, (len(basis_info.l_per_basis_func),))
        if equivariant and basis_info is not None:
            shell = torch.as_tensor(np.asarray(basis_info.basis_func_to_shell, dtype=np.int64))
            scalar = torch.as_tensor(np.asarray(basis_info.l_per_basis_func) == 0)
            biases = torch.where(scalar, biases, 0.0)
            stds = _norm_over_shell(stds, shell)
            max_grads = _max_over_shell(max_grads, shell)
        return cls(
            biases,
            stds,
            max_grads,
            s_coeff=s_coeff,
            s_grad=s_grad,
            epsilon=epsilon,
            basis_info=basis_info,
        )

    @classmethod
    def apply_to_dataset_statistics(
        cls,
        statistics: Statistics,
        output_path: str | os.PathLike[str],
        weigher_key: str,
        **kwargs: Any,
    ) -> DatasetStatistics:
        """Store what the statistics of the rescaled data set would be.

        The rescaling is fitted on one weigher and applied to the statistics of all. As in mldft,
        ``coeffs/mean`` is shifted and scaled, ``coeffs/std`` and ``coeffs/abs_max`` are scaled,
        the gradient's ``gradient_label/mean``, ``gradient_label/abs_max``,
        ``gradient_label/max_after_atom_ref`` and ``gradient_max_after_atom_ref`` are divided by
        (lambda + epsilon), and every other statistic is left out.

        Parameters
        ----------
        statistics : DatasetStatistics
            Ours or mldft's; it is not changed.
        output_path : str or path-like
            New store, ending in ``.zarr``, or its URL; it keeps the basis. A store that exists may
            lack statistics, which are added, but must not hold others.
        weigher_key : str
            Weigher that the rescaling is fitted on.
        **kwargs
            See `from_dataset_statistics`.

        Returns
        -------
        DatasetStatistics
            The new store.

        Raises
        ------
        ValueError
            If a store with different values exists, or see `from_dataset_statistics`. Nothing is
            written.
        """
        output_path = store_path("output_path", output_path)
        rescaling = cls.from_dataset_statistics(statistics, weigher_key=weigher_key, **kwargs)
        transformed = {}
        for key in statistics.keys_recursive():
            weigher, statistic_key = key.split("/", 1)
            if statistic_key in MEAN_STATISTICS + SPREAD_STATISTICS + GRADIENT_STATISTICS:
                original = to_float_tensor(key, statistics.load_statistic(weigher, statistic_key))
                transformed[weigher, statistic_key] = rescaling._transform_statistic(
                    statistic_key, original
                )

        with tempfile.TemporaryDirectory(prefix=".ofcv-") as scratch:
            store = DatasetStatistics(Path(scratch) / Path(output_path).name, create_store=True)
            for (weigher, statistic_key), values in transformed.items():
                store.save_statistic(weigher, statistic_key, values.cpu().numpy())
            if rescaling.basis_info is not None:
                store.keep_basis(rescaling.basis_info)
            if isinstance(output_path, Path):
                output_path.parent.mkdir(parents=True, exist_ok=True)
            store.save_to(output_path)
        return DatasetStatistics(output_path)

    def init_lambda_z(self) -> None:
        """Set the buffer ``lambda_z`` from the other buffers, eq. (4).

        Raises
        ------
        ValueError
            If a scale is not finite.
        """
        lambda_z = torch.where(
            self.max_grads > self.s_grad,
            torch.minimum(self.max_grads / self.s_grad, self.s_coeff / self.coeff_stds),
            torch.ones_like(self.max_grads),
        )
        require_finite("lambda_z", lambda_z)
        self.register_buffer("lambda_z", lambda_z)

    @property
    def n_basis(self) -> int:
        """Number of basis functions of all elements together."""
        return len(self.lambda_z)

    def forward(self, coeffs: Any, basis_function_ind: Any = None) -> Tensor:
        """Return the scaled coefficients, lambda (c - b).

        Parameters
        ----------
        coeffs : torch.Tensor or data sample
            Coefficients, shape (n,), of the dtype and on the device of the module; or an object or
            mapping with the fields ``coeffs`` and ``basis_function_ind``.
        basis_function_ind : torch.Tensor of int64 or int32, shape (n,)
            Basis function behind each coefficient, in [0, n_basis).

        Returns
        -------
        torch.Tensor
            Shape (n,), differentiable with respect to the coefficients.

        Raises
        ------
        ValueError
            For a wrong shape or device, or a data sample that lacks a field.
        TypeError
            For a wrong dtype.
        IndexError
            If an index is out of range.
        """
        if basis_function_ind is None:
            coeffs, basis_function_ind = _fields(coeffs, "coeffs", "basis_function_ind")
        coeffs, index = self._checked("coeffs", coeffs, basis_function_ind)
        return self.scaled(coeffs, index)

    def rescale_coeffs_and_gradient(
        self, coeffs: Any, gradient: Any = None, basis_function_ind: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Return the scaled coefficients and the scaled gradient, g / (lambda + epsilon).

        Parameters
        ----------
        coeffs : torch.Tensor or data sample
            Coefficients, shape (n,); or an object or mapping with the fields ``coeffs``,
            ``gradient_label`` and ``basis_function_ind``.
        gradient : torch.Tensor
            Derivative of the energy with respect to the coefficients, shape (n,).
        basis_function_ind : torch.Tensor of int64 or int32, shape (n,)
            Basis function behind each coefficient.

        Returns
        -------
        tuple of torch.Tensor
            Both of shape (n,).

        Raises
        ------
        ValueError, TypeError, IndexError
            See `forward`.
        """
        if gradient is None and basis_function_ind is None:
            coeffs, gradient, basis_function_ind = _fields(
                coeffs, "coeffs", "gradient_label", "basis_function_ind"
            )
        coeffs, index = self._checked("coeffs", coeffs, basis_function_ind)
        gradient = _checked_values("gradient", gradient, len(index), self.lambda_z)
        return self.with_gradient(coeffs, index, gradient)

    def unscale_coeffs(self, scaled_coeffs: Tensor, basis_function_ind: Tensor) -> Tensor:
        """Return the coefficients behind scaled ones: the inverse of `forward`, shape (n,)."""
        scaled_coeffs, index = self._checked("scaled_coeffs", scaled_coeffs, basis_function_ind)
        return unscale_coeffs(scaled_coeffs, *self._scale_and_bias(index))

    def unscale_gradient(self, scaled_gradient: Tensor, basis_function_ind: Tensor) -> Tensor:
        """Return the gradient behind a scaled one, times (lambda + epsilon), shape (n,).

        The inverse of what `rescale_coeffs_and_gradient` does to a label. For the derivative of an
        energy with respect to scaled coefficients use `gradient_to_original`.
        """
        scaled_gradient, index = self._checked(
            "scaled_gradient", scaled_gradient, basis_function_ind
        )
        scale, _ = self._scale_and_bias(index)
        return unscale_gradient(scaled_gradient, scale + self.epsilon)

    def gradient_to_original(
        self, gradient_wrt_scaled_coeffs: Tensor, basis_function_ind: Tensor
    ) -> Tensor:
        """Return dE/dc from dE/d(scaled c) by the chain rule, times lambda, shape (n,).

        Exact for a derivative taken through `forward`; see `unscale_gradient` for a scaled label.
        """
        gradient, index = self._checked(
            "gradient_wrt_scaled_coeffs", gradient_wrt_scaled_coeffs, basis_function_ind
        )
        scale, _ = self._scale_and_bias(index)
        return gradient_to_original(gradient, scale)

    def for_molecule(
        self,
        atomic_numbers: Sequence[int] | NDArray[Any],
        basis_info: BasisLayout | None = None,
    ) -> MoleculeRescaling:
        """Freeze the rescaling for one molecule: scales and biases are gathered once.

        Parameters
        ----------
        atomic_numbers : array_like of int, shape (n_atoms,)
            Elements, atom by atom, in the order of the coefficients.
        basis_info : BasisInfo, optional
            Ours or mldft's; by default that of the rescaling.

        Raises
        ------
        ValueError
            See `basis_function_ind`.
        """
        scale, bias = self._scale_and_bias(self.basis_function_ind(atomic_numbers, basis_info))
        numbers = np.asarray(atomic_numbers).tolist()
        return MoleculeRescaling(numbers, self.n_basis, scale, bias, self.epsilon)

    def basis_function_ind(
        self,
        atomic_numbers: Sequence[int] | NDArray[Any],
        basis_info: BasisLayout | None = None,
    ) -> Tensor:
        """Return the basis function behind each coefficient of a molecule, shape (n_coeffs,).

        Parameters
        ----------
        atomic_numbers, basis_info
            See `for_molecule`.

        Raises
        ------
        ValueError
            If an element is absent from the basis or from the statistics, where all of its values
            are then 0, or the basis is not that of the rescaling.
        """
        basis_info = chosen_basis(basis_info, self.basis_info, "the rescaling")
        if int(basis_info.n_basis) != self.n_basis:
            raise ValueError(
                f"basis_info: expected {self.n_basis} basis functions, got {basis_info.n_basis}"
            )
        index = basis_function_ind(basis_info, atomic_numbers)
        rows = np.asarray(basis_info.atomic_number_to_atom_index)[np.asarray(atomic_numbers)]
        known = (self.max_grads + self.coeff_stds + self.coeff_biases.abs() > 0).cpu().numpy()
        for position, row in enumerate(rows):
            if not known[basis_info.atom_ind_to_basis_function_ind[row]].any():
                raise ValueError(
                    "atomic_numbers: expected elements of the statistics, got "
                    f"{element_text(int(atomic_numbers[position]))} at position {position}"
                )
        return torch.as_tensor(index, device=self.lambda_z.device)

    def export_graph(self, gradient: bool = False) -> ExportGraph:
        """Return the graph to export, of coefficients or of coefficients and gradient.

        Parameters
        ----------
        gradient : bool
            Add the input ``gradient`` and the output ``scaled_gradient``.

        Raises
        ------
        ValueError
            If a frozen value is NaN or infinite.
        """
        core = WithGradient(self.core()) if gradient else self.core()
        index = TensorSpec("basis_function_ind", "int64", ("n",), low=0, high=self.n_basis)
        inputs, outputs = _specs("n", self.lambda_z.dtype, gradient)
        return ExportGraph(
            RescalingDetails(
                n_basis=self.n_basis,
                epsilon=self.epsilon,
                s_coeff=self.s_coeff,
                s_grad=self.s_grad,
            ),
            (inputs[0], index, *inputs[1:]),
            outputs,
            build=lambda graph: traced(core, graph.inputs),
            exact=ScaledCoefficients(
                self.lambda_z, self.coeff_biases, self.epsilon, by_function=True
            ),
            scalar_code=True,
            rows="n",
        )

    def core(self) -> RescalingCore:
        """Return the rescaling as buffers and tensor operations.

        It is what is exported, and what ``torch.jit.script`` takes for this module: where the
        module is part of another one that is scripted, PyTorch leaves the core in its place.
        """
        return RescalingCore(self.lambda_z, self.coeff_biases, self.epsilon).eval()

    def __prepare_scriptable__(self) -> RescalingCore:
        """Return what ``torch.jit.script`` takes for this module."""
        return self.core()

    def _scale_and_bias(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.lambda_z.index_select(0, index), self.coeff_biases.index_select(0, index)

    def _checked(self, name: str, value: Any, index: Any) -> tuple[Tensor, Tensor]:
        """Return coefficient-like values and their indices as tensors that fit the buffers."""
        index = _index_tensor(index)
        require_integers("basis_function_ind", index, ("n",), self.lambda_z.device)
        require_in_range("basis_function_ind", index, 0, self.n_basis)
        return _checked_values(name, value, len(index), self.lambda_z), index

    def _transform_statistic(self, statistic_key: str, values: Tensor) -> Tensor:
        values = values.to(self.lambda_z.device)
        require_shape(statistic_key, values, (self.n_basis,))
        if statistic_key in MEAN_STATISTICS:
            return scale_coeffs(values, self.lambda_z, self.coeff_biases)
        if statistic_key in SPREAD_STATISTICS:
            return self.lambda_z * values
        return scale_gradient(values, self.lambda_z + self.epsilon)


class MoleculeRescaling(MoleculeRescalingCore):
    """The rescaling of one molecule: a scale and a bias for each of its coefficients.

    Made by `DimensionWiseRescaling.for_molecule`. The methods are those of
    `DimensionWiseRescaling` without the index.

    Parameters
    ----------
    atomic_numbers : list of int
        Elements of the molecule.
    n_basis : int
        Number of basis functions of all elements together.
    lambda_z, coeff_biases : torch.Tensor, shape (n_coeffs,)
        Scale and bias of each coefficient.
    epsilon : float
        Added to lambda where gradients are divided by it.
    """

    def __init__(
        self,
        atomic_numbers: list[int],
        n_basis: int,
        lambda_z: Tensor,
        coeff_biases: Tensor,
        epsilon: float,
    ) -> None:
        super().__init__(lambda_z, coeff_biases, epsilon)
        self.atomic_numbers = atomic_numbers
        self.n_basis = n_basis

    def forward(self, coeffs: Tensor) -> Tensor:
        """Return the scaled coefficients, shape (n_coeffs,)."""
        return super().forward(self._checked("coeffs", coeffs))

    def rescale_coeffs_and_gradient(
        self, coeffs: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the scaled coefficients and the scaled gradient, both of shape (n_coeffs,)."""
        gradient = self._checked("gradient", gradient)
        return self.with_gradient(self._checked("coeffs", coeffs), gradient)

    def unscale_coeffs(self, scaled_coeffs: Tensor) -> Tensor:
        """Return the coefficients behind scaled ones: the inverse of `forward`."""
        scaled_coeffs = self._checked("scaled_coeffs", scaled_coeffs)
        return unscale_coeffs(scaled_coeffs, self.lambda_z, self.coeff_biases)

    def unscale_gradient(self, scaled_gradient: Tensor) -> Tensor:
        """Return the gradient behind a scaled label, times (lambda + epsilon)."""
        scaled_gradient = self._checked("scaled_gradient", scaled_gradient)
        return unscale_gradient(scaled_gradient, self.lambda_z + self.epsilon)

    def gradient_to_original(self, gradient_wrt_scaled_coeffs: Tensor) -> Tensor:
        """Return dE/dc from dE/d(scaled c) by the chain rule, times lambda."""
        gradient = self._checked("gradient_wrt_scaled_coeffs", gradient_wrt_scaled_coeffs)
        return gradient_to_original(gradient, self.lambda_z)

    def export_graph(self, gradient: bool = False) -> ExportGraph:
        """Return the graph to export; see `DimensionWiseRescaling.export_graph`."""
        inputs, outputs = _specs(len(self.lambda_z), self.lambda_z.dtype, gradient)
        core = WithGradient(self.core()) if gradient else self.core()
        return ExportGraph(
            RescalingDetails(
                n_basis=self.n_basis,
                epsilon=self.epsilon,
                atomic_numbers=tuple(self.atomic_numbers),
            ),
            inputs,
            outputs,
            build=lambda graph: traced(core, graph.inputs),
            exact=ScaledCoefficients(
                self.lambda_z, self.coeff_biases, self.epsilon, by_function=False
            ),
        )

    def core(self) -> MoleculeRescalingCore:
        """Return buffers and tensor operations alone, see `DimensionWiseRescaling.core`."""
        return MoleculeRescalingCore(self.lambda_z, self.coeff_biases, self.epsilon).eval()

    def __prepare_scriptable__(self) -> MoleculeRescalingCore:
        """Return what ``torch.jit.script`` takes for this module."""
        return self.core()

    def _checked(self, name: str, value: Any) -> Tensor:
        return _checked_values(name, value, len(self.lambda_z), self.lambda_z)


def _specs(
    size: int | str, dtype: torch.dtype, gradient: bool
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    names = ("coeffs", "gradient") if gradient else ("coeffs",)
    return (
        tuple(TensorSpec(name, dtype_name(dtype), (size,)) for name in names),
        tuple(TensorSpec(f"scaled_{name}", dtype_name(dtype), (size,)) for name in names),
    )


def statistics_basis(statistics: Statistics, given: Any, needed: bool = True) -> Any:
    """Return the basis of statistics, see `chosen_basis`; None where there is none, nor needed."""
    recorded = getattr(statistics, "basis_info", None)
    if given is None and recorded is None and not needed:
        return None
    return chosen_basis(given, recorded, "the statistics")


def load_statistics(
    statistics: Statistics, weigher_key: str, keys: Sequence[str], dtype: torch.dtype | None
) -> list[Tensor]:
    """Return some statistics in one dtype, by default the widest of theirs."""
    if dtype not in (None, torch.float32, torch.float64):
        raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {dtype!r}")
    loaded = [to_float_tensor(key, statistics.load_statistic(weigher_key, key)) for key in keys]
    if dtype is None:
        dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in loaded))
    return [tensor.to(dtype) for tensor in loaded]


def _max_over_shell(values: Tensor, shell: Tensor) -> Tensor:
    """Return each shell's largest value, for every function of the shell."""
    n_shells = int(shell.max()) + 1
    # include_self=False: the start value doesn't take part.
    pooled = values.new_zeros(n_shells).scatter_reduce(
        0, shell, values, reduce="amax", include_self=False
    )
    return pooled[shell]


def _norm_over_shell(values: Tensor, shell: Tensor) -> Tensor:
    """Return each shell's Euclidean norm, for every function of the shell."""
    n_shells = int(shell.max()) + 1
    return values.new_zeros(n_shells).index_add(0, shell, values**2).sqrt()[shell]


def _fields(data_sample: Any, *names: str) -> tuple[Any, ...]:
    """Return fields of a data sample, a mapping or an object with attributes."""
    missing = object()
    values = []
    for name in names:
        if isinstance(data_sample, Mapping):
            value = data_sample.get(name, missing)
        else:
            value = getattr(data_sample, name, missing)
        if value is missing:
            raise ValueError(
                f"data_sample: expected the fields {', '.join(names)}, "
                f"got {type(data_sample).__name__} without {name}"
            )
        values.append(value)
    return tuple(values)


def _index_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = as_array("basis_function_ind", value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"basis_function_ind: expected integers, got {type(value).__name__}")
    return torch.from_numpy(array.astype(np.int64))


def _checked_values(name: str, value: Any, size: int, like: Tensor) -> Tensor:
    """Return coefficient-like values as a tensor of the given size that fits `like`."""
    values = to_float_tensor(name, value, like.dtype)
    require_floats(name, values, (size,), like.dtype, like.device)
    return values


def _require_non_negative(name: str, values: Tensor) -> None:
    negative = torch.nonzero(values < 0)
    if len(negative):
        index = int(negative[0])
        raise ValueError(
            f"{name}: expected values of at least 0, got {values[index].item()} at index {index}"
        )
