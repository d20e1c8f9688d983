"""The Kolmogorov bias: mlcolvar's energies, exact forces, and files that give both."""

import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import RuntimeBox
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.integrations.plain_modules import Sigmoid
from tests.builders.systems import all_pairs, frames

N_ATOMS = 5
BETA, LAMBD = 0.4, 2.0
MASSES = [12.0, 16.0, 14.0, 1.0, 1.0]
OVER = ("positions", "descriptors")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def committor(dtype=torch.float64, boundaries=None):
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1), Sigmoid(3)
    )
    pairs = torch.triu_indices(N_ATOMS, N_ATOMS, offset=1).T
    descriptors = PairDistances(pairs, N_ATOMS, boundaries)
    return ofcv.CollectiveVariable(descriptors, network.to(dtype), length_unit="nm")


def make_bias(over="positions", dtype=torch.float64, **options):
    masses = MASSES if over == "positions" else None
    return ofcv.KolmogorovBias(committor(dtype), BETA, LAMBD, over=over, masses=masses, **options)


def by_definition(over, positions, epsilon=1e-6):
    """Return energies and their derivatives by two nested calls of autograd, in float64."""
    q = committor()
    positions = positions.double().requires_grad_()
    leaf = positions if over == "positions" else q.descriptors(positions)
    values = q.network(q.descriptors(positions) if over == "positions" else leaf)
    (gradient,) = torch.autograd.grad(values.sum(), leaf, create_graph=True)
    if over == "positions":
        gradient = gradient / torch.tensor(MASSES, dtype=torch.float64)[:, None].sqrt()
    squared = gradient.square().flatten(1).sum(1)
    energy = -LAMBD / BETA * (torch.log(squared + epsilon) - torch.log(torch.tensor(epsilon)))
    (derivatives,) = torch.autograd.grad(energy.sum(), positions)
    return energy.detach()[:, None], derivatives[:, None]


def assert_equal(found, expected, tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours.double() - theirs).abs().max() < tolerance * theirs.abs().max()


@pytest.mark.parametrize("over", OVER)
def test_energies_and_derivatives_are_those_of_the_definition(over):
    positions = frames(6, N_ATOMS)
    expected = by_definition(over, positions)
    # The definition's float32 epsilon under the logarithm costs digits.
    assert_equal(make_bias(over).values_and_derivatives(positions), expected, 1e-7)


@pytest.mark.parametrize("lambd", [1.0, 3.0])
def test_bias_over_descriptors_is_mlcolvars(lambd):
    peer = pytest.importorskip("mlcolvar.cvs.committor", reason="mlcolvar is the peer")
    q = committor()
    epsilon = torch.tensor([1e-5], dtype=torch.float64)
    theirs = peer.KolmogorovBias(q.network, BETA, epsilon, lambd)
    bias = ofcv.KolmogorovBias(q, BETA, lambd, epsilon.item(), over="descriptors")
    positions = frames(6, N_ATOMS)
    expected = theirs(q.descriptors(positions))
    torch.testing.assert_close(bias(positions)[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("over", OVER)
def test_first_and_second_derivatives_are_central_differences(over):
    bias, positions = make_bias(over), frames(2, N_ATOMS).requires_grad_()
    assert torch.autograd.gradcheck(bias, positions)
    assert torch.autograd.gradgradcheck(bias, positions)


@pytest.mark.parametrize("over", OVER)
def test_derivatives_in_a_box_are_central_differences(over):
    q = committor(boundaries=RuntimeBox())
    bias = ofcv.KolmogorovBias(q, BETA, LAMBD, over=over)
    generator = torch.Generator().manual_seed(5)
    positions = 3 * torch.rand(2, N_ATOMS, 3, generator=generator, dtype=torch.float64)
    box = torch.tensor([[2.5, 0, 0], [0.4, 2.7, 0], [0.3, -0.5, 3.0]], dtype=torch.float64)
    energy, derivatives, box_derivatives = bias.values_and_derivatives(positions, box)
    assert energy.shape == (2, 1)
    step = 1e-5
    for index in [(1, 0), (3, 2)]:
        shift = torch.zeros_like(positions)
        shift[:, *index] = step
        difference = (bias(positions + shift, box) - bias(positions - shift, box)) / (2 * step)
        torch.testing.assert_close(derivatives[:, :, *index], difference, rtol=1e-6, atol=1e-6)
    for index in [(0, 0), (2, 1)]:
        shift = torch.zeros_like(box)
        shift[index] = step
        difference = (bias(positions, box + shift) - bias(positions, box - shift)) / (2 * step)
        torch.testing.assert_close(box_derivatives[:, :, *index], difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("over", OVER)
def test_torchscript_gives_energy_and_derivatives(over, dtype, tmp_path):
    bias = make_bias(over, dtype)
    ofcv.export(bias, tmp_path / "bias.pt")
    loaded = ofcv.load(tmp_path / "bias.pt")
    positions = frames(5, N_ATOMS, dtype, seed=2)
    expected = make_bias(over).values_and_derivatives(positions.double())
    assert_equal(loaded(positions), expected, TOLERANCE[dtype])
    assert_equal(loaded(positions[:1]), [tensor[:1] for tensor in expected], TOLERANCE[dtype])
    assert loaded.metadata.kind == "collective_variable"
    assert loaded.metadata.details.bias == {
        "type": "kolmogorov",
        "beta": BETA,
        "lambda": LAMBD,
        "epsilon": 1e-6,
        "over": over,
        "masses": MASSES if over == "positions" else None,
    }


@pytest.mark.parametrize(
    ("over", "dtype"), [("positions", torch.float32), (OVER[1], torch.float64)]
)
def test_onnx_gives_energy_and_derivatives(over, dtype, tmp_path):
    ofcv.export(make_bias(over, dtype), tmp_path / "bias.onnx")
    loaded = ofcv.load(tmp_path / "bias.onnx")
    positions = frames(5, N_ATOMS, dtype, seed=2)
    expected = make_bias(over).values_and_derivatives(positions.double())
    tolerance = 10 * TOLERANCE[dtype]
    assert_equal(loaded(positions), expected, tolerance)
    assert_equal(loaded(positions[:1]), [tensor[:1] for tensor in expected], tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_far_from_the_transition_the_bias_vanishes_and_stays_finite(dtype):
    bias = make_bias(dtype=dtype)
    with torch.no_grad():
        bias.cv.network[4].bias += torch.tensor(1e4)
        right = bias.values_and_derivatives(frames(3, N_ATOMS, dtype))
        bias.cv.network[4].bias -= torch.tensor(2e4)
        left = bias.values_and_derivatives(frames(3, N_ATOMS, dtype))
    for tensor in (*left, *right):
        assert torch.equal(tensor, torch.zeros_like(tensor))


def test_small_gradients_keep_their_digits_in_float32():
    q = committor()
    q.network[4].bias.data += 4.0
    exact = ofcv.KolmogorovBias(q, BETA)
    positions = frames(4, N_ATOMS)
    energy = exact(positions)
    assert energy.abs().max() < 1e-2 * LAMBD
    single = ofcv.KolmogorovBias(q.float(), BETA)(positions.float()).double()
    torch.testing.assert_close(single, energy, rtol=2e-5, atol=0)


def test_masses_weigh_the_atoms():
    q, positions = committor(), frames(3, N_ATOMS)
    ones = ofcv.KolmogorovBias(q, BETA, masses=[1.0] * N_ATOMS)
    assert torch.equal(ones(positions), ofcv.KolmogorovBias(q, BETA)(positions))
    heavy = ofcv.KolmogorovBias(q, BETA, epsilon=1e-6, masses=[4.0] * N_ATOMS)
    scaled = ofcv.KolmogorovBias(q, BETA, epsilon=4e-6)
    torch.testing.assert_close(heavy(positions), scaled(positions))


TWO_VALUES = ofcv.CollectiveVariable(all_pairs(3), nn.Linear(3, 2))
ONE_VALUE = ofcv.CollectiveVariable(all_pairs(3), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("cv", "options", "error", "words"),
    [
        (nn.Linear(3, 1), {}, TypeError, "cv: expected a CollectiveVariable, got Linear"),
        (TWO_VALUES, {}, ValueError, "cv: expected one value, got 2"),
        (ONE_VALUE, {"over": "time"}, ValueError, "over: expected positions or desc.*got 'time'"),
        (ONE_VALUE, {"beta": 0.0}, ValueError, "beta: expected a positive number, got 0.0"),
        (ONE_VALUE, {"beta": "1"}, TypeError, "beta: expected a number, got str"),
        (ONE_VALUE, {"lambd": float("nan")}, ValueError, "lambd: expected a positive.*got nan"),
        (ONE_VALUE, {"epsilon": -1.0}, ValueError, "epsilon: expected a positive.*got -1.0"),
        (ONE_VALUE, {"masses": [1.0]}, ValueError, r"masses: expected shape \(3,\), got \(1,\)"),
        (ONE_VALUE, {"masses": [1, 2, 3]}, TypeError, "masses: expected dtype float32 or float64"),
        (ONE_VALUE, {"masses": [1.0, 0.0, 1.0]}, ValueError, "masses: expected positive numbers"),
        (
            ONE_VALUE,
            {"masses": [1.0, 1.0, 1.0], "over": "descriptors"},
            ValueError,
            "masses: expected none for a gradient over descriptors, got some",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(cv, options, error, words):
    with pytest.raises(error, match="^" + words) as caught:
        ofcv.KolmogorovBias(cv, **{"beta": 1.0, **options})
    assert "\n" not in str(caught.value)
