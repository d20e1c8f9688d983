"""Exported files in PLUMED: the input that is written, and what PLUMED makes of it.

The latter needs PLUMED itself and its headers, which no Python package brings.
"""

import os
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.angles import Angles
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox, TriclinicBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.torsions import Torsions
from ofcv_export.engines.plumed import descriptor_actions, ofcv_input, pytorch_model_input
from tests.builders.plumed_driver import (
    PLUMED,
    drive,
    failure,
    needs_plumed,
    run_driver,
    values_and_derivatives,
)

N_ATOMS = 7
ATOMS = [5, 2, 0, 6]
SERIALS = "6,3,1,7"
BOXES = {
    "orthorhombic": np.diag([1.1, 1.2, 1.3]),
    "triclinic": np.array([[1.1, 0.0, 0.0], [0.3, 1.2, 0.0], [-0.4, 0.5, 1.3]]),
}


def network_cv(box=None, unit="nm", dtype=torch.float64, n_outputs=2):
    """Return values of all distances of the atoms through a network."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, n_outputs)).to(dtype)
    descriptors = PairDistances(all_pairs(4), n_atoms=4, box=box)
    return ofcv.CollectiveVariable(descriptors, layers, ATOMS, unit)


def distance_cv(unit="nm"):
    """Return the distance of the first two atoms of the artifact."""
    descriptors = PairDistances(torch.tensor([[0, 1]]), n_atoms=4)
    return ofcv.CollectiveVariable(descriptors, nn.Identity().double(), ATOMS, unit)


def internal_coordinates():
    """Return distances, an angle and torsions, with sines and cosines."""
    return MultipleDescriptors(
        [
            PairDistances(torch.tensor([[0, 1], [2, 3]]), n_atoms=4),
            Angles(torch.tensor([[0, 1, 2]]), n_atoms=4),
            Torsions(torch.tensor([[0, 1, 2, 3], [3, 0, 2, 1]]), 4, modes=("angle", "sin", "cos")),
        ]
    )


@pytest.fixture(autouse=True, scope="module")
def _in_double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# What is written.


def test_input_of_a_collective_variable(tmp_path):
    path = tmp_path / "cv.pt"
    ofcv.export(network_cv(), path)
    assert ofcv_input(path) == f"LOAD FILE=OFCV.so\ncv: OFCV MODEL={path} ATOMS={SERIALS}\n"
    text = ofcv_input(
        path, label="q", library="/a b/OFCV.so", device="cuda:1", threads=2, nopbc=True
    )
    assert text.splitlines() == [
        "LOAD FILE={/a b/OFCV.so}",
        f"q: OFCV MODEL={path} ATOMS={SERIALS} DEVICE=cuda:1 THREADS=2 NOPBC",
    ]


def test_neighbouring_atoms_are_written_as_a_range(tmp_path):
    path = tmp_path / "cv.pt"
    descriptors = PairDistances(torch.tensor([[0, 1]]), n_atoms=5)
    cv = ofcv.CollectiveVariable(descriptors, nn.Identity(), [3, 4, 5, 0, 8])
    ofcv.export(cv, path)
    assert "ATOMS=4-6,1,9\n" in ofcv_input(path)


def test_input_of_a_bias(tmp_path):
    path = tmp_path / "bias.pt"
    ofcv.export(ofcv.HarmonicRestraint(network_cv(), 0.5, 100.0), path)
    text = ofcv_input(path, label="v", parameters={"centre": [0.1, 0.2], "force_constant": [1, 2]})
    assert text.splitlines()[1:] == [
        f"v: OFCV MODEL={path} ATOMS={SERIALS} "
        "PARAMETERS={centre=0.1,0.2 force_constant=1.0,2.0}",
        "BIASVALUE ARG=v.node-0",
    ]
    with pytest.raises(ValueError, match=r"^parameters: expected centre, force_constant, got at$"):
        ofcv_input(path, parameters={"at": 1.0})
    with pytest.raises(ValueError, match=r"^centre: expected 2 values, got 1$"):
        ofcv_input(path, parameters={"centre": 1.0})


def test_the_time_of_a_moving_restraint_is_plumeds(tmp_path):
    path = tmp_path / "bias.pt"
    ofcv.export(ofcv.MovingRestraint(distance_cv(), [0, 1], [0, 1], [1, 1]), path)
    with pytest.raises(ValueError, match=r"^parameters: expected none, got time$"):
        ofcv_input(path, parameters={"time": 1.0})


def test_files_that_the_action_cannot_read(tmp_path, smart):
    ofcv.export(smart, tmp_path / "smart.pt")
    with pytest.raises(ValueError, match=r"got a smart_derivatives in torchscript$"):
        ofcv_input(tmp_path / "smart.pt")
    ofcv.export(network_cv(), tmp_path / "cv.onnx")
    with pytest.raises(ValueError, match=r"got a collective_variable in onnx$"):
        ofcv_input(tmp_path / "cv.onnx")
    ofcv.export(network_cv(RuntimeBox()), tmp_path / "cv.pt")
    with pytest.raises(ValueError, match=r"^nopbc: expected False for a periodic file, got True$"):
        ofcv_input(tmp_path / "cv.pt", nopbc=True)
    with pytest.raises(FileNotFoundError):
        ofcv_input(tmp_path / "none.pt")
    with pytest.raises(ValueError, match=r"expected a file with contract plumed-pytorch, got none"):
        pytorch_model_input(tmp_path / "cv.pt")


def test_actions_of_descriptors():
    lines, labels = descriptor_actions(internal_coordinates().specification(), ATOMS, "d")
    assert lines == [
        "d_1: DISTANCE ATOMS=6,3 NOPBC",
        "d_2: DISTANCE ATOMS=1,7 NOPBC",
        "d_3: ANGLE ATOMS=6,3,1 NOPBC",
        "d_4: TORSION ATOMS=6,3,1,7 NOPBC",
        "d_4_sin: CUSTOM ARG=d_4 FUNC=sin(x) PERIODIC=NO",
        "d_4_cos: CUSTOM ARG=d_4 FUNC=cos(x) PERIODIC=NO",
        "d_7: TORSION ATOMS=7,6,1,3 NOPBC",
        "d_7_sin: CUSTOM ARG=d_7 FUNC=sin(x) PERIODIC=NO",
        "d_7_cos: CUSTOM ARG=d_7 FUNC=cos(x) PERIODIC=NO",
    ]
    assert labels == ["d_1", "d_2", "d_3", "d_4", "d_4_sin", "d_4_cos", "d_7", "d_7_sin", "d_7_cos"]


def test_the_periods_of_values_are_told(tmp_path):
    torsion = Torsions(torch.tensor([[0, 1, 2, 3]]), 4)
    one = ofcv.CollectiveVariable(torsion, nn.Identity(), ATOMS)
    two = ofcv.CollectiveVariable(torsion, nn.Linear(1, 2), ATOMS, periods=[None, 90.0])
    for cv, expected in (
        (one, ["cv_periodic_0: COMBINE ARG=cv.node-0 PERIODIC=-pi,pi"]),
        (two, ["cv_periodic_1: COMBINE ARG=cv.node-1 PERIODIC=-45,45"]),
    ):
        ofcv.export(cv, tmp_path / "cv.pt", contract="plumed-pytorch")
        lines = pytorch_model_input(tmp_path / "cv.pt").splitlines()
        assert [line for line in lines if "periodic" in line] == expected


def test_actions_in_a_box():
    pairs = torch.tensor([[0, 1]])
    periodic = PairDistances(pairs, 2, RuntimeBox())
    assert descriptor_actions(periodic.specification(), [0, 1])[0] == ["cv_1: DISTANCE ATOMS=1,2"]
    fractions = PairDistances(pairs, 2, RuntimeBox(scaled=True))
    with pytest.raises(ValueError, match=r"^descriptors: expected positions .*, got fractions$"):
        descriptor_actions(fractions.specification(), [0, 1])


def test_descriptors_that_plumed_has_no_action_for():
    for specification, name in (({"type": "rmsd"}, "rmsd"), (None, "none that are described")):
        with pytest.raises(ValueError, match=rf"^descriptors: expected distances.*, got {name}$"):
            descriptor_actions(specification, [0, 1])


# What PLUMED makes of it.


class Way:
    """One way to get a file into PLUMED: ``suffix``, and the library that reads it, if any."""

    def __init__(self, suffix, library):
        self.suffix = suffix
        self.library = library

    def export(self, module, path, batch=None):
        ofcv.export(module, path, batch, contract="plumed" if self.suffix == ".cpp" else None)

    def input(self, path, **options):
        return ofcv_input(path, library=self.library, **options)


@pytest.fixture(params=[".pt", ".cpp"])
def way(request):
    """Return a file that OFCV reads, and one that is an action itself."""
    library = None if request.param == ".cpp" else request.getfixturevalue("library")
    return Way(request.param, library)


def has_action(name):
    """Return whether PLUMED was built with an action."""
    words = [PLUMED, "--no-mpi", "manual", "--action", name]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def positions(n_frames=5, seed=0):
    """Return positions of all atoms of the system in nm, shape (n_frames, N_ATOMS, 3)."""
    return np.random.default_rng(seed).normal(scale=0.3, size=(n_frames, N_ATOMS, 3))


def expected(path, frames, box=None, parameters=()):
    """Return the same from `ofcv.load`; the virial is minus the derivative by the strain."""
    artifact = ofcv.load(path)
    dtype = np.dtype(artifact.metadata.inputs[0].dtype)
    results = []
    for frame in frames[:, ATOMS]:
        inputs = [frame[None], *(() if box is None else (box,)), *map(np.asarray, parameters)]
        outputs = artifact(*[entry.astype(dtype) for entry in inputs])
        value, derivatives, *by_box = (np.asarray(output[0], dtype=float) for output in outputs)
        strain = np.einsum("ia,kib->kab", frame, derivatives)
        if by_box:
            strain += np.einsum("ia,kib->kab", box, by_box[0])
        results.append((value, derivatives, -strain))
    return [np.array(column) for column in zip(*results, strict=True)]


def assert_close(found, exact, tolerance):
    for ours, judge in zip(found, exact, strict=True):
        np.testing.assert_allclose(ours, judge, rtol=0, atol=tolerance * np.abs(judge).max())


NODES = ("cv.node-0", "cv.node-1")


@needs_plumed
@pytest.mark.parametrize(
    ("suffix", "dtype", "batch"),
    [
        (".pt", torch.float64, None),
        (".pt", torch.float32, 1),
        (".pt2", torch.float64, 1),
        (".cpp", torch.float64, None),
        (".cpp", torch.float32, 1),
    ],
)
def test_values_and_derivatives(request, tmp_path, suffix, dtype, batch):
    way = Way(suffix, None if suffix == ".cpp" else request.getfixturevalue("library"))
    path = tmp_path / f"cv{suffix}"
    way.export(network_cv(dtype=dtype), path, batch)
    frames = positions()
    found = values_and_derivatives(tmp_path, way.input(path), frames, NODES)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert_close(found, expected(path, frames), tolerance)


@needs_plumed
def test_the_files_own_atoms_are_the_default(way, tmp_path):
    path = tmp_path / f"cv{way.suffix}"
    way.export(network_cv(), path)
    text = way.input(path).replace(f" ATOMS={SERIALS}", "")
    assert "ATOMS" not in text
    found = values_and_derivatives(tmp_path, text, positions(), NODES)
    assert_close(found, expected(path, positions()), 1e-12)


@needs_plumed
@pytest.mark.parametrize(
    ("unit", "size", "plumed_unit", "plumed_size"),
    [("A", 0.1, "nm", 1.0), ("nm", 1.0, "A", 0.1), ("bohr", 0.0529177210903, "A", 0.1)],
)
def test_units_of_length(way, tmp_path, unit, size, plumed_unit, plumed_size):
    path = tmp_path / f"cv{way.suffix}"
    way.export(network_cv(unit=unit), path)
    text = f"UNITS LENGTH={plumed_unit}\n" + way.input(path)
    frames = positions()
    values, derivatives, virial = values_and_derivatives(tmp_path, text, frames, NODES)
    exact = expected(path, frames / size)
    assert_close((values, derivatives * size / plumed_size, virial), exact, 1e-12)


@needs_plumed
@pytest.mark.parametrize("shape", BOXES)
def test_periodic_artifacts(way, tmp_path, shape):
    path = tmp_path / f"cv{way.suffix}"
    way.export(network_cv(RuntimeBox(shape)), path)
    text, frames, box = way.input(path), positions(), BOXES[shape]
    found = values_and_derivatives(tmp_path, text, frames, NODES, box)
    assert_close(found, expected(path, frames, box), 1e-12)
    if shape == "triclinic":  # PLUMED moves all nine numbers of the box
        numerical = text.replace("ATOMS=", "NUMERICAL_DERIVATIVES ATOMS=")
        differences = values_and_derivatives(tmp_path, numerical, frames, NODES, box)
        assert_close(differences, found, 1e-6)


@needs_plumed
@pytest.mark.parametrize("shape", BOXES)
def test_molecules_are_made_whole(way, tmp_path, shape):
    path, box = tmp_path / f"cv{way.suffix}", BOXES[shape]
    way.export(network_cv(), path)
    # A chain in the artifact's order, whose bonds are short; then each atom at an image.
    frames = positions()
    frames[:, ATOMS] = frames[:, :1] + np.cumsum(positions(seed=1)[:, :4] / 5, axis=1)
    images = np.random.default_rng(2).integers(-1, 2, size=(*frames.shape[:2], 3))
    scattered = frames + images @ box
    text = way.input(path)
    values, derivatives, _ = values_and_derivatives(tmp_path, text, scattered, NODES, box)
    assert_close((values, derivatives), expected(path, frames)[:2], 1e-11)
    text = way.input(path, nopbc=True)
    found = values_and_derivatives(tmp_path, text, scattered, NODES, box)
    assert_close(found, expected(path, scattered), 1e-12)


@needs_plumed
def test_forces_of_a_restraint_equal_differences_of_its_energy(way, tmp_path):
    path = tmp_path / f"cv{way.suffix}"
    way.export(network_cv(RuntimeBox()), path)
    text = way.input(path)
    text += "RESTRAINT ARG=cv.node-0,cv.node-1 AT=0.3,0.1 KAPPA=100,200\n"
    drive(tmp_path, text, positions(2), "--debug-forces", "differences", box=BOXES["triclinic"])
    table = np.loadtxt(tmp_path / "differences")
    assert len(table) == 2 * (3 * N_ATOMS + 9)
    assert np.abs(table[:, 1]).max() > 1
    np.testing.assert_allclose(
        table[:, 1], table[:, 2], rtol=0, atol=1e-6 * np.abs(table[:, 1]).max()
    )


@needs_plumed
@pytest.mark.parametrize(
    "bias",
    [
        "METAD ARG=cv.node-0,cv.node-1 SIGMA=0.1,0.1 HEIGHT=1 PACE=1 FILE=hills",
        "OPES_METAD ARG=cv.node-0,cv.node-1 PACE=1 BARRIER=10 TEMP=300 SIGMA=0.1,0.1 FILE=hills",
    ],
    ids=["METAD", "OPES_METAD"],
)
def test_biases_of_plumed_that_learn(way, tmp_path, bias):
    name = bias.split()[0]
    if not has_action(name):
        pytest.skip(f"this PLUMED was built without {name}")
    path = tmp_path / f"cv{way.suffix}"
    way.export(network_cv(), path)
    text = way.input(path) + f"b: {bias}\nPRINT ARG=b.bias FILE=bias\n"
    drive(tmp_path, text, np.repeat(positions(1), 4, axis=0))
    assert np.ptp(np.loadtxt(tmp_path / "bias")[:, 1]) > 0.1
    centres = np.loadtxt(tmp_path / "hills", ndmin=2)[:, 1:3]
    values = expected(path, positions(1))[0]
    np.testing.assert_allclose(centres, np.repeat(values, len(centres), axis=0), atol=1e-5)


@needs_plumed
@pytest.mark.parametrize(("energy_unit", "size"), [("kJ/mol", 1.0), ("kcal/mol", 4.184)])
def test_a_bias_acts_as_plumeds_own_restraint(way, tmp_path, energy_unit, size):
    path = tmp_path / f"bias{way.suffix}"
    cv = distance_cv("A")
    way.export(ofcv.HarmonicRestraint(cv, 9.9, 9.9, energy_unit), path)
    # The artifact's units are A and kcal/mol, PLUMED's nm and kJ/mol: 1 A is 0.1 nm.
    parameters = {"centre": 4.0, "force_constant": 3.0}
    ours = way.input(path, label="v", parameters=parameters)
    theirs = f"d: DISTANCE ATOMS=6,3 NOPBC\nr: RESTRAINT ARG=d AT=0.4 KAPPA={300 * size!r}\n"
    forces = []
    for text, energy in ((ours, "v.node-0"), (theirs, "r.bias")):
        text += f"PRINT ARG={energy} FILE=energy FMT=%.16g\n"
        options = ("--dump-forces", "forces", "--dump-forces-fmt", "%.12f", "--dump-full-virial")
        drive(tmp_path, text, positions(), *options)
        energies = np.loadtxt(tmp_path / "energy")[:, 1]
        lines = (tmp_path / "forces").read_text().splitlines()
        numbers = [[float(x) for x in line.removeprefix("X").split()] for line in lines]
        forces.append(np.concatenate([energies, *map(np.array, numbers)]))
    assert np.abs(forces[1][:5]).max() > 1
    np.testing.assert_allclose(forces[0], forces[1], rtol=1e-9, atol=1e-9)


@needs_plumed
def test_the_energy_is_in_the_unit_of_the_input(way, tmp_path):
    path = tmp_path / f"bias{way.suffix}"
    way.export(ofcv.HarmonicRestraint(distance_cv(), 0.4, 300.0, "eV"), path)
    text = "UNITS LENGTH=A ENERGY=kcal/mol\n" + way.input(path, label="v")
    frames = positions()
    found = values_and_derivatives(tmp_path, text, frames, ["v.node-0"])
    per_kcal = 96.48533212331002 / 4.184
    energy, derivatives, virial = expected(path, frames, parameters=[[0.4], [300.0]])
    exact = (energy * per_kcal, derivatives * per_kcal / 10, virial * per_kcal)
    assert_close(found, exact, 1e-12)


@needs_plumed
def test_a_moving_restraint_follows_plumeds_time(way, tmp_path):
    path = tmp_path / f"bias{way.suffix}"
    moving = ofcv.MovingRestraint(distance_cv(), [0.0, 4.0], [0.1, 0.9], [100.0, 300.0])
    way.export(moving, path)
    text = "UNITS TIME=fs\n" + way.input(path, label="v")
    text += "PRINT ARG=v.node-0 FILE=energy FMT=%.16g\n"
    frames = positions(6)
    drive(tmp_path, text, frames, "--timestep", "1.5")
    found = np.loadtxt(tmp_path / "energy")
    np.testing.assert_allclose(found[:, 0], 1500.0 * np.arange(6))
    exact = [
        expected(path, frames[step : step + 1], parameters=[[1.5 * step]])[0].item()
        for step in range(6)
    ]
    np.testing.assert_allclose(found[:, 1], exact, rtol=1e-12)


@needs_plumed
def test_what_does_not_fit_is_refused(way, tmp_path):
    path = tmp_path / f"cv{way.suffix}"
    way.export(network_cv(), path)
    text, frames = way.input(path), positions(1)
    for before, after, message in [
        (SERIALS, "6,3,1", "ATOMS: expected 4 atoms, got 3"),
        (SERIALS, "6,3,7,1", "ATOMS: expected serial 1 as number 3, got 7"),
        ("ATOMS", "PARAMETERS={centre=1} ATOMS", "parameters: expected none, got centre"),
        ("cv:", "UNITS NATURAL\ncv:", "UNITS: expected units that have a size, got NATURAL"),
    ]:
        assert message in failure(tmp_path, text.replace(before, after), frames)
    frames[0, 0, 0] = np.nan
    assert "positions: expected finite" in failure(tmp_path, text, frames)


@needs_plumed
def test_what_libtorch_cannot_do_is_refused(library, tmp_path):
    path = _exported(network_cv(), tmp_path / "cv.pt")
    text, frames = ofcv_input(path, library=library), positions(1)
    for before, after, message in [
        (str(path), "none.pt", "none.pt"),
        ("MODEL", "THREADS=0 MODEL", "THREADS: expected a positive number, got 0"),
        ("MODEL", "DEVICE=tpu MODEL", "device: expected cpu, cuda or cuda:<index>, got 'tpu'"),
    ]:
        assert message in failure(tmp_path, text.replace(before, after), frames)


@needs_plumed
def test_wrong_parameters_are_refused(way, tmp_path):
    path = tmp_path / f"bias{way.suffix}"
    way.export(ofcv.HarmonicRestraint(network_cv(), 0.5, 100.0), path)
    text = way.input(path)
    for words, message in [
        ("{at=1}", "parameters: expected centre, force_constant, got at"),
        ("{centre=1}", "centre: expected shape (2,), got (1,)"),
        ("{centre=1,x}", "PARAMETERS: expected numbers for centre, got 'x'"),
        ("centre", "PARAMETERS: expected name=value pairs, got 'centre'"),
    ]:
        wrong = text.replace("ATOMS", f"PARAMETERS={words} ATOMS")
        assert message in failure(tmp_path, wrong, positions(1))


@needs_plumed
def test_wrong_boxes_are_refused(way, tmp_path):
    periodic = RuntimeBox("orthorhombic")
    frozen = OrthorhombicBox(torch.tensor([1.1, 1.2, 1.3]), periodic=True)
    other = BOXES["orthorhombic"] * 1.001
    for box, given, message in [
        (periodic, None, "box: expected shape (3, 3), got none"),
        (periodic, BOXES["triclinic"], "box: expected positive lengths along x, y and z"),
        (frozen, None, "box: expected shape (3, 3), got none"),
        (frozen, other, "box: expected the artifact's own [[1.1, 0.0, 0.0]"),
    ]:
        path = tmp_path / f"cv{way.suffix}"
        way.export(network_cv(box), path)
        text = way.input(path)
        assert message in failure(tmp_path, text, positions(1), given)
    way.export(network_cv(periodic), path)
    nopbc = text.replace("ATOMS", "NOPBC ATOMS")
    message = "NOPBC: expected none for a periodic artifact, got NOPBC"
    assert message in failure(tmp_path, nopbc, positions(1), BOXES["orthorhombic"])


@needs_plumed
def test_a_frozen_box_that_is_plumeds(way, tmp_path):
    path, box = tmp_path / f"cv{way.suffix}", BOXES["triclinic"]
    way.export(network_cv(TriclinicBox(torch.tensor(box))), path)
    frames = positions()
    text = way.input(path)
    values, derivatives, virial = values_and_derivatives(tmp_path, text, frames, NODES, box)
    assert_close((values, derivatives), expected(path, frames)[:2], 1e-12)
    assert not virial.any()


@needs_plumed
def test_files_that_are_no_collective_variable_of_one_frame(library, tmp_path, smart):
    text = ofcv_input(_exported(network_cv(), tmp_path / "cv.pt"), library=library)
    ofcv.export(network_cv(RuntimeBox(scaled=True)), tmp_path / "cv.pt")
    message = "got one that takes fractions of a box"
    assert message in failure(tmp_path, text, positions(1), BOXES["triclinic"])
    ofcv.export(smart, tmp_path / "cv.pt")
    message = "model: expected a collective_variable, got a smart_derivatives"
    assert message in failure(tmp_path, text, positions(1))
    ofcv.export(network_cv(), tmp_path / "cv.pt", batch=4)
    message = "model: expected an artifact for one frame or any number of them, got one for 4"
    assert message in failure(tmp_path, text, positions(1))


def _exported(module, path):
    ofcv.export(module, path)
    return path


@needs_plumed
def test_the_engines_number_of_threads_is_left_alone(library, tmp_path):
    """An action beside OFCV reads OpenMP's setting at every step."""
    (tmp_path / "Threads.cpp").write_text(
        """
#include <core/ActionRegister.h>
#include <core/Colvar.h>
#include <omp.h>
namespace PLMD {
struct Threads : public Colvar {
  explicit Threads(const ActionOptions& options) : PLUMED_COLVAR_INIT(options) {
    std::vector<AtomNumber> atoms;
    parseAtomList("ATOMS", atoms);
    checkRead();
    addValueWithDerivatives();
    setNotPeriodic();
    requestAtoms(atoms);
  }
  static void registerKeywords(Keywords& keys) {
    Colvar::registerKeywords(keys);
    keys.add("atoms", "ATOMS", "any");
  }
  void calculate() override { setValue(omp_get_max_threads()); }
};
PLUMED_REGISTER_ACTION(Threads, "THREADS")
}
"""
    )
    flags = {"PLUMED_MKLIB_CFLAGS": "-fopenmp", "PLUMED_MKLIB_LDFLAGS": "-fopenmp"}
    subprocess.run(
        [PLUMED, "--no-mpi", "mklib", "Threads.cpp"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env=os.environ | flags,
    )
    path = _exported(network_cv(), tmp_path / "cv.pt")
    text = f"LOAD FILE=./Threads{library.suffix}\nbefore: THREADS ATOMS=1\n"
    text += ofcv_input(path, library=library)
    text += "after: THREADS ATOMS=1\nPRINT ARG=before,cv.node-0,after FILE=threads\n"
    done = run_driver(tmp_path, text, positions(3), environment={"OMP_NUM_THREADS": "3"})
    assert done.returncode == 0, done.stdout + done.stderr
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "threads")[:, [1, 3]], 3)


@needs_plumed
@pytest.mark.parametrize("unit", ["nm", "A"])
def test_plumeds_own_pytorch_model(library, tmp_path, unit):
    if not has_action("PYTORCH_MODEL"):
        pytest.skip("this PLUMED was built without PYTORCH_MODEL")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 2)).to(torch.float32)
    cv = ofcv.CollectiveVariable(internal_coordinates(), network, ATOMS, unit)
    ofcv.export(cv, tmp_path / "cv.pt")
    ofcv.export(cv, tmp_path / "network.pt", contract="plumed-pytorch")
    text = pytorch_model_input(tmp_path / "network.pt", label="theirs")
    text += ofcv_input(tmp_path / "cv.pt", library=library)
    text += "PRINT ARG=theirs.node-0,theirs.node-1,cv.node-0,cv.node-1 FILE=values FMT=%.16g\n"
    text += "RESTRAINT ARG=theirs.node-0,theirs.node-1 AT=0,0 KAPPA=100,100\n"
    text += "RESTRAINT ARG=cv.node-0,cv.node-1 AT=0,0 KAPPA=-100,-100\n"
    options = ("--dump-forces", "forces", "--dump-forces-fmt", "%.8f")
    drive(tmp_path, text, positions(), *options, box=BOXES["triclinic"])
    values = np.loadtxt(tmp_path / "values")[:, 1:]
    np.testing.assert_allclose(values[:, :2], values[:, 2:], atol=2e-6)
    forces = [line for line in (tmp_path / "forces").read_text().splitlines() if line[0] == "X"]
    assert len(forces) == 5 * N_ATOMS
    assert max(abs(float(x)) for line in forces for x in line.split()[1:]) < 1e-2
