"""Dimension-wise rescaling: eq. (4), the ways back, statistics, molecules, graphs, bad input."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ofcv_export import export
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.dataset_statistics import DatasetStatistics
from ofcv_export.density.energy_functional import EnergyFunctional
from ofcv_export.density.rescaling import DimensionWiseRescaling, MoleculeRescaling
from ofcv_export.graph.details import RescalingDetails
from ofcv_export.graph.scriptable import scriptable
from tests.builders.systems import normal

EPSILON = 1e-8
ZARR2_STORE = Path(__file__).parent / "data" / "statistics_zarr2.zarr"
STORED_LAMBDA = [1, 1, 1, 1, 0.0625 / 0.05, 0.078125 / 0.05, 0.09375 / 0.05, 0.109375 / 0.05, 2.5]


@pytest.fixture
def basis() -> BasisInfo:
    return BasisInfo([1, 8], ["1x0e+1x1o", "2x0e+1x1o"])


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def rescaling(dtype: torch.dtype) -> DimensionWiseRescaling:
    generator = torch.Generator().manual_seed(1)
    draw = lambda: torch.rand(9, generator=generator, dtype=torch.float64)  # noqa: E731
    return DimensionWiseRescaling(
        (draw() - 0.5).to(dtype), (30 * draw()).to(dtype), (0.2 * draw()).to(dtype)
    )


@pytest.fixture
def index() -> Tensor:
    return torch.tensor([4, 5, 6, 7, 8, 0, 1, 2, 3, 0, 1, 2, 3])


class NoEnergy(nn.Module):
    """A network that says nothing."""

    def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
        return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, 0 * scaled_coeffs)


class TheirStatistics:
    """The two methods of mldft's DatasetStatistics that are used, handing out its own arrays."""

    def __init__(self, **arrays: Any) -> None:
        self.arrays = {key.replace("__", "/"): array for key, array in arrays.items()}

    def load_statistic(self, weigher_key: str, statistic_key: str) -> Any:
        return self.arrays[f"{weigher_key}/{statistic_key}"]

    def keys_recursive(self) -> list[str]:
        return list(self.arrays)


# Eq. (4)


@pytest.mark.parametrize(
    ("max_grad", "std", "expected"),
    [
        (0.5, 1.0, 10.0),  # the gradient reaches its target first: 0.5 / 0.05
        (5.0, 1.0, 50.0),  # the coefficient reaches its limit first: 50 / 1
        (0.05, 100.0, 1.0),  # at the target
        (0.04, 0.001, 1.0),  # below the target
        (0.0, 0.0, 1.0),
        (0.5, 0.0, 10.0),  # no spread, no limit
        (0.5, 1000.0, 0.05),  # coefficients may also shrink
    ],
)
def test_lambda_by_case(max_grad: float, std: float, expected: float, dtype: torch.dtype) -> None:
    rescaling = DimensionWiseRescaling(*torch.tensor([[0.0], [std], [max_grad]], dtype=dtype))
    torch.testing.assert_close(rescaling.lambda_z, torch.tensor([expected], dtype=dtype))


def test_lambda_with_other_targets() -> None:
    rescaling = DimensionWiseRescaling(
        torch.zeros(2), torch.tensor([1.0, 4.0]), torch.tensor([3.0, 9.0]), s_coeff=10, s_grad=2
    )
    torch.testing.assert_close(rescaling.lambda_z, torch.tensor([1.5, 2.5]))


def test_lambda_follows_changed_buffers() -> None:
    rescaling = DimensionWiseRescaling(torch.zeros(1), torch.ones(1), torch.ones(1))
    rescaling.max_grads.fill_(0.1)
    rescaling.init_lambda_z()
    torch.testing.assert_close(rescaling.lambda_z, torch.tensor([2.0]))
    assert set(rescaling.state_dict()) == {"coeff_biases", "coeff_stds", "max_grads", "lambda_z"}


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("as_array", [False, True])
def test_values_keep_their_dtype_and_are_copied(
    dtype: torch.dtype, default: torch.dtype, as_array: bool, float64_default: None
) -> None:
    torch.set_default_dtype(default)
    mine = torch.ones(3, dtype=dtype)
    given = mine.numpy() if as_array else mine
    rescaling = DimensionWiseRescaling(given, given, given)
    torch.set_default_dtype(torch.float64)
    assert {buffer.dtype for buffer in rescaling.buffers()} == {dtype}
    rescaling.coeff_biases.zero_()
    assert mine.tolist() == [1, 1, 1] == rescaling.coeff_stds.tolist()


def test_plain_numbers_get_the_default_dtype(float64_default: None) -> None:
    rescaling = DimensionWiseRescaling([1.0, 2.0], [0.5, 0.5], [0.1, 0.2])
    assert {buffer.dtype for buffer in rescaling.buffers()} == {torch.float64}


# Forward and back


def test_forward_by_hand() -> None:
    rescaling = DimensionWiseRescaling(
        torch.tensor([1.0, 0.0]), torch.tensor([10.0, 1.0]), torch.tensor([0.1, 0.01])
    )
    index = torch.tensor([0, 1, 0])
    scaled, scaled_gradient = rescaling.rescale_coeffs_and_gradient(
        torch.tensor([3.0, 3.0, 0.5]), torch.tensor([4.0, 4.0, -1.0]), index
    )
    torch.testing.assert_close(scaled, torch.tensor([4.0, 3.0, -1.0]))
    torch.testing.assert_close(scaled_gradient, torch.tensor([2.0, 4.0, -0.5]))


def test_gradients_are_divided_by_lambda_plus_epsilon() -> None:
    ones = torch.ones(1, dtype=torch.float64)
    rescaling = DimensionWiseRescaling(ones, 100 * ones, ones, s_grad=0.5, epsilon=0.5)
    assert rescaling.lambda_z.item() == 0.5
    _, scaled = rescaling.rescale_coeffs_and_gradient(ones, 3 * ones, torch.tensor([0]))
    assert scaled.item() == 3.0
    assert rescaling.unscale_gradient(scaled, torch.tensor([0])).item() == 3.0
    assert rescaling.gradient_to_original(scaled, torch.tensor([0])).item() == 1.5


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
def test_forward_is_the_formula(
    rescaling: DimensionWiseRescaling, index: Tensor, index_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    """Scale and bias of each basis function by eq. (4) from the statistics, number by number."""
    columns = (rescaling.coeff_biases, rescaling.coeff_stds, rescaling.max_grads)
    formula = [
        (min(grad / 0.05, 50 / std) if grad > 0.05 else 1.0, bias)
        for bias, std, grad in zip(*(column.tolist() for column in columns), strict=True)
    ]
    assert any(scale != 1 for scale, _ in formula)
    coeffs, gradient = normal(13, dtype=dtype), normal(13, dtype=dtype, seed=1)
    scaled, scaled_gradient = rescaling.rescale_coeffs_and_gradient(
        coeffs, gradient, index.to(index_dtype)
    )
    of_each = [formula[place] for place in index.tolist()]
    expected = [s * (c - b) for c, (s, b) in zip(coeffs.tolist(), of_each, strict=True)]
    of_gradient = [g / (s + 1e-8) for g, (s, _) in zip(gradient.tolist(), of_each, strict=True)]
    few_roundings = 8 * torch.finfo(dtype).eps
    for found, right in ((scaled, expected), (scaled_gradient, of_gradient)):
        judge = torch.tensor(right, dtype=torch.float64)
        torch.testing.assert_close(found.double(), judge, rtol=few_roundings, atol=few_roundings)
    assert torch.equal(rescaling(coeffs, index.to(index_dtype)), scaled)


statistic = st.floats(0, 1e3, allow_subnormal=False)
coefficient = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(
    st.lists(st.tuples(coefficient, statistic, statistic), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 10**6), coefficient), max_size=8),
)
def test_there_and_back(
    functions: list[tuple[float, float, float]], pairs: list[tuple[int, float]]
) -> None:
    rescaling = DimensionWiseRescaling(*torch.tensor(functions, dtype=torch.float64).T)
    index = torch.tensor([number % len(functions) for number, _ in pairs], dtype=torch.int64)
    given_values = torch.tensor([value for _, value in pairs], dtype=torch.float64)
    scaled, scaled_gradient = rescaling.rescale_coeffs_and_gradient(
        given_values, given_values, index
    )
    torch.testing.assert_close(
        rescaling.unscale_coeffs(scaled, index), given_values, rtol=1e-12, atol=1e-11
    )
    torch.testing.assert_close(
        rescaling.unscale_gradient(scaled_gradient, index), given_values, rtol=1e-14, atol=1e-14
    )


def energy(coeffs: Tensor) -> Tensor:
    return torch.sin(coeffs).sum() + 0.1 * (coeffs**2).sum() * coeffs[0]


def test_gradient_to_original_is_the_chain_rule(index: Tensor) -> None:
    rescaling = DimensionWiseRescaling(normal(9), normal(9).abs(), torch.linspace(0, 1, 9).double())
    coeffs = normal(13, seed=2)

    # A network sees scaled coefficients; differentiate it there, and bring the gradient back.
    scaled = rescaling(coeffs, index).requires_grad_()
    (wrt_scaled,) = torch.autograd.grad(energy(scaled), scaled)
    wrt_coeffs = rescaling.gradient_to_original(wrt_scaled, index)

    step = 1e-6
    differences = torch.stack(
        [
            (energy(rescaling(coeffs + d, index)) - energy(rescaling(coeffs - d, index))) / 2 / step
            for d in step * torch.eye(13, dtype=torch.float64)
        ]
    )
    torch.testing.assert_close(wrt_coeffs, differences, rtol=1e-7, atol=1e-6)

    coeffs.requires_grad_()
    (by_autograd,) = torch.autograd.grad(energy(rescaling(coeffs, index)), coeffs)
    torch.testing.assert_close(wrt_coeffs, by_autograd, rtol=1e-14, atol=1e-14)


def test_every_map_is_differentiable(rescaling: DimensionWiseRescaling, index: Tensor) -> None:
    rescaling = rescaling.double()
    x = normal(13).requires_grad_()
    for function in (
        rescaling,
        rescaling.unscale_coeffs,
        rescaling.unscale_gradient,
        rescaling.gradient_to_original,
        lambda x, index: rescaling.rescale_coeffs_and_gradient(x, 2 * x, index)[1],
    ):
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, index), x)


class Sample:
    """Fields both as attributes and by name, as a torch_geometric data sample has them."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]


@pytest.mark.parametrize("make", [dict, SimpleNamespace, Sample])
def test_a_data_sample_stands_for_its_fields(
    rescaling: DimensionWiseRescaling, index: Tensor, make: Any
) -> None:
    dtype = rescaling.lambda_z.dtype
    coeffs, gradient = normal(13, dtype=dtype), normal(13, dtype=dtype, seed=1)
    sample = make(coeffs=coeffs, gradient_label=gradient, basis_function_ind=index)
    expected = rescaling.rescale_coeffs_and_gradient(coeffs, gradient, index)
    assert torch.equal(rescaling(sample), expected[0])
    for result, wanted in zip(rescaling.rescale_coeffs_and_gradient(sample), expected, strict=True):
        assert torch.equal(result, wanted)


def test_a_data_sample_of_arrays(index: Tensor) -> None:
    rescaling = DimensionWiseRescaling(torch.ones(9), torch.ones(9), torch.ones(9))
    coeffs = np.arange(13, dtype=np.float32)
    sample = {"coeffs": coeffs, "basis_function_ind": index.numpy().astype(np.uint16)}
    torch.testing.assert_close(rescaling(sample), 20 * (torch.arange(13.0) - 1))


# Dataset statistics


def test_from_a_store_of_mldft() -> None:
    rescaling = DimensionWiseRescaling.from_dataset_statistics(DatasetStatistics(ZARR2_STORE))
    counts = torch.arange(9.0)
    assert torch.equal(rescaling.coeff_biases, counts / 8 - 0.5)
    assert torch.equal(rescaling.coeff_stds, counts / 4)
    assert torch.equal(rescaling.max_grads, counts / 64)
    torch.testing.assert_close(rescaling.lambda_z, torch.tensor(STORED_LAMBDA))


def test_equivariant_from_a_store_of_mldft(basis: BasisInfo) -> None:
    rescaling = DimensionWiseRescaling.from_dataset_statistics(
        DatasetStatistics(ZARR2_STORE), basis, equivariant=True
    )
    # Shells: H s | H p p p | O s | O s | O p p p
    assert rescaling.coeff_biases.tolist() == [-0.5, 0, 0, 0, 0, 0.125, 0, 0, 0]
    assert (32 * rescaling.max_grads).tolist() == [0, 3, 3, 3, 4, 5, 8, 8, 8]
    hydrogen, oxygen = (1 + 4 + 9) ** 0.5 / 4, (36 + 49 + 64) ** 0.5 / 4
    torch.testing.assert_close(
        rescaling.coeff_stds,
        torch.tensor([0, hydrogen, hydrogen, hydrogen, 1, 1.25, oxygen, oxygen, oxygen]),
    )


def test_equivariant_rescaling_commutes_with_rotations(basis: BasisInfo) -> None:
    rescaling = DimensionWiseRescaling.from_dataset_statistics(
        DatasetStatistics(ZARR2_STORE), basis, equivariant=True
    ).double()
    index = torch.arange(9)
    rotation, _ = torch.linalg.qr(normal(9).reshape(3, 3))
    one = torch.ones(1, 1, dtype=torch.float64)
    rotate = torch.block_diag(one, rotation, one, one, rotation)
    coeffs = normal(9, seed=3)
    torch.testing.assert_close(rescaling(rotate @ coeffs, index), rotate @ rescaling(coeffs, index))


def test_pooling_takes_the_largest_of_negative_values() -> None:
    statistics = TheirStatistics(
        w__coeffs__mean=np.zeros(3),
        w__coeffs__std=np.ones(3),
        w__gradient_max_after_scalar_atom_ref=np.array([-3.0, -1.0, -2.0]),
    )
    rescaling = DimensionWiseRescaling.from_dataset_statistics(
        statistics, BasisInfo([1], ["1x1o"]), weigher_key="w", equivariant=True
    )
    assert rescaling.max_grads.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("equivariant", [False, True])
def test_objects_of_mldft_are_left_unchanged(basis: BasisInfo, equivariant: bool) -> None:
    arrays = {
        "w__coeffs__mean": np.linspace(1, 2, 9, dtype=np.float32),
        "w__coeffs__std": np.linspace(2, 3, 9, dtype=np.float32),
        "w__gradient_max_after_atom_ref": np.linspace(3, 4, 9, dtype=np.float32),
        "w__gradient_max_after_scalar_atom_ref": np.linspace(4, 5, 9, dtype=np.float32),
    }
    before = {name: array.copy() for name, array in arrays.items()}
    theirs = SimpleNamespace(
        basis_func_to_shell=basis.basis_func_to_shell,
        l_per_basis_func=basis.l_per_basis_func.astype(np.int32),
        irreps_per_atom=np.array(basis.irreps_per_atom, dtype=object),
    )
    rescaling = DimensionWiseRescaling.from_dataset_statistics(
        TheirStatistics(**arrays), theirs, weigher_key="w", equivariant=equivariant, s_coeff=7
    )
    assert rescaling.s_coeff == 7
    for buffer in rescaling.buffers():
        buffer.fill_(-1)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_statistics_of_tensors_keep_their_dtype(basis: BasisInfo) -> None:
    ones = torch.ones(9, dtype=torch.float64)
    statistics = TheirStatistics(
        w__coeffs__mean=ones, w__coeffs__std=ones, w__gradient_max_after_scalar_atom_ref=ones
    )
    rescaling = DimensionWiseRescaling.from_dataset_statistics(
        statistics, basis, weigher_key="w", equivariant=True
    )
    assert rescaling.lambda_z.dtype == torch.float64


def test_equivariant_needs_a_basis_that_fits() -> None:
    statistics = DatasetStatistics(ZARR2_STORE)
    with pytest.raises(ValueError, match="basis_info: expected a basis, got none, nor one kept"):
        DimensionWiseRescaling.from_dataset_statistics(statistics, equivariant=True)
    with pytest.raises(ValueError, match=r"coeffs/mean: expected shape \(4,\), got \(9,\)"):
        DimensionWiseRescaling.from_dataset_statistics(
            statistics, BasisInfo([1], ["1x0e+1x1o"]), equivariant=True
        )


def test_an_unknown_weigher_is_reported() -> None:
    with pytest.raises(KeyError, match="weigher_key: expected one of has_energy_label, initial"):
        DimensionWiseRescaling.from_dataset_statistics(
            DatasetStatistics(ZARR2_STORE), weigher_key="constant"
        )


def statistics_of(
    path: Path, coeffs: dict[str, np.ndarray], gradients: dict[str, np.ndarray]
) -> DatasetStatistics:
    """Take the statistics of samples (n_samples, n_basis), for each weigher."""
    store = DatasetStatistics(path, create_store=True)
    for weigher in coeffs:
        c, g = coeffs[weigher], gradients[weigher]
        for key, data in {
            "coeffs/mean": c.mean(0),
            "coeffs/std": c.std(0),
            "gradient_label/mean": g.mean(0),
            "gradient_label/std": g.std(0),
            "gradient_label/abs_max": abs(g).max(0),
            "gradient_max_after_atom_ref": abs(g - g.mean(0)).max(0),
            "gradient_max_after_scalar_atom_ref": abs(g).max(0),
            "atom_ref_global_bias": np.array(0.5),
        }.items():
            store.save_statistic(weigher, key, data)
    return store


@pytest.mark.parametrize("equivariant", [False, True])
def test_transformed_statistics_are_those_of_the_transformed_data(
    tmp_path: Path, basis: BasisInfo, float64_default: None, equivariant: bool
) -> None:
    random = np.random.default_rng(0)
    scale = np.logspace(-3, 2, 9)
    coeffs = {w: random.normal(1, scale, (20, 9)) for w in ("fitted", "other")}
    gradients = {w: random.normal(0.1, 1 / scale, (20, 9)) for w in ("fitted", "other")}
    original = statistics_of(tmp_path / "original.zarr", coeffs, gradients)

    options: dict[str, Any] = {"basis_info": basis, "equivariant": equivariant, "s_grad": 0.1}
    rescaling = DimensionWiseRescaling.from_dataset_statistics(
        original, weigher_key="fitted", **options
    )
    assert len(rescaling.lambda_z.unique()) > 3
    rescale = lambda c, g: rescaling.rescale_coeffs_and_gradient(  # noqa: E731
        torch.as_tensor(c), torch.as_tensor(g), torch.arange(9)
    )
    rescaled = {
        w: [rescale(c, g) for c, g in zip(coeffs[w], gradients[w], strict=True)] for w in coeffs
    }
    direct = statistics_of(
        tmp_path / "direct.zarr",
        {w: np.stack([c.numpy() for c, _ in pairs]) for w, pairs in rescaled.items()},
        {w: np.stack([g.numpy() for _, g in pairs]) for w, pairs in rescaled.items()},
    )

    output = tmp_path / "new" / "transformed.zarr"
    returned = DimensionWiseRescaling.apply_to_dataset_statistics(
        original, output, "fitted", **options
    )
    assert returned.path == output
    keys = DatasetStatistics(output).keys_recursive()
    assert keys == [
        f"{weigher}/{statistic}"
        for weigher in ("fitted", "other")
        for statistic in (
            "coeffs/mean",
            "coeffs/std",
            "gradient_label/abs_max",
            "gradient_label/mean",
            "gradient_max_after_atom_ref",
        )
    ]
    for key in keys:
        name = key.split("/", 1)
        np.testing.assert_allclose(
            returned.load_statistic(*name), direct.load_statistic(*name), rtol=1e-9, atol=1e-10
        )
    assert [path.name for path in output.parent.iterdir()] == ["transformed.zarr"]


def test_the_largest_coefficient_is_scaled_but_not_shifted(tmp_path: Path) -> None:
    transformed = DimensionWiseRescaling.apply_to_dataset_statistics(
        DatasetStatistics(ZARR2_STORE), tmp_path / "transformed.zarr", "has_energy_label"
    )
    np.testing.assert_allclose(
        transformed.load_statistic("has_energy_label", "coeffs/abs_max"),
        (np.arange(9) / 2 + 1) * STORED_LAMBDA,
        rtol=1e-6,
    )
    assert not [key for key in transformed.keys_recursive() if "initial_guess" in key]


def test_applying_twice_changes_nothing_and_other_values_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "transformed.zarr"
    arguments = (DatasetStatistics(ZARR2_STORE), output, "has_energy_label")
    DimensionWiseRescaling.apply_to_dataset_statistics(*arguments)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    DimensionWiseRescaling.apply_to_dataset_statistics(*arguments)
    with pytest.raises(ValueError, match="expected the values stored in"):
        DimensionWiseRescaling.apply_to_dataset_statistics(*arguments, s_grad=0.01)
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_a_failed_transformation_writes_nothing(tmp_path: Path) -> None:
    statistics = TheirStatistics(
        w__coeffs__mean=np.zeros(3),
        w__coeffs__std=np.ones(3),
        w__gradient_max_after_atom_ref=np.ones(3),
        v__coeffs__std=np.ones(4),
    )
    with pytest.raises(ValueError, match=r"coeffs/std: expected shape \(3,\), got \(4,\)"):
        DimensionWiseRescaling.apply_to_dataset_statistics(
            statistics, tmp_path / "new" / "out.zarr", "w"
        )
    with pytest.raises(ValueError, match=r"output_path: expected a path ending in \.zarr"):
        DimensionWiseRescaling.apply_to_dataset_statistics(statistics, tmp_path / "out", "w")
    assert not list(tmp_path.iterdir())


# One molecule


def test_a_molecule_is_the_rescaling_with_its_indices(
    rescaling: DimensionWiseRescaling, basis: BasisInfo, index: Tensor
) -> None:
    water = rescaling.for_molecule(np.array([8, 1, 1], dtype=np.uint8), basis)
    assert isinstance(water, MoleculeRescaling)
    assert water.atomic_numbers == [8, 1, 1]
    assert basis.basis_function_ind([8, 1, 1]).tolist() == index.tolist()
    x = normal(13, dtype=rescaling.lambda_z.dtype)
    y = normal(13, dtype=rescaling.lambda_z.dtype, seed=1)
    assert torch.equal(water(x), rescaling(x, index))
    for result, wanted in zip(
        water.rescale_coeffs_and_gradient(x, y),
        rescaling.rescale_coeffs_and_gradient(x, y, index),
        strict=True,
    ):
        assert torch.equal(result, wanted)
    for name in ("unscale_coeffs", "unscale_gradient", "gradient_to_original"):
        assert torch.equal(getattr(water, name)(x), getattr(rescaling, name)(x, index))


def test_a_molecule_must_fit_the_basis(rescaling: DimensionWiseRescaling, basis: BasisInfo) -> None:
    with pytest.raises(ValueError, match=r"elements of the basis .* got C \(6\) at position 1"):
        rescaling.for_molecule([1, 6], basis)
    with pytest.raises(ValueError, match="basis_info: expected 9 basis functions, got 4"):
        rescaling.for_molecule([1], BasisInfo([1], ["1x0e+1x1o"]))


# Bases


HO = BasisInfo([1, 8], ["2x0e", "1x0e+1x1o"])
OH = BasisInfo([8, 1], ["1x0e+1x1o", "2x0e"])


@pytest.fixture
def stored(tmp_path: Path) -> DatasetStatistics:
    """Statistics of hydrogen first; with the other order oxygen's would be hydrogen's."""
    store = DatasetStatistics(tmp_path / "s.zarr", create_store=True)
    for key, values in {
        "coeffs/mean": [100.0, 200, 1, 2, 3, 4],
        "coeffs/std": [1.0, 1, 1, 1, 1, 1],
        "gradient_max_after_atom_ref": [0.1, 0.1, 0.1, 0.2, 0.3, 0.4],
        "gradient_max_after_scalar_atom_ref": [0.1, 0.1, 0.1, 0.2, 0.3, 0.4],
        "gradient_label/mean": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        "atom_ref_atom_type_bias": [-0.5, -75.0],
        "atom_ref_global_bias": 0.0,
    }.items():
        store.save_statistic("has_energy_label", key, np.array(values))
    store.keep_basis(HO)
    return store


def test_the_basis_of_the_statistics_is_the_default(stored: DatasetStatistics) -> None:
    rescaling = DimensionWiseRescaling.from_dataset_statistics(stored)
    scaled = rescaling.for_molecule([8])(torch.tensor([1.0, 2, 3, 5]).double())
    assert scaled.tolist() == pytest.approx([0, 0, 0, 8])
    assert rescaling.basis_function_ind([8]).tolist() == [2, 3, 4, 5]
    DimensionWiseRescaling.from_dataset_statistics(stored, equivariant=True)
    reference = AtomicReference.from_dataset_statistics(stored)
    functional = EnergyFunctional(NoEnergy(), rescaling, reference)
    index, batch = functional.molecule_indices([[8], [1]])
    assert index.tolist() == [2, 3, 4, 5, 0, 1]
    energy, _ = functional.energy_and_gradient(torch.ones(6).double(), index, batch)
    assert energy.tolist() == pytest.approx([0.7 + 0.8 + 0.9 + 1 - 75, 0.5 + 0.6 - 0.5])
    energy, _ = functional.for_molecule([8]).energy_and_gradient(torch.ones(4).double())
    assert energy.tolist() == pytest.approx([0.7 + 0.8 + 0.9 + 1 - 75])


class TheirLayout:
    """A layout without names of shells, as a class of another package may be."""

    def __init__(self, basis: BasisInfo) -> None:
        self.n_basis = basis.n_basis
        self.atomic_number_to_atom_index = basis.atomic_number_to_atom_index.astype(np.int32)
        self.atom_ind_to_basis_function_ind = basis.atom_ind_to_basis_function_ind


def test_another_basis_of_the_same_length_is_refused(
    stored: DatasetStatistics, tmp_path: Path
) -> None:
    rescaling = DimensionWiseRescaling.from_dataset_statistics(stored)
    reference = AtomicReference.from_dataset_statistics(stored)
    functional = EnergyFunctional(NoEnergy(), rescaling, reference)
    plain = EnergyFunctional(NoEnergy(), rescaling)
    other = AtomicReference(torch.ones(6).double(), torch.ones(2).double(), 0.0, OH)
    shells = BasisInfo([1, 8], ["2x0e", "4x0e"])
    build, refer = (
        DimensionWiseRescaling.from_dataset_statistics,
        AtomicReference.from_dataset_statistics,
    )
    apply = DimensionWiseRescaling.apply_to_dataset_statistics
    for basis in (OH, shells, TheirLayout(OH)):
        for use in (
            lambda basis: build(stored, basis),
            lambda basis: build(stored, basis, equivariant=True),
            lambda basis: refer(stored, basis),
            lambda basis: apply(stored, tmp_path / "t.zarr", "has_energy_label", basis_info=basis),
            lambda basis: rescaling.for_molecule([8], basis),
            lambda basis: functional.for_molecule([8], basis),
            lambda basis: plain.for_molecule([8], basis),
            lambda basis: plain.molecule_indices([[8]], basis),
        ):
            with pytest.raises(ValueError, match="basis_info: expected the basis of the .*, H: 2x"):
                use(basis)
    with pytest.raises(ValueError, match="basis_info: expected the basis of the rescaling, H: 2x0"):
        EnergyFunctional(NoEnergy(), rescaling, other)
    assert not (tmp_path / "t.zarr").exists()
    # The same layout by other names is the same basis.
    rescaling.for_molecule([8], TheirLayout(HO))


def test_transformed_statistics_keep_their_basis(stored: DatasetStatistics, tmp_path: Path) -> None:
    transformed = DimensionWiseRescaling.apply_to_dataset_statistics(
        stored, tmp_path / "t.zarr", "has_energy_label"
    )
    assert repr(transformed.basis_info) == repr(HO)


def test_without_any_basis_one_has_to_be_given() -> None:
    ones = torch.ones(6)
    rescaling = DimensionWiseRescaling(ones, ones, ones)
    with pytest.raises(ValueError, match="basis_info: expected a basis, got none, nor one kept"):
        rescaling.for_molecule([8])
    assert rescaling.for_molecule([8], HO).lambda_z.shape == (4,)
    own = DimensionWiseRescaling(ones, ones, ones, basis_info=HO)
    assert own.for_molecule([8]).lambda_z.shape == (4,)


def test_a_molecule_checks_its_input(basis: BasisInfo) -> None:
    ones = torch.ones(9)
    hydrogen = DimensionWiseRescaling(ones, ones, ones).for_molecule([1], basis)
    with pytest.raises(ValueError, match=r"coeffs: expected shape \(4,\), got \(5,\)"):
        hydrogen(torch.zeros(5))
    with pytest.raises(TypeError, match="scaled_gradient: expected dtype float32, got float64"):
        hydrogen.unscale_gradient(torch.zeros(4).double())
    with pytest.raises(ValueError, match=r"gradient: expected shape \(4,\), got \(2, 2\)"):
        hydrogen.rescale_coeffs_and_gradient(torch.zeros(4), torch.zeros(2, 2))


# Graphs


def graph_inputs(size: int, dtype: torch.dtype, index: Tensor | None, gradient: bool) -> list[Any]:
    return [
        normal(size, dtype=dtype),
        *([] if index is None else [index]),
        *([normal(size, dtype=dtype, seed=1)] if gradient else []),
    ]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("molecule", [False, True])
@pytest.mark.parametrize("how", ["eager", "script", "export"])
def test_the_graph_computes_the_same_bits(
    rescaling: DimensionWiseRescaling, basis: BasisInfo, gradient: bool, molecule: bool, how: str
) -> None:
    dtype = rescaling.lambda_z.dtype
    module = rescaling.for_molecule([8, 1, 1], basis) if molecule else rescaling
    graph = module.export_graph(gradient=gradient)
    index = None if molecule else torch.from_numpy(basis.basis_function_ind([8, 1, 1]))
    inputs = graph_inputs(13, dtype, index, gradient)
    assert [spec.name for spec in graph.inputs] == [
        "coeffs",
        *([] if molecule else ["basis_function_ind"]),
        *(["gradient"] if gradient else []),
    ]
    runnable: Any = graph.module
    if how == "script":
        runnable = torch.jit.freeze(torch.jit.script(scriptable(graph.module)))
    if how == "export":
        n = torch.export.Dim("n", min=2)
        shapes = None if molecule else tuple({0: n} for _ in inputs)
        runnable = torch.export.export(graph.module, tuple(inputs), dynamic_shapes=shapes).module()
    for size in (13,) if molecule else (13, 2):
        x, y = inputs[0][:size], normal(13, dtype=dtype, seed=1)[:size]
        arguments = [tensor[:size] for tensor in inputs]
        results = runnable(*arguments)
        i = () if molecule else (arguments[1],)
        expected = module.rescale_coeffs_and_gradient(x, y, *i)
        results = results if gradient else (results,)
        assert len(results) == len(graph.outputs)
        for result, wanted in zip(results, expected, strict=False):
            assert torch.equal(result, wanted)


def test_the_graph_says_what_goes_in_and_out(dtype: torch.dtype, basis: BasisInfo) -> None:
    ones = torch.ones(9, dtype=dtype)
    rescaling = DimensionWiseRescaling(ones, ones, ones)
    name = "float32" if dtype == torch.float32 else "float64"

    graph = rescaling.export_graph(gradient=True)
    assert graph.kind == "dimension_wise_rescaling"
    described = [(s.name, s.dtype, s.shape, s.low, s.high) for s in graph.inputs + graph.outputs]
    assert described == [
        ("coeffs", name, ("n",), None, None),
        ("basis_function_ind", "int64", ("n",), 0, 9),
        ("gradient", name, ("n",), None, None),
        ("scaled_coeffs", name, ("n",), None, None),
        ("scaled_gradient", name, ("n",), None, None),
    ]
    assert graph.details == RescalingDetails(n_basis=9, s_coeff=50, s_grad=0.05, epsilon=1e-8)

    water = rescaling.for_molecule([8, 1, 1], basis).export_graph()
    assert water.kind == "dimension_wise_rescaling"
    assert [(s.name, s.dtype, s.shape) for s in water.inputs + water.outputs] == [
        ("coeffs", name, (13,)),
        ("scaled_coeffs", name, (13,)),
    ]
    assert water.details == RescalingDetails(n_basis=9, epsilon=1e-8, atomic_numbers=(8, 1, 1))


def test_a_file_is_not_made_of_broken_buffers(
    rescaling: DimensionWiseRescaling, tmp_path: Path
) -> None:
    rescaling.coeff_biases[2] = float("nan")
    with pytest.raises(ValueError, match="coeff_biases: expected finite values, got nan at index"):
        export(rescaling, tmp_path / "rescaling.pt")


# Bad input


def three(**changed: Any) -> dict[str, Any]:
    return {name: torch.ones(3) for name in ("coeff_biases", "coeff_stds", "max_grads")} | changed


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (three(coeff_stds=torch.ones(4)), ValueError, r"coeff_stds: expected shape \(3,\), got"),
        (three(max_grads=np.ones(2)), ValueError, r"max_grads: expected shape \(3,\), got \(2,\)"),
        (three(coeff_biases=torch.ones(3, 1)), ValueError, r"coeff_biases: expected shape \(n_b"),
        (three(coeff_biases=np.float64(1)), ValueError, r"coeff_biases: expected shape \(n_b"),
        (
            three(coeff_stds=torch.tensor([1.0, -0.5, 1.0])),
            ValueError,
            "coeff_stds: expected values of at least 0, got -0.5 at index 1",
        ),
        (
            three(max_grads=torch.tensor([1.0, float("nan"), 1.0])),
            ValueError,
            r"max_grads: expected finite values, got nan at index \(1,\)",
        ),
        (
            three(coeff_biases=np.array([1.0, 1.0, -np.inf])),
            ValueError,
            r"coeff_biases: expected finite values, got -inf at index \(2,\)",
        ),
        (three(coeff_stds=torch.ones(3).double()), TypeError, "coeff_stds: expected dtype float32"),
        (three(coeff_stds=torch.ones(3).int()), TypeError, "coeff_stds: expected dtype float32 or"),
        (three(max_grads=np.arange(3)), TypeError, "max_grads: expected floating-point values"),
        (three(coeff_stds=torch.ones(3, device="meta")), ValueError, "coeff_stds: expected a tens"),
        (three(s_coeff=0), ValueError, "s_coeff: expected a positive number, got 0"),
        (three(s_grad=-0.05), ValueError, "s_grad: expected a positive number, got -0.05"),
        (three(s_grad=float("nan")), ValueError, "s_grad: expected a positive number"),
        (three(epsilon=-1e-8), ValueError, "epsilon: expected a finite number of at least 0"),
        (
            three(coeff_stds=torch.zeros(3), max_grads=torch.full((3,), 1e38)),
            ValueError,
            "lambda_z: expected finite values, got inf",
        ),
    ],
)
def test_bad_statistics_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        DimensionWiseRescaling(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("coeffs", "index", "error", "message"),
    [
        (torch.zeros(2), torch.tensor([0, 3]), IndexError, r"\[0, 3\), got 3 at position 1"),
        (torch.zeros(2), torch.tensor([-1, 0]), IndexError, r"\[0, 3\), got -1 at position 0"),
        (torch.zeros(3), torch.tensor([0, 1]), ValueError, r"expected shape \(2,\), got \(3,\)"),
        (torch.zeros(1, 2), torch.tensor([0, 1]), ValueError, r"shape \(2,\), got \(1, 2\)"),
        (torch.zeros(1), torch.tensor(0), ValueError, r"_ind: expected shape \(n,\), got \(\)"),
        (torch.zeros(2).double(), torch.tensor([0, 1]), TypeError, "float32, got float64"),
        (torch.zeros(2).long(), torch.tensor([0, 1]), TypeError, "float64, got int64"),
        (torch.zeros(2), torch.tensor([0.0, 1.0]), TypeError, "int64 or int32, got float32"),
        (torch.zeros(2), [0.0, 1.0], TypeError, "basis_function_ind: expected integers, got list"),
        (torch.zeros(2, device="meta"), torch.tensor([0, 1]), ValueError, "on cpu, got one on m"),
        (torch.zeros(2), torch.zeros(2, device="meta").long(), ValueError, "on cpu, got one on m"),
    ],
)
@pytest.mark.parametrize(
    "method",
    [
        "forward",
        "unscale_coeffs",
        "unscale_gradient",
        "gradient_to_original",
        "rescale_coeffs_and_gradient",
    ],
)
def test_bad_input_is_refused(
    method: str, coeffs: Tensor, index: Any, error: type[Exception], message: str
) -> None:
    rescaling = DimensionWiseRescaling(**three())
    arguments = (coeffs, coeffs, index) if method.startswith("rescale") else (coeffs, index)
    with pytest.raises(error, match=message) as caught:
        getattr(rescaling, method)(*arguments)
    assert "\n" not in str(caught.value)


def test_the_gradient_must_fit_the_coefficients() -> None:
    rescaling = DimensionWiseRescaling(**three())
    index = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"gradient: expected shape \(2,\), got \(3,\)"):
        rescaling.rescale_coeffs_and_gradient(torch.zeros(2), torch.zeros(3), index)
    with pytest.raises(TypeError, match="gradient: expected dtype float32, got float64"):
        rescaling.rescale_coeffs_and_gradient(torch.zeros(2), torch.zeros(2).double(), index)
    with pytest.raises(TypeError, match="basis_function_ind: expected integers, got NoneType"):
        rescaling.rescale_coeffs_and_gradient(torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize("sample", [torch.zeros(2), {"coeffs": torch.zeros(2)}, None])
def test_a_data_sample_needs_its_fields(sample: Any) -> None:
    rescaling = DimensionWiseRescaling(**three())
    with pytest.raises(ValueError, match="data_sample: expected the fields coeffs, basis_function"):
        rescaling(sample)
    with pytest.raises(ValueError, match="data_sample: expected the fields coeffs, gradient_label"):
        rescaling.rescale_coeffs_and_gradient(sample)
