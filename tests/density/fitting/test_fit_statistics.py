"""Fitted statistics: numpy's two passes, mldft's rules, and files that are not what they should."""

from __future__ import annotations

import json
import operator
import pickle
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

import ofcv_export.density.fitting.fit_statistics as fit_statistics_module
from ofcv_export.cli import app
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.dataset_statistics import DatasetStatistics
from ofcv_export.density.fitting.accumulators import LeastSquares, Moments
from ofcv_export.density.fitting.density_labels import (
    DensityLabels,
    project_gradient,
    read_labels,
    stored_basis,
    write_labels,
)
from ofcv_export.density.fitting.fit_statistics import fit_statistics
from ofcv_export.density.fitting.sample_weighers import (
    ConstantSampleWeigher,
    GroundStateOnlySampleWeigher,
    HasEnergyLabelSampleWeigher,
    InitialGuessOnlySampleWeigher,
    MinSCFIterationSampleWeigher,
    ProductSampleWeigher,
    SampleWeigher,
    parse_weigher,
)
from ofcv_export.density.rescaling import DimensionWiseRescaling

BASIS = BasisInfo([1, 6, 8], ["2x0e+1x1o", "3x0e+1x1o+1x2e", "1x0e+2x1o"])
SCALAR = BASIS.l_per_basis_func == 0
# Water, methanol, formaldehyde, carbon monoxide, methane, hydrogen: the biases are determined.
MOLECULES = ([8, 1, 1], [6, 8, 1, 1, 1, 1], [6, 8, 1, 1], [6, 8], [6, 1, 1, 1, 1], [1, 1])
RUNNER = CliRunner()


def random_arrays(
    atomic_numbers: Sequence[int], name: str, n_steps: int = 5, mean: float = 0.0
) -> dict[str, Any]:
    """Return the arrays of a made-up label file; step 0 has no energy and no gradient."""
    random = np.random.default_rng(list(name.encode()))
    n = len(BASIS.basis_function_ind(atomic_numbers))
    known = np.arange(n_steps) > 0
    return {
        "geometry/mol_id": name,
        "geometry/atom_pos": random.normal(size=(len(atomic_numbers), 3)),
        "geometry/atomic_numbers": np.array(atomic_numbers, dtype=np.uint8),
        "of_labels/n_scf_steps": n_steps,
        "of_labels/energies/e_kin": known * random.normal(-20 * len(atomic_numbers), 1, n_steps),
        "of_labels/spatial/coeffs": mean + random.normal(size=(n_steps, n)),
        "of_labels/spatial/grad_kin": known[:, None] * (mean + random.normal(size=(n_steps, n))),
        "of_labels/spatial/dual_basis_integrals": np.tile(random.uniform(1, 2, n), (n_steps, 1)),
        "ks_labels/energies/has_energy_label": known,
    }


def written(path: Path, arrays: Mapping[str, Any], basis: BasisInfo | None = BASIS) -> Path:
    write_labels(path, arrays, basis)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("labels")
    return [
        written(folder / f"{i}.zarr.zip", random_arrays(numbers, str(i), n_steps=3 + i))
        for i, numbers in enumerate(MOLECULES)
    ]


@dataclass(frozen=True)
class Uneven:
    """Weights that are neither 0 nor 1."""

    def summary_string(self) -> str:
        return "uneven"

    def get_weights(self, labels: DensityLabels) -> np.ndarray:
        return 0.25 * np.arange(labels.n_samples) * len(labels.mol_id)


def expected_statistics(
    files: Sequence[Path], weigher: SampleWeigher, with_bias: bool = True
) -> dict[str, np.ndarray]:
    """Return mldft's statistics by numpy: everything in memory, means first, deviations second."""
    labels = [read_labels(file) for file in files]
    weights = [weigher.get_weights(molecule) for molecule in labels]
    index = [BASIS.basis_function_ind(molecule.atomic_numbers) for molecule in labels]
    coeffs = [molecule.coeffs for molecule in labels]
    gradient = [project_gradient(m.gradient, m.basis_integrals) for m in labels]

    def gathered(fields: Sequence[np.ndarray], function: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = [
            (field[:, ind == function], np.tile(w[:, None], (1, np.sum(ind == function))))
            for field, w, ind in zip(fields, weights, index, strict=True)
        ]
        return tuple(np.concatenate([part[i].ravel() for part in pairs]) for i in (0, 1))

    result: dict[str, np.ndarray] = {}
    for name, fields in (("coeffs", coeffs), ("gradient_label", gradient)):
        columns = []
        for function in range(BASIS.n_basis):
            values, w = gathered(fields, function)
            mean = np.average(values, weights=w)
            std = np.sqrt(np.average((values - mean) ** 2, weights=w))
            columns.append([mean, std, np.max(w * abs(values)), np.max(w * abs(values - mean))])
        mean, std, abs_max, result[f"{name} deviation"] = np.array(columns).T
        result |= {f"{name}/mean": mean, f"{name}/std": std, f"{name}/abs_max": abs_max}
    result.pop("coeffs deviation")
    after = result.pop("gradient_label deviation")
    result["gradient_max_after_atom_ref"] = after
    result["gradient_max_after_scalar_atom_ref"] = np.where(
        SCALAR, after, result["gradient_label/abs_max"]
    )

    composition = np.array([[np.sum(m.atomic_numbers == z) for z in (1, 6, 8)] for m in labels])
    design = np.column_stack([composition, np.ones(len(labels))]) if with_bias else composition
    for name, slope in (
        ("atom_ref", result["gradient_label/mean"]),
        ("scalar_atom_ref", result["gradient_label/mean"] * SCALAR),
    ):
        per_sample = [
            m.energy - c @ slope[i] for m, c, i in zip(labels, coeffs, index, strict=True)
        ]
        weighted = [w.sum() > 0 for w in weights]
        targets = [
            np.average(y, weights=w) if w.sum() > 0 else np.nan
            for y, w in zip(per_sample, weights, strict=True)
        ]
        bias = np.linalg.lstsq(design[weighted], np.array(targets)[weighted], rcond=None)[0]
        result[f"{name}_atom_type_bias"] = bias[:3]
        result[f"{name}_global_bias"] = np.array(bias[3] if with_bias else 0.0)
        left = np.concatenate(
            [y - row @ bias for y, row in zip(per_sample, design.astype(float), strict=True)]
        )
        w = np.concatenate(weights)
        result[f"energy_minus_{name}/mean"] = np.sum(w * left) / w.sum()
        result[f"energy_minus_{name}/std"] = np.sqrt(np.sum(w * left**2) / w.sum())
        result[f"energy_minus_{name}/abs_max"] = np.max(w * abs(left))
    return result


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    "weigher",
    [
        HasEnergyLabelSampleWeigher(),
        ConstantSampleWeigher(),
        ConstantSampleWeigher(0.5),
        MinSCFIterationSampleWeigher(2),
        GroundStateOnlySampleWeigher(),
        ProductSampleWeigher(HasEnergyLabelSampleWeigher(), ConstantSampleWeigher(3)),
        Uneven(),
        # The two smallest molecules have no weight.
        MinSCFIterationSampleWeigher(4),
    ],
    ids=lambda weigher: weigher.summary_string(),
)
def test_statistics_are_those_of_two_passes_in_memory(
    files: list[Path], tmp_path: Path, weigher: SampleWeigher, with_bias: bool
) -> None:
    statistics = fit_statistics(
        files,
        tmp_path / "s.zarr",
        weighers=[weigher],
        initial_guess_weighers=[],
        with_bias=with_bias,
    )
    expected = expected_statistics(files, weigher, with_bias)
    key = weigher.summary_string()
    assert statistics.keys_recursive() == sorted(f"{key}/{name}" for name in expected)
    for name, values in expected.items():
        loaded = statistics.load_statistic(key, name)
        assert loaded.shape == np.shape(values)
        assert loaded.dtype == np.float64
        # Relative to what was summed: a mean of both signs loses digits by cancellation.
        scale = 100 if "atom_ref" in name else np.max(np.abs(values))
        np.testing.assert_allclose(loaded, values, rtol=1e-12, atol=1e-12 * scale)


def test_the_initial_guess_is_compared_with_the_ground_state(
    files: list[Path], tmp_path: Path
) -> None:
    statistics = fit_statistics(files, tmp_path / "s.zarr")
    labels = [read_labels(file) for file in files]
    delta = np.concatenate([m.coeffs[0] - m.coeffs[-1] for m in labels])
    index = np.concatenate([BASIS.basis_function_ind(m.atomic_numbers) for m in labels])
    by_function = [delta[index == function] for function in range(BASIS.n_basis)]
    for name, of in (("mean", np.mean), ("std", np.std), ("abs_max", lambda v: np.max(np.abs(v)))):
        np.testing.assert_allclose(
            statistics.load_statistic("initial_guess_only", f"initial_guess_delta/{name}"),
            [of(values) for values in by_function],
            rtol=1e-12,
            atol=1e-12,
        )


@pytest.mark.parametrize("mean", [1e8, -1e8, 1e13])
def test_a_spread_far_below_the_mean_keeps_its_digits(tmp_path: Path, mean: float) -> None:
    files = [
        written(tmp_path / f"{i}.zarr.zip", random_arrays([8, 6, 1], f"m{i}", mean=mean))
        for i in range(7)
    ]
    statistics = fit_statistics(
        files, tmp_path / "s.zarr", weighers=[ConstantSampleWeigher()], initial_guess_weighers=[]
    )
    values = np.concatenate([read_labels(file).coeffs for file in files])
    np.testing.assert_allclose(
        statistics.load_statistic("constant", "coeffs/std")[BASIS.basis_function_ind([8, 6, 1])],
        np.std(values.astype(np.longdouble), axis=0).astype(np.float64),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        statistics.load_statistic("constant", "coeffs/mean")[BASIS.basis_function_ind([8, 6, 1])],
        np.mean(values.astype(np.longdouble), axis=0).astype(np.float64),
        rtol=1e-15,
    )


def test_one_sample_has_no_spread(tmp_path: Path) -> None:
    file = written(tmp_path / "one.zarr.zip", random_arrays([8, 6, 1], "one", n_steps=2))
    statistics = fit_statistics([file], tmp_path / "s.zarr")
    index = BASIS.basis_function_ind([8, 6, 1])
    coeffs = read_labels(file).coeffs[1]
    np.testing.assert_array_equal(
        statistics.load_statistic("has_energy_label", "coeffs/mean")[index], coeffs
    )
    assert not statistics.load_statistic("has_energy_label", "coeffs/std").any()
    assert not statistics.load_statistic("has_energy_label", "gradient_max_after_atom_ref").any()


def test_equal_molecules_do_not_determine_the_biases(tmp_path: Path) -> None:
    files = [
        written(tmp_path / f"{i}.zarr.zip", random_arrays([8, 6, 1, 1], f"same{i}"))
        for i in range(6)
    ]
    weigher = HasEnergyLabelSampleWeigher()
    statistics = fit_statistics(files, tmp_path / "s.zarr", initial_guess_weighers=[])
    expected = expected_statistics(files, weigher)
    for name in ("atom_ref_atom_type_bias", "atom_ref_global_bias"):
        np.testing.assert_allclose(
            statistics.load_statistic("has_energy_label", name), expected[name], rtol=1e-11
        )


def test_an_absent_element_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "water.zarr.zip", random_arrays([8, 1, 1], "water"))
    with pytest.raises(
        ValueError, match=r"expected at least 1 atoms of C \(6\), got a weight of 0"
    ):
        fit_statistics([file], tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_an_absent_element_may_have_statistics_zero(tmp_path: Path) -> None:
    file = written(tmp_path / "water.zarr.zip", random_arrays([8, 1, 1], "water"))
    statistics = fit_statistics([file], tmp_path / "s.zarr", min_atoms_per_type=0)
    carbon = BASIS.atom_ind_to_basis_function_ind[1]
    for name in ("coeffs/mean", "coeffs/std", "coeffs/abs_max", "gradient_max_after_atom_ref"):
        values = statistics.load_statistic("has_energy_label", name)
        assert not values[carbon].any()
        assert np.delete(values, carbon).all()


def test_processes_change_nothing(files: list[Path], tmp_path: Path) -> None:
    serial = fit_statistics(files, tmp_path / "serial.zarr")
    parallel = fit_statistics(files, tmp_path / "parallel.zarr", processes=2)
    assert parallel.keys_recursive() == serial.keys_recursive()
    for key in serial.keys_recursive():
        weigher, name = key.split("/", 1)
        np.testing.assert_array_equal(
            parallel.load_statistic(weigher, name), serial.load_statistic(weigher, name)
        )


def test_the_order_of_files_changes_last_digits_only(files: list[Path], tmp_path: Path) -> None:
    one = fit_statistics(files, tmp_path / "one.zarr")
    other = fit_statistics(files[::-1], tmp_path / "other.zarr")
    for key in one.keys_recursive():
        weigher, name = key.split("/", 1)
        expected = one.load_statistic(weigher, name)
        scale = 100 if "atom_ref" in name else np.max(np.abs(expected))
        np.testing.assert_allclose(
            other.load_statistic(weigher, name), expected, rtol=1e-12, atol=1e-12 * scale
        )


def test_one_molecule_is_in_memory_at_a_time(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[DensityLabels] = weakref.WeakSet()
    numbers_alive = []

    def watched(path: Path, *keys: str) -> DensityLabels:
        numbers_alive.append(len(alive))
        labels = read_labels(path, *keys)
        alive.add(labels)
        return labels

    monkeypatch.setattr(fit_statistics_module, "read_labels", watched)
    fit_statistics(files, tmp_path / "s.zarr")
    assert numbers_alive == [0] * 12


def test_sums_do_not_grow_with_the_number_of_files(files: list[Path]) -> None:
    job = fit_statistics_module._Job(
        BASIS, (HasEnergyLabelSampleWeigher(),), (), "e_kin", "grad_kin", True, True
    )
    parts = [fit_statistics_module._first_pass(job, file)[1] for file in files]
    four = reduce(operator.add, parts[:4])
    assert len(pickle.dumps(reduce(operator.add, parts * 5))) == len(pickle.dumps(four))


def test_the_store_is_what_mldft_reads(files: list[Path], tmp_path: Path) -> None:
    fit_statistics(files, tmp_path / "s.zarr")
    # mldft: zarr.open(DirectoryStore(path))[f"{weigher}/{statistic}"][()], with zarr 2.
    root = zarr.open_group(tmp_path / "s.zarr", mode="r", zarr_format=2)
    assert root["has_energy_label/coeffs/std"][()].shape == (BASIS.n_basis,)
    assert root["has_energy_label/atom_ref_atom_type_bias"][()].shape == (BASIS.n_types,)
    assert root["has_energy_label/atom_ref_global_bias"][()].shape == ()
    metadata = json.loads((tmp_path / "s.zarr/has_energy_label/coeffs/std/.zarray").read_text())
    assert (metadata["zarr_format"], metadata["dtype"]) == (2, "<f8")


def test_the_basis_is_kept_with_the_statistics(files: list[Path], tmp_path: Path) -> None:
    fit_statistics(files, tmp_path / "s.zarr")
    assert repr(stored_basis(tmp_path / "s.zarr")) == repr(BASIS)


def test_the_rescaling_takes_the_statistics(files: list[Path], tmp_path: Path) -> None:
    statistics = fit_statistics(files, tmp_path / "s.zarr")
    DimensionWiseRescaling.from_dataset_statistics(statistics, BASIS, equivariant=True)
    rescaling = DimensionWiseRescaling.from_dataset_statistics(statistics)
    np.testing.assert_array_equal(
        rescaling.max_grads.numpy(),
        statistics.load_statistic("has_energy_label", "gradient_max_after_atom_ref"),
    )


def test_transformed_statistics_are_those_of_rescaled_labels(
    files: list[Path], tmp_path: Path
) -> None:
    statistics = fit_statistics(files, tmp_path / "s.zarr", project=False)
    transformed = DimensionWiseRescaling.apply_to_dataset_statistics(
        statistics, tmp_path / "transformed.zarr", "has_energy_label"
    )
    load = statistics.load_statistic
    bias, std, max_grad = (
        load("has_energy_label", name).astype(np.float32).astype(np.float64)
        for name in ("coeffs/mean", "coeffs/std", "gradient_max_after_atom_ref")
    )
    scale = np.where(max_grad > 0.05, np.minimum(max_grad / 0.05, 50 / std), 1.0)
    rescaled = []
    for i, (file, numbers) in enumerate(zip(files, MOLECULES, strict=True)):
        arrays = random_arrays(numbers, str(i), n_steps=3 + i)
        index = BASIS.basis_function_ind(numbers)
        arrays["of_labels/spatial/coeffs"] = scale[index] * (
            arrays["of_labels/spatial/coeffs"] - bias[index]
        )
        arrays["of_labels/spatial/grad_kin"] /= scale[index] + 1e-8
        rescaled.append(written(tmp_path / file.name, arrays))
    direct = fit_statistics(rescaled, tmp_path / "direct.zarr", project=False)
    for name, rtol in (
        ("coeffs/mean", 1e-4),
        ("coeffs/std", 1e-5),
        ("gradient_label/mean", 1e-5),
        ("gradient_label/abs_max", 1e-5),
        ("gradient_max_after_atom_ref", 1e-5),
    ):
        expected = direct.load_statistic("has_energy_label", name)
        np.testing.assert_allclose(
            transformed.load_statistic("has_energy_label", name), expected, rtol=rtol, atol=1e-5
        )


def test_progress_counts_every_file_twice(files: list[Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fit_statistics(files, tmp_path / "s.zarr", progress=lambda *state: seen.append(state))
    assert seen == [(done, 12) for done in range(1, 13)]


def test_labels_of_other_energies_can_be_fitted(tmp_path: Path) -> None:
    files = []
    for i, numbers in enumerate(MOLECULES):
        arrays = random_arrays(numbers, str(i))
        arrays["of_labels/energies/e_tot"] = 2 * arrays["of_labels/energies/e_kin"]
        arrays["of_labels/spatial/grad_tot"] = 2 * arrays["of_labels/spatial/grad_kin"]
        files.append(written(tmp_path / f"{i}.zarr.zip", arrays))
    one = fit_statistics(files, tmp_path / "one.zarr")
    two = fit_statistics(files, tmp_path / "two.zarr", energy_key="e_tot", gradient_key="grad_tot")
    for name in ("gradient_label/mean", "atom_ref_atom_type_bias", "energy_minus_atom_ref/std"):
        np.testing.assert_allclose(
            two.load_statistic("has_energy_label", name),
            2 * one.load_statistic("has_energy_label", name),
            rtol=1e-11,
            atol=1e-11,
        )


# Files that do not fit.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"of_labels/spatial/coeffs": None}, "expected the array of_labels/spatial/coeffs, got"),
        ({"of_labels/energies/e_kin": None}, "expected the array of_labels/energies/e_kin, got"),
        ({"geometry/mol_id": None}, "expected the array geometry/mol_id, got none"),
        (
            {"of_labels/spatial/grad_kin": np.zeros((5, 3))},
            r"of_labels/spatial/grad_kin: expected shape \(5, 18\), got \(5, 3\)",
        ),
        ({"of_labels/energies/e_kin": np.ones(5, dtype=int)}, "e_kin: expected floats, got dtype"),
        ({"geometry/atomic_numbers": np.array([8, 7], dtype=np.uint8)}, r"got N \(7\)"),
        (
            {"geometry/atomic_numbers": np.array([8, 8], dtype=np.uint8)},
            "coeffs: expected 14 coefficients, the basis of its atoms, got 18",
        ),
        ({"ks_labels/energies/has_energy_label": np.zeros(5, bool)}, "a sample with weight"),
    ],
    ids=["coeffs", "energy", "name", "shape", "dtype", "element", "basis", "weight"],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    arrays = random_arrays([8, 6], "bad") | {
        "geometry/atom_pos": np.zeros((2, 3)),
    }
    arrays = {name: values for name, values in (arrays | changes).items() if values is not None}
    file = written(tmp_path / "bad.zarr.zip", arrays)
    with pytest.raises(ValueError, match=message) as raised:
        fit_statistics([file], tmp_path / "s.zarr", min_atoms_per_type=0)
    assert "bad.zarr.zip" in str(raised.value) or "with weight" in message
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("of_labels/spatial/coeffs", (2, 3)),
        ("of_labels/spatial/grad_kin", (2, 3)),
        ("of_labels/spatial/dual_basis_integrals", (2, 3)),
        ("of_labels/energies/e_kin", (2,)),
    ],
)
def test_a_value_that_is_not_finite_is_located(
    tmp_path: Path, name: str, place: tuple[int, ...], value: float
) -> None:
    arrays = random_arrays([8, 6, 1], "nan")
    arrays[name][place] = value
    file = written(tmp_path / "nan.zarr.zip", arrays)
    message = f"{file}: {name}: expected finite values, got {value} at index {place}"
    with pytest.raises(ValueError, match=re.escape(message)):
        fit_statistics([file], tmp_path / "s.zarr")


def test_samples_without_weight_are_not_looked_at(tmp_path: Path) -> None:
    arrays = random_arrays([8, 6, 1], "guess")
    arrays["of_labels/spatial/grad_kin"][0] = np.nan
    arrays["of_labels/energies/e_kin"][0] = np.nan
    file = written(tmp_path / "guess.zarr.zip", arrays)
    statistics = fit_statistics([file], tmp_path / "s.zarr")
    assert np.isfinite(statistics.load_statistic("has_energy_label", "gradient_label/mean")).all()


def test_a_molecule_may_not_occur_twice(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected each molecule once, got '1' twice"):
        fit_statistics([*files, files[1]], tmp_path / "s.zarr")


def test_files_of_another_basis_are_refused(files: list[Path], tmp_path: Path) -> None:
    other = BasisInfo([1, 6, 8], ["5x0e", "3x0e+1x1o+1x2e", "1x0e+2x1o"])
    with pytest.raises(ValueError, match=r"0\.zarr\.zip: expected the basis 5x0e of H, got 2x0e"):
        fit_statistics(files, tmp_path / "s.zarr", other)


def test_labels_without_a_basis_need_one(tmp_path: Path) -> None:
    file = written(tmp_path / "a.zarr.zip", random_arrays([8, 6, 1], "a"), basis=None)
    with pytest.raises(ValueError, match="basis_info: expected a basis, got none"):
        fit_statistics([file], tmp_path / "s.zarr")
    fit_statistics([file], tmp_path / "s.zarr", BASIS)


def test_nothing_to_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="paths: expected at least one label file, got none"):
        fit_statistics([], tmp_path / "s.zarr", BASIS)
    with pytest.raises(FileNotFoundError, match="expected a zarr store, got"):
        fit_statistics([tmp_path / "no.zarr.zip"], tmp_path / "s.zarr", BASIS)


def test_negative_weights_are_refused(files: list[Path], tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Negative(Uneven):
        def get_weights(self, labels: DensityLabels) -> np.ndarray:
            return -np.ones(labels.n_samples)

    with pytest.raises(ValueError, match=r"0\.zarr\.zip: uneven: expected 3 weights of at least 0"):
        fit_statistics(files, tmp_path / "s.zarr", weighers=[Negative()])


def test_a_store_with_other_values_is_kept(files: list[Path], tmp_path: Path) -> None:
    fit_statistics(files, tmp_path / "s.zarr")
    before = DatasetStatistics(tmp_path / "s.zarr").load_statistic("has_energy_label", "coeffs/std")
    with pytest.raises(ValueError, match="expected the values stored"):
        fit_statistics(files[:3], tmp_path / "s.zarr")
    after = DatasetStatistics(tmp_path / "s.zarr").load_statistic("has_energy_label", "coeffs/std")
    np.testing.assert_array_equal(after, before)
    replaced = fit_statistics(files[:3], tmp_path / "s.zarr", overwrite=True)
    assert np.all(replaced.load_statistic("has_energy_label", "coeffs/std") != before)


def test_weighers_add_up_in_one_store(files: list[Path], tmp_path: Path) -> None:
    fit_statistics(files, tmp_path / "s.zarr", weighers=[ConstantSampleWeigher()])
    statistics = fit_statistics(files, tmp_path / "s.zarr", weighers=[Uneven()])
    assert {key.split("/")[0] for key in statistics.keys_recursive()} == {
        "constant",
        "uneven",
        "initial_guess_only",
    }


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_store_of_another_basis_is_refused(
    files: list[Path], tmp_path: Path, overwrite: bool
) -> None:
    """The same shells in another order of elements, as many functions: nothing else would tell."""
    other = BasisInfo([8, 6, 1], [BASIS.irreps_per_atom[row] for row in (2, 1, 0)])
    fit_statistics(files, tmp_path / "s.zarr", weighers=[ConstantSampleWeigher()])
    with pytest.raises(ValueError, match="output_path: expected a store of this basis, got"):
        fit_statistics(files, tmp_path / "s.zarr", other, overwrite=overwrite)
    assert "has_energy_label" not in str(DatasetStatistics(tmp_path / "s.zarr").keys_recursive())


def test_files_and_store_may_be_at_urls(files: list[Path], tmp_path: Path) -> None:
    expected = fit_statistics(files, tmp_path / "s.zarr")
    found = fit_statistics([f"file://{file}" for file in files], "memory://fitted/s.zarr")
    assert found.keys_recursive() == expected.keys_recursive()
    for key in expected.keys_recursive():
        one, other = (store.load_statistic(*key.split("/", 1)) for store in (found, expected))
        np.testing.assert_array_equal(one, other)
    assert repr(found.basis_info) == repr(BASIS)


# The pieces.


def test_moments_of_nothing_are_neutral() -> None:
    index = np.array([0, 1, 1])
    random = np.random.default_rng(0)
    some = Moments.of(random.normal(size=(4, 3)), random.uniform(size=4), index, 3)
    none = Moments.of(np.empty((0, 3)), np.empty(0), index, 3)
    for total in (some + none, none + some):
        np.testing.assert_allclose(total.mean, some.mean, rtol=1e-15)
        np.testing.assert_allclose(total.std, some.std, rtol=1e-15)
    assert not (none + none).std.any()


@pytest.mark.parametrize("n_equations", [2, 4, 50])
def test_reduced_equations_have_the_same_solution(n_equations: int) -> None:
    random = np.random.default_rng(n_equations)
    matrix, targets = random.normal(size=(n_equations, 4)), random.normal(size=(n_equations, 3))
    combination = np.array([1.0, -2.0, 0.5])
    reduced = LeastSquares(matrix[:1], targets[:1], 1)
    for row in range(1, n_equations):
        reduced += LeastSquares(matrix[row : row + 1], targets[row : row + 1], 1)
    assert reduced.matrix.shape == (min(n_equations, 4), 4)
    np.testing.assert_allclose(
        reduced.solve(combination),
        np.linalg.lstsq(matrix, targets @ combination, rcond=None)[0],
        rtol=1e-10,
    )


@pytest.mark.parametrize(
    ("weigher", "key", "weights"),
    [
        (ConstantSampleWeigher(), "constant", [1, 1, 1, 1]),
        (ConstantSampleWeigher(0.5), "constant_0.5", [0.5, 0.5, 0.5, 0.5]),
        (InitialGuessOnlySampleWeigher(), "initial_guess_only", [1, 0, 0, 0]),
        (MinSCFIterationSampleWeigher(2), "min_scf_iteration_2", [0, 0, 1, 1]),
        (HasEnergyLabelSampleWeigher(), "has_energy_label", [0, 1, 1, 1]),
        (GroundStateOnlySampleWeigher(), "ground_state_only", [0, 0, 0, 1]),
        (
            ProductSampleWeigher(HasEnergyLabelSampleWeigher(), ConstantSampleWeigher(2.0)),
            "HasEnergyLabelSampleWeigher(has_energy_label)_times_"
            "ConstantSampleWeigher(constant_2.0)",
            [0, 2, 2, 2],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weighers_are_those_of_mldft(
    tmp_path: Path, weigher: SampleWeigher, key: str, weights: list[float]
) -> None:
    labels = read_labels(written(tmp_path / "a.zarr.zip", random_arrays([8], "a", n_steps=4)))
    assert weigher.summary_string() == key
    np.testing.assert_array_equal(weigher.get_weights(labels), weights)


@pytest.mark.parametrize(
    "text",
    [
        "constant",
        "constant_0.5",
        "initial_guess_only",
        "min_scf_iteration_3",
        "has_energy_label",
        "ground_state_only",
    ],
)
def test_a_key_names_its_weigher(text: str) -> None:
    assert parse_weigher(text).summary_string() == text


def test_a_product_is_written_with_a_star() -> None:
    assert parse_weigher("has_energy_label * min_scf_iteration_3").summary_string() == (
        "HasEnergyLabelSampleWeigher(has_energy_label)_times_"
        "MinSCFIterationSampleWeigher(min_scf_iteration_3)"
    )


@pytest.mark.parametrize("text", ["", "energy", "constant_-1", "min_scf_iteration_x"])
def test_an_unknown_weigher_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="weigher: expected one of has_energy_label, "):
        parse_weigher(text)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_constant_weight_is_a_weight(weight: float) -> None:
    with pytest.raises(ValueError, match="weight: expected a finite number of at least 0"):
        ConstantSampleWeigher(weight)


# The command line.


def test_the_command_line_fits(files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "s.zarr"
    result = RUNNER.invoke(app, ["fit", *map(str, files), str(output), "--weigher", "constant"])
    assert result.exit_code == 0, result.output
    assert "6 files" in result.output
    expected = fit_statistics(files, tmp_path / "t.zarr", weighers=[ConstantSampleWeigher()])
    np.testing.assert_array_equal(
        DatasetStatistics(output).load_statistic("constant", "coeffs/std"),
        expected.load_statistic("constant", "coeffs/std"),
    )


def test_the_command_line_takes_a_basis(tmp_path: Path) -> None:
    file = written(tmp_path / "a.zarr.zip", random_arrays([8, 6, 1], "a"), basis=None)
    basis = tmp_path / "basis.json"
    basis.write_text('{"H": "2x0e+1x1o", "C": "3x0e+1x1o+1x2e", "O": "1x0e+2x1o"}')
    arguments = ["fit", str(file), str(tmp_path / "s.zarr")]
    failed = RUNNER.invoke(app, arguments)
    assert failed.exit_code == 1
    assert "basis_info: expected a basis" in failed.output
    assert RUNNER.invoke(app, [*arguments, "--basis", str(basis)]).exit_code == 0
