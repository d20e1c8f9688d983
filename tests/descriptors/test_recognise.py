"""mlcolvar's transforms recognised, and equal to mlcolvar's own values and derivatives."""

import pytest
import torch

from ofcv_export.descriptors.contacts import Contacts
from ofcv_export.descriptors.recognise import recognise, recognise_switching_function
from ofcv_export.descriptors.switching import Fermi, Rational
from tests.builders.systems import all_pairs, dense_jacobian, frames

pytest.importorskip("mlcolvar", reason="mlcolvar is the peer of these tests")

from mlcolvar.core.transform import (
    ContinuousHistogram,
    CoordinationNumbers,
    EigsAdjMat,
    MultipleDescriptors,
    PairwiseDistances,
    SequentialTransform,
    SwitchingFunctions,
    TorsionalAngle,
)

N_ATOMS = 6
BOX = {"n_atoms": N_ATOMS, "PBC": True, "cell": [2.0, 2.0, 2.0]}
SMALL_EPS = SwitchingFunctions(18, "Rational", 0.7)
RATIONAL = SwitchingFunctions(18, "Rational", 0.7, options={"n": 2, "m": 6, "eps": 1.0})
STRETCHED = SwitchingFunctions(18, "Rational", 0.7, dmax=1.1, options={"n": 2, "m": 6, "eps": 1.0})
FERMI = SwitchingFunctions(18, "Fermi", 0.7, options={"q": 0.2, "prefactor_cutoff": 1.2})


def gaussian(distances):
    return torch.exp(-(distances**2))


gaussian.cutoff = 0.7


def coordination(switch, **options):
    return CoordinationNumbers(
        [0, 3], [1, 2, 5], 0.7, **BOX, mode="continuous", switching_function=switch, **options
    )


TORSION = TorsionalAngle([0, 2, 3, 5], mode=["cos", "angle"], **BOX)
PEERS = {
    "distances": PairwiseDistances(**BOX),
    "chosen distances": PairwiseDistances(**BOX, slicing_pairs=[[0, 4], [3, 1]]),
    "scaled distances": PairwiseDistances(**BOX, scaled_coords=True),
    "distances without a box": PairwiseDistances(N_ATOMS, False, 0.0),
    "torsion": TORSION,
    "torsion without a box": TorsionalAngle([5, 1, 0, 4], N_ATOMS, ["sin"], False, 2.0),
    "coordination": coordination(RATIONAL),
    "coordination, default eps": coordination(SMALL_EPS),
    "coordination to dmax": coordination(STRETCHED, dmax=1.1),
    "coordination, own function": coordination(gaussian),
    "discontinuous coordination": CoordinationNumbers(
        [0, 3], [1, 2, 5], 0.7, **BOX, mode="discontinuous"
    ),
    "adjacency": EigsAdjMat("continuous", 0.7, **BOX, switching_function=FERMI),
    "multiple": MultipleDescriptors([TORSION, PairwiseDistances(**BOX)], n_atoms=N_ATOMS),
    "contacts": SequentialTransform(PairwiseDistances(**BOX), FERMI),
    "histogram": SequentialTransform(
        PairwiseDistances(**BOX), ContinuousHistogram(15, 0.2, 1.8, 7, 1.3)
    ),
    "histogram of contacts": torch.nn.Sequential(
        PairwiseDistances(**BOX), FERMI, ContinuousHistogram(15, 0.0, 1.0, 4)
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_recognised_descriptors_equal_mlcolvars(name):
    ours, peer = recognise(PEERS[name]), PEERS[name]
    assert ours is not None
    positions = frames(7, N_ATOMS)
    torch.testing.assert_close(ours(positions), peer(positions).double(), rtol=1e-6, atol=1e-6)
    _, blocks = ours.jacobian(positions)
    pattern = ours.pattern()
    found = blocks.new_zeros(7, pattern.n_descriptors, pattern.n_atoms, 3)
    found[:, pattern.descriptor_index, pattern.atom_index] = blocks
    expected = dense_jacobian(peer, positions).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_histogram_of_as_many_frames_as_values_is_right():
    peer = SequentialTransform(
        PairwiseDistances(3, False, 1.0), ContinuousHistogram(3, 0.0, 3.0, 4)
    )
    ours = recognise(peer)
    positions = frames(3, 3)
    one_by_one = torch.cat([ours(positions[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(ours(positions), one_by_one)


def test_switching_functions():
    assert isinstance(recognise_switching_function(FERMI), Fermi)
    assert recognise_switching_function(SMALL_EPS).specification()["eps"] == 0.0
    assert recognise_switching_function(RATIONAL).specification()["eps"] == 1.0
    assert isinstance(recognise_switching_function(STRETCHED), Rational)
    fractional = SwitchingFunctions(18, "Rational", 0.7, options={"n": 2.5, "m": 6})
    assert recognise_switching_function(fractional) is fractional
    assert recognise_switching_function(gaussian) is gaussian
    contacts = recognise(PEERS["contacts"])
    assert isinstance(contacts, Contacts)
    assert recognise(PEERS["coordination, own function"]).specification() is None


def test_what_is_not_equal_is_not_recognised():
    class Squared(PairwiseDistances):
        def forward(self, x):
            return super().forward(x) ** 2

    assert recognise(Squared(3, False, [1.0])) is None
    assert recognise(lambda r: r) is None
    switch = SwitchingFunctions(9, "Fermi", 1.0)
    overlapping = CoordinationNumbers(
        [0, 1], [1, 2], 1.0, 3, False, 1.0, "continuous", False, switch
    )
    assert recognise(overlapping) is None
    assert recognise(torch.nn.Sequential()) is None
    assert recognise(torch.nn.Sequential(PairwiseDistances(**BOX), torch.nn.Tanh())) is None
    assert recognise(SequentialTransform(TORSION, FERMI)) is None
    assert recognise(MultipleDescriptors([TORSION, Squared(3, False, [1.0])], N_ATOMS)) is None
    ours = all_pairs(3)
    assert recognise(ours) is ours
