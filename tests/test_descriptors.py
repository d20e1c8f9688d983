"""Analytic descriptors against autograd, central differences and mlcolvar."""

import pytest
import torch
from conftest import OPEN, all_pairs, dense_jacobian, frames

from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.coordination import CoordinationNumbers
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.geometry import OrthorhombicBox
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.recognise import recognise
from ofcv_export.descriptors.torsions import Torsion

N_ATOMS = 6
LENGTHS = torch.tensor([2.0, 3.0, 2.5])
BOXES = {
    "open": OPEN,
    "periodic": OrthorhombicBox(LENGTHS, periodic=True),
    "scaled": OrthorhombicBox(LENGTHS, periodic=True, scaled=True),
}


def fermi(distances):
    return torch.sigmoid((1.0 - distances) / 0.3)


def descriptor(name, box):
    pairs = torch.tensor([[0, 1], [2, 5], [4, 3]])
    group_a, group_b = torch.tensor([1, 4]), torch.tensor([0, 2, 5])
    made = {
        "distances": lambda: PairDistances(pairs, N_ATOMS, box),
        "torsion": lambda: Torsion(
            torch.tensor([0, 2, 3, 5]), N_ATOMS, ("angle", "sin", "cos"), box
        ),
        "coordination": lambda: CoordinationNumbers(group_a, group_b, N_ATOMS, fermi, None, box),
        "coordination to a cutoff": lambda: CoordinationNumbers(
            group_a, group_b, N_ATOMS, fermi, 1.2, box
        ),
        "adjacency": lambda: AdjacencyEigenvalues(N_ATOMS, fermi, box),
    }
    if name == "multiple":
        return MultipleDescriptors([made["torsion"](), made["distances"]()])
    return made[name]()


NAMES = [
    "distances",
    "torsion",
    "coordination",
    "coordination to a cutoff",
    "adjacency",
    "multiple",
]


def dense(descriptor, blocks):
    pattern = descriptor.pattern()
    out = blocks.new_zeros(len(blocks), pattern.n_descriptors, pattern.n_atoms, 3)
    out[:, pattern.descriptor_index, pattern.atom_index] = blocks
    return out


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", NAMES)
def test_jacobian_equals_autograd_and_central_differences(name, box):
    made = descriptor(name, BOXES[box])
    positions = frames(4, N_ATOMS, seed=3)
    values, blocks = made.jacobian(positions)
    torch.testing.assert_close(values, made(positions), rtol=1e-12, atol=1e-12)
    found = dense(made, blocks)
    torch.testing.assert_close(found, dense_jacobian(made, positions), rtol=1e-10, atol=1e-10)

    step = 1e-6
    for atom in range(N_ATOMS):
        for dim in range(3):
            shift = torch.zeros_like(positions)
            shift[:, atom, dim] = step
            difference = made(positions + shift) - made(positions - shift)
            # An angle may jump by a full turn between the two.
            difference = torch.where(difference.abs() > 3, 0.0, difference)
            jumped = (made(positions + shift) - made(positions - shift)).abs() > 3
            slope = difference / (2 * step)
            expected = torch.where(jumped, 0.0, found[:, :, atom, dim])
            torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("box", BOXES)
def test_distance_is_that_of_the_nearest_image(box):
    made = PairDistances(torch.tensor([[0, 1]]), 2, BOXES[box])
    positions = frames(50, 2) * 3
    real = positions * LENGTHS if box == "scaled" else positions
    shifts = torch.cartesian_prod(*[torch.arange(-12.0, 13.0)] * 3).double()
    shifts = shifts * LENGTHS if box != "open" else shifts[:1] * 0
    images = (real[:, 1] - real[:, 0])[:, None] + shifts
    torch.testing.assert_close(made(positions)[:, 0], images.norm(dim=2).amin(dim=1))


def test_recognised_descriptors_equal_mlcolvars():
    pytest.importorskip("mlcolvar", reason="mlcolvar is the peer of this test")
    from mlcolvar.core.transform import (
        CoordinationNumbers as PeerCoordination,
    )
    from mlcolvar.core.transform import (
        EigsAdjMat,
        PairwiseDistances,
        SwitchingFunctions,
        TorsionalAngle,
    )  # fmt: skip
    from mlcolvar.core.transform import (
        MultipleDescriptors as PeerMultiple,
    )

    box = {"n_atoms": N_ATOMS, "PBC": True, "cell": [2.0, 2.0, 2.0]}
    rational = SwitchingFunctions(18, "Rational", 0.7, options={"n": 2, "m": 6, "eps": 1.0})
    stretched = SwitchingFunctions(
        18, "Rational", 0.7, dmax=1.1, options={"n": 2, "m": 6, "eps": 1.0}
    )
    fermi_switch = SwitchingFunctions(18, "Fermi", 0.7, options={"q": 0.2})
    groups = {"group_A": [0, 3], "group_B": [1, 2, 5], "cutoff": 0.7}
    torsion = TorsionalAngle([0, 2, 3, 5], mode=["cos", "angle"], **box)
    peers = [
        PairwiseDistances(**box),
        PairwiseDistances(**box, slicing_pairs=[[0, 4], [3, 1]]),
        PairwiseDistances(**box, scaled_coords=True),
        torsion,
        TorsionalAngle([5, 1, 0, 4], mode=["sin"], n_atoms=N_ATOMS, PBC=False, cell=2.0),
        PeerCoordination(**groups, **box, mode="continuous", switching_function=rational),
        PeerCoordination(
            **groups, **box, mode="continuous", switching_function=stretched, dmax=1.1
        ),
        PeerCoordination(**groups, **box, mode="discontinuous"),
        EigsAdjMat("continuous", 0.7, **box, switching_function=fermi_switch),
        PeerMultiple([torsion, PairwiseDistances(**box)], n_atoms=N_ATOMS),
    ]
    positions = frames(6, N_ATOMS)
    for peer in peers:
        ours = recognise(peer)
        assert ours is not None
        torch.testing.assert_close(ours(positions), peer(positions).double(), rtol=1e-6, atol=1e-6)
        _, blocks = ours.jacobian(positions)
        torch.testing.assert_close(
            dense(ours, blocks), dense_jacobian(peer, positions).double(), rtol=1e-5, atol=1e-5
        )


def test_subclasses_and_overlapping_groups_are_not_taken_for_what_they_are_not():
    pytest.importorskip("mlcolvar", reason="mlcolvar is the peer of this test")
    from mlcolvar.core.transform import CoordinationNumbers as PeerCoordination
    from mlcolvar.core.transform import PairwiseDistances, SwitchingFunctions

    class Squared(PairwiseDistances):
        def forward(self, x):
            return super().forward(x) ** 2

    assert recognise(Squared(3, False, [1.0])) is None
    assert recognise(lambda r: r) is None
    switch = SwitchingFunctions(9, "Fermi", 1.0)
    overlapping = PeerCoordination([0, 1], [1, 2], 1.0, 3, False, 1.0, "continuous", False, switch)
    assert recognise(overlapping) is None
    ours = all_pairs(3)
    assert recognise(ours) is ours


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (None, "box: expected three edge lengths, got none"),
        (torch.tensor([1.0, 2.0]), r"box: expected shape \(3,\), got \(2,\)"),
        (torch.tensor([1.0, 0.0, 2.0]), "box: expected positive edge lengths"),
        (torch.tensor([1.0, float("nan"), 2.0]), "box: expected finite values"),
    ],
)
def test_bad_boxes_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        OrthorhombicBox(lengths, periodic=True)
