"""Collective variables with a box at run time: images, virial and bad boxes, in every format."""

import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import RuntimeBox
from ofcv_export.descriptors.coordination import CoordinationNumbers
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.switching import Fermi
from tests.builders.systems import all_pairs, frames

SUFFIXES = [".pt", ".onnx"]
ORTHORHOMBIC = torch.diag(torch.tensor([2.0, 2.5, 3.0], dtype=torch.float64))
# A truncated octahedron as GROMACS and OpenMM keep it.
OCTAHEDRON = 2.5 * torch.tensor(
    [[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]], dtype=torch.float64
)
BOXES = {"orthorhombic": ORTHORHOMBIC, "triclinic": OCTAHEDRON}


def cv(shape, n_atoms=4, scaled=False):
    torch.manual_seed(0)
    distances = PairDistances(all_pairs(n_atoms).pairs, n_atoms, RuntimeBox(shape, scaled=scaled))
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return ofcv.CollectiveVariable(distances, network)


def brute_force(made, positions, box):
    """Return the values with the nearest of all images within three lattice vectors."""
    first, second = made.descriptors.pairs.T
    shifts = torch.cartesian_prod(*[torch.arange(-3.0, 4.0)] * 3).double() @ box
    vectors = (positions[:, second] - positions[:, first])[:, :, None] + shifts
    return made.network(vectors.norm(dim=3).amin(dim=2))


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("shape", BOXES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_equals_brute_force_and_a_strained_box(tmp_path, suffix, shape, batch):
    made, box = cv(shape), BOXES[shape]
    report = ofcv.export(made, tmp_path / f"cv{suffix}", batch=batch)
    assert report.passed
    assert {entry.output for entry in report.comparisons} == {
        "values",
        "derivatives",
        "box_derivatives",
    }
    assert ofcv.verify(tmp_path / f"cv{suffix}").passed
    artifact = ofcv.load(tmp_path / f"cv{suffix}")
    assert artifact.metadata.periodic
    positions = 1.5 * frames(batch or 5, 4)
    values, derivatives, box_derivatives = artifact(positions, box)
    torch.testing.assert_close(values, brute_force(made, positions, box))
    assert box_derivatives.shape == (batch or 5, 2, 3, 3)

    step = 1e-6
    for row in range(3):
        # An orthorhombic box stays one.
        for column in (row,) if shape == "orthorhombic" else range(3):
            strain = torch.zeros(3, 3, dtype=torch.float64)
            strain[row, column] = step
            change = brute_force(made, positions, box + strain) - brute_force(
                made, positions, box - strain
            )
            found = box_derivatives[:, :, row, column]
            torch.testing.assert_close(found, change / (2 * step), rtol=1e-6, atol=1e-7)
    shift = torch.zeros_like(positions)
    shift[:, 2, 1] = step
    change = brute_force(made, positions + shift, box) - brute_force(made, positions - shift, box)
    torch.testing.assert_close(derivatives[:, :, 2, 1], change / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shifting_any_atom_by_whole_boxes_changes_nothing(tmp_path, suffix):
    ofcv.export(cv("triclinic"), tmp_path / f"cv{suffix}")
    artifact = ofcv.load(tmp_path / f"cv{suffix}")
    positions = frames(3, 4)
    moved = positions.clone()
    moved[:, 1] += torch.tensor([2.0, -3.0, 1.0]).double() @ OCTAHEDRON
    moved[1, 3] -= 2 * OCTAHEDRON[2]
    expected, found = artifact(positions, OCTAHEDRON), artifact(moved, OCTAHEDRON)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-9, atol=1e-9)


def test_scaled_coordinates_and_groups():
    groups = CoordinationNumbers(
        torch.tensor([0, 1]), torch.tensor([2, 3]), 4, Fermi(1.0, q=0.3), None,
        RuntimeBox("triclinic"),
    )  # fmt: skip
    network = nn.Linear(2, 1).double()
    made = ofcv.CollectiveVariable(groups, network)
    values, _, box_derivatives = made.values_and_derivatives(frames(3, 4), OCTAHEDRON)
    assert values.shape == (3, 1)
    assert box_derivatives.shape == (3, 1, 3, 3)
    scaled = cv("triclinic", scaled=True)
    positions = frames(3, 4)
    fractions = positions @ torch.linalg.inv(OCTAHEDRON)
    torch.testing.assert_close(
        scaled(fractions, OCTAHEDRON), cv("triclinic")(positions, OCTAHEDRON)
    )
    # Fractions and box strained together is the box derivative at constant fractions.
    found = scaled.values_and_derivatives(fractions, OCTAHEDRON)[2]
    strain = torch.zeros(3, 3, dtype=torch.float64)
    strain[2, 1] = 1e-6
    change = scaled(fractions, OCTAHEDRON + strain) - scaled(fractions, OCTAHEDRON - strain)
    torch.testing.assert_close(found[:, :, 2, 1], (change / 2e-6).detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "box", "error", "message"),
    [
        ("triclinic", torch.zeros(3, 3).double(), ValueError, "box: expected linearly indep"),
        ("triclinic", torch.eye(3).double() / 0, ValueError, "box: expected finite"),
        ("triclinic", torch.eye(3), TypeError, "box: expected dtype float64, got float32"),
        ("triclinic", torch.eye(2).double(), ValueError, r"box: expected shape \(3, 3\)"),
        ("orthorhombic", OCTAHEDRON, ValueError, "box: expected positive lengths along x, y and z"),
    ],
)  # fmt: skip
def test_bad_boxes_are_refused(tmp_path, shape, box, error, message):
    made = cv(shape)
    ofcv.export(made, tmp_path / "cv.pt")
    for call in (made.values_and_derivatives, ofcv.load(tmp_path / "cv.pt")):
        with pytest.raises(error, match=message):
            call(frames(2, 4), box)


def test_a_box_is_needed(tmp_path):
    made = cv("triclinic")
    with pytest.raises(ValueError, match=r"box: expected lattice vectors \(3, 3\), got none"):
        made.values_and_derivatives(frames(2, 4))
    ofcv.export(made, tmp_path / "cv.pt")
    with pytest.raises(TypeError, match="inputs: expected positions, box, got 1 by position"):
        ofcv.load(tmp_path / "cv.pt")(frames(2, 4))
