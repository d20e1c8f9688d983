"""The C++ force against PythonForce and CustomBondForce. Usage: openmm_test.py PROGRAM TESTS."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import openmm
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import RuntimeBox
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.engines.openmm import openmm_force

PROGRAM, TESTS = Path(sys.argv[1]), Path(sys.argv[2])
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


def export_all(folder: Path) -> None:
    """Write the artifacts that the tests read."""
    restraint = ofcv.HarmonicRestraint(distance(), CENTRE, FORCE_CONSTANT)
    ofcv.export(restraint, folder / "restraint.pt")
    ofcv.export(restraint, folder / "restraint.pt2", batch=1)
    periodic = ofcv.HarmonicRestraint(distance(RuntimeBox("triclinic")), CENTRE, FORCE_CONSTANT)
    ofcv.export(periodic, folder / "periodic.pt")
    constants = [FORCE_CONSTANT, FORCE_CONSTANT]
    pull = ofcv.MovingRestraint(distance(), [1.0, 2.0], [0.3, 0.5], constants)
    ofcv.export(pull, folder / "pull.pt")
    ofcv.export(distance(), folder / "cv.pt")


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


def write_inputs(folder: Path) -> None:
    """Write the system, and a state at 0.5 ps in the middle of its motion."""
    context = openmm.Context(
        make_system(), openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(np.arange(N_ATOMS)[:, None] * np.array([0.1, 0.08, 0.06]))
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().step(500)
    state = context.getState(positions=True, velocities=True)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(make_system()))
    (folder / "state.xml").write_text(openmm.XmlSerializer.serialize(state))


def program(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the program in the folder."""
    words = [PROGRAM, "--system", "system.xml", "--state", "state.xml", *options]
    return subprocess.run(
        [*map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )


def cpp_run(folder: Path, *options: object) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and energies after every step."""
    files = ("--energies", "energies.csv", "--positions", "positions.npy")
    done = program(folder, "--steps", N_STEPS, "--interval", 1, *files, *options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert f"{N_STEPS} steps of 1 fs with verlet" in done.stdout, done.stdout
    energies = np.genfromtxt(folder / "energies.csv", delimiter=",", names=True)
    return np.load(folder / "positions.npy"), energies


def python_run(folder: Path, force: openmm.Force | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the same of OpenMM in Python; of the energies, potential and bias."""
    system = make_system()
    if force is not None:
        force.setForceGroup(1)
        system.addForce(force)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setState(openmm.XmlSerializer.deserialize((folder / "state.xml").read_text()))
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


def test_the_same_trajectory(folder: Path) -> None:
    """For both formats, as PythonForce and as CustomBondForce, and not as without a bias."""
    theirs, free = python_run(folder, bond_force()), python_run(folder, None)
    assert np.abs(theirs[0] - free[0]).max() > 1e-3
    for name in ("restraint.pt", "restraint.pt2"):
        ours = cpp_run(folder, "--bias", name)
        require_equal(ours, theirs)
        require_equal(ours, python_run(folder, openmm_force(folder / name, make_system())))
    require_equal(cpp_run(folder), free)
    pull = python_run(folder, openmm_force(folder / "pull.pt", make_system()))
    require_equal(cpp_run(folder, "--bias", "pull.pt"), pull)
    weak = ("--parameter", "force_constant=0", "--parameter", "centre=0.2")
    require_equal(cpp_run(folder, "--bias", "restraint.pt", *weak), free)


def test_langevin_and_timing(folder: Path) -> None:
    """The same seed gives the same run; the overhead is printed."""
    options = ("--bias", "restraint.pt", "--integrator", "langevin", "--platform", "CPU")
    options = (*options, "--timestep", 2, "--steps", 105, "--interval", 50, "--positions", "p.npy")
    runs = []
    for seed in (3, 3, 4):
        done = program(folder, *options, "--seed", seed, "--timed-steps", 200)
        assert done.returncode == 0, done.stderr
        assert "us a step without the bias" in done.stdout, done.stdout
        runs.append(np.load(folder / "p.npy"))
    assert runs[0].shape == (3, N_ATOMS, 3)
    assert np.abs(runs[0] - runs[1]).max() < 1e-4 < np.abs(runs[0] - runs[2]).max()


def test_refused(folder: Path) -> None:
    """One line, code 2, and no file left behind."""
    refused = {
        "--bias: expected a file for --parameter and --timed-steps, got nothing": (
            "--timed-steps",
            10,
        ),
        "--state: expected an OpenMM State as XML, got 'system.xml'": ("--state", "system.xml"),
        "--system: expected an OpenMM System as XML, got 'restraint.pt'": (
            "--system",
            "restraint.pt",
        ),
        "--integrator: expected verlet or langevin, got 'euler'": ("--integrator", "euler"),
        "--parameter: expected NAME=NUMBER[,NUMBER], got 'centre'": ("--parameter", "centre"),
        "--parameter: expected a number, got 'x'": ("--parameter", "centre=1,x"),
        "--steps: expected an integer from 1 to 2000000000, got '0'": ("--steps", 0),
        "arguments: expected an option that --help lists, got '--step'": ("--step", 1),
        "box: expected a periodic system, got one without a box": ("--bias", "periodic.pt"),
        "parameters: expected centre, force_constant, got k": (
            *("--bias", "restraint.pt"),
            *("--parameter", "k=1"),
        ),
    }
    for message, options in refused.items():
        before = sorted(folder.iterdir())
        done = program(folder, *options, "--positions", "refused.npy")
        assert done.returncode == 2, (message, done)
        assert done.stderr == f"ofcv_openmm: {message}\n", done.stderr
        assert sorted(folder.iterdir()) == before


def main() -> None:
    """Run all tests in one folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_all(folder)
        write_inputs(folder)
        subprocess.run([TESTS, folder], check=True)
        test_the_same_trajectory(folder)
        test_langevin_and_timing(folder)
        test_refused(folder)


if __name__ == "__main__":
    main()
