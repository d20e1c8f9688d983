"""A user's frames for the verification of an export, whatever holds them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.artifacts.frames import to_frames
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.formats.torchscript import TorchScript
from tests.builders.systems import frames, normal

ase = pytest.importorskip("ase", reason="ASE reads the trajectories")
pytest.importorskip("ase.io")
ATOMS = [4, 0, 3]


def cv(box=None):
    torch.manual_seed(0)
    return ofcv.CollectiveVariable(
        PairDistances(all_pairs(3), 3, box), nn.Linear(3, 1).double(), ATOMS
    )


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    ofcv.export(cv(RuntimeBox()), folder / "cv.pt")
    return ofcv.read_metadata(folder / "cv.pt")


def system(n_frames=4):
    """Positions of five atoms and boxes, in nm."""
    boxes = 3 * torch.eye(3, dtype=torch.float64) + 0.1 * normal(n_frames, 3, 3, seed=3)
    return frames(n_frames, 5), boxes


def as_ase():
    return [
        ase.Atoms("CHNOF", positions=10 * x, cell=10 * box, pbc=True)
        for x, box in zip(*map(torch.Tensor.numpy, system()), strict=True)
    ]


class Universe:
    """As much of MDAnalysis's Universe as is used."""

    def __init__(self):
        self.universe = self
        self.atoms = range(5)
        self.trajectory = [
            SimpleNamespace(positions=10 * x.numpy(), triclinic_dimensions=10 * box.numpy())
            for x, box in zip(*system(), strict=True)
        ]


def written(folder):
    ase.io.write(folder / "frames.xyz", as_ase())
    return folder / "frames.xyz"


@pytest.mark.parametrize(
    "make",
    [
        lambda _: (system()[0][:, ATOMS], system()[1]),
        lambda _: (system()[0][:, ATOMS].numpy(), system()[1].numpy()),
        written,
        lambda folder: str(written(folder)),
        lambda _: as_ase(),
        lambda _: Universe(),
    ],
    ids=["tensors", "arrays", "file", "name", "ASE", "MDAnalysis"],
)
def test_atoms_unit_and_boxes_are_those_of_the_artifact(tmp_path, metadata, make):
    found = to_frames(make(tmp_path), metadata)
    positions, boxes = system()
    torch.testing.assert_close(found.positions, positions[:, ATOMS], rtol=0, atol=1e-8)
    torch.testing.assert_close(found.boxes, boxes, rtol=0, atol=1e-8)


def test_one_box_serves_all_frames(metadata):
    positions, boxes = system()
    found = to_frames((positions[:, ATOMS], boxes[0]), metadata)
    assert torch.equal(found.boxes, boxes[:1].expand(4, 3, 3))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (frames(4, 3), ValueError, r"frames: expected \(positions, boxes\) for a periodic module"),
        ((frames(4, 5), torch.eye(3)), ValueError,
         r"frames: expected shape \(n_frames, 3, 3\), got \(4, 5, 3\)"),
        ((frames(4, 3), torch.zeros(3, 3)), ValueError, "box: expected linearly independent"),
        ((frames(0, 3), torch.eye(3)), ValueError, "frames: expected at least one, got none"),
        ((frames(4, 3) * float("nan"), torch.eye(3)), ValueError, "frames: expected finite values"),
        (len, TypeError, "frames: expected positions, a trajectory or its file, got builtin"),
        ("absent.xyz", FileNotFoundError, "frames: expected an existing file, got 'absent.xyz'"),
    ],
)  # fmt: skip
def test_frames_that_do_not_fit_are_refused(metadata, given, error, message):
    with pytest.raises(error, match=message):
        to_frames(given, metadata)


@pytest.mark.parametrize("content", [b"", b"not an array"])
def test_a_damaged_array_is_refused(tmp_path, metadata, content):
    (tmp_path / "frames.npy").write_bytes(content)
    with pytest.raises(ValueError, match="frames: expected a .npy file, got"):
        to_frames(tmp_path / "frames.npy", metadata)


def test_frames_are_refused_before_long_work_where_no_positions_go_in(tmp_path, smart):
    with pytest.raises(ValueError, match="frames: expected none for a smart_derivatives"):
        ofcv.export(smart, tmp_path / "a.pt", frames=frames(2, 5))
    assert not list(tmp_path.iterdir())


class Bump(nn.Module):
    """A value that differs from 0 only where three distances are close to 7."""

    def forward(self, distances):
        return torch.exp(-1e4 * (distances - 7.0).square().sum(1, keepdim=True))


def test_an_export_is_verified_at_the_users_frames(tmp_path, monkeypatch):
    """A fault that shows nowhere else is found there."""
    made = ofcv.CollectiveVariable(PairDistances(all_pairs(3), 3), Bump())
    x = torch.tensor([[0.0, 0, 0], [7.0, 0, 0], [3.5, 3.5 * 3**0.5, 0]])
    given = x + 0.002 * frames(50, 3, torch.float32)
    report = ofcv.export(made, tmp_path / "cv.pt", frames=given)
    assert report.passed
    assert {"frames", "displaced frames"} <= {entry.inputs for entry in report.comparisons}
    np.save(tmp_path / "frames.npy", given.numpy())
    assert ofcv.verify(tmp_path / "cv.pt", made, frames=tmp_path / "frames.npy").passed
    load = TorchScript.load

    def broken(self, *of_file):
        run = load(self, *of_file)
        return lambda inputs: tuple(1.01 * output for output in run(inputs))

    monkeypatch.setattr(TorchScript, "load", broken)
    assert ofcv.verify(tmp_path / "cv.pt", made).passed
    assert not ofcv.verify(tmp_path / "cv.pt", made, frames=given).passed


@pytest.mark.parametrize(
    "options", [{"contract": "gromacs-nnpot"}, {"contract": "openmm-torch", "n_particles": 3}]
)
def test_frames_of_other_elements_are_refused_for_contracts_too(tmp_path, options):
    network, elements = nn.Linear(3, 1).double(), ["N", "C", "O"]
    made = ofcv.CollectiveVariable(
        PairDistances(all_pairs(3), 3), network, atoms=[2, 0, 1], elements=elements
    )
    wrong = ase.Atoms("CHN", positions=np.eye(3))
    with pytest.raises(ValueError, match="atoms: expected O as atom 1 .zero-based., got H"):
        ofcv.export(ofcv.Bias(made), tmp_path / "bias.pt", frames=wrong, **options)
    assert not list(tmp_path.iterdir())


class Atoms(list):
    """Atoms of a Universe, with their elements."""

    elements = ("H", "N")


def test_a_universe_is_checked_as_a_trajectory_is(tmp_path):
    pair = torch.tensor([[0, 1]])
    made = ofcv.CollectiveVariable(
        PairDistances(pair, 2), nn.Identity(), atoms=[1, 0], elements=["O", "H"]
    )
    universe = Universe()
    universe.atoms = Atoms([0, 1])
    with pytest.raises(ValueError, match="atoms: expected O as atom 1 .zero-based., got N"):
        to_frames(universe, ofcv.export(made, tmp_path / "cv.pt").metadata)
    box = OrthorhombicBox([1.0, 1.0, 1.0], periodic=True)
    boxed = ofcv.CollectiveVariable(PairDistances(pair, 2, box), nn.Identity())
    with pytest.raises(ValueError, match="^box: expected .* in frame 0$"):
        to_frames(Universe(), ofcv.export(boxed, tmp_path / "boxed.pt").metadata)
