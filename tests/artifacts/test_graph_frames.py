"""A user's frames for the verification of graph variables, whatever holds them."""

from types import SimpleNamespace

import ase
import ase.io
import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ofcv_export as ofcv
from ofcv_export.artifacts.graph_frames import to_graph_frames
from ofcv_export.cli import app
from tests.builders.graph_biases import (
    BOXES,
    ENVIRONMENT,
    SYMBOLS,
    SYSTEM,
    by_differences,
    energy,
    positions,
    restraint,
)

ATOMS = [*SYSTEM, *ENVIRONMENT]
N_FRAMES = 3
FRAMES = np.stack([positions(seed) for seed in range(N_FRAMES)])


def atoms(box="triclinic", symbols=SYMBOLS):
    return [ase.Atoms(symbols, x, cell=BOXES[box], pbc=BOXES[box] is not None) for x in FRAMES]


def in_file(folder):
    ase.io.write(folder / "frames.xyz", atoms())
    return folder / "frames.xyz"


def in_arrays(folder):
    return FRAMES[:, ATOMS], BOXES["triclinic"]


def in_tensors(folder):
    boxes = torch.tensor(BOXES["triclinic"]).expand(N_FRAMES, 3, 3)
    return torch.tensor(FRAMES[:, ATOMS]), boxes


class Universe:
    """As much of MDAnalysis's Universe as is used."""

    def __init__(self):
        self.universe = self
        self.atoms = SimpleNamespace(elements=np.array(SYMBOLS))
        self.trajectory = [
            SimpleNamespace(positions=x, triclinic_dimensions=BOXES["triclinic"]) for x in FRAMES
        ]


HOLDERS = {
    "ASE": lambda folder: atoms(),
    "a file": in_file,
    "MDAnalysis": lambda folder: Universe(),
    "arrays": in_arrays,
    "tensors": in_tensors,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "restraint.pt"
    ofcv.export(restraint(), path)
    return path


@pytest.fixture(scope="module")
def metadata(path):
    return ofcv.read_metadata(path)


def with_elements(metadata):
    return msgspec.structs.replace(metadata, elements=[SYMBOLS[atom] for atom in ATOMS])


@pytest.mark.parametrize("holder", HOLDERS)
def test_graphs_of_frames_have_the_energies_of_the_formula(path, tmp_path, holder):
    artifact = ofcv.load(path)
    graphs = to_graph_frames(HOLDERS[holder](tmp_path), with_elements(artifact.metadata), {})
    assert len(graphs) == N_FRAMES
    parameters = {
        name: np.array([value]) for name, value in (("centre", 2.0), ("force_constant", 3.0))
    }
    for x, graph in zip(FRAMES, graphs, strict=True):
        given = graph | parameters
        named = {
            spec.name: given[spec.name].astype(spec.dtype) for spec in artifact.metadata.inputs
        }
        found = artifact(**named)[0].item()
        assert found == pytest.approx(energy(x, BOXES["triclinic"]), rel=1e-7)
        assert found > 1e-3


def test_lengths_are_in_nanometres_where_the_file_is(metadata):
    in_nm = msgspec.structs.replace(metadata, length_unit="nm")
    graph, *_ = to_graph_frames(atoms(), in_nm, {})
    assert np.array_equal(graph["box"], BOXES["triclinic"] / 10)
    first, second = graph["positions"][:2]
    np.testing.assert_allclose(second - first, (FRAMES[0][1] - FRAMES[0][0]) / 10)


def test_without_a_box_there_is_none(metadata):
    graphs = to_graph_frames(atoms("none"), metadata, {})
    assert all(not graph["box"].any() and not graph["cell_shifts"].any() for graph in graphs)


def test_of_many_frames_some_are_taken(metadata):
    numbers = np.arange(1000.0)
    frames = numbers[:, None, None] * np.eye(len(ATOMS))[:, :3]
    graphs = to_graph_frames(frames, with_elements(metadata), {})
    assert len(graphs) == 64
    # The distance between the first two atoms tells which frame it is.
    lengths = [np.linalg.norm(graph["positions"][1]) / np.sqrt(2) for graph in graphs]
    assert lengths[0] == 0
    assert lengths[-1] == pytest.approx(999)


def test_an_export_is_verified_at_the_users_frames(tmp_path):
    report = ofcv.export(restraint(), tmp_path / "a.so", frames=atoms(), n_nodes=30, n_edges=900)
    sizes = [entry.size for entry in report.comparisons if entry.inputs == "frames"]
    graphs = to_graph_frames(atoms(), report.metadata, {})
    assert set(sizes) == {len(graph["elements"]) for graph in graphs}
    report = ofcv.verify(tmp_path / "a.so", restraint(), frames=atoms())
    assert report.passed
    assert "frames" in {entry.inputs for entry in report.comparisons}


def of_command(*arguments):
    return CliRunner().invoke(app, ["run", *map(str, arguments)])


def test_the_command_line_runs_along_a_trajectory(path, tmp_path):
    """Derivatives are those with respect to all of the artifact's atoms, nodes or not."""
    given = []
    for name, value in (("centre", 2.0), ("force_constant", 3.0)):
        np.save(tmp_path / f"{name}.npy", [value])
        given += ["-i", f"{name}={tmp_path / name}.npy"]
    names = ("values", "derivatives", "box_derivatives")
    wanted = [word for name in names for word in ("-o", f"{name}={tmp_path / name}.npy")]
    done = of_command(path, "-i", f"positions={in_file(tmp_path)}", *given, *wanted)
    assert done.exit_code == 0, done.output
    values, derivatives, by_box = (np.load(tmp_path / f"{name}.npy") for name in names)
    assert by_box.shape == (N_FRAMES, 1, 3, 3)
    box = BOXES["triclinic"]
    for x, value, slope in zip(FRAMES, values, derivatives, strict=True):
        assert value == pytest.approx([energy(x, box)], rel=1e-6)
        assert slope.shape == (1, len(ATOMS), 3)

        def at(moved, x=x):
            whole = x.copy()
            whole[ATOMS] = moved
            return energy(whole, box)

        expected = by_differences(at, x[ATOMS])
        np.testing.assert_allclose(slope[0], expected, atol=1e-5 * np.abs(expected).max())


def test_a_trajectory_that_does_not_fit_is_refused_in_one_line(path, tmp_path):
    ase.io.write(tmp_path / "short.xyz", [frame[:40] for frame in atoms()])
    done = of_command(path, "-i", f"positions={tmp_path / 'short.xyz'}")
    assert done.exit_code == 1
    assert done.stderr == "error positions: expected at least 60 atoms, got 40 in frame 0\n"
    done = of_command(path, "-i", f"positions={in_file(tmp_path)}")
    assert done.exit_code == 1
    assert done.stderr.startswith("error inputs: expected positions, elements,")


REFUSED = {
    "elements": (
        lambda: atoms(symbols=["Na", "Ar", *SYMBOLS[2:]]), ValueError,
        r"elements: expected O, Na, Cl, got Ar as atom 1 \(zero-based\)",
    ),
    "no elements": (
        lambda: FRAMES[:, ATOMS], ValueError,
        "elements: expected chemical symbols of the atoms, got none",
    ),
    "too few atoms": (
        lambda: [frame[:40] for frame in atoms()], ValueError,
        "frames: expected at least 60 atoms, got 40 in frame 0",
    ),
    "a slab": (
        lambda: [ase.Atoms(SYMBOLS, FRAMES[0], cell=BOXES["small"], pbc=(True, True, False))],
        ValueError,
        "box: expected a system that is periodic along three lattice vectors or along none, got "
        'one with pbc="T T F" in frame 0',
    ),
    "none": (lambda: FRAMES[:0, ATOMS], ValueError, "frames: expected at least one, got none"),
    "shape": (
        lambda: FRAMES[:, ATOMS, :2], ValueError,
        r"frames: expected shape \(n_frames, 22, 3\), got \(3, 22, 2\)",
    ),
    "atoms": (
        lambda: FRAMES, ValueError, r"frames: expected shape \(n_frames, 22, 3\), got \(3, 62, 3\)",
    ),
    "no numbers": (
        lambda: FRAMES[:, ATOMS] * np.nan, ValueError, "frame 0: expected finite values, got nan",
    ),
    "a function": (len, TypeError, "frames: expected positions, a trajectory or its file, got bui"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_frames_that_do_not_fit_are_refused(metadata, name):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=f"^{message}"):
        to_graph_frames(make if make is len else make(), metadata, {})


@pytest.mark.parametrize(("n_nodes", "n_edges"), [(5, 900), (30, 9)])
def test_frames_with_larger_graphs_than_the_files_are_refused(tmp_path, n_nodes, n_edges):
    message = r"^n_(nodes: expected \d+ nodes|edges: expected \d+ edges) or more for frame 0, got "
    with pytest.raises(ValueError, match=message):
        ofcv.export(restraint(), tmp_path / "a.c", frames=atoms(), n_nodes=n_nodes, n_edges=n_edges)
    assert not list(tmp_path.iterdir())
