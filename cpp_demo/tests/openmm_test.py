"""The C++ force against PythonForce and CustomBondForce.

Usage: openmm_test.py PROGRAM TESTS LIGHT.

LIGHT is the program built without LibTorch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import torch
from program import another, fails, run_tests, succeeds
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import RuntimeBox
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.engines.openmm import openmm_force

INPUTS = "--system system.xml --state state.xml"
# As in openmm_tests.cpp: the pair (5, 0), centre, force constant.
ATOMS = [5, 2, 0]
CENTRE, FORCE_CONSTANT = 0.35, 5000.0
N_ATOMS = 7
N_STEPS = 100


def distance(box: RuntimeBox | None = None) -> ofcv.CollectiveVariable:
    """Return the distance of atoms 5 and 0, in angstrom, so that units are converted."""
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        network.weight.fill_(0.1)
    pair = PairDistances(torch.tensor([[0, 2]]), n_atoms=3, box=box)
    return ofcv.CollectiveVariable(pair, network, ATOMS, "A", ["O", "N", "C"])


def export_all() -> None:
    """Write the artifacts that the tests read."""
    restraint = ofcv.HarmonicRestraint(distance(), CENTRE, FORCE_CONSTANT)
    ofcv.export(restraint, "restraint.pt")
    ofcv.export(restraint, "restraint.pt2", batch=1)
    ofcv.export(restraint, "restraint.so")
    periodic = ofcv.HarmonicRestraint(distance(RuntimeBox("triclinic")), CENTRE, FORCE_CONSTANT)
    ofcv.export(periodic, "periodic.pt")
    constants = [FORCE_CONSTANT, FORCE_CONSTANT]
    pull = ofcv.MovingRestraint(distance(), [1.0, 2.0], [0.3, 0.5], constants)
    ofcv.export(pull, "pull.pt")
    ofcv.export(pull, "pull.so")
    ofcv.export(distance(), "cv.pt")


def make_system() -> openmm.System:
    """Return a chain."""
    system = openmm.System()
    bonds = openmm.HarmonicBondForce()
    for atom in range(N_ATOMS):
        system.addParticle(12.0 + atom)
        if atom > 0:
            bonds.addBond(atom - 1, atom, 0.15, 1e5)
    system.addForce(bonds)
    return system


def write_inputs() -> None:
    """Write the system, and a state at 0.5 ps in the middle of its motion."""
    context = openmm.Context(
        make_system(), openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(np.arange(N_ATOMS)[:, None] * np.array([0.1, 0.08, 0.06]))
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().step(500)
    state = context.getState(positions=True, velocities=True)
    Path("system.xml").write_text(openmm.XmlSerializer.serialize(make_system()))
    Path("state.xml").write_text(openmm.XmlSerializer.serialize(state))


def cpp_run(*options: object) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and energies after every step."""
    files = "--energies energies.csv --positions positions.npy"
    printed = succeeds(INPUTS, f"--steps {N_STEPS} --interval 1", files, *options)
    assert f"{N_STEPS} steps of 1 fs with verlet" in printed, printed
    return np.load("positions.npy"), np.genfromtxt("energies.csv", delimiter=",", names=True)


def python_run(force: openmm.Force | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the same of OpenMM in Python; of the energies, potential and bias."""
    system = make_system()
    if force is not None:
        force.setForceGroup(1)
        system.addForce(force)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setState(openmm.XmlSerializer.deserialize(Path("state.xml").read_text()))
    positions, energies = [], []
    for step in range(N_STEPS + 1):
        state = context.getState(positions=True, energy=True)
        bias = context.getState(energy=True, groups={1})
        positions.append(state.getPositions(asNumpy=True)._value)
        energies.append([state.getPotentialEnergy()._value, bias.getPotentialEnergy()._value])
        if step < N_STEPS:
            integrator.step(1)
    return np.stack(positions), np.array(energies)


def bond_force() -> openmm.Force:
    """Return the restraint as OpenMM's own force."""
    force = openmm.CustomBondForce(f"{FORCE_CONSTANT / 2}*(r-{CENTRE})^2")
    force.addBond(5, 0)
    return force


def require_equal(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]
) -> None:
    """Positions and energies must agree at every step."""
    assert ours[0].shape == (N_STEPS + 1, N_ATOMS, 3)
    assert np.abs(ours[0] - theirs[0]).max() <= 1e-9
    for column, name in enumerate(("potential", "bias")):
        expected = theirs[1][:, column]
        assert np.abs(ours[1][name] - expected).max() <= 1e-7 * max(1.0, np.abs(expected).max())


def test_the_same_trajectory() -> None:
    """For all formats, as PythonForce and as CustomBondForce, and not as without a bias."""
    theirs, free = python_run(bond_force()), python_run(None)
    assert np.abs(theirs[0] - free[0]).max() > 1e-3
    for name in ("restraint.pt", "restraint.pt2", "restraint.so"):
        ours = cpp_run("--bias", name)
        require_equal(ours, theirs)
        require_equal(ours, python_run(openmm_force(name, make_system())))
    require_equal(cpp_run(), free)
    pull = python_run(openmm_force("pull.pt", make_system()))
    require_equal(cpp_run("--bias pull.pt"), pull)
    weak = "--parameter force_constant=0 --parameter centre=0.2"
    require_equal(cpp_run("--bias restraint.pt", weak), free)
    with another(sys.argv[3]):
        require_equal(cpp_run("--bias restraint.so"), theirs)
        require_equal(cpp_run("--bias pull.so"), pull)
        message = "model: expected a .so file, since this was built without LibTorch, got 'cv.pt'"
        fails(message, INPUTS, "--bias cv.pt", "--positions refused.npy")


def test_langevin_and_timing() -> None:
    """The same seed gives the same run; the overhead is printed."""
    options = "--bias restraint.pt --integrator langevin --platform CPU --timestep 2 --steps 105"
    runs = []
    for seed in (3, 3, 4):
        more = f"--interval 50 --positions p.npy --seed {seed} --timed-steps 200"
        assert "us a step without the bias" in succeeds(INPUTS, options, more)
        runs.append(np.load("p.npy"))
    assert runs[0].shape == (3, N_ATOMS, 3)
    assert np.abs(runs[0] - runs[1]).max() < 1e-4 < np.abs(runs[0] - runs[2]).max()


def test_refused() -> None:
    """One line, code 2, and no file left behind."""
    restraint, needs = "--bias restraint.pt", "--bias: expected a file for"
    for message, options in (
        (f"{needs} --parameter and --timed-steps, got nothing", "--timed-steps 9"),
        ("--state: expected an OpenMM State as XML, got 'system.xml'", "--state system.xml"),
        ("--system: expected an OpenMM System as XML, got 'cv.pt'", "--system cv.pt"),
        ("--integrator: expected verlet or langevin, got 'euler'", "--integrator euler"),
        ("--parameter: expected NAME=NUMBER[,NUMBER], got 'centre'", "--parameter centre"),
        ("--parameter: expected a number, got 'x'", "--parameter centre=1,x"),
        ("--steps: expected an integer from 1 to 2000000000, got '0'", "--steps 0"),
        ("arguments: expected an option that --help lists, got '--step'", "--step 1"),
        ("box: expected a periodic system, got one without a box", "--bias periodic.pt"),
        ("parameters: expected centre, force_constant, got k", f"{restraint} --parameter k=1"),
    ):
        fails(message, INPUTS, options, "--positions refused.npy")


def test_all() -> None:
    """One set of files serves all."""
    export_all()
    write_inputs()
    subprocess.run([sys.argv[2], "."], check=True)
    test_the_same_trajectory()
    test_langevin_and_timing()
    test_refused()


if __name__ == "__main__":
    run_tests(test_all)
