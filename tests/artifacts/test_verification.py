import math

import pytest
import torch

import ofcv_export as ofcv
from ofcv_export.artifacts.inputs import STYLES, sample
from ofcv_export.artifacts.verification import TOLERANCE, errors
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec
from tests.builders.systems import all_pairs, frames


def test_report_covers_sizes_and_adversarial_inputs(path, smart):
    report = ofcv.verify(path, reference=smart)
    assert report.passed
    assert {entry.inputs for entry in report.comparisons} == set(STYLES)
    assert {entry.size for entry in report.comparisons} == {1, 2, 5, 64}
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

    def broken(self, target, device):
        run = load(self, target, device)
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
