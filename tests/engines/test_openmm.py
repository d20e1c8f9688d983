"""Exported biases in OpenMM, against OpenMM's own forces, differences and conservation laws."""

import hashlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import RuntimeBox, TriclinicBox
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.engines.openmm import openmm_force

openmm = pytest.importorskip("openmm", reason="OpenMM is not installed")
from openmm import app, unit  # noqa: E402

# The restrained pair, among the artifact's atoms and among the system's.
ATOMS = [5, 2, 0]
PAIR = (5, 0)
N_ATOMS = 7
CENTRE, FORCE_CONSTANT = 0.35, 5000.0
BIAS_GROUP = 3
BOXES = {
    "orthorhombic": np.diag([1.1, 1.2, 1.3]),
    "triclinic": np.array([[1.1, 0.0, 0.0], [0.3, 1.2, 0.0], [-0.4, 0.5, 1.3]]),
}


def distance(pairs=((0, 2),), box=None, unit_of_length="nm", elements=None, atoms=ATOMS):
    """Return distances of the artifact's atoms as a collective variable in float64."""
    descriptors = PairDistances(torch.tensor(pairs), n_atoms=len(atoms), box=box)
    return ofcv.CollectiveVariable(
        descriptors, nn.Identity().double(), atoms, unit_of_length, elements
    )


def network_cv(box=None):
    """Return two values of three distances through a network."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return ofcv.CollectiveVariable(
        PairDistances(torch.tensor([[0, 1], [0, 2], [1, 2]]), n_atoms=3, box=box), layers, ATOMS
    )


@pytest.fixture(autouse=True, scope="module")
def _in_double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def restraint(tmp_path_factory):
    """Return a harmonic restraint of one distance, as TorchScript."""
    path = tmp_path_factory.mktemp("openmm") / "restraint.pt"
    ofcv.export(ofcv.HarmonicRestraint(distance(), CENTRE, FORCE_CONSTANT), path)
    return path


def make_system(box=None, n_atoms=N_ATOMS):
    """Return a chain with bonds and repulsion, periodic where there is a box."""
    system = openmm.System()
    bonds = openmm.HarmonicBondForce()
    nonbonded = openmm.NonbondedForce()
    nonbonded.setNonbondedMethod(nonbonded.NoCutoff if box is None else nonbonded.CutoffPeriodic)
    nonbonded.setCutoffDistance(0.5)
    for atom in range(n_atoms):
        system.addParticle(12.0 + atom)
        nonbonded.addParticle(0.0, 0.2, 0.5)
        if atom > 0:
            bonds.addBond(atom - 1, atom, 0.15, 1e5)
            nonbonded.addException(atom - 1, atom, 0, 1, 0)
    system.addForce(bonds)
    system.addForce(nonbonded)
    if box is not None:
        bonds.setUsesPeriodicBoundaryConditions(True)
        system.setDefaultPeriodicBoxVectors(*box)
    return system


def make_positions(n_atoms=N_ATOMS, seed=1):
    """Return a bent chain, nm."""
    random = np.random.default_rng(seed)
    steps = np.array([0.11, 0.09, 0.05]) * np.where(np.arange(n_atoms)[:, None] % 2, 1, [1, -1, 1])
    return np.cumsum(steps, axis=0) + 0.005 * random.standard_normal((n_atoms, 3))


def start(system, *forces, positions=None, timestep=0.001, platform="Reference"):
    """Return a context with these forces in a group of their own, at rest, and its integrator."""
    for force in forces:
        force.setForceGroup(BIAS_GROUP)
        system.addForce(force)
    integrator = openmm.VerletIntegrator(timestep)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(make_positions() if positions is None else positions)
    context.setVelocitiesToTemperature(300.0, 5)
    return context, integrator


def energy(context, groups={BIAS_GROUP}):  # noqa: B006
    """Return an energy in kJ/mol."""
    state = context.getState(energy=True, groups=groups)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def forces_of(context):
    """Return the bias's forces in kJ/mol/nm."""
    state = context.getState(forces=True, groups={BIAS_GROUP})
    return state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


def positions_of(context):
    return context.getState(positions=True).getPositions(asNumpy=True)._value


def trajectory(context, integrator, n_steps=100):
    """Return the positions after every step, (n_steps, n_atoms, 3)."""
    frames = []
    for _ in range(n_steps):
        integrator.step(1)
        frames.append(positions_of(context))
    return np.stack(frames)


def bond_force(periodic=False):
    """Return the same restraint as OpenMM's own force."""
    force = openmm.CustomBondForce("0.5*force_constant*(r-centre)^2")
    force.addGlobalParameter("centre", CENTRE)
    force.addGlobalParameter("force_constant", FORCE_CONSTANT)
    force.addBond(*PAIR)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def require_central_differences(context, step=1e-4):
    """Forces must equal central differences of fourth order, 1e-6 of the largest force."""
    positions = positions_of(context).copy()
    forces = forces_of(context)
    expected = np.zeros_like(positions)
    for index in np.ndindex(positions.shape):
        for shift, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = positions.copy()
            moved[index] += shift * step
            context.setPositions(moved)
            expected[index] -= weight * energy(context) / (12 * step)
    assert np.abs(expected).max() > 1.0
    assert np.abs(forces - expected).max() <= 1e-6 * np.abs(expected).max()
    assert not forces[[1, 3, 4, 6]].any()


@pytest.mark.parametrize(
    ("suffix", "box"),
    [(".pt", None), (".pt", "triclinic"), (".onnx", None), (".pt2", None), (".c", "triclinic")],
)
def test_forces_are_central_differences_of_the_energy(tmp_path, suffix, box):
    cv = network_cv(RuntimeBox("triclinic") if box else None)
    path = tmp_path / f"bias{suffix}"
    ofcv.export(ofcv.HarmonicRestraint(cv, [0.1, -0.2], [900.0, 700.0]), path, batch=1)
    system = make_system(None if box is None else BOXES[box])
    context, _ = start(system, openmm_force(path, system))
    require_central_differences(context)


def test_the_same_trajectory_as_a_bond_force(restraint):
    system = make_system()
    ours = trajectory(*start(system, openmm_force(restraint, system)))
    theirs = trajectory(*start(make_system(), bond_force()))
    free = trajectory(*start(make_system()))
    assert np.abs(ours - theirs).max() <= 1e-10
    assert np.abs(ours - free).max() > 1e-3


@pytest.mark.parametrize("shape", BOXES)
def test_the_same_trajectory_in_a_box(tmp_path, shape):
    path, box = tmp_path / "bias.pt", BOXES[shape]
    cv = distance(box=RuntimeBox(shape))
    ofcv.export(ofcv.HarmonicRestraint(cv, CENTRE, FORCE_CONSTANT), path)
    # The restrained atoms are at home in different images.
    positions = make_positions()
    positions[0] += 2 * box[0] - box[1] + box[2]
    system = make_system(box)
    force = openmm_force(path, system)
    assert force.usesPeriodicBoundaryConditions()
    context, integrator = start(system, force, positions=positions)
    ours = trajectory(context, integrator)
    theirs = trajectory(*start(make_system(box), bond_force(True), positions=positions))
    assert np.abs(ours - theirs).max() <= 1e-10

    # A barostat needs the energy in another box.
    for scale in (0.97, 1.04):
        moved, other = scale * positions, scale * box
        context.setPeriodicBoxVectors(*other)
        context.setPositions(moved)
        lattice = np.array(np.meshgrid(*[np.arange(-3, 4)] * 3)).reshape(3, -1).T @ other
        r = np.linalg.norm(moved[PAIR[1]] - moved[PAIR[0]] + lattice, axis=1).min()
        assert energy(context) == pytest.approx(0.5 * FORCE_CONSTANT * (r - CENTRE) ** 2, rel=1e-9)


def test_a_barostat_sees_the_bias(tmp_path):
    """It scales box and molecules; a stiff restraint between two molecules goes along."""
    path, box = tmp_path / "bias.pt", np.diag([3.0, 3.0, 3.0])
    cv = distance(box=RuntimeBox("orthorhombic"))
    ofcv.export(ofcv.HarmonicRestraint(cv, CENTRE, FORCE_CONSTANT), path)
    volumes = {}
    for make in (lambda system: openmm_force(path, system), lambda system: bond_force(True)):
        system = make_system(box)
        barostat = openmm.MonteCarloBarostat(1.0, 300.0, 5)
        barostat.setRandomNumberSeed(3)
        force = make(system)
        system.addForce(barostat)
        context, integrator = start(system, force)
        integrator.step(100)
        state = context.getState()
        volumes[type(force)] = state.getPeriodicBoxVolume()._value
    ours, theirs = volumes.values()
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert abs(ours - 27.0) > 0.01


def test_the_same_as_a_custom_cv_force_with_parameters_changed_on_the_way(tmp_path):
    path = tmp_path / "bias.onnx"
    cv = distance(pairs=((0, 2), (1, 2)))
    ofcv.export(ofcv.HarmonicRestraint(cv, [0.3, 0.2], [3000.0, 2000.0]), path)
    theirs = openmm.CustomCVForce(
        "0.5*(force_constant_0*(a-centre_0)^2 + force_constant_1*(b-centre_1)^2)"
    )
    for name, pair in {"a": (5, 0), "b": (2, 0)}.items():
        bond = openmm.CustomBondForce("r")
        bond.addBond(*pair)
        theirs.addCollectiveVariable(name, bond)
    defaults = {"centre_0": 0.3, "centre_1": 0.2, "force_constant_0": 3e3, "force_constant_1": 2e3}
    for name, value in defaults.items():
        theirs.addGlobalParameter(name, value)
    system = make_system()
    ours = openmm_force(path, system)
    assert dict(ours.getGlobalParameters()) == defaults
    runs = start(system, ours), start(make_system(), theirs)
    for context, integrator in runs:
        integrator.step(50)
        context.setParameter("centre_1", 0.4)
        context.setParameter("force_constant_0", 100.0)
    ours, theirs = (trajectory(*run, n_steps=50) for run in runs)
    assert np.abs(ours - theirs).max() <= 1e-10
    assert energy(runs[0][0]) == pytest.approx(energy(runs[1][0]), rel=1e-9)


def total_energies(force=None, n_steps=4000):
    """Return the total energy after every ten steps of 0.5 fs, (n_steps / 10,)."""
    system = make_system()
    context, integrator = start(system, *([] if force is None else [force]), timestep=0.0005)
    values = []
    for _ in range(n_steps // 10):
        integrator.step(10)
        state = context.getState(energy=True)
        values.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    return np.array(values)


def drift(energies):
    """Return the change along the straight line through the means of 20 blocks, and its error."""
    blocks = energies.reshape(20, -1).mean(1)
    (slope, _), covariance = np.polyfit(np.linspace(0, 1, 20), blocks, 1, cov=True)
    return abs(slope), np.sqrt(covariance[0, 0])


def test_energy_is_conserved_as_well_as_without_the_bias(restraint):
    r = np.linalg.norm(make_positions()[PAIR[0]] - make_positions()[PAIR[1]])
    soft = {"centre": r + 0.05, "force_constant": 1000.0}
    free = total_energies()
    biased = total_energies(openmm_force(restraint, make_system(), parameters=soft))
    (free_drift, free_error), (biased_drift, biased_error) = drift(free), drift(biased)
    assert biased_drift <= free_drift + 3 * (free_error + biased_error)
    assert biased.std() <= 1.5 * free.std()

    # A force that is 1 % too large must not pass.
    def wrong(state):
        positions = state.getPositions(asNumpy=True)._value
        vector = positions[PAIR[0]] - positions[PAIR[1]]
        r = np.linalg.norm(vector)
        forces = np.zeros_like(positions)
        forces[PAIR[0]] = -1010.0 * (r - soft["centre"]) * vector / r
        forces[PAIR[1]] = -forces[PAIR[0]]
        return 500.0 * (r - soft["centre"]) ** 2, forces

    assert total_energies(openmm.PythonForce(wrong)).std() > 1.5 * free.std()


@pytest.mark.parametrize(("length", "energy_unit"), [("A", "kcal/mol"), ("bohr", "Hartree")])
def test_units_make_no_difference(tmp_path, restraint, length, energy_unit):
    path = tmp_path / "bias.pt"
    per_nm = {"A": 10.0, "bohr": 1 / 0.0529177210903}[length]
    per_kilojoule = {"kcal/mol": 1 / 4.184, "Hartree": 1 / 2625.4996394798254}[energy_unit]
    ofcv.export(
        ofcv.HarmonicRestraint(
            distance(unit_of_length=length),
            CENTRE * per_nm,
            FORCE_CONSTANT * per_kilojoule / per_nm**2,
            energy_unit=energy_unit,
        ),
        path,
    )
    runs = []
    for file in (path, restraint):
        system = make_system()
        runs.append(start(system, openmm_force(file, system)))
    first, second = (energy(context) for context, _ in runs)
    assert first == pytest.approx(second, rel=1e-9)
    assert first > 1.0
    first, second = (trajectory(*run) for run in runs)
    assert np.abs(first - second).max() <= 1e-9


def test_a_moving_restraint_follows_the_time_of_the_context(tmp_path):
    path = tmp_path / "pull.pt"
    pull = ofcv.MovingRestraint(
        distance(), [1.0, 2.0], [0.3, 0.5], [FORCE_CONSTANT, FORCE_CONSTANT]
    )
    ofcv.export(pull, path)
    system = make_system()
    force = openmm_force(path, system)
    assert dict(force.getGlobalParameters()) == {}
    context, integrator = start(system, force)
    r = np.linalg.norm(make_positions()[PAIR[0]] - make_positions()[PAIR[1]])
    for time, centre in ((0.0, 0.3), (1.5, 0.4), (7.0, 0.5), (1.25, 0.35)):
        context.setTime(time)
        expected = 0.5 * FORCE_CONSTANT * (r - centre) ** 2
        assert energy(context) == pytest.approx(expected, rel=1e-12)
    integrator.step(100)
    r = np.linalg.norm(np.subtract(*positions_of(context)[list(PAIR)]))
    centre = 0.3 + 0.2 * (1.25 + 0.1 - 1.0)
    assert energy(context) == pytest.approx(0.5 * FORCE_CONSTANT * (r - centre) ** 2, rel=1e-9)
    with pytest.raises(ValueError, match="^parameters: expected none for time, the context's own"):
        openmm_force(path, make_system(), parameters={"time": 3.0})


def test_defaults_and_prefixes(restraint):
    system = make_system()
    first = openmm_force(restraint, system, parameters={"centre": 0.5}, prefix="a_")
    second = openmm_force(restraint, system, prefix="b_")
    assert dict(first.getGlobalParameters()) == {"a_centre": 0.5, "a_force_constant": 5000.0}
    context, _ = start(system, first, second)
    r = np.linalg.norm(make_positions()[PAIR[0]] - make_positions()[PAIR[1]])
    expected = 0.5 * FORCE_CONSTANT * ((r - 0.5) ** 2 + (r - CENTRE) ** 2)
    assert energy(context) == pytest.approx(expected, rel=1e-12)
    context.setParameter("a_force_constant", 0.0)
    expected = 0.5 * FORCE_CONSTANT * (r - CENTRE) ** 2
    assert energy(context) == pytest.approx(expected, rel=1e-12)


def test_the_cpu_platform(restraint):
    energies = []
    for platform in ("Reference", "CPU"):
        system = make_system()
        context, _ = start(system, openmm_force(restraint, system), platform=platform)
        energies.append(energy(context))
    assert energies[1] == pytest.approx(energies[0], rel=1e-4)


def test_without_system_the_first_evaluation_checks_the_atoms(restraint):
    context, integrator = start(make_system(), openmm_force(restraint))
    theirs = trajectory(*start(make_system(), bond_force()))
    assert np.abs(trajectory(context, integrator) - theirs).max() <= 1e-10
    message = "^atoms: expected indices below the system's 5 atoms, got 5$"
    with pytest.raises(openmm.OpenMMException, match=message):
        start(make_system(n_atoms=5), openmm_force(restraint), positions=make_positions(5))


def test_an_open_bias_in_a_box_takes_positions_as_they_are(restraint):
    box = BOXES["triclinic"]
    positions = make_positions()
    positions[0] += box[1]
    system = make_system(box)
    force = openmm_force(restraint, system)
    assert not force.usesPeriodicBoundaryConditions()
    context, integrator = start(system, force, positions=positions)
    theirs = start(make_system(box), bond_force(), positions=positions)
    assert energy(context) == pytest.approx(energy(theirs[0]), rel=1e-12)
    ours = trajectory(context, integrator, 20)
    assert np.abs(ours - trajectory(*theirs, 20)).max() <= 1e-10


def test_serialisation(restraint):
    system = make_system()
    force = openmm_force(restraint, system, parameters={"centre": 0.3}, prefix="a_")
    force.setForceGroup(BIAS_GROUP)
    system.addForce(force)
    text = openmm.XmlSerializer.serialize(system)
    again = openmm.XmlSerializer.deserialize(text)
    energies = [energy(start(made)[0]) for made in (system, again)]
    assert energies[0] == energies[1] != 0
    assert "restraint.pt" not in text  # pickled, and as hexadecimal digits
    assert len(text) < 10_000


def test_a_serialised_force_is_that_of_its_file_alone(tmp_path, restraint, monkeypatch):
    """Also from another folder; another file in its place is refused by the two digests."""
    shutil.copy(restraint, tmp_path / "bias.pt")
    monkeypatch.chdir(tmp_path)
    system = make_system()
    force = openmm_force("bias.pt", system)
    force.setForceGroup(BIAS_GROUP)
    system.addForce(force)
    text = openmm.XmlSerializer.serialize(system)
    monkeypatch.chdir("/")
    energies = [energy(start(made)[0]) for made in (system, openmm.XmlSerializer.deserialize(text))]
    assert energies[0] == energies[1] != 0
    before = hashlib.sha256((tmp_path / "bias.pt").read_bytes()).hexdigest()
    ofcv.export(ofcv.HarmonicRestraint(distance(), 0.5, 10.0), tmp_path / "bias.pt", batch=1)
    after = hashlib.sha256((tmp_path / "bias.pt").read_bytes()).hexdigest()
    with pytest.raises(
        Exception, match=f"path: expected the file with SHA-256 {before}, got {after}"
    ):
        energy(start(openmm.XmlSerializer.deserialize(text))[0])
    (tmp_path / "bias.pt").unlink()
    with pytest.raises(Exception, match="path: expected an existing file, got"):
        energy(start(openmm.XmlSerializer.deserialize(text))[0])


@pytest.fixture
def _threads_that_take_turns():
    """Let the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_that_take_turns")
def test_contexts_of_one_system_have_their_own_box_and_parameters(tmp_path):
    """Also when each is in a thread of its own, against the nearest image by hand."""
    path, n_calls = tmp_path / "bias.pt", 300
    cv = distance(box=RuntimeBox("orthorhombic"))
    ofcv.export(ofcv.HarmonicRestraint(cv, CENTRE, FORCE_CONSTANT), path)
    system = make_system(BOXES["orthorhombic"])
    force = openmm_force(path, system)
    force.setForceGroup(BIAS_GROUP)
    system.addForce(force)
    positions = make_positions()
    positions[0] += [1.2, -1.0, 0.9]
    contexts, expected = [], []
    for number in range(4):
        context, _ = start(system, positions=positions)
        lengths = np.array([1.1, 1.2, 1.3]) + 0.07 * number
        context.setPeriodicBoxVectors(*np.diag(lengths))
        context.setParameter("centre", CENTRE + 0.1 * number)
        contexts.append(context)
        vector = positions[PAIR[1]] - positions[PAIR[0]]
        r = np.linalg.norm(vector - lengths * np.round(vector / lengths))
        expected.append(FORCE_CONSTANT / 2 * (r - CENTRE - 0.1 * number) ** 2)
    assert len({round(value, 6) for value in expected}) == len(contexts)

    def energies(context):
        return [energy(context) for _ in range(n_calls)]

    with ThreadPoolExecutor(len(contexts)) as pool:
        for found, alone in zip(pool.map(energies, contexts), expected, strict=True):
            assert found == pytest.approx([alone] * n_calls, rel=1e-9)


def test_diverging_dynamics_are_told_with_their_step(restraint):
    system = make_system()
    system.addForce(openmm_force(restraint, system))
    context, integrator = start(system)
    integrator.step(3)
    context.setParameter("force_constant", 1e300)
    with pytest.raises(Exception, match="NaN or infinity; the dynamics diverged at step [345]"):
        integrator.step(100)


def make_topology(symbols, box=None):
    """Return a topology of one chain."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for index, symbol in enumerate(symbols):
        topology.addAtom(f"X{index}", app.Element.getBySymbol(symbol), residue)
    if box is not None:
        topology.setPeriodicBoxVectors(box * unit.nanometers)
    return topology


def test_wrong_atoms(tmp_path, restraint):
    with pytest.raises(ValueError, match=r"^atoms: expected .*5"):
        openmm_force(restraint, make_system(n_atoms=5))
    path = tmp_path / "bias.pt"
    cv = distance(elements=["O", "C", "N"])
    ofcv.export(ofcv.HarmonicRestraint(cv, CENTRE, FORCE_CONSTANT), path)
    right = make_topology("NCCHHOH")
    system = make_system()
    context, _ = start(system, openmm_force(path, system, right))
    assert energy(context) > 0
    with pytest.raises(ValueError, match=r"^atoms: expected O as atom 5 \(zero-based\), got H"):
        openmm_force(path, make_system(), make_topology("CCNHHHO"))
    with pytest.raises(ValueError, match=r"^topology: expected the system's 7 atoms, got 6$"):
        openmm_force(path, make_system(), make_topology("CCNHHH"))
    # Nothing is compared where the file does not know its elements.
    openmm_force(restraint, make_system(), make_topology("CCNHHHO"))


def test_wrong_units(tmp_path):
    path = tmp_path / "cv.pt"
    ofcv.export(distance(), path)
    with pytest.raises(ValueError, match=r"^model: expected a bias, whose values are in kJ/mol"):
        openmm_force(path, make_system())


def test_wrong_boxes(tmp_path):
    path = tmp_path / "bias.pt"
    cv = distance(box=RuntimeBox("orthorhombic"))
    ofcv.export(ofcv.HarmonicRestraint(cv, CENTRE, FORCE_CONSTANT), path)
    with pytest.raises(
        ValueError, match="^box: expected a periodic system, got one without a box$"
    ):
        openmm_force(path, make_system())
    with pytest.raises(
        ValueError, match="^box: expected a periodic system, got one without a box$"
    ):
        openmm_force(path, topology=make_topology("CCCCCCC"))
    with pytest.raises(ValueError, match=r"^system: expected the System of a bias with a box"):
        openmm_force(path)
    openmm_force(path, topology=make_topology("CCCCCCC", BOXES["orthorhombic"]))
    system = make_system(BOXES["triclinic"])
    with pytest.raises(openmm.OpenMMException, match="^box: expected positive lengths along x, y"):
        start(system, openmm_force(path, system))


def test_a_frozen_box_must_be_the_systems(tmp_path):
    path, box = tmp_path / "bias.pt", BOXES["triclinic"]
    cv = distance(box=TriclinicBox(torch.tensor(box)))
    ofcv.export(ofcv.HarmonicRestraint(cv, CENTRE, FORCE_CONSTANT), path)
    system = make_system(box)
    context, _ = start(system, openmm_force(path, system))
    assert energy(context) > 0
    context.setPeriodicBoxVectors(*(1.01 * box))
    with pytest.raises(openmm.OpenMMException, match="^box: expected the artifact's "):
        energy(context)


def test_wrong_parameters_and_files(tmp_path, restraint):
    with pytest.raises(ValueError, match=r"^parameters: expected .*centre.* got .*center"):
        openmm_force(restraint, make_system(), parameters={"center": 1.0})
    with pytest.raises(ValueError, match="^centre: expected"):
        openmm_force(restraint, make_system(), parameters={"centre": [1.0, 2.0]})
    with pytest.raises(FileNotFoundError):
        openmm_force(tmp_path / "none.pt", make_system())


def test_the_package_does_not_need_openmm(restraint):
    program = (
        "import sys; sys.modules['openmm'] = None\n"
        "from ofcv_export.engines.openmm import openmm_force\n"
        f"openmm_force({str(restraint)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip().endswith(
        "ImportError: openmm: expected OpenMM 8.5 or later, got none"
    )
