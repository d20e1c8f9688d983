"""Trajectories for an artifact: its atoms, its unit, its box."""

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ofcv_export as ofcv
from ofcv_export.cli import app
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances
from tests.builders.systems import all_pairs, frames

ase = pytest.importorskip("ase", reason="ASE reads the trajectories")
pytest.importorskip("ase.io")
ATOMS = [4, 0, 3]
ANGSTROM = {"nm": 10.0, "A": 1.0, "bohr": 0.529177210903}


def cv(length_unit, box=None, **options):
    torch.manual_seed(0)
    distances = PairDistances(all_pairs(3).pairs, 3, box)
    return ofcv.CollectiveVariable(
        distances, nn.Linear(3, 1).double(), ATOMS, length_unit, **options
    )


def write(path, positions, cells=None):
    images = [ase.Atoms("CHNOF", positions=frame) for frame in positions]
    for image, cell in zip(images, [] if cells is None else cells, strict=cells is not None):
        image.set_cell(cell)
        image.pbc = True
    ase.io.write(path, images)


def run(*arguments, code=0):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["run", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("unit", ANGSTROM)
def test_atoms_and_unit_of_the_artifact_are_honoured(tmp_path, unit):
    made = cv(unit)
    ofcv.export(made, tmp_path / "cv.pt")
    positions = frames(4, 5).numpy()
    write(tmp_path / "frames.xyz", positions * ANGSTROM[unit])
    run(
        tmp_path / "cv.pt", "-i", f"positions={tmp_path / 'frames.xyz'}",
        "-o", f"values={tmp_path / 'v.npy'}", "-o", f"derivatives={tmp_path / 'd.npy'}",
    )  # fmt: skip
    values, derivatives = made.values_and_derivatives(torch.from_numpy(positions[:, ATOMS]))
    # Extended XYZ keeps eight digits.
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), derivatives, rtol=1e-6, atol=1e-6)


def test_every_frame_has_its_own_box(tmp_path):
    made = cv("nm", RuntimeBox("triclinic"))
    ofcv.export(made, tmp_path / "cv.onnx")
    positions = frames(3, 5).numpy()
    cells = np.eye(3) * 2 + 0.3 * np.tril(np.random.default_rng(0).random((3, 3, 3)), -1)
    write(tmp_path / "frames.xyz", 10 * positions, 10 * cells)
    output = run(
        tmp_path / "cv.onnx", "-i", f"positions={tmp_path / 'frames.xyz'}",
        "-o", f"box_derivatives={tmp_path / 'b.npy'}",
    )  # fmt: skip
    assert "(3, 1, 3, 3)" in output
    found = np.load(tmp_path / "b.npy")
    for frame, cell, box_derivatives in zip(positions, cells, found, strict=True):
        expected = made.values_and_derivatives(
            torch.from_numpy(frame[None, ATOMS]), torch.from_numpy(cell)
        )[2]
        np.testing.assert_allclose(box_derivatives, expected[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "box", "content", "message"),
    [
        ("nm", None, None, "positions: expected an existing file"),
        ("nm", None, "2\n\nC 0 0 0\nH 0 0 1\n", "positions: expected at least 5 atoms, got 2"),
        ("nm", None, "not a trajectory", "positions: expected a trajectory that ASE reads"),
        ("nm", RuntimeBox(), "5\n\n" + "C 0 0 0\n" * 5, "box: expected lattice vectors, got none"),
    ],
)  # fmt: skip
def test_trajectories_that_do_not_fit(tmp_path, unit, box, content, message):
    ofcv.export(cv(unit, box), tmp_path / "cv.pt")
    if content is not None:
        (tmp_path / "frames.xyz").write_text(content)
    output = run(tmp_path / "cv.pt", "-i", f"positions={tmp_path / 'frames.xyz'}", code=1)
    assert message in output
    assert len(output.strip().splitlines()) == 1


def frame(header, symbols="CHNOF"):
    """Return a frame of extended XYZ, atoms in a row along x."""
    lines = [f"{symbol} {index} 0 0" for index, symbol in enumerate(symbols)]
    return "\n".join([str(len(symbols)), f"Properties=species:S:1:pos:R:3 {header}", *lines, ""])


LATTICE = 'Lattice="10 0 0 0 10 0 0 0 10"'
FIXED = OrthorhombicBox(torch.tensor([1.0, 1.0, 1.0]), periodic=True)


@pytest.mark.parametrize(
    ("box", "content", "message"),
    [
        (
            RuntimeBox(),
            frame(LATTICE) + frame(LATTICE + ' pbc="T T F"'),
            'box: expected a periodic system, got one with pbc="T T F" in frame 1',
        ),
        (FIXED, frame(LATTICE + ' pbc="F F F"'), "box: expected a periodic system, got one with"),
        (FIXED, frame(""), "box: expected lattice vectors, got none in frame 0"),
        (FIXED, frame(LATTICE.replace("10", "20")), "box: expected the artifact's own"),
        (None, frame("", "CHNFO"), "atoms: expected F as atom 4 (zero-based), got O"),
        (
            RuntimeBox("orthorhombic", scaled=True),
            frame(LATTICE),
            "model: expected an artifact that takes positions, got one that takes fractions",
        ),
    ],
)
def test_frames_are_refused_as_by_engines(tmp_path, box, content, message):
    made = cv("nm", box, elements=["F", "C", "O"])
    ofcv.export(made, tmp_path / "cv.pt")
    (tmp_path / "frames.xyz").write_text(content)
    output = run(tmp_path / "cv.pt", "-i", f"positions={tmp_path / 'frames.xyz'}", code=1)
    assert message in output


def test_a_unit_box_of_a_pdb_file_is_none(tmp_path):
    ofcv.export(cv("nm", RuntimeBox()), tmp_path / "cv.pt")
    write(tmp_path / "frames.pdb", frames(1, 5).numpy(), [np.eye(3)])
    assert "CRYST1    1.000" in (tmp_path / "frames.pdb").read_text()
    output = run(tmp_path / "cv.pt", "-i", f"positions={tmp_path / 'frames.pdb'}", code=1)
    assert "box: expected lattice vectors, got none in frame 0" in output
