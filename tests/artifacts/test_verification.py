import dataclasses
import math

import pytest
import torch
from msgspec.structs import replace
from torch import nn

import ofcv_export as ofcv
from ofcv_export.artifacts.replays import Replays
from ofcv_export.artifacts.samples import STYLES, sample
from ofcv_export.artifacts.verification import TOLERANCE, errors, record_probe
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.energy_core import EnergyCore, MoleculeEnergyCore
from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.angles import Angles
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.coordination import CoordinationNumbers
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.switching import Fermi
from ofcv_export.descriptors.torsions import Torsions
from ofcv_export.formats.torchscript import TorchScript
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.jacobian.chain_rule import ScatterChainRule
from ofcv_export.variables import kolmogorov_bias, restraints
from tests.builders.systems import all_pairs, frames, normal


def test_report_covers_sizes_and_adversarial_inputs(path, smart):
    report = ofcv.verify(path, reference=smart)
    assert report.passed
    assert {entry.inputs for entry in report.comparisons} == {"probe", *STYLES}
    assert {entry.size for entry in report.comparisons} == {1, 2, 5, 64, 100_000}
    assert {entry.output for entry in report.comparisons} == {"output_wrt_positions"}
    assert report.max_rel_error == max(entry.max_rel_error for entry in report.comparisons)
    assert report.tolerance == TOLERANCE["float32"]
    assert "passed" in str(report)
    assert "\n" not in str(report)


def test_a_module_with_other_numbers_fails(path, smart):
    other = ofcv.SmartDerivatives()
    other.setup({"data": frames(7, 5, torch.float32, seed=1)}, all_pairs(5), n_atoms=5)
    report = ofcv.verify(path, reference=other)
    assert not report.passed
    assert report.max_rel_error > 0.1
    assert "FAILED" in str(report)


def test_one_wrong_value_among_all_fails(path, smart):
    changed = ofcv.SmartDerivatives()
    changed.setup({"data": frames(7, 5, torch.float32)}, all_pairs(5), n_atoms=5)
    changed.values[6, -1] += 0.01
    assert not ofcv.verify(path, reference=changed).passed


class Cancelling(torch.nn.Module):
    """The sum of its input, which is lost to rounding in float32."""

    def __init__(self):
        super().__init__()
        self.register_buffer("large", torch.tensor(1e9))

    def forward(self, x):
        return (x.sum(1, keepdim=True) + self.large) - self.large


def test_rounding_excuses_errors_up_to_a_limit_only(tmp_path):
    cv = ofcv.CollectiveVariable(all_pairs(5), Cancelling())
    with pytest.raises(
        ofcv.VerificationError, match="expected a file within 1e-03 of float64, got"
    ):
        ofcv.export(cv, tmp_path / "cv.pt")


def test_a_module_with_other_sizes_is_refused(path):
    other = ofcv.SmartDerivatives()
    other.setup({"data": frames(8, 5, torch.float32)}, all_pairs(5), n_atoms=5)
    with pytest.raises(ValueError, match="reference: expected a smart_derivatives with"):
        ofcv.verify(path, reference=other)
    with pytest.raises(TypeError, match="reference: expected a module with an export_graph method"):
        ofcv.verify(path, reference=torch.nn.Linear(1, 1))


def test_probe_is_replayed_without_a_reference(path):
    report = ofcv.verify(path)
    assert report.passed
    assert report.reference == "the float64 outputs recorded in it"


def test_a_runtime_that_gives_other_numbers_fails_the_probe(path, monkeypatch):
    from ofcv_export.formats import format_of

    load = type(format_of(path)).load

    def broken(self, *of_file):
        run = load(self, *of_file)
        return lambda inputs: tuple(output * 1.001 for output in run(inputs))

    monkeypatch.setattr(type(format_of(path)), "load", broken)
    assert not ofcv.verify(path).passed


def test_probe_follows_its_formula():
    specs = (TensorSpec("x", "float64", ("batch", 2)), TensorSpec("i", "int64", ("batch",), 3, 10))
    x, i = probe(specs, {"batch": 2})
    assert x.flatten().tolist() == pytest.approx([math.sin(k + 1) for k in range(4)], rel=1e-15)
    assert i.tolist() == [3 + (7919 * k) % 7 for k in range(2)]


@pytest.mark.parametrize("style", STYLES)
def test_samples_fit_their_specs(style):
    specs = (
        TensorSpec("x", "float32", ("batch", 3)),
        TensorSpec("i", "int64", ("batch",), 2, 5),
    )
    x, i = sample(specs, {"batch": 400}, style, seed=0)
    assert x.dtype == torch.float32
    assert x.shape == (400, 3)
    assert torch.isfinite(x).all()
    assert i.min() >= 2
    assert i.max() == 4
    if style == "repeated":
        assert i.min() == 4
    if style == "wide range":
        assert x.abs().max() / x.abs().min() > 1e8


def test_errors_are_relative_to_the_row():
    expected = torch.tensor([[1.0, 1e-9], [1e3, 1.0]], dtype=torch.float64)
    found = expected + torch.tensor([[0.0, 1e-6], [0.0, 1e-6]])
    absolute, relative = errors(expected, found)
    assert absolute == pytest.approx(1e-6)
    assert relative == pytest.approx(1e-6)
    assert errors(torch.zeros(2).double(), torch.zeros(2)) == (0.0, 0.0)
    assert errors(torch.zeros(2).double(), torch.tensor([0.0, 1e-20]))[1] == math.inf
    assert math.isnan(errors(torch.ones(1).double(), torch.tensor([float("nan")]))[1])
    assert errors(torch.ones(2).double(), torch.ones(3)) == (math.inf, math.inf)


class Normalised(nn.Module):
    def __init__(self, mean, scale):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x):
        return (x - self.mean) / self.scale


def tanh_network(n_in, mean, scale, steepness=3.0):
    """A network with the weights of a trained one, which saturates unless its input is near the
    mean."""
    torch.manual_seed(0)
    layers = [nn.Linear(n_in, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)]
    with torch.no_grad():
        for layer in layers[:3:2]:
            layer.weight *= steepness
    return nn.Sequential(Normalised(mean, scale), *layers)


def saturating(name, unit, box=None):
    length = {"nm": 1.0, "A": 10.0}[unit]
    switch = Fermi(0.3 * length, q=0.01 * length)
    if name == "normalised":
        mean, scale = {"nm": (0.4, 0.05), "A": (15.0, 0.5)}[unit]
        descriptors = all_pairs(8)
        network = tanh_network(28, mean, scale)
    elif name == "coordination":
        groups = torch.arange(2), torch.arange(2, 6)
        descriptors = CoordinationNumbers(*groups, 6, switch, box=box)
        network = nn.Identity()
    else:
        descriptors, network = AdjacencyEigenvalues(6, switch, box=box), nn.Identity()
    return ofcv.CollectiveVariable(descriptors, network, length_unit=unit)


BOXES = {
    "open": lambda length: None,
    "fixed": lambda length: OrthorhombicBox(torch.full((3,), 2.0 * length), periodic=True),
    "run time": lambda length: RuntimeBox(),
}
SATURATING = [
    *((name, unit, "open") for name in ("normalised", "coordination", "eigenvalues")
      for unit in ("nm", "A")),
    ("coordination", "A", "fixed"),
    ("coordination", "nm", "run time"),
]  # fmt: skip


def derivatives_times(factor, load):
    def loaded(self, *of_file):
        run = load(self, *of_file)

        def broken(inputs):
            values, derivatives, *others = run(inputs)
            return (values, factor * derivatives, *others)

        return broken

    return loaded


@pytest.mark.parametrize(("name", "unit", "box"), SATURATING)
def test_what_saturates_at_most_distances_is_accepted_when_right_and_refused_when_wrong(
    tmp_path, monkeypatch, name, unit, box
):
    boundaries = BOXES[box]({"nm": 1.0, "A": 10.0}[unit])
    cv = saturating(name, unit, boundaries)
    assert ofcv.export(cv, tmp_path / "cv.pt").passed
    assert ofcv.verify(tmp_path / "cv.pt").passed
    monkeypatch.setattr(TorchScript, "load", derivatives_times(1.002, TorchScript.load))
    with pytest.raises(ofcv.VerificationError, match="module: expected a file within"):
        ofcv.export(cv, tmp_path / "broken.pt")


class Ramp(nn.Module):
    """0 below a distance and 1 above, steep on the ten thousandth part of a nanometre between."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1e4, dtype=torch.float64))

    def forward(self, descriptors):
        return (self.slope * (descriptors - 0.25)).clamp(0.0, 1.0)


def test_a_slope_is_found_where_it_is(tmp_path, monkeypatch):
    cv = ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 1]]), 2), Ramp())
    assert ofcv.export(cv, tmp_path / "cv.pt").passed
    monkeypatch.setattr(TorchScript, "load", derivatives_times(1.002, TorchScript.load))
    with pytest.raises(ofcv.VerificationError, match="module: expected a file within"):
        ofcv.export(cv, tmp_path / "broken.pt")


def moved_by(shift, load):
    def loaded(self, *of_file):
        run = load(self, *of_file)

        def moved(inputs):
            outputs = run(inputs)
            return (outputs[0] + torch.tensor(shift).to(outputs[0]), *outputs[1:])

        return moved

    return loaded


@pytest.mark.parametrize("contract", [None, "plumed-pytorch"])
@pytest.mark.parametrize("has_reference", [True, False], ids=["reference", "probe"])
def test_values_a_period_apart_are_the_same(tmp_path, monkeypatch, has_reference, contract):
    """Of the value that has one only, and no part of it."""
    parts = [PairDistances(torch.tensor([[0, 3]]), 4), Torsions(torch.tensor([[0, 1, 2, 3]]), 4)]
    cv = ofcv.CollectiveVariable(MultipleDescriptors(parts), nn.Identity())
    ofcv.export(cv, tmp_path / "cv.pt", contract=contract)
    load = TorchScript.load
    for shift, passed in [
        ([0.0, 2 * math.pi], True),
        ([0.0, -4 * math.pi], True),
        ([2 * math.pi, 0.0], False),
        ([0.0, math.pi], False),
    ]:
        monkeypatch.setattr(TorchScript, "load", moved_by(shift, load))
        report = ofcv.verify(tmp_path / "cv.pt", cv if has_reference else None)
        assert report.passed is passed


def distance_cv(dtype=torch.float64, n_outputs=1):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, n_outputs)).to(dtype)
    return ofcv.CollectiveVariable(all_pairs(4), network)


def functional():
    basis = BasisInfo([1, 8], ["2x0e+1x1o", "3x0e+1x1o"])
    n = basis.n_basis
    rescaling = ofcv.DimensionWiseRescaling(normal(n), normal(n).abs(), normal(n, seed=1).abs())
    reference = AtomicReference(normal(n, seed=3), normal(2, seed=4), -1.5, basis)
    return ofcv.EnergyFunctional(MeanSquares(), rescaling, reference), basis


class MeanSquares(nn.Module):
    """The mean over each molecule, which has no value for a molecule without coefficients."""

    def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
        zeros = scaled_coeffs.new_zeros(n_molecules)
        count = zeros.index_add(0, batch, torch.ones_like(scaled_coeffs))
        return zeros.index_add(0, batch, scaled_coeffs**2) / count


def molecule():
    made, basis = functional()
    return made.for_molecule([8, 1, 1], basis, torch.eye(16).double() + 0.1 * normal(16, 16))


def harmonic():
    return ofcv.HarmonicRestraint(distance_cv(n_outputs=2), [0.1, 0.2], [3.0, 4.0])


def moving():
    return ofcv.MovingRestraint(distance_cv(), [0.0, 1.0, 3.0], [0.1, 0.5, 0.2], [1.0, 2.0, 3.0])


def kolmogorov(over):
    return lambda: ofcv.KolmogorovBias(distance_cv(), beta=0.4, over=over)


def twice(function):
    def doubled(*args, **kwargs):
        result = function(*args, **kwargs)
        if isinstance(result, tuple):
            return tuple(2 * part for part in result)
        return 2 * result

    return doubled


def rescaling():
    return functional()[0].rescaling


def molecule_rescaling():
    made, basis = functional()
    return made.rescaling.for_molecule([8, 1, 1], basis)


def frozen():
    made = ofcv.SmartDerivatives()
    made.setup({"data": frames(7, 5)}, all_pairs(5), n_atoms=5)
    return made


CORE = "ofcv_export.density.rescaling_core"


@pytest.mark.parametrize(
    ("make", "owner", "name", "options"),
    [
        (harmonic, restraints, "harmonic", {}),
        (harmonic, ofcv.HarmonicRestraint, "energy", {}),
        (harmonic, ofcv.CollectiveVariable, "forward", {}),
        (distance_cv, ofcv.CollectiveVariable, "forward", {}),
        (moving, restraints, "_between", {}),
        (moving, ofcv.MovingRestraint, "at", {}),
        (kolmogorov("positions"), ofcv.KolmogorovBias, "energy", {}),
        (kolmogorov("positions"), kolmogorov_bias.PositionSlope, "squared", {}),
        (kolmogorov("descriptors"), kolmogorov_bias, "_squared_slope", {}),
        (rescaling, CORE, "scale_coeffs", {}),
        (rescaling, CORE, "scale_gradient", {"gradient": True}),
        (molecule_rescaling, CORE, "scale_coeffs", {}),
        (lambda: functional()[0], CORE, "scale_coeffs", {}),
        (lambda: functional()[0], AtomicReference, "in_float64", {}),
        (lambda: functional()[0], EnergyCore, "energies", {}),
        (molecule, MoleculeEnergyCore, "forward", {}),
        (frozen, ScatterChainRule, "forward", {}),
        (lambda: frozen().sparse_chain_rule(), ScatterChainRule, "forward", {}),
    ],
)
def test_a_fault_in_what_is_exported_is_no_fault_of_the_judge(
    tmp_path, monkeypatch, make, owner, name, options
):
    module = make()
    assert ofcv.export(module, tmp_path / "right.pt", **options).passed
    target = __import__(owner, fromlist=[name]) if isinstance(owner, str) else owner
    monkeypatch.setattr(target, name, twice(getattr(target, name)))
    with pytest.raises(ofcv.VerificationError):
        ofcv.export(module, tmp_path / "wrong.pt", **options)


def test_no_molecule_without_coefficients_is_drawn(tmp_path):
    """Its mean has no value, and no dataset has such a molecule."""
    specs = functional()[0].export_graph().inputs
    for style in STYLES:
        batch = sample(specs, {"n": 40}, style, seed=1)[2]
        assert sorted(set(batch.tolist())) == list(range(int(batch.max()) + 1))
    report = ofcv.export(functional()[0], tmp_path / "f.pt")
    assert report.passed
    assert math.isfinite(report.max_abs_error)


class Logarithm(nn.Module):
    """The logarithm of what is left to a limit, which is no number beyond."""

    def __init__(self, limit):
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit, dtype=torch.float64))

    def forward(self, descriptors):
        return torch.log(self.limit - descriptors).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (-1.0, r"values of the probe: expected finite values, got nan at index \(0,\)"),
        (5.0, "module: expected a file within .* got a relative error of nan in LibTorch"),
    ],
)
def test_values_that_are_no_numbers_are_refused_in_one_line(tmp_path, limit, message):
    """Everywhere, or only where atoms are far apart."""
    cv = ofcv.CollectiveVariable(all_pairs(4), Logarithm(limit))
    with pytest.raises(ValueError, match=rf"^{message}$"):
        ofcv.export(cv, tmp_path / "cv.pt")
    assert not list(tmp_path.iterdir())


def test_a_usual_size_that_is_no_number_is_refused_before_anything_is_written():
    graph = distance_cv().export_graph()
    replays = Replays(graph, graph.in_float64())
    replays.scales = lambda style: (1.0, math.nan)
    with pytest.raises(ValueError, match="^usual size of derivatives: expected finite values, got"):
        record_probe(replays)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_number_is_written_that_json_does_not_have(tmp_path, number):
    ofcv.export(distance_cv(), tmp_path / "cv.pt")
    metadata = ofcv.read_metadata(tmp_path / "cv.pt")
    values = replace(metadata.probe.outputs["values"], scale=number)
    for field, wrong in {
        "parity.max_abs_error": {"parity": replace(metadata.parity, max_abs_error=number)},
        "probe.outputs.values.scale": {
            "probe": replace(metadata.probe, outputs={"values": values})
        },
        "details.parameters.centre.0": {
            "details": replace(metadata.details, parameters={"centre": (number,)})
        },
    }.items():
        with pytest.raises(
            ValueError, match=f"^metadata.{field}: expected finite numbers, got {number}$"
        ):
            replace(metadata, **wrong).to_json()


def test_the_largest_error_is_no_number_if_one_is_none(path, smart):
    report = ofcv.verify(path, reference=smart)
    wrong = dataclasses.replace(
        report.comparisons[0], max_abs_error=math.nan, max_rel_error=math.nan
    )
    for comparisons in ((*report.comparisons, wrong), (wrong, *report.comparisons)):
        broken = dataclasses.replace(report, comparisons=comparisons)
        assert not broken.passed
        assert math.isnan(broken.max_abs_error)
        assert math.isnan(broken.max_rel_error)


def test_a_value_that_jumps_is_compared_beside_the_jump(tmp_path):
    # Where another periodic image becomes the nearest one an angle jumps, in float64 and in float32
    # not at the same place.
    triples = torch.tensor([[0, 1, 2], [5, 3, 1]])
    angles = Angles(triples, 6, ("angle", "sin", "cos"), RuntimeBox())
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    cv = ofcv.CollectiveVariable(angles, network)
    assert ofcv.export(cv, tmp_path / "cv.pt", batch=1).passed
