import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.torsions import Torsions
from tests.builders.systems import by_autograd, frames, plain_distances

MODES = ("angle", "sin", "cos")
TIMES = [1.0, 2.0, 5.0]
CENTRES = [[0.1, -0.2], [0.3, 0.4], [-0.5, 0.1]]
FORCE_CONSTANTS = [[10.0, 20.0], [30.0, 5.0], [0.0, 40.0]]


def cv(box=None, n_outputs=2):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, n_outputs)
    ).double()
    distances = PairDistances(all_pairs(4), 4, box=box)
    return ofcv.CollectiveVariable(distances, network, atoms=[3, 5, 1, 0])


def positions(n_frames=3):
    return torch.randn(n_frames, 4, 3, generator=torch.Generator().manual_seed(1)).double()


def harmonic(**options):
    return ofcv.HarmonicRestraint(cv(**options), [0.2, -0.1], [50.0, 30.0])


def moving(**options):
    return ofcv.MovingRestraint(cv(**options), TIMES, CENTRES, FORCE_CONSTANTS)


def test_harmonic_energy():
    values = cv()(positions()).detach()
    by_hand = 25 * (values[:, 0] - 0.2) ** 2 + 15 * (values[:, 1] + 0.1) ** 2
    torch.testing.assert_close(harmonic()(positions())[:, 0], by_hand)


def test_centre_and_force_constant_are_inputs():
    centre, force_constant = torch.tensor([[0.5, 0.6], [2.0, 4.0]]).double()
    energy, _ = harmonic().values_and_derivatives(
        positions(), centre=centre, force_constant=force_constant
    )
    expected = (force_constant / 2 * (cv()(positions()) - centre) ** 2).sum(1, keepdim=True)
    torch.testing.assert_close(energy, expected)


@pytest.mark.parametrize("box", [None, RuntimeBox("triclinic")], ids=["open", "periodic"])
@pytest.mark.parametrize("make", [harmonic, moving])
def test_forces_are_central_differences(make, box):
    bias = make(box=box)
    boxes = [] if box is None else [torch.eye(3).double() * 3 + 0.2]
    x, step = positions(1), 1e-6
    _, derivatives, *_ = bias.values_and_derivatives(x, *boxes)
    differences = torch.zeros(12).double()
    for k in range(12):
        move = torch.zeros(12).double()
        move[k] = step
        ends = [bias(x + sign * move.reshape(1, 4, 3), *boxes) for sign in (1, -1)]
        differences[k] = (ends[0] - ends[1]).detach() / (2 * step)
    error = (derivatives.flatten() - differences).abs().max()
    assert error < 1e-7 * derivatives.abs().max()


@given(st.floats(-1, 8))
def test_the_schedule_is_linear_between_its_times(time):
    centre, force_constant = moving().at(torch.tensor([time], dtype=torch.float64))
    for found, knots in ((centre, CENTRES), (force_constant, FORCE_CONSTANTS)):
        expected = [np.interp(time, TIMES, column) for column in zip(*knots, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_one_time_is_a_restraint_at_rest():
    still = ofcv.MovingRestraint(cv(n_outputs=1), [3.0], [0.2], [50.0])
    at_rest = ofcv.HarmonicRestraint(cv(n_outputs=1), 0.2, 50.0)
    for time in (-1.0, 3.0, 9.0):
        moved = still(positions(), None, torch.tensor([time]).double())
        torch.testing.assert_close(moved, at_rest(positions()))


@pytest.mark.parametrize("box", [None, RuntimeBox("orthorhombic")], ids=["open", "periodic"])
@pytest.mark.parametrize("suffix", ["pt", "onnx"])
@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (harmonic, {"centre": [0.7, 0.1], "force_constant": [3.0, 4.0]}),
        (moving, {"time": [3.7]}),
    ],
)
def test_files_take_the_parameters(tmp_path, make, parameters, suffix, box):
    bias = make(box=box)
    path = tmp_path / f"bias.{suffix}"
    report = ofcv.export(bias, path)
    metadata = report.metadata
    assert metadata.details.parameters == {
        name: tuple(value) for name, value in bias.parameter_defaults().items()
    }
    assert metadata.output_units["values"] == "kJ/mol"
    assert metadata.output_units["derivatives"] == "kJ/mol/nm"
    inputs = {"positions": positions()} | (
        {} if box is None else {"box": 3 * torch.eye(3).double()}
    )
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    expected = bias.values_and_derivatives(*inputs.values(), **given)
    found = ofcv.load(path)(**inputs, **given)
    for output, judge in zip(found, expected, strict=True):
        torch.testing.assert_close(output, judge, rtol=1e-12, atol=1e-11)


def test_a_compiled_file_takes_the_parameters(tmp_path):
    ofcv.export(moving(), tmp_path / "bias.pt2", batch=1)
    time = torch.tensor([3.7], dtype=torch.float64)
    expected = moving().values_and_derivatives(positions(1), time=time)
    found = ofcv.load(tmp_path / "bias.pt2")(positions(1), time)
    for output, judge in zip(found, expected, strict=True):
        torch.testing.assert_close(output, judge, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ofcv.HarmonicRestraint(cv(), [1.0], 1.0), r"centre: expected shape \(2,\), got"),
        (lambda: ofcv.HarmonicRestraint(cv(), 1.0, "stiff"), "force_constant: expected numbers"),
        (lambda: ofcv.HarmonicRestraint(cv(), np.nan, 1.0), "centre: expected finite values"),
        (lambda: ofcv.HarmonicRestraint(cv(), 0.0, 1.0, "kT"), "energy_unit: expected kJ/mol"),
        (lambda: ofcv.HarmonicRestraint(harmonic(), 0.0, 1.0), "cv: expected a CollectiveVariable"),
        (
            lambda: ofcv.MovingRestraint(cv(), [1.0, 1.0], CENTRES[:2], CENTRES[:2]),
            r"times: expected increasing numbers, got \[1.0, 1.0\]",
        ),
        (
            lambda: ofcv.MovingRestraint(cv(), TIMES, [0.0, 1.0, 2.0], FORCE_CONSTANTS),
            r"centres: expected shape \(3, 2\), got \(3,\)",
        ),
        (lambda: ofcv.Bias(cv()), "cv: expected one value, got 2"),
        (
            lambda: harmonic().values_and_derivatives(positions(), center=torch.zeros(2).double()),
            "parameters: expected centre, force_constant, got center",
        ),
        (
            lambda: harmonic().values_and_derivatives(positions(), centre=torch.zeros(3).double()),
            r"centre: expected shape \(2,\), got \(3,\)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_value_can_be_the_energy(tmp_path):
    bias = ofcv.Bias(cv(n_outputs=1), "eV")
    torch.testing.assert_close(bias(positions()), cv(n_outputs=1)(positions()))
    report = ofcv.export(bias, tmp_path / "bias.pt")
    assert report.metadata.output_units == {"values": "eV", "derivatives": "eV/nm"}


def zigzag(angle):
    """Return four atoms with a torsional angle, and its derivatives by the four atoms, by hand."""
    x = np.array([[1.0, 0.0, 0.0], [0, 0, 0], [0, 0, 1.2], [np.cos(angle), np.sin(angle), 1.2]])
    ends = np.array([[0.0, -1.0, 0.0], [-np.sin(angle), np.cos(angle), 0.0]])
    return torch.tensor(x)[None], torch.tensor([[ends[0].tolist()], [ends[1].tolist()]])[:, 0]


def torsion_cv(**options):
    return ofcv.CollectiveVariable(
        Torsions(torch.tensor([[0, 1, 2, 3]]), 4), torch.nn.Identity(), **options
    )


@pytest.mark.parametrize("suffix", ["pt", "onnx"])
@pytest.mark.parametrize("kind", ["at rest", "moving"])
def test_a_restraint_sees_the_nearest_image_of_an_angle(tmp_path, kind, suffix, float64_default):
    """Across pi, and half a turn away, where the force changes its sign."""
    centre, force_constant = 3.0, 200.0
    if kind == "at rest":
        bias, given = ofcv.HarmonicRestraint(torsion_cv(), centre, force_constant), ()
    else:
        bias = ofcv.MovingRestraint(torsion_cv(), [0.0, 4.0], [2.0, 4.0], [200.0, 200.0])
        given = (torch.tensor([2.0]),)
    ofcv.export(bias, tmp_path / f"bias.{suffix}")
    evaluate = ofcv.load(tmp_path / f"bias.{suffix}")
    for angle, difference in [
        (3.1, 0.1),
        (-3.1, 2 * np.pi - 6.1),
        (-0.1, -3.1),
        (-0.2, 2 * np.pi - 3.2),
    ]:
        x, by_ends = zigzag(angle)
        defaults = [torch.tensor(value) for value in bias.parameter_defaults().values()]
        energy, derivatives = evaluate(x, *(given or defaults))
        assert energy.item() == pytest.approx(force_constant / 2 * difference**2, rel=1e-9)
        slope = force_constant * difference
        torch.testing.assert_close(derivatives[0, 0, [0, 3]], slope * by_ends, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("suffix", ["pt", "onnx"])
def test_a_centre_may_be_many_turns_away_in_float32(tmp_path, suffix):
    """The period is not rounded; a value without one has no images."""
    parts = [Torsions(torch.tensor([[0, 1, 2, 3]]), 4), PairDistances(torch.tensor([[0, 3]]), 4)]
    both = ofcv.CollectiveVariable(MultipleDescriptors(parts), torch.nn.Identity())
    bias = ofcv.HarmonicRestraint(both, [1e5, 9.0], 2.0)
    ofcv.export(bias, tmp_path / f"bias.{suffix}")
    x = positions().float()
    energy, _ = ofcv.load(tmp_path / f"bias.{suffix}")(
        x, torch.tensor([1e5, 9.0]), torch.tensor([2.0, 2.0])
    )
    angle, distance = both(x).detach().double().numpy().T
    difference = (angle - 1e5) - 2 * np.pi * np.round((angle - 1e5) / (2 * np.pi))
    np.testing.assert_allclose(energy[:, 0], difference**2 + (distance - 9.0) ** 2, rtol=1e-5)


def test_periods_of_values_are_known_or_told(tmp_path):
    assert torsion_cv().periods == [2 * np.pi]
    parts = [PairDistances(all_pairs(4), 4), Torsions(torch.tensor([[0, 1, 2, 3]]), 4, MODES)]
    mixed = ofcv.CollectiveVariable(MultipleDescriptors(parts), torch.nn.Identity())
    assert mixed.periods == [None] * 6 + [2 * np.pi, None, None]
    assert cv().periods == [None, None]
    told = ofcv.CollectiveVariable(parts[0], torch.nn.Linear(6, 2), periods=[None, 360.0])
    report = ofcv.export(told, tmp_path / "cv.pt")
    assert report.metadata.details.periods == (None, 360.0)
    bias = ofcv.HarmonicRestraint(told, 0.0, 1.0)
    assert bias.export_graph().details.periods == (None,)


@pytest.mark.parametrize("suffix", ["pt", "onnx"])
def test_late_times_keep_their_digits_in_float32(tmp_path, suffix):
    late, early = (
        ofcv.MovingRestraint(float32_cv(), [start, start + 8.0], [0.0, 1.0], [30.0, 50.0])
        for start in (1e8, 0.0)
    )
    x = positions().float()
    path = tmp_path / f"bias.{suffix}"
    assert ofcv.export(late, path).metadata.inputs[1].dtype == "float64"
    for after in (0.5, 3.0, 7.9):
        expected = early.values_and_derivatives(x, time=torch.tensor([after]).double())
        found = ofcv.load(path)(x, torch.tensor([1e8 + after], dtype=torch.float64))
        for output, judge in zip(found, expected, strict=True):
            torch.testing.assert_close(output, judge, rtol=2e-5, atol=1e-5)


def test_a_conversion_leaves_times_alone():
    bias = ofcv.MovingRestraint(
        cv(n_outputs=1), [1e8 + 1, 1e8 + 9], [0.0, 1.0], [30.0, 50.0]
    ).float()
    centre, force_constant = bias.at(torch.tensor([1e8 + 3], dtype=torch.float64))
    assert (centre.item(), force_constant.item()) == (0.25, 35.0)


def float32_cv():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    return ofcv.CollectiveVariable(PairDistances(all_pairs(4), 4), network)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torsion_cv(periods=0.0), "periods: expected a positive number, got 0.0"),
        (lambda: torsion_cv(periods=float("nan")), "periods: expected a positive number, got nan"),
        (lambda: torsion_cv(periods="2 pi"), "periods: expected one for each of 1 values"),
        (lambda: torsion_cv(periods=["x"]), "periods: expected a number, got str"),
        (lambda: torsion_cv(periods=[6.0, 6.0]), "periods: expected one for each of 1 values"),
        (lambda: torsion_cv(periods=360.0), "periods: expected 6.28.* for a torsional angle, got"),
        (lambda: torsion_cv(periods=[None]), "periods: expected 6.28.* for a torsional angle, got"),
        (lambda: ofcv.Bias(torsion_cv()), "cv: expected an energy, got a value of period 6.28"),
    ],
)
def test_periods_that_are_none_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(("n_atoms", "n_values"), [(7, 5), (5, 7), (5, 5)])
def test_numbers_of_values_and_atoms_are_no_special_case(n_atoms, n_values):
    """Those that the tracer would take for the number of frames among them."""
    torch.manual_seed(0)
    distances = PairDistances(all_pairs(n_atoms), n_atoms)
    network = torch.nn.Linear(distances.n_descriptors, n_values).double()
    centre = torch.linspace(-1, 1, n_values).double()
    bias = ofcv.HarmonicRestraint(ofcv.CollectiveVariable(distances, network), centre, 3.0)
    graph = bias.export_graph().module
    constants = torch.full((n_values,), 3.0).double()
    for n_frames in (1, 4, 5, 7):
        x = frames(n_frames, n_atoms)
        expected = by_autograd(
            lambda r: 1.5 * (network(plain_distances(r)) - centre).square().sum(1, keepdim=True), x
        )
        for found, judge in zip(graph(x, centre, constants), expected, strict=True):
            torch.testing.assert_close(found, judge.detach(), rtol=1e-12, atol=1e-12)


def test_an_angle_in_float32_may_be_either_end_of_its_period(tmp_path):
    """Verification draws it where it jumps, and rounding decides which end comes out."""
    angle = ofcv.CollectiveVariable(Torsions(torch.tensor([[0, 1, 2, 3]]), 4), torch.nn.Identity())
    assert ofcv.export(angle, tmp_path / "angle.pt").passed
