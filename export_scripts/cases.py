"""What the demo exports: modules, real inputs, and the outputs to expect, computed without them.

The expected outputs come from float64 autograd through network and distances, and from NumPy's
evaluation of eq. (4) of the M-OFDFT paper; nothing of ofcv_export takes part in either.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ofcv_export as ofcv
from export_scripts.simulation import HEAVY_ATOMS
from export_scripts.train import pair_distances
from ofcv_export.density.fitting.density_labels import read_labels
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.graph.export_graph import Exportable

DTYPES = ("float32", "float64")
S_COEFF, S_GRAD, EPSILON = 50.0, 0.05, 1e-8
WEIGHER_KEY = "has_energy_label"


@dataclass(frozen=True)
class Case:
    """An artifact to make, what to feed it, and what must come out.

    Attributes
    ----------
    name : str
        Stem of the file's name.
    title : str
        Name in the table and the figures.
    modules : mapping
        The module to export for each name of a dtype.
    inputs : mapping
        Inputs by name, float64 or int64; floating ones are rounded to the artifact's dtype.
    expected : mapping
        Outputs by name, float64.
    per_frame : bool
        Whether inputs and outputs are batches of frames.
    options : mapping
        Further arguments of `ofcv_export.export`.
    positions_file : Path, optional
        Extended XYZ from which an engine computes the input ``descriptors_wrt_positions`` itself.
    suffixes : tuple of str
        Formats to export to.
    """

    name: str
    title: str
    modules: Mapping[str, Exportable]
    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    per_frame: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    positions_file: Path | None = None
    suffixes: tuple[str, ...] = (".pt", ".onnx")

    def inputs_as(self, dtype: str) -> dict[str, np.ndarray]:
        """Return the inputs with the floating ones rounded to `dtype`."""
        return {
            name: values.astype(dtype) if values.dtype.kind == "f" else values
            for name, values in self.inputs.items()
        }

    def one_call(self, dtype: str) -> dict[str, np.ndarray]:
        """Return the inputs of the call to time: one frame, or one molecule."""
        inputs = self.inputs_as(dtype)
        return {name: values[:1] for name, values in inputs.items()} if self.per_frame else inputs


def all_pair_distances(n_atoms: int) -> PairDistances:
    """Return the descriptor of all pairs (i, j), i < j, without periodic boundaries."""
    return PairDistances(all_pairs(n_atoms), n_atoms)


def chain_rule_by_autograd(
    network: nn.Module, positions: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differentiate the collective variable z by float64 autograd.

    Parameters
    ----------
    network : torch.nn.Module
        Maps distances (batch, n_descriptors) to z (batch, 1).
    positions : torch.Tensor
        Shape (batch, n_atoms, 3), nm.

    Returns
    -------
    numpy.ndarray, numpy.ndarray, numpy.ndarray
        z, shape (batch, 1), dz/d(distances), shape (batch, n_descriptors), and dz/d(positions),
        shape (batch, n_atoms, 3), float64, 1/nm.
    """
    exact = copy.deepcopy(network).double()
    leaf = positions.detach().clone().double().requires_grad_()
    descriptors = pair_distances(leaf)
    z = exact(descriptors)
    wrt_descriptors, wrt_positions = torch.autograd.grad(z.sum(), [descriptors, leaf])
    return z.detach().numpy(), wrt_descriptors.numpy(), wrt_positions.numpy()


def setup_smart_derivatives(positions: Tensor, labels: Tensor) -> ofcv.SmartDerivatives:
    """Return SmartDerivatives set up on positions (n_frames, n_atoms, 3) in their dtype."""
    smart = ofcv.SmartDerivatives()
    dataset = {"data": positions, "labels": labels, "weights": torch.ones(len(positions))}
    smart.setup(dataset, all_pair_distances(positions.shape[1]), positions.shape[1])
    return smart


def collective_variable_cases(
    network: nn.Module,
    positions: Tensor,
    engine_positions: Tensor,
    smart: Mapping[str, ofcv.SmartDerivatives],
    positions_file: Path,
    seed: int,
) -> list[Case]:
    """Return the cases of the whole collective variable and of the chain rule alone.

    Parameters
    ----------
    network : torch.nn.Module
        The trained network.
    positions : torch.Tensor
        Heavy atoms of the trajectory that `smart` was set up on, shape (n_frames, n_atoms, 3), nm.
    engine_positions : torch.Tensor
        Heavy atoms of the frames in `positions_file`, nm.
    smart : mapping
        Modules by the name of their dtype.
    positions_file : Path
        Frames with all atoms, as an engine holds them.
    seed : int
        Seed of the choice of frames, which may repeat.
    """
    generator = np.random.default_rng(seed)
    ref_idx = generator.integers(len(positions), size=min(500, len(positions)))
    _, frozen_in, frozen_out = chain_rule_by_autograd(network, positions[ref_idx])
    _, engine_in, engine_out = chain_rule_by_autograd(network, engine_positions)
    # Rounded, so that both dtypes start from the same numbers.
    rounded_positions = engine_positions.float().double()
    z, _, derivatives = chain_rule_by_autograd(network, rounded_positions)
    _, blocks = all_pair_distances(positions.shape[1]).jacobian(engine_positions)
    options = {
        "atoms": HEAVY_ATOMS,
        "length_unit": "nm",
        "output_units": {"output_wrt_positions": "1/nm"},
    }
    distances = all_pair_distances(positions.shape[1])
    variable = {
        dtype: ofcv.CollectiveVariable(
            distances, copy.deepcopy(network).to(getattr(torch, dtype)), HEAVY_ATOMS, "nm"
        )
        for dtype in DTYPES
    }
    return [
        Case(
            "collective_variable",
            "collective variable",
            variable,
            {"positions": rounded_positions.numpy()},
            {"values": z, "derivatives": derivatives[:, None]},
            per_frame=True,
            options={"output_units": {"values": "1", "derivatives": "1/nm"}},
            suffixes=(".pt", ".onnx", ".pt2", ".c"),
        ),
        Case(
            "smart_derivatives",
            "smart derivatives",
            smart,
            {"output_wrt_descriptors": frozen_in, "ref_idx": ref_idx},
            {"output_wrt_positions": frozen_out},
            per_frame=True,
            options=options,
        ),
        Case(
            "sparse_chain_rule",
            "sparse chain rule",
            {dtype: smart[dtype].sparse_chain_rule() for dtype in DTYPES},
            {
                "output_wrt_descriptors": engine_in,
                "descriptors_wrt_positions": blocks.flatten(1).numpy(),
            },
            {"output_wrt_positions": engine_out},
            per_frame=True,
            options=options,
            positions_file=positions_file,
        ),
    ]


@dataclass(frozen=True)
class DensitySample:
    """The converged density of a molecule, atomic units, float64.

    Attributes
    ----------
    molecule : str
        Name of the molecule.
    atomic_numbers : numpy.ndarray
        Shape (n_atoms,), int64.
    basis_function_ind : numpy.ndarray
        Position of each coefficient's (element, basis dimension) in the statistics, shape (n,),
        int64.
    coeffs : numpy.ndarray
        Density coefficients p, shape (n,).
    gradient : numpy.ndarray
        dT_s/dp at a fixed number of electrons, shape (n,).
    """

    molecule: str
    atomic_numbers: np.ndarray
    basis_function_ind: np.ndarray
    coeffs: np.ndarray
    gradient: np.ndarray


def converged_sample(path: Path, basis_info: ofcv.BasisInfo) -> DensitySample:
    """Return the last SCF step of a label file."""
    labels = read_labels(path)
    return DensitySample(
        labels.mol_id,
        labels.atomic_numbers,
        basis_info.basis_function_ind(labels.atomic_numbers),
        labels.coeffs[-1],
        labels.projected_gradient()[-1],
    )


def rescale_by_numpy(
    statistics: ofcv.DatasetStatistics, sample: DensitySample
) -> dict[str, np.ndarray]:
    """Return scaled coefficients and gradient by eq. (4) of arXiv 2309.16578, float64."""
    bias, std, max_grad = (
        statistics.load_statistic(WEIGHER_KEY, key)[sample.basis_function_ind]
        for key in ("coeffs/mean", "coeffs/std", "gradient_max_after_atom_ref")
    )
    scale = np.where(max_grad > S_GRAD, np.minimum(max_grad / S_GRAD, S_COEFF / std), 1.0)
    return {
        "scaled_coeffs": scale * (sample.coeffs - bias),
        "scaled_gradient": sample.gradient / (scale + EPSILON),
    }


def rescaling_cases(
    statistics: ofcv.DatasetStatistics, basis_info: ofcv.BasisInfo, sample: DensitySample
) -> list[Case]:
    """Return the cases of the rescaling: coefficients, with gradient, and for one molecule."""
    exact = ofcv.DimensionWiseRescaling.from_dataset_statistics(
        statistics, weigher_key=WEIGHER_KEY, s_coeff=S_COEFF, s_grad=S_GRAD, epsilon=EPSILON
    )
    rescaling = {"float32": copy.deepcopy(exact).float(), "float64": exact}
    molecule = {
        dtype: module.for_molecule(sample.atomic_numbers, basis_info)
        for dtype, module in rescaling.items()
    }
    expected = rescale_by_numpy(statistics, sample)
    coeffs = {"coeffs": sample.coeffs}
    index = {"basis_function_ind": sample.basis_function_ind}
    gradient = {"gradient": sample.gradient}
    return [
        Case(
            "rescaling",
            "rescaling",
            rescaling,
            coeffs | index,
            {"scaled_coeffs": expected["scaled_coeffs"]},
            per_frame=False,
        ),
        Case(
            "rescaling_with_gradient",
            "rescaling, gradient",
            rescaling,
            coeffs | index | gradient,
            expected,
            per_frame=False,
            options={"gradient": True},
        ),
        Case(
            "rescaling_of_molecule",
            f"rescaling of {sample.molecule}",
            molecule,
            coeffs | gradient,
            expected,
            per_frame=False,
            options={"gradient": True},
            suffixes=(".pt", ".onnx", ".c"),
        ),
    ]
