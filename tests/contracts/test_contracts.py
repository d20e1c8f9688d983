"""Files in the calling conventions of engines; contract_tests.cpp calls them as the engines do."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ofcv_export as ofcv
from export_scripts import colvars_example, gromacs_example, openmm_torch_example
from ofcv_export.base.elements import SYMBOLS, atomic_numbers
from ofcv_export.base.units import ENERGIES, LENGTHS
from ofcv_export.cli import app
from ofcv_export.contracts import CONTRACTS, contract_graph
from ofcv_export.contracts.gromacs import is_trial
from ofcv_export.contracts.potential import MakeWhole
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.multiple import MultipleDescriptors
from tests.builders.systems import by_autograd, frames, plain_distances

BIASED = ("gromacs-nnpot", "openmm-torch")
NETWORKS = ("plumed-pytorch", "colvars-torchann")
ATOMS = [3, 0, 2]
BOX = torch.tensor([[2.0, 0.0, 0.0], [0.5, 1.9, 0.0], [-0.7, 0.4, 1.8]])


def cv(box=None, **options) -> ofcv.CollectiveVariable:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return ofcv.CollectiveVariable(PairDistances(all_pairs(3), 3, box), network, ATOMS, **options)


def restraint(box=None, energy_unit="kJ/mol", **options) -> ofcv.HarmonicRestraint:
    return ofcv.HarmonicRestraint(cv(box, **options), 0.2, 50.0, energy_unit)


@cache
def file(folder, contract: str):
    """Return a file of each contract, made once."""
    path = folder / f"{contract}.pt"
    if contract == "gromacs-nnpot":
        ofcv.export(restraint(elements=["C", "N", "O"]), path, contract=contract)
    elif contract == "openmm-torch":
        ofcv.export(restraint(), path, contract=contract, n_particles=5)
    else:
        ofcv.export(cv(), path, contract=contract)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contracts")


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_file_describes_itself_and_is_verified(folder, contract):
    path = file(folder, contract)
    metadata = ofcv.read_metadata(path)
    assert metadata.kind == "contract"
    assert metadata.details.contract == contract
    assert metadata.atoms == ATOMS
    assert metadata.parity.max_rel_error <= metadata.parity.tolerance
    assert ofcv.verify(path).passed
    reference = cv() if contract in NETWORKS else restraint(elements=["C", "N", "O"])
    assert ofcv.verify(path, reference=reference).passed
    shown = CliRunner().invoke(app, ["inspect", str(path)])
    assert shown.exit_code == 0
    assert contract in shown.output


def test_gromacs_file(folder):
    model = ofcv.load(file(folder, "gromacs-nnpot"))
    # The input group is in the order of the indices: 0, 2, 3.
    positions = torch.randn(3, 3) * 0.2
    energy, forces = model(
        positions, torch.tensor([7, 8, 6], dtype=torch.int32), BOX, torch.tensor([True] * 3)
    )
    expected, derivatives = restraint().values_and_derivatives(positions[None, [2, 0, 1]])
    torch.testing.assert_close(energy, expected[0, 0])
    torch.testing.assert_close(forces[[2, 0, 1]], -derivatives[0, 0])


@pytest.mark.parametrize(("length_unit", "energy_unit"), list(zip(LENGTHS, ENERGIES, strict=True)))
def test_units(length_unit, energy_unit):
    positions = torch.randn(3, 3, dtype=torch.float64) * 0.2
    # One distance, so that an engine's restraint is known without the network.
    distance = PairDistances(torch.tensor([[0, 1]]), 3)
    identity = ofcv.CollectiveVariable(distance, nn.Identity(), length_unit=length_unit)
    bias = ofcv.HarmonicRestraint(identity, 0.7, 3.0, energy_unit)
    graph = contract_graph("openmm-torch", bias, n_particles=3)
    parameters = [torch.tensor([value], dtype=torch.float64) for value in (0.7, 3.0)]
    energy, forces = graph.in_float64()(positions, *parameters)
    nm, kj = LENGTHS[length_unit], ENERGIES[energy_unit]
    vector = positions[1] - positions[0]
    length = vector.norm()
    torch.testing.assert_close(energy, 1.5 * (length / nm - 0.7) ** 2 * kj)
    expected = 3.0 * (length / nm - 0.7) * kj / nm * vector / length
    torch.testing.assert_close(forces[0], expected)
    torch.testing.assert_close(forces[1], -expected)


@pytest.mark.parametrize("vectors", [BOX, torch.diag(torch.tensor([1.0, 1.3, 1.7]))])
def test_a_cut_molecule_is_made_whole(vectors):
    whole = torch.cumsum(0.12 * torch.randn(12, 3, dtype=torch.float64), 0)
    cut = whole + torch.randint(-3, 4, whole.shape).double() @ vectors.double()
    made = MakeWhole().double()(cut, vectors.double())
    torch.testing.assert_close(made - made[0], whole - whole[0])
    torch.testing.assert_close(made[0], cut[0])


def test_a_file_makes_a_cut_molecule_whole(folder):
    model = ofcv.load(file(folder, "gromacs-nnpot"))
    numbers, periodic = torch.tensor([7, 8, 6], dtype=torch.int32), torch.tensor([True] * 3)
    whole = 0.2 * frames(1, 3)
    # The bias's atoms in its order are rows 2, 0 and 1 of the group.
    network = copy.deepcopy(cv().network).double()
    value, slopes = by_autograd(lambda r: network(plain_distances(r)), whole[:, [2, 0, 1]])
    images = torch.tensor([[0.0, 0, 0], [1, -2, 0], [-1, 0, 3]])
    energy, forces = model(whole[0].float() + images @ BOX, numbers, BOX, periodic)
    torch.testing.assert_close(energy.double(), 25 * (value - 0.2)[0, 0] ** 2, rtol=1e-4, atol=0)
    expected = -50 * (value - 0.2)[0, 0] * slopes[0, 0]
    torch.testing.assert_close(forces[[2, 0, 1]].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_molecule_is_whole_where_only_a_part_takes_the_box(tmp_path):
    parts = [PairDistances(all_pairs(3), 3, RuntimeBox()), PairDistances(torch.tensor([[0, 2]]), 3)]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    bias = ofcv.Bias(ofcv.CollectiveVariable(MultipleDescriptors(parts), network, [0, 1, 2]))
    ofcv.export(bias, tmp_path / "bias.pt", contract="openmm-torch", n_particles=4)
    pairs = torch.cat([all_pairs(3), torch.tensor([[0, 2]])])
    whole, box = 0.2 * frames(1, 4), BOX.double()
    energy, slopes = by_autograd(lambda r: network(plain_distances(r, pairs)), whole)
    images = torch.tensor([[0.0, 0, 0], [1, -2, 0], [-1, 0, 3], [0, 0, 0]]).double()
    found, forces = torch.jit.load(tmp_path / "bias.pt")(whole[0] + images @ box, box)
    torch.testing.assert_close(found, energy.squeeze(), rtol=1e-10, atol=0)
    torch.testing.assert_close(forces, -slopes[0, 0], rtol=1e-9, atol=1e-12)


def test_openmm_forces_reach_the_chosen_particles_alone(folder):
    model = ofcv.load(file(folder, "openmm-torch"))
    _, forces = model(torch.randn(5, 3), torch.tensor([0.1]), torch.tensor([3.0]))
    assert (forces[[1, 4]] == 0).all()
    assert (forces[ATOMS] != 0).all()


def test_neither_place_nor_time_is_rounded_before_differences(tmp_path):
    """A bias in float32, far from the origin and late, in an engine that computes in float64."""
    at_origin, late = (
        ofcv.MovingRestraint(cv().float(), [start, start + 8.0], [0.0, 1.0], [30.0, 50.0])
        for start in (0.0, 1e8)
    )
    ofcv.export(late, tmp_path / "late.pt", contract="openmm-torch", n_particles=5)
    positions = torch.randn(5, 3, generator=torch.Generator().manual_seed(2)).double()
    energy, derivatives = at_origin.values_and_derivatives(
        positions[None, late.atoms].float(), time=torch.tensor([3.0]).double()
    )
    time = torch.tensor([1e8 + 3.0], dtype=torch.float64)
    found, forces = torch.jit.load(tmp_path / "late.pt")(positions + 3000.0, time)
    torch.testing.assert_close(found.float(), energy.squeeze(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(forces[late.atoms].float(), -derivatives[0, 0], rtol=1e-5, atol=1e-5)


def test_energy_alone_is_differentiated_in_the_engine(tmp_path):
    path = tmp_path / "energy.pt"
    report = ofcv.export(
        restraint(RuntimeBox()), path, contract="gromacs-nnpot", energy_only=True, group=range(6)
    )
    assert any(entry.output == "derivative of energy" for entry in report.comparisons)
    positions = torch.randn(6, 3).requires_grad_()
    torch.jit.load(path)(positions, BOX, torch.tensor([True] * 3)).backward()
    _, derivatives, _ = restraint(RuntimeBox()).values_and_derivatives(
        positions.detach()[None, ATOMS], BOX
    )
    torch.testing.assert_close(positions.grad[ATOMS], derivatives[0, 0])
    assert (positions.grad[[1, 4, 5]] == 0).all()


@pytest.mark.parametrize("contract", NETWORKS)
def test_network_file(folder, contract):
    program = torch.jit.load(file(folder, contract))
    descriptors = torch.rand(1, 3).requires_grad_()
    values = program(descriptors)
    torch.testing.assert_close(values, cv().network(descriptors))
    found, expected = (
        torch.autograd.grad(function(descriptors).sum(), descriptors)[0]
        for function in (program, cv().network)
    )
    torch.testing.assert_close(found, expected)
    # In the caller's precision, whatever that of the network is.
    assert program(descriptors.double()).dtype == torch.float64


def refusal(program, *inputs) -> str:
    """Return the last line of the error that a program raises."""
    with pytest.raises(torch.jit.Error) as caught:
        program(*inputs)
    return str(caught.value).strip().splitlines()[-1]


def test_gromacs_file_refuses_what_does_not_fit(folder):
    program = torch.jit.load(file(folder, "gromacs-nnpot"))
    positions, periodic = torch.randn(3, 3), torch.tensor([True] * 3)
    numbers = torch.tensor([7, 8, 6], dtype=torch.int32)
    line = refusal(program, positions[:2], numbers[:2], BOX, periodic)
    assert line.endswith("atom-positions: expected an input group of 3 atoms, got 2")
    line = refusal(program, positions, numbers.flip(0), BOX, periodic)
    assert line.endswith("atom-numbers: expected [6, 7, 8] for the bias's atoms, got [7, 6, 8]")
    line = refusal(program, positions, numbers, BOX, torch.tensor([True, True, False]))
    assert line.endswith("pbc: expected all three directions periodic, got [True, True, False]")
    line = refusal(program, positions, numbers, torch.zeros(3, 3), periodic)
    assert line.endswith(
        "box: expected lattice vectors, got [[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]]"
    )


def test_boxes_that_do_not_fit(tmp_path):
    fixed = restraint(OrthorhombicBox(torch.tensor([2.0, 2.0, 2.0]), periodic=True))
    path = tmp_path / "fixed.pt"
    ofcv.export(fixed, path, contract="openmm-torch", n_particles=4, box=True)
    program, parameters = torch.jit.load(path), (torch.tensor([0.2]), torch.tensor([50.0]))
    assert program(torch.randn(4, 3), 2 * torch.eye(3), *parameters)[0].shape == ()
    assert "the artifact's own" in refusal(
        program, torch.randn(4, 3), 2.01 * torch.eye(3), *parameters
    )
    orthorhombic = restraint(RuntimeBox("orthorhombic"))
    ofcv.export(orthorhombic, path, contract="openmm-torch", n_particles=4)
    assert "expected lattice vectors along x, y and z" in refusal(
        torch.jit.load(path), torch.randn(4, 3), BOX, *parameters
    )


def test_the_trial_of_grompp_is_recognised():
    line = 0.01 * torch.outer(torch.arange(1, 5), torch.arange(1, 4))
    assert is_trial(torch.zeros(1, 3))
    assert is_trial(torch.zeros(2, 3))
    assert is_trial(line)
    assert not is_trial(line + 1e-4)
    assert not is_trial(torch.randn(4, 3))


@pytest.mark.parametrize(
    ("contract", "module", "options", "error", "message"),
    [
        ("gromacs", restraint, {}, ValueError, "contract: expected colvars-torchann, gromacs"),
        ("gromacs-nnpot", cv, {}, TypeError, "module: expected a Bias"),
        ("openmm-torch", cv, {"n_particles": 4}, TypeError, "module: expected a Bias"),
        ("plumed-pytorch", restraint, {}, TypeError, "module: expected a CollectiveVariable"),
        ("gromacs-nnpot", restraint, {"inputs": ["charges"]}, ValueError, "inputs: expected some"),
        ("gromacs-nnpot", restraint, {"inputs": ["box"]}, ValueError, "atom-positions among them"),
        (
            "gromacs-nnpot",
            restraint,
            {"inputs": ["box", "atom-positions"], "energy_only": True},
            ValueError,
            "atom-positions as the first one",
        ),
        (
            "gromacs-nnpot",
            lambda: restraint(RuntimeBox()),
            {"inputs": ["atom-positions"]},
            ValueError,
            "inputs: expected box",
        ),
        ("gromacs-nnpot", restraint, {"group": [0, 1, 2]}, ValueError, "group: expected"),
        ("openmm-torch", restraint, {"n_particles": 3}, ValueError, "n_particles: expected more"),
        (
            "openmm-torch",
            lambda: restraint(RuntimeBox()),
            {"n_particles": 4, "box": False},
            ValueError,
            "box: expected True",
        ),
        (
            "gromacs-nnpot",
            lambda: ofcv.MovingRestraint(cv(), [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]),
            {},
            ValueError,
            "module: expected a bias without a time",
        ),
        (
            "gromacs-nnpot",
            lambda: restraint(RuntimeBox(scaled=True)),
            {},
            ValueError,
            "module: expected positions in real units",
        ),
        (
            "gromacs-nnpot",
            lambda: restraint(elements=["C", "N", "Q"]),
            {},
            ValueError,
            "elements: expected chemical symbols, got 'Q'",
        ),
    ],
)
def test_refused_exports(tmp_path, contract, module, options, error, message):
    with pytest.raises(error, match=message):
        ofcv.export(module(), tmp_path / "bias.pt", contract=contract, **options)
    assert not list(tmp_path.iterdir())


def test_a_contract_is_a_torchscript_file(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected the suffix .pt"):
        ofcv.export(restraint(), tmp_path / "bias.onnx", contract="gromacs-nnpot")


def test_atomic_numbers():
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 119  # 0 stands for no element
    assert atomic_numbers(["H", "Ca", "Xe", "Au", "U", "Og"]) == [1, 20, 54, 79, 92, 118]


def test_gromacs_example(tmp_path, capsys):
    gromacs_example.main(tmp_path)
    printed = capsys.readouterr().out
    assert "nnpot-model-input1   = atom-positions" in printed
    assert "[ Dipeptide ]\n1 2 3" in printed
    assert ofcv.verify(tmp_path / "restraint_energy.pt").passed


def test_openmm_torch_example(tmp_path, capsys):
    openmm_torch_example.main(tmp_path / "bias.pt", box=True)
    printed = capsys.readouterr().out
    assert "force.setUsesPeriodicBoundaryConditions(True)" in printed
    assert 'force.addGlobalParameter("force_constant_1", 100)' in printed


def test_colvars_example(tmp_path, capsys):
    colvars_example.main(tmp_path / "network.pt", "A", seed=0)
    printed = capsys.readouterr().out
    n_pairs = ofcv.read_metadata(tmp_path / "network.pt").inputs[0].shape[1]
    assert printed.count("componentCoeff 0.1") == n_pairs
    assert printed.count("{") == printed.count("}")


@pytest.mark.parametrize(
    ("contract", "options"), [("gromacs-nnpot", {}), ("openmm-torch", {"n_particles": 12})]
)
def test_a_file_for_other_atoms_is_verified_against_the_module(tmp_path, contract, options):
    ofcv.export(restraint(), tmp_path / "bias.pt", contract=contract, atoms=[9, 3, 5], **options)
    assert ofcv.verify(tmp_path / "bias.pt", reference=restraint()).passed
    assert ofcv.read_metadata(tmp_path / "bias.pt").atoms == [9, 3, 5]
