"""Energy functionals: formula, chain rule, batches, molecules, invariance, formats, bad input."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ofcv_export as ofcv
from export_scripts.energy_network import CoefficientNetwork
from ofcv_export.c_source.compiler import compilers
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.dataset_statistics import DatasetStatistics
from ofcv_export.density.energy_functional import EnergyFunctional, MoleculeFunctional
from ofcv_export.density.local_frames import rotation_of_harmonics
from ofcv_export.density.natural_reparametrization import natural_transform
from ofcv_export.density.rescaling import DimensionWiseRescaling
from ofcv_export.graph.details import EnergyFunctionalDetails
from tests.builders.formats import FREE_SIZES
from tests.builders.systems import normal

BASIS = BasisInfo([1, 8], ["2x0e+1x1o", "3x0e+1x1o+1x2e"])
WATER, MOLECULES = [8, 1, 1], ([8, 1, 1], [1, 1], [8])
N_WATER = 21


def functional_of(network: nn.Module | None = None, **parts: object) -> EnergyFunctional:
    torch.manual_seed(0)
    n = BASIS.n_basis
    rescaling = DimensionWiseRescaling(
        normal(n), 5 * normal(n, seed=1).abs(), 0.2 * normal(n, seed=2).abs()
    )
    reference = AtomicReference(normal(n, seed=3), normal(2, seed=4), -1.5, BASIS)
    arguments = {"rescaling": rescaling, "atomic_reference": reference} | parts
    return EnergyFunctional(network or CoefficientNetwork(n, 4, (8,)).double(), **arguments)


@pytest.fixture(scope="module")
def functional() -> EnergyFunctional:
    return functional_of()


@pytest.fixture(scope="module")
def batch(functional: EnergyFunctional) -> tuple[Tensor, Tensor, Tensor]:
    index, molecule = functional.molecule_indices(MOLECULES, BASIS)
    return normal(len(index), seed=5), index, molecule


@pytest.fixture(scope="module")
def water(functional: EnergyFunctional) -> MoleculeFunctional:
    """One molecule, in natural coordinates of some overlap, along other axes."""
    draw = normal(N_WATER, N_WATER, seed=6)
    overlap = torch.eye(N_WATER, dtype=torch.float64) + draw @ draw.T / N_WATER
    # Not symmetric, as that to natural coordinates alone would be.
    turn = torch.linalg.qr(normal(N_WATER, N_WATER, seed=12)).Q
    return functional.for_molecule(WATER, BASIS, natural_transform(overlap) @ turn)


def finite_differences(function, coeffs: Tensor, step: float = 1e-5) -> Tensor:
    """Return central differences of a sum of energies, coefficient by coefficient."""
    shifts = step * torch.eye(len(coeffs), dtype=coeffs.dtype)
    with torch.no_grad():
        differences = [
            (function(coeffs + shift) - function(coeffs - shift)).sum() / (2 * step)
            for shift in shifts
        ]
    return torch.stack(differences)


# Energies and gradients


def test_energy_is_that_of_the_formula(functional, batch):
    """E = network(lambda (p - b)) + g p + sum t_Z + t_global, with eq. (4) written out in NumPy."""
    coeffs, index, molecule = (tensor.numpy() for tensor in batch)
    rescaling, reference = functional.rescaling, functional.atomic_reference
    stds, grads = rescaling.coeff_stds.numpy(), rescaling.max_grads.numpy()
    scale = np.where(grads > 0.05, np.minimum(grads / 0.05, 50 / stds), 1.0)
    scaled = scale[index] * (coeffs - rescaling.coeff_biases.numpy()[index])
    with torch.no_grad():
        expected = functional.network(torch.from_numpy(scaled), *batch[1:], 3).numpy()
    slopes = reference.g_z.numpy()[index] * coeffs
    expected += np.bincount(molecule, weights=slopes) - 1.5
    hydrogen, oxygen = reference.t_z.tolist()
    expected += [oxygen + 2 * hydrogen, 2 * hydrogen, oxygen]
    energy, _ = functional.energy_and_gradient(*batch)
    np.testing.assert_allclose(energy, expected, rtol=1e-13)


def test_gradient_is_that_of_the_energy_in_the_original_coordinates(functional, batch):
    coeffs, *indices = batch
    _, gradient = functional.energy_and_gradient(*batch)
    expected = finite_differences(lambda p: functional(p, *indices), coeffs)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


def test_gradient_through_the_transform(functional, water):
    """T^T times the gradient in natural coordinates."""
    coeffs = normal(N_WATER, seed=7)
    energy, gradient = water.energy_and_gradient(coeffs)
    torch.testing.assert_close(gradient, finite_differences(water, coeffs), rtol=1e-7, atol=1e-8)
    plain = functional.for_molecule(WATER, BASIS)
    expected, natural = plain.energy_and_gradient(water.transform @ coeffs)
    torch.testing.assert_close(energy, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, water.transform.T @ natural, rtol=1e-12, atol=1e-13)


def test_written_out_gradient_is_that_of_autograd(functional, batch):
    graph = functional.export_graph()
    found = graph.module(*batch)
    for output, expected in zip(found, functional.energy_and_gradient(*batch), strict=True):
        torch.testing.assert_close(output, expected, rtol=1e-14, atol=1e-14)
    assert not any(tensor.requires_grad for tensor in found)


def test_gradients_in_inference_mode_are_the_same(functional, batch):
    expected = functional.energy_and_gradient(*batch)
    alone = functional.for_molecule([8], BASIS).energy_and_gradient(batch[0][-11:])
    with torch.inference_mode():
        made = functional_of()
        found = made.energy_and_gradient(batch[0].clone(), *made.molecule_indices(MOLECULES, BASIS))
        found_alone = made.for_molecule([8], BASIS).energy_and_gradient(batch[0][-11:].clone())
    for outputs, judges in ((found, expected), (found_alone, alone)):
        assert all(map(torch.equal, outputs, judges))


def test_mixed_batch_equals_its_molecules(functional, batch):
    coeffs, index, molecule = batch
    energy, gradient = functional.energy_and_gradient(*batch)
    for number, atoms in enumerate(MOLECULES):
        own = molecule == number
        alone = functional.for_molecule(atoms, BASIS)
        assert torch.equal(alone.basis_function_ind, index[own])
        expected = alone.energy_and_gradient(coeffs[own])
        torch.testing.assert_close(energy[number, None], expected[0], rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(gradient[own], expected[1], rtol=1e-14, atol=1e-14)


def test_molecules_may_be_interleaved(functional, batch):
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(8))
    energy, gradient = functional.energy_and_gradient(*(tensor[order] for tensor in batch))
    expected = functional.energy_and_gradient(*batch)
    torch.testing.assert_close(energy, expected[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, expected[1][order], rtol=1e-14, atol=1e-14)


def test_without_an_atomic_reference(functional, batch):
    """The reference is a sum of its own, whose gradient is its slope."""
    bare = functional_of(functional.network, atomic_reference=None)
    energy, gradient = functional.energy_and_gradient(*batch)
    bare_energy, bare_gradient = bare.energy_and_gradient(*batch)
    slope = functional.atomic_reference.g_z[batch[1]]
    torch.testing.assert_close(energy - bare_energy, functional.atomic_reference(*batch, 3))
    torch.testing.assert_close(gradient - bare_gradient, slope, rtol=1e-12, atol=1e-12)


# Equivariant statistics


class ShellNetwork(nn.Module):
    """An energy that sees the length of each shell's coefficients only."""

    def __init__(self) -> None:
        super().__init__()
        shell = torch.from_numpy(BASIS.basis_func_to_shell)
        self.register_buffer("stiffness", 0.1 + normal(BASIS.n_basis, seed=9).abs()[shell])

    def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
        energy = self.stiffness[basis_function_ind] * scaled_coeffs**2
        return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, energy)


@pytest.fixture
def statistics(tmp_path: Path) -> DatasetStatistics:
    store = DatasetStatistics(tmp_path / "s.zarr", create_store=True)
    n = BASIS.n_basis
    for key, array in {
        "coeffs/mean": normal(n),
        "coeffs/std": 5 * normal(n, seed=1).abs(),
        "gradient_label/mean": normal(n, seed=2),
        "gradient_max_after_atom_ref": normal(n, seed=3).abs(),
        "gradient_max_after_scalar_atom_ref": normal(n, seed=3).abs(),
        "scalar_atom_ref_atom_type_bias": normal(2, seed=4),
        "scalar_atom_ref_global_bias": np.array(3.0),
    }.items():
        store.save_statistic("has_energy_label", key, np.asarray(array))
    return store


def turned(index: Tensor) -> Tensor:
    """Return the rotation of all shells of a molecule, as a matrix."""
    turn = torch.linalg.qr(normal(3, 3, seed=10)).Q
    turn = turn * torch.linalg.det(turn)
    blocks, start = [], 0
    while start < len(index):
        ell = int(BASIS.l_per_basis_func[index[start]])
        blocks.append(rotation_of_harmonics(ell, turn))
        start += 2 * ell + 1
    return torch.block_diag(*blocks)


@pytest.mark.parametrize("equivariant", [True, False])
def test_equivariant_statistics_make_an_invariant_energy(statistics, equivariant, float64_default):
    """The energy does not change when the molecule turns, and the gradient turns with it."""
    rescaling = DimensionWiseRescaling.from_dataset_statistics(
        statistics, BASIS, equivariant=equivariant
    )
    reference = AtomicReference.from_dataset_statistics(statistics, BASIS, scalar_only=True)
    functional = EnergyFunctional(ShellNetwork(), rescaling, reference)
    molecule = functional.for_molecule(WATER, BASIS)
    turn, coeffs = turned(molecule.basis_function_ind), normal(N_WATER, seed=11)
    energy, gradient = molecule.energy_and_gradient(coeffs)
    energy_turned, gradient_turned = molecule.energy_and_gradient(turn @ coeffs)
    if equivariant:
        torch.testing.assert_close(energy_turned, energy, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient_turned, turn @ gradient, rtol=1e-11, atol=1e-11)
    else:
        assert abs(float(energy_turned - energy)) > 1e-3 * abs(float(energy))


# Artifacts


# The longest batch of the tests has 126 coefficients.
OPTIONS = {suffix: {} for suffix in FREE_SIZES} | {suffix: {"n": 126} for suffix in (".c", ".so")}


@pytest.fixture(scope="module", params=OPTIONS)
def artifact(request, functional, tmp_path_factory) -> Path:
    if request.param in (".c", ".so") and not compilers():
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("functional") / f"functional{request.param}"
    ofcv.export(functional, path, output_units={"energy": "Hartree"}, **OPTIONS[request.param])
    return path


@pytest.fixture(scope="module", params=FREE_SIZES)
def frozen_artifact(request, water, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("functional") / f"water{request.param}"
    ofcv.export(water, path)
    return path


def test_artifact_of_any_molecule(artifact, functional, batch):
    assert ofcv.verify(artifact, reference=functional).passed
    assert ofcv.verify(artifact).passed
    run = ofcv.load(artifact)
    for molecules in (MOLECULES, MOLECULES[:1], MOLECULES * 3):
        index, molecule = functional.molecule_indices(molecules, BASIS)
        inputs = (normal(len(index), seed=12), index, molecule)
        found, expected = run(*inputs), functional.energy_and_gradient(*inputs)
        assert found[0].shape == (len(molecules),)
        for output, judge in zip(found, expected, strict=True):
            torch.testing.assert_close(output, judge, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def compiled(functional, tmp_path_factory) -> Path:
    if not compilers():
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("functional") / "functional.so"
    ofcv.export(functional, path, n=10)
    return path


@pytest.mark.parametrize(
    ("n", "n_molecules", "change", "message"),
    [
        (3, 2, {}, ""),
        (0, 1, {}, "n: expected 1 to 10, got others"),
        (11, 1, {}, "n: expected 1 to 10, got others"),
        (3, 0, {}, "n_molecules: expected 1 to n, got others"),
        (3, 4, {}, "n_molecules: expected 1 to n, got others"),
        (3, 1, {}, "batch: expected integers in [0, n_molecules), got others"),
        (3, 2, {"batch": -1}, "batch: expected integers in [0, n_molecules), got others"),
        (3, 2, {"index": 99}, "basis_function_ind: expected integers in [0, 16), got others"),
        (3, 2, {"coeffs": np.nan}, "coeffs: expected finite numbers, got NaN or infinity"),
    ],
)
def test_what_a_function_in_c_is_told(compiled, functional, n, n_molecules, change, message):
    library = ctypes.CDLL(str(compiled))
    library.functional_error.restype = ctypes.c_char_p
    inputs = {"coeffs": normal(12).numpy(), "index": np.arange(12) % 5, "batch": np.zeros(12, int)}
    inputs["batch"][2] = 1
    for name, wrong in change.items():
        inputs[name][2] = wrong
    energy, gradient = np.full(12, 42.0), np.full(12, 42.0)
    places = [
        array.ctypes.data_as(ctypes.c_void_p) for array in (*inputs.values(), energy, gradient)
    ]
    code = library.functional_evaluate(ctypes.c_int64(n), ctypes.c_int64(n_molecules), *places)
    assert library.functional_error(code).decode() == message
    if message:
        assert (energy == 42).all()
        assert (gradient == 42).all()
        return
    expected = functional.energy_and_gradient(*(torch.tensor(a[:n]) for a in inputs.values()))
    np.testing.assert_allclose(energy[:n_molecules], expected[0], rtol=1e-13)
    np.testing.assert_allclose(gradient[:n], expected[1], rtol=1e-13)
    assert (energy[n_molecules:] == 42).all()
    assert (gradient[n:] == 42).all()


def test_the_most_coefficients_change_no_bit(compiled, functional, batch, tmp_path):
    if not compilers():
        pytest.skip("no C compiler")
    ofcv.export(functional, tmp_path / "larger.c", n=100_000)
    assert "malloc" in (tmp_path / "larger.c").read_text()
    inputs = [tensor[:10] for tensor in batch]
    for one, other in zip(
        ofcv.load(compiled)(*inputs), ofcv.load(tmp_path / "larger.c")(*inputs), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "n: expected the largest number of coefficients for a .c file, got none"),
        ({"n": 1}, "n: expected 2 or more, got 1"),
        ({"n_nodes": 9}, "n_nodes: expected none for a energy_functional, got 9"),
        ({"n_molecules": 9}, "n_molecules: "),
    ],
)
def test_the_most_coefficients_that_a_function_in_c_takes(functional, tmp_path, options, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        ofcv.export(functional, tmp_path / "functional.c", **options)
    assert not list(tmp_path.iterdir())


class KnowsAnotherSize(nn.Module):
    """Has a size that entries of another input tell."""

    def forward(self, coeffs, index, batch, n_molecules):
        seen = coeffs.new_zeros(index.max().item() + 1).index_add(0, index, coeffs)
        return coeffs.new_zeros(n_molecules).index_add(0, batch, seen[index])


def test_another_size_that_entries_tell_is_refused(tmp_path):
    message = "^module: expected sizes that the inputs' sizes tell in C source, got one that entrie"
    with pytest.raises(ValueError, match=message):
        ofcv.export(functional_of(KnowsAnotherSize()), tmp_path / "functional.c", n=20)
    assert not list(tmp_path.iterdir())


def test_artifact_of_one_molecule(frozen_artifact, water):
    assert ofcv.verify(frozen_artifact, reference=water).passed
    coeffs = normal(N_WATER, seed=13)
    found = ofcv.load(frozen_artifact)(coeffs)
    for output, judge in zip(found, water.energy_and_gradient(coeffs), strict=True):
        torch.testing.assert_close(output, judge, rtol=1e-12, atol=1e-12)


def test_metadata(artifact):
    metadata = ofcv.read_metadata(artifact)
    assert metadata.kind == "energy_functional"
    assert [(s.name, s.dtype, s.shape, s.high) for s in metadata.inputs + metadata.outputs] == [
        ("coeffs", "float64", ("n",), None),
        ("basis_function_ind", "int64", ("n",), BASIS.n_basis),
        ("batch", "int64", ("n",), "n"),
        ("energy", "float64", ("n_molecules",), None),
        ("gradient", "float64", ("n",), None),
    ]
    assert metadata.details == EnergyFunctionalDetails(n_basis=BASIS.n_basis, atomic_reference=True)
    assert metadata.output_units == {"energy": "Hartree"}


def test_artifact_refuses_a_molecule_out_of_range(artifact):
    """There cannot be more molecules than coefficients."""
    run = ofcv.load(artifact)
    with pytest.raises(IndexError, match=r"batch: expected indices in \[0, 2\), got 2 at position"):
        run(normal(2), torch.tensor([0, 1]), torch.tensor([0, 2]))


def test_float32(tmp_path, functional, batch):
    single = functional_of().float()
    assert ofcv.export(single, tmp_path / "f.pt").passed
    found = ofcv.load(tmp_path / "f.pt")(batch[0].float(), *batch[1:])
    for output, judge in zip(found, functional.energy_and_gradient(*batch), strict=True):
        torch.testing.assert_close(output.double(), judge, rtol=1e-4, atol=1e-4)


# Bad input


def test_elements_absent_from_the_basis_are_refused_by_name(functional):
    message = (
        r"atomic_numbers: expected elements of the basis \(H \(1\), O \(8\)\), "
        r"got S \(16\) at position 1"
    )
    with pytest.raises(ValueError, match=message):
        functional.for_molecule([1, 16, 1], BASIS)
    with pytest.raises(ValueError, match=message):
        functional.molecule_indices([[8], [1, 16]], BASIS)


def test_elements_absent_from_the_statistics_are_refused_by_name():
    """The basis has fluorine, but no molecule of the data set did."""
    basis = BasisInfo([1, 9], ["2x0e", "1x0e"])
    known = torch.tensor([1.0, 2.0, 0.0])
    functional = functional_of(
        CoefficientNetwork(3),
        rescaling=DimensionWiseRescaling(known, known, known),
        atomic_reference=None,
    )
    message = r"atomic_numbers: expected elements of the statistics, got F \(9\) at position 1"
    with pytest.raises(ValueError, match=message):
        functional.for_molecule([1, 9], basis)
    with pytest.raises(ValueError, match=message):
        functional.rescaling.for_molecule([1, 9], basis)


@pytest.mark.parametrize(
    ("network", "parts", "error", "message"),
    [
        (CoefficientNetwork(16), {}, TypeError, "network: expected dtype float64, got float32"),
        (
            None,
            {"rescaling": 1.0},
            TypeError,
            "rescaling: expected a DimensionWiseRescaling",
        ),
        (
            None,
            {"atomic_reference": AtomicReference(torch.zeros(16), torch.zeros(2), 0.0, BASIS)},
            TypeError,
            "atomic_reference: expected dtype float64, got float32",
        ),
        (
            nn.Linear(1, 1).double(),
            {},
            ValueError,
            "network: expected one that takes scaled_coeffs, basis_function_ind, batch and n_mol",
        ),
    ],
)
def test_parts_that_do_not_fit(network, parts, error, message):
    with pytest.raises(error, match=message):
        functional_of(network, **parts)


def test_a_network_must_give_one_energy_a_molecule():
    class PerCoefficient(nn.Module):
        def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
            return scaled_coeffs**2

    message = r"network: expected shape \(n_molecules,\) = \(3,\), got \(11,\)"
    with pytest.raises(ValueError, match=message):
        functional_of(PerCoefficient())


def test_a_network_of_one_size_is_refused():
    class Fixed(nn.Module):
        def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
            weighted = scaled_coeffs * torch.arange(11, dtype=scaled_coeffs.dtype)
            return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, weighted)

    message = "network: expected operations that torch.export can see, got RuntimeError"
    with pytest.raises(ValueError, match=message):
        functional_of(Fixed()).export_graph().module  # noqa: B018


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: torch.zeros(3)}, TypeError, "coeffs: expected dtype float64, got float32"),
        ({0: torch.tensor([0, torch.nan, 0]).double()}, ValueError, "coeffs: expected finite"),
        ({1: torch.tensor([0, 1, 16])}, IndexError, "basis_function_ind: expected indices in"),
        ({1: torch.zeros(2).long()}, ValueError, r"basis_function_ind: expected shape \(3,\)"),
        ({2: torch.zeros(3)}, TypeError, "batch: expected dtype int64 or int32, got float32"),
        ({2: torch.tensor([0, 1, 3])}, IndexError, r"batch: expected indices in \[0, 3\), got 3"),
        (dict.fromkeys(range(3), torch.zeros(0).double()), ValueError, "coeffs: expected at leas"),
    ],
)
def test_bad_inputs_are_refused(functional, change, error, message):
    inputs = {0: torch.zeros(3).double(), 1: torch.arange(3), 2: torch.zeros(3).long()} | change
    with pytest.raises(error, match=message):
        functional.energy_and_gradient(*inputs.values())


def test_bad_molecules_are_refused(functional):
    with pytest.raises(ValueError, match=r"transform: expected shape \(21, 21\), got \(2, 2\)"):
        functional.for_molecule(WATER, BASIS, torch.eye(2))
    with pytest.raises(ValueError, match="transform: expected finite values, got nan"):
        functional.for_molecule(WATER, BASIS, torch.full((21, 21), torch.nan))
    message = (
        "basis_info: expected the basis of the atomic reference, "
        r"H: 2x0e\+1x1o, O: 3x0e\+1x1o\+1x2e, got H: 1x0e"
    )
    with pytest.raises(ValueError, match=message):
        functional.for_molecule([1], BasisInfo([1], ["1x0e"]))
    with pytest.raises(ValueError, match="molecules: expected at least one, got none"):
        functional.molecule_indices([], BASIS)
    with pytest.raises(ValueError, match=r"coeffs: expected shape \(21,\), got \(3,\)"):
        functional.for_molecule(WATER, BASIS).energy_and_gradient(torch.zeros(3).double())


def test_autocast_changes_no_number() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(1, 4)

        def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
            terms = torch.tanh(self.inner(scaled_coeffs.unsqueeze(1))).sum(1)
            return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, terms)

    basis = BasisInfo([1, 8], ["2x0e", "3x0e+1x1o"])
    rescaling = DimensionWiseRescaling(*torch.rand(3, basis.n_basis), basis_info=basis)
    functional = EnergyFunctional(Layers(), rescaling)
    index, batch = functional.molecule_indices([[8, 1, 1]])
    molecule = functional.for_molecule([8, 1, 1], transform=torch.rand(len(index), len(index)))
    coeffs = torch.randn(len(index))
    calls = (
        lambda: functional.energy_and_gradient(coeffs, index, batch),
        lambda: molecule.energy_and_gradient(coeffs),
    )
    for call in calls:
        expected = call()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert all(map(torch.equal, call(), expected))
