"""Numbers stay what they are: float64 input is never rounded, and sums in float32 do not drift."""

# TorchScript reads the annotations of a network here, so they are not postponed.

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ofcv_export as ofcv
from ofcv_export.density.basis import BasisInfo
from tests.builders.formats import FREE_SIZES
from tests.builders.systems import normal

BASIS = BasisInfo([8, 1], ["2x0e+1x1o", "2x0e"])
WATER = [8, 1, 1]
N, N_WATER = 7, 9
S_GRAD, S_COEFF, EPSILON, T_GLOBAL = 0.05, 50, 1e-8, -1.1
# None of these numbers is one of float32.
MEANS, STDS, GRADS, SLOPES, BIASES, TRANSFORM, COEFFS, GRADIENT = (
    normal(*shape, seed=seed).numpy()
    for seed, shape in enumerate([(N,)] * 4 + [(2,), (N_WATER, N_WATER), (N_WATER,), (N_WATER,)])
)
STDS, GRADS = 5 * abs(STDS), abs(GRADS)
INDEX = BASIS.basis_function_ind(WATER)
SCALE = np.where(GRADS > S_GRAD, np.minimum(GRADS / S_GRAD, S_COEFF / STDS), 1.0)
STIFFNESS = 1 / 3


class Springs(nn.Module):
    """The sum over coefficients of k x^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stiffness", torch.tensor(STIFFNESS, dtype=torch.float64))

    def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
        energy = 0.5 * self.stiffness * scaled_coeffs**2
        return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, energy)


def scaled(coeffs: np.ndarray) -> np.ndarray:
    return SCALE[INDEX] * (coeffs - MEANS[INDEX])


def energy_and_gradient(coeffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a molecule's energy and gradient by NumPy."""
    energy = 0.5 * STIFFNESS * (scaled(coeffs) ** 2).sum() + SLOPES[INDEX] @ coeffs
    gradient = STIFFNESS * SCALE[INDEX] * scaled(coeffs) + SLOPES[INDEX]
    return energy[None] + BIASES[0] + 2 * BIASES[1] + T_GLOBAL, gradient


RESCALED = (scaled(COEFFS), GRADIENT / (SCALE[INDEX] + EPSILON))
TRANSFORMED = energy_and_gradient(TRANSFORM @ COEFFS)
TRANSFORMED = (TRANSFORMED[0], TRANSFORM.T @ TRANSFORMED[1])

Convert = Callable[[np.ndarray], object]
CONVERSIONS = {"numpy": lambda array: array, "torch": torch.from_numpy}


@pytest.fixture(params=list(CONVERSIONS))
def convert(request: pytest.FixtureRequest) -> Convert:
    return CONVERSIONS[request.param]


@pytest.fixture(params=["arrays", "store"])
def parts(
    request: pytest.FixtureRequest, convert: Convert, tmp_path: Path
) -> tuple[ofcv.DimensionWiseRescaling, ofcv.AtomicReference]:
    """Return rescaling and reference from arrays, and from a store, under a float32 default."""
    assert torch.get_default_dtype() == torch.float32
    if request.param == "arrays":
        return (
            ofcv.DimensionWiseRescaling(convert(MEANS), convert(STDS), convert(GRADS)),
            ofcv.AtomicReference(convert(SLOPES), convert(BIASES), T_GLOBAL, BASIS),
        )
    store = ofcv.DatasetStatistics(tmp_path / "s.zarr", create_store=True)
    for key, array in {
        "coeffs/mean": MEANS,
        "coeffs/std": STDS,
        "gradient_max_after_atom_ref": GRADS,
        "gradient_label/mean": SLOPES,
        "atom_ref_atom_type_bias": BIASES,
        "atom_ref_global_bias": np.array(T_GLOBAL),
    }.items():
        store.save_statistic("has_energy_label", key, convert(array))
    return (
        ofcv.DimensionWiseRescaling.from_dataset_statistics(store),
        ofcv.AtomicReference.from_dataset_statistics(store, BASIS),
    )


def require_equal(found: tuple[Tensor, ...], expected: tuple[np.ndarray, ...]) -> None:
    """Require every number to be right to 1e-14 of the largest."""
    for output, judge in zip(map(torch.as_tensor, found), expected, strict=True):
        assert output.dtype == torch.float64
        np.testing.assert_allclose(output, judge, rtol=0, atol=1e-14 * abs(judge).max())


def test_modules_round_no_float64_number(parts, convert):
    rescaling, reference = parts
    index, zeros = torch.from_numpy(INDEX), torch.zeros(N_WATER, dtype=torch.int64)
    coeffs, gradient = convert(COEFFS), convert(GRADIENT)
    require_equal(rescaling.rescale_coeffs_and_gradient(coeffs, gradient, INDEX), RESCALED)
    molecule = rescaling.for_molecule(WATER, BASIS)
    require_equal(molecule.rescale_coeffs_and_gradient(coeffs, gradient), RESCALED)
    back, its_gradient = map(convert, RESCALED)
    for found in (
        (rescaling.unscale_coeffs(back, INDEX), rescaling.unscale_gradient(its_gradient, INDEX)),
        (molecule.unscale_coeffs(back), molecule.unscale_gradient(its_gradient)),
    ):
        require_equal(found, (COEFFS, GRADIENT))
    functional = ofcv.EnergyFunctional(Springs(), rescaling, reference)
    found = functional.energy_and_gradient(torch.from_numpy(COEFFS), index, zeros)
    require_equal(found, energy_and_gradient(COEFFS))
    frozen = functional.for_molecule(WATER, BASIS, convert(TRANSFORM))
    require_equal(frozen.energy_and_gradient(torch.from_numpy(COEFFS)), TRANSFORMED)


def test_plain_numbers_are_of_the_dtype_that_they_meet(parts):
    """A list has no dtype of its own; float64 modules take it as it is."""
    rescaling, reference = parts
    pair = (COEFFS.tolist(), GRADIENT.tolist())
    require_equal(rescaling.rescale_coeffs_and_gradient(*pair, INDEX.tolist()), RESCALED)
    functional = ofcv.EnergyFunctional(Springs(), rescaling, reference)
    frozen = functional.for_molecule(WATER, BASIS, TRANSFORM.tolist())
    require_equal(frozen.energy_and_gradient(torch.from_numpy(COEFFS)), TRANSFORMED)


@pytest.mark.parametrize("suffix", FREE_SIZES)
def test_files_round_no_float64_number(suffix, tmp_path):
    """A .pt2 of the functional alone, to spare the compiler."""
    rescaling = ofcv.DimensionWiseRescaling(MEANS, STDS, GRADS)
    reference = ofcv.AtomicReference(SLOPES, BIASES, T_GLOBAL, BASIS)
    functional = ofcv.EnergyFunctional(Springs(), rescaling, reference)
    zeros = np.zeros(N_WATER, dtype=np.int64)
    frozen = functional.for_molecule(WATER, BASIS, TRANSFORM)
    molecule = rescaling.for_molecule(WATER, BASIS)
    cases = [
        (frozen, {}, (COEFFS,), TRANSFORMED),
        (functional, {}, (COEFFS, INDEX, zeros), energy_and_gradient(COEFFS)),
        (rescaling, {"gradient": True}, (COEFFS, INDEX, GRADIENT), RESCALED),
        (molecule, {"gradient": True}, (COEFFS, GRADIENT), RESCALED),
    ]
    for module, options, inputs, expected in cases[: 1 if suffix == ".pt2" else None]:
        ofcv.export(module, tmp_path / f"file{suffix}", **options)
        run = ofcv.load(tmp_path / f"file{suffix}")
        for convert in CONVERSIONS.values():
            require_equal(run(*map(convert, inputs)), expected)


def test_transformed_statistics_are_not_rounded(tmp_path):
    store = ofcv.DatasetStatistics(tmp_path / "s.zarr", create_store=True)
    for key, array in (
        ("coeffs/mean", MEANS),
        ("coeffs/std", STDS),
        ("gradient_max_after_atom_ref", GRADS),
    ):
        store.save_statistic("w", key, array)
    transformed = ofcv.DimensionWiseRescaling.apply_to_dataset_statistics(
        store, tmp_path / "t.zarr", "w"
    )
    for key, expected in (
        ("coeffs/std", SCALE * STDS),
        ("gradient_max_after_atom_ref", GRADS / (SCALE + EPSILON)),
    ):
        require_equal((torch.from_numpy(transformed.load_statistic("w", key)),), (expected,))


# Sums in float32


class NoEnergy(nn.Module):
    """A network that says nothing, so that the atomic reference is what is left."""

    def forward(
        self, scaled_coeffs: Tensor, basis_function_ind: Tensor, batch: Tensor, n_molecules: int
    ) -> Tensor:
        return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, 0.0 * scaled_coeffs)


@pytest.fixture(scope="module")
def large() -> tuple[ofcv.EnergyFunctional, list[Tensor], float]:
    """Return a functional in float32, a molecule of 10^6 coefficients, and its energy by NumPy."""
    ones = torch.ones(N)
    functional = ofcv.EnergyFunctional(
        NoEnergy(),
        ofcv.DimensionWiseRescaling(ones, ones, ones),
        ofcv.AtomicReference(torch.rand(N), torch.tensor([-75.1, -0.3]), 0.1, BASIS),
    )
    index = BASIS.basis_function_ind(WATER * 111_112)
    coeffs = np.random.default_rng(0).random(len(index), dtype=np.float32)
    reference = functional.atomic_reference
    terms = reference.g_z.double().numpy()[index] * coeffs
    oxygen, hydrogen = reference.t_z.tolist()
    expected = terms.sum() + 111_112 * (oxygen + 2 * hydrogen) + 0.1
    inputs = [torch.from_numpy(coeffs), torch.from_numpy(index), torch.zeros(len(index)).long()]
    return functional, inputs, float(expected)


@pytest.fixture(params=["module", "scripted", ".pt", ".onnx"])
def run(request: pytest.FixtureRequest, large, tmp_path: Path) -> Iterator[Callable]:
    functional = large[0]
    if request.param == "module":
        return functional.energy_and_gradient
    if request.param == "scripted":
        scripted = torch.jit.script(functional)
        return lambda *inputs: (scripted(*inputs),)
    ofcv.export(functional, tmp_path / f"large{request.param}")
    return ofcv.load(tmp_path / f"large{request.param}")


def test_a_sum_over_a_million_coefficients_is_that_of_float64(run, large):
    _, inputs, expected = large
    energy = run(*inputs)[0]
    assert energy.dtype == torch.float32
    assert abs(energy.item() - expected) <= 1e-7 * abs(expected)
