"""Density labels: the file layout, and the physics of the Kohn-Sham calculations behind them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from pyscf import dft, gto

from export_scripts.density_labels import (
    DENSITY_BASIS,
    ELEMENTS,
    MOLECULES,
    DensityIntegrals,
    KohnShamSteps,
    basis_integrals,
    build_molecule,
    compute_all_labels,
    compute_labels,
    density_basis_info,
    density_integrals,
    density_molecule,
    even_tempered_basis,
    fit_densities,
    grid_functional,
    kinetic_gradients,
    kohn_sham,
    labels_of,
    mixing_coeffs,
)
from ofcv_export.density.basis import BasisInfo, basis_of_irreps, irreps_per_element
from ofcv_export.density.dataset_statistics import DatasetStatistics
from ofcv_export.density.fitting.density_labels import (
    project_gradient,
    read_array,
    read_labels,
    stored_basis,
    write_labels,
)
from ofcv_export.density.fitting.fit_statistics import fit_statistics
from ofcv_export.density.rescaling import DimensionWiseRescaling

SHIPPED_STATISTICS = (
    Path(__file__).parents[3] / "export_scripts" / "data" / "density_statistics.zarr"
)
BASIS = BasisInfo([1, 8], ["1x0e", "2x0e"])


class Calculation:
    """A molecule with everything that labels are made of."""

    def __init__(self, mol: gto.Mole) -> None:
        self.mol = mol
        self.density_mol = density_molecule(mol)
        self.integrals: DensityIntegrals = density_integrals(self.density_mol)
        self.steps: KohnShamSteps = kohn_sham(mol)
        self.labels: dict[str, Any] = labels_of(mol, self.steps, self.density_mol, self.integrals)

    def energy(self, name: str, group: str = "of_labels") -> np.ndarray:
        return self.labels[f"{group}/energies/e_{name}"]

    def gradient(self, name: str) -> np.ndarray:
        return self.labels[f"of_labels/spatial/grad_{name}"]

    def projected(self, gradient: np.ndarray) -> np.ndarray:
        return project_gradient(
            gradient, np.tile(self.integrals.basis_integrals, (len(gradient), 1))
        )

    @property
    def coeffs(self) -> np.ndarray:
        return self.labels["of_labels/spatial/coeffs"]


@pytest.fixture(scope="module")
def water() -> Calculation:
    return Calculation(build_molecule("H2O"))


@pytest.fixture(scope="module")
def hydrogen() -> Calculation:
    return Calculation(gto.M(atom="H 0 0 0; H 0 0 0.74", basis="6-31G(2df,p)", verbose=0))


# The density fit.


def test_fitted_densities_have_the_number_of_electrons(water: Calculation) -> None:
    np.testing.assert_allclose(water.coeffs @ water.integrals.basis_integrals, 10, rtol=1e-13)
    values = dft.numint.eval_ao(water.density_mol, water.steps.grids.coords)
    on_grid = water.steps.grids.weights @ (values @ water.coeffs.T)
    np.testing.assert_allclose(on_grid, 10, rtol=1e-5)


def test_integrals_of_basis_functions_are_those_on_a_grid() -> None:
    mol = gto.M(atom="O 0 0 0", basis=even_tempered_basis(), verbose=0)
    grids = dft.Grids(mol)
    grids.level = 6
    grids.build()
    on_grid = grids.weights @ dft.numint.eval_ao(mol, grids.coords)
    np.testing.assert_allclose(basis_integrals(mol), on_grid, atol=1e-6, rtol=1e-6)


def test_the_attraction_by_the_nuclei_is_that_of_point_charges(water: Calculation) -> None:
    grids = dft.Grids(water.density_mol)
    grids.level = 6
    grids.build()
    values = dft.numint.eval_ao(water.density_mol, grids.coords)
    distances = np.linalg.norm(grids.coords[:, None] - water.mol.atom_coords(), axis=2)
    potential = -np.sum(water.mol.atom_charges() / distances, axis=1)
    np.testing.assert_allclose(
        water.integrals.external_potential, (grids.weights * potential) @ values, atol=1e-4
    )


def test_the_residual_density_has_little_coulomb_energy(water: Calculation) -> None:
    two_electron = water.mol.intor("int2e")
    matrix = water.steps.density_matrices[-1]
    exact = np.einsum("ijkl,ij,kl->", two_electron, matrix, matrix, optimize=True)
    p, integrals = water.coeffs[-1], water.integrals
    cross = p @ _coulomb_of_density(water, matrix)
    residual = exact - 2 * cross + p @ integrals.coulomb_matrix @ p
    assert 0 < residual < 2e-4 * 0.5 * exact


def _coulomb_of_density(calculation: Calculation, matrix: np.ndarray) -> np.ndarray:
    """Return (P|rho) for every density basis function by PySCF's four-index route."""
    combined = calculation.mol + calculation.density_mol
    n_orbital, n_shells = calculation.mol.nbas, combined.nbas
    shells = (0, n_orbital, 0, n_orbital, n_orbital, n_shells)
    three_center = combined.intor("int3c2e", shls_slice=shells)
    return np.einsum("ijp,ij->p", three_center, matrix)


def test_the_fit_is_stationary_at_a_fixed_number_of_electrons(water: Calculation) -> None:
    matrix = water.steps.density_matrices[-1]
    p = fit_densities(water.mol, water.density_mol, water.integrals, [matrix])[0]
    v = water.integrals.external_potential
    attraction = np.sum(matrix * water.mol.intor("int1e_nuc"))
    slope = water.integrals.coulomb_matrix @ p - _coulomb_of_density(water, matrix)
    slope += v * (v @ p - attraction)
    assert np.abs(slope).max() > 1e-6
    assert np.abs(water.projected(slope[None])).max() < 1e-9


def test_energies_of_the_fit_are_close_to_those_of_the_orbitals(water: Calculation) -> None:
    for name, tolerance in (("ext", 1e-5), ("hartree", 5e-3), ("xc", 5e-3), ("kin", 5e-3)):
        np.testing.assert_allclose(
            water.energy(name)[1:], water.energy(name, "ks_labels")[1:], atol=tolerance
        )


# The gradients.


@pytest.mark.parametrize("name", ["hartree", "ext", "xc", "kinapbe"])
def test_gradients_are_derivatives_of_their_energies(water: Calculation, name: str) -> None:
    p = water.coeffs[-1]
    # Along what an SCF step changes, where the density stays positive.
    direction = water.coeffs[1] - p
    step = 1e-3

    def energy(coeffs: np.ndarray) -> float:
        if name == "hartree":
            return float(0.5 * coeffs @ water.integrals.coulomb_matrix @ coeffs)
        if name == "ext":
            return float(coeffs @ water.integrals.external_potential)
        functional = {"xc": "PBE", "kinapbe": "GGA_K_APBE"}[name]
        return float(
            grid_functional(water.density_mol, water.steps.grids, coeffs[None], functional)[0][0]
        )

    difference = (energy(p + step * direction) - energy(p - step * direction)) / (2 * step)
    np.testing.assert_allclose(water.gradient(name)[-1] @ direction, difference, rtol=1e-5)


@pytest.mark.parametrize("group", ["of_labels", "ks_labels"])
def test_kinetic_gradients_are_differences_along_the_scf(water: Calculation, group: str) -> None:
    # The trapezoidal rule is right to third order in the change of the density.
    gradient, coeffs = water.gradient("kin"), water.coeffs
    mean = 0.5 * (gradient[1:-1] + gradient[2:])
    predicted = np.sum(mean * np.diff(coeffs[1:], axis=0), axis=1)
    np.testing.assert_allclose(predicted, np.diff(water.energy("kin", group)[1:]), rtol=1e-2)
    if group == "of_labels":
        later = np.diff(water.energy("kin")[3:])
        np.testing.assert_allclose(predicted[2:], later, rtol=1e-4)


def test_kinetic_gradients_of_two_electrons_are_von_weizsaeckers(hydrogen: Calculation) -> None:
    # With one orbital, T_s is the von Weizsäcker functional, the integral of |grad rho|^2 / 8 rho.
    energy, gradient = grid_functional(
        hydrogen.density_mol, hydrogen.steps.grids, hydrogen.coeffs, "GGA_K_VW"
    )
    np.testing.assert_allclose(hydrogen.energy("kin")[1:], energy[1:], atol=5e-4)
    exact = hydrogen.projected(gradient)[1:]
    label = hydrogen.projected(hydrogen.gradient("kin"))[1:]
    # The orbital basis is finite: stationarity holds within it only.
    assert np.abs(label - exact).max() < 0.03 * np.abs(exact).max()
    change = np.diff(hydrogen.coeffs[1:], axis=0)
    np.testing.assert_allclose(
        np.sum(label[:-1] * change, axis=1), np.sum(exact[:-1] * change, axis=1), rtol=1e-2
    )


def test_the_converged_density_is_stationary(water: Calculation) -> None:
    total = np.abs(water.projected(water.gradient("tot"))).max(axis=1)
    assert total[1] > 0.1
    assert total[-1] < 1e-4
    kinetic = np.abs(water.projected(water.gradient("kin"))).max(axis=1)
    assert total[-1] < 1e-5 * kinetic[-1]


def test_a_projected_gradient_keeps_the_number_of_electrons(water: Calculation) -> None:
    gradient, w = water.gradient("kin")[1:], water.integrals.basis_integrals
    projected = water.projected(gradient)
    np.testing.assert_allclose(projected @ w, 0, atol=1e-10)
    np.testing.assert_allclose(water.projected(gradient + 3.7 * w), projected, atol=1e-10)


def test_kinetic_gradients_mix_the_steps_before() -> None:
    potentials = np.arange(8.0).reshape(4, 2)
    mixing = [np.ones(1), np.array([0.25, 0.75]), np.array([-1.0, 2.0])]
    np.testing.assert_array_equal(
        kinetic_gradients(potentials, mixing),
        [[0, 0], [0, -1], [-1.5, -2.5], [-6, -7]],
    )


# The calculation.


def test_mixing_coefficients_make_the_error_least() -> None:
    errors = np.random.default_rng(0).normal(size=(4, 30)) * [[1], [1e-2], [1e-4], [1e-6]]
    coeffs = mixing_coeffs(errors)
    assert coeffs.sum() == pytest.approx(1, abs=1e-14)
    least = np.linalg.norm(coeffs @ errors)
    for change in np.eye(4) - coeffs:
        for size in (-1e-3, 1e-3):
            assert np.linalg.norm((coeffs + size * change) @ errors) > least


def test_the_energy_is_that_of_pyscf(water: Calculation) -> None:
    usual = dft.RKS(water.mol, xc="PBE")
    usual.conv_tol = 1e-10
    assert water.energy("tot", "ks_labels")[-1] == pytest.approx(usual.kernel(), abs=1e-7)


def test_a_calculation_that_does_not_converge_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the SCF calculation did not converge"):
        kohn_sham(build_molecule("H2O"), max_steps=2)


def test_energies_add_up(water: Calculation) -> None:
    parts = sum(water.energy(name) for name in ("kin", "hartree", "xc", "ext"))
    np.testing.assert_allclose(parts[1:], water.energy("electron", "ks_labels")[1:], rtol=1e-13)
    np.testing.assert_allclose(
        water.energy("tot")[1:],
        water.energy("electron")[1:] + water.energy("nuc_nuc", "ks_labels")[1:],
        rtol=1e-13,
    )
    for name in ("kin", "kin_minus_apbe", "kin_plus_xc"):
        assert water.energy(name)[0] == 0
        assert not water.gradient(name)[0].any()


def test_ten_molecules_or_more_have_every_element() -> None:
    assert len(MOLECULES) >= 10
    for name in MOLECULES:
        mol = build_molecule(name)
        assert set(mol.elements) <= set(ELEMENTS)
        assert mol.spin == 0


# The files.


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "H2O.zarr.zip"
    compute_labels(path, "H2O", integrals=True)
    return path


def test_a_file_has_the_layout_of_mldft(file: Path, water: Calculation) -> None:
    root = zarr.open_group(zarr.storage.ZipStore(file, mode="r"), mode="r", zarr_format=2)
    n_steps, n = water.coeffs.shape
    # What mldft's OFData.from_file_with_all_gradients reads.
    assert str(root["geometry/mol_id"][()]) == "H2O"
    assert root["geometry/atomic_numbers"].dtype == np.uint8
    np.testing.assert_array_equal(root["geometry/atomic_numbers"][:], [8, 1, 1])
    np.testing.assert_allclose(root["geometry/atom_pos"][:], water.mol.atom_coords())
    assert int(root["of_labels/n_scf_steps"][()]) == n_steps
    assert str(root["of_labels/basis"][()]) == DENSITY_BASIS
    gradients = {
        f"grad_{name}"
        for name in (
            "kin", "hartree", "xc", "ext", "kinapbe", "kin_minus_apbe", "kin_plus_xc", "tot"
        )
    }  # fmt: skip
    spatial = root["of_labels/spatial"]
    assert set(spatial.array_keys()) == gradients | {"coeffs", "dual_basis_integrals"}
    for _, array in spatial.arrays():
        assert (array.shape, array.chunks, array.dtype) == ((n_steps, n), (1, n), np.float64)
    for key, array in root["of_labels/energies"].arrays():
        assert array.shape == (n_steps,), key
    labelled = root["ks_labels/energies/has_energy_label"][:]
    np.testing.assert_array_equal(labelled, np.arange(n_steps) > 0)


def test_a_file_holds_the_labels(file: Path, water: Calculation) -> None:
    labels = read_labels(file)
    # The fit multiplies the last digits, which depend on the number of threads, by its condition.
    np.testing.assert_allclose(labels.coeffs, water.coeffs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(labels.energy, water.energy("kin"), rtol=1e-9)
    np.testing.assert_allclose(
        labels.projected_gradient(), water.projected(water.gradient("kin")), rtol=0, atol=1e-6
    )
    assert repr(labels.basis_info) == repr(density_basis_info())
    assert len(density_basis_info().basis_function_ind([8, 1, 1])) == labels.coeffs.shape[1]
    np.testing.assert_allclose(
        read_array(file, "integrals/coulomb_matrix"), water.integrals.coulomb_matrix, rtol=1e-12
    )


def test_the_same_calculation_makes_the_same_file(file: Path, tmp_path: Path) -> None:
    (again,) = compute_all_labels(tmp_path / "labels", ["H2O"], integrals=True)
    assert again.read_bytes() == file.read_bytes()


def test_computed_labels_can_be_fitted(file: Path, tmp_path: Path) -> None:
    statistics = fit_statistics([file], tmp_path / "s.zarr", min_atoms_per_type=0)
    labels = read_labels(file)
    index = density_basis_info().basis_function_ind([8])
    np.testing.assert_allclose(
        statistics.load_statistic("has_energy_label", "gradient_label/mean")[index],
        labels.projected_gradient()[1:, : len(index)].mean(axis=0),
        rtol=1e-10,
        atol=1e-12,
    )


def test_the_shipped_statistics_load() -> None:
    statistics = DatasetStatistics(SHIPPED_STATISTICS)
    basis = stored_basis(SHIPPED_STATISTICS)
    assert basis is not None
    assert repr(basis) == repr(density_basis_info())
    rescaling = DimensionWiseRescaling.from_dataset_statistics(statistics, basis, equivariant=True)
    assert rescaling.lambda_z.shape == (basis.n_basis,)
    assert statistics.load_statistic("has_energy_label", "atom_ref_atom_type_bias").shape == (4,)
    deviation = statistics.load_statistic("has_energy_label", "energy_minus_atom_ref/std")
    assert 0 < deviation < 0.5
    assert np.all(statistics.load_statistic("has_energy_label", "coeffs/std") > 0)


def test_shipped_statistics_are_those_of_the_labels(file: Path) -> None:
    statistics = DatasetStatistics(SHIPPED_STATISTICS)
    labels = read_labels(file)
    index = density_basis_info().basis_function_ind(labels.atomic_numbers)
    for values, key in (
        (labels.coeffs[1:], "coeffs/abs_max"),
        (labels.projected_gradient()[1:], "gradient_label/abs_max"),
    ):
        largest = statistics.load_statistic("has_energy_label", key)[index]
        # The integrals' last digits differ from machine to machine.
        assert np.all(np.abs(values) <= largest * (1 + 1e-4) + 1e-6)


# Reading and writing.


def arrays() -> dict[str, Any]:
    return {
        "geometry/mol_id": "OH",
        "geometry/atom_pos": np.zeros((2, 3)),
        "geometry/atomic_numbers": np.array([8, 1], dtype=np.uint8),
        "of_labels/energies/e_kin": np.arange(4.0),
        "of_labels/spatial/coeffs": np.arange(12.0).reshape(4, 3),
        "of_labels/spatial/grad_kin": -np.arange(12.0).reshape(4, 3),
        "of_labels/spatial/dual_basis_integrals": np.ones((4, 3)),
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_labels(tmp_path / "OH.zarr.zip", arrays(), BASIS)
    labels = read_labels(tmp_path / "OH.zarr.zip")
    assert (labels.mol_id, labels.n_samples) == ("OH", 4)
    np.testing.assert_array_equal(labels.coeffs, np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(labels.energy, np.arange(4.0))
    np.testing.assert_array_equal(labels.atomic_numbers, [8, 1])
    assert labels.atomic_numbers.dtype == np.int64
    # Without mldft's mask every step counts.
    assert labels.has_energy_label.all()
    np.testing.assert_allclose(labels.projected_gradient().sum(axis=1), 0, atol=1e-12)
    assert repr(labels.basis_info) == repr(BASIS)


def test_a_directory_is_read_as_well(tmp_path: Path) -> None:
    write_labels(tmp_path / "OH.zarr.zip", arrays())
    with zipfile.ZipFile(tmp_path / "OH.zarr.zip") as archive:
        archive.extractall(tmp_path / "OH.zarr")
    labels = read_labels(tmp_path / "OH.zarr")
    np.testing.assert_array_equal(labels.coeffs, np.arange(12.0).reshape(4, 3))
    assert labels.basis_info is None


def test_the_basis_survives(tmp_path: Path) -> None:
    irreps = {"H": "6x0e+3x1o", "O": "1x0e+1x1o+2x2e"}
    basis = basis_of_irreps(irreps)
    assert irreps_per_element(basis) == irreps
    write_labels(tmp_path / "OH.zarr.zip", arrays(), basis)
    assert repr(stored_basis(tmp_path / "OH.zarr.zip")) == repr(basis)
    with pytest.raises(ValueError, match="irreps: expected element symbols, got 'Xx'"):
        basis_of_irreps({"Xx": "1x0e"})
    with pytest.raises(TypeError, match="irreps: expected a mapping, got list"):
        basis_of_irreps(["1x0e"])  # type: ignore[arg-type]


def test_a_name_without_the_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: expected a path ending in \.zarr\.zip, got"):
        write_labels(tmp_path / "OH.zarr", arrays())


def test_what_is_no_label_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.zarr.zip").write_text("no zip")
    (tmp_path / "empty.zarr").mkdir()
    for name in ("text.zarr.zip", "empty.zarr"):
        with pytest.raises(ValueError, match=f"path: expected a zarr group, got .*{name}"):
            read_labels(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"expected a zarr store, got .*no\.zarr"):
        read_labels(tmp_path / "no.zarr")


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    write_labels(tmp_path / "OH.zarr.zip", arrays())
    with zipfile.ZipFile(tmp_path / "OH.zarr.zip") as archive:
        archive.extractall(tmp_path / "OH.zarr")
    (tmp_path / "OH.zarr/of_labels/spatial/coeffs/1.0").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"OH\.zarr: expected a readable array of_labels/spatial/"):
        read_labels(tmp_path / "OH.zarr")


def test_a_lost_chunk_is_no_zero(tmp_path: Path) -> None:
    write_labels(tmp_path / "OH.zarr.zip", arrays())
    with zipfile.ZipFile(tmp_path / "OH.zarr.zip") as archive:
        archive.extractall(tmp_path / "OH.zarr")
    (tmp_path / "OH.zarr/of_labels/spatial/grad_kin/2.0").unlink()
    with zipfile.ZipFile(tmp_path / "lost.zarr.zip", "w") as archive:
        for file in (tmp_path / "OH.zarr").rglob("*"):
            archive.write(file, file.relative_to(tmp_path / "OH.zarr"))
    for name in ("OH.zarr", "lost.zarr.zip"):
        with pytest.raises(ValueError, match=r"readable array of_labels/spatial/grad_kin.*3 of 4"):
            read_labels(tmp_path / name)


def test_chunks_left_out_on_purpose_are_zero_where_the_file_says_so(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "OH.zarr", mode="w", zarr_format=2)
    for name, data in arrays().items():
        data = np.asarray(data)
        fill = "" if data.dtype.kind == "U" else 0
        root.create_array(name, data=data, fill_value=fill, config={"write_empty_chunks": False})
    with pytest.raises(ValueError, match='atom_pos.* the attribute "write_empty_chunks": false'):
        read_labels(tmp_path / "OH.zarr")
    root.attrs["write_empty_chunks"] = False
    np.testing.assert_array_equal(read_labels(tmp_path / "OH.zarr").positions, np.zeros((2, 3)))


def test_labels_are_read_at_a_url(tmp_path: Path) -> None:
    write_labels(tmp_path / "OH.zarr.zip", arrays(), BASIS)
    with zipfile.ZipFile(tmp_path / "OH.zarr.zip") as archive:
        archive.extractall(tmp_path / "OH.zarr")
    for url in (f"file://{tmp_path}/OH.zarr.zip", f"file://{tmp_path}/OH.zarr"):
        labels = read_labels(url)
        assert labels.path == url
        np.testing.assert_array_equal(labels.coeffs, np.arange(12.0).reshape(4, 3))
        assert repr(stored_basis(url)) == repr(BASIS)
    with pytest.raises(
        ValueError, match=r"path: expected a path on this machine, got the URL 's3:"
    ):
        write_labels("s3://b/OH.zarr.zip", arrays())


def test_an_array_that_is_absent_is_named(tmp_path: Path) -> None:
    write_labels(tmp_path / "OH.zarr.zip", arrays())
    with pytest.raises(ValueError, match=r"expected the array integrals/coulomb_matrix, got none"):
        read_array(tmp_path / "OH.zarr.zip", "integrals/coulomb_matrix")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_labels(tmp_path / "OH.zarr.zip", arrays())
    before = (tmp_path / "OH.zarr.zip").read_bytes()
    with pytest.raises(TypeError, match="geometry/mol_id: expected numbers or text, got dtype obj"):
        write_labels(tmp_path / "OH.zarr.zip", {"geometry/mol_id": object()})
    assert (tmp_path / "OH.zarr.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["OH.zarr.zip"]
