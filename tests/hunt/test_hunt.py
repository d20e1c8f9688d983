"""The hunt itself: it takes what is right, and would find what is wrong."""

import pytest

from tests.hunt import sums
from tests.hunt.__main__ import Choices, check, round_of
from tests.hunt.case import Case
from tests.hunt.sums import ChainRule, Rescaling
from tests.hunt.variables import Variable

USUAL = ("tensor", "none", "none")
RIGHT = [
    Choices(
        Variable(5, "several", "run time", "attention", "celu", 2, False, "float64", 5, 1),
        ".onnx", False, "negated view", "anomaly detection", "autocast",
    ),
    Choices(
        Variable(4, "torsions", "triclinic", "identity", "tanh", 1, True, "float32", 2, 2),
        ".pt", True, "big-endian array", "inference", "inference",
    ),
    Choices(ChainRule(True, 7, 9, 3, 7, 2, "gather", "float32", 3), ".onnx", False, *USUAL),
    Choices(ChainRule(False, 4, 5, 1, 2, None, "scatter", "float64", 4), ".pt", False, *USUAL),
    Choices(Rescaling(9, 33, True, 6, "float64", 5), ".onnx", False, *USUAL),
]  # fmt: skip


@pytest.mark.parametrize("choices", RIGHT, ids=lambda choices: type(choices.of).__name__)
def test_right_files_are_no_findings(tmp_path, choices):
    check(choices, tmp_path)


def test_a_wrong_number_is_a_finding(tmp_path, monkeypatch):
    def off(chosen):
        case = sums.rescaling_case(chosen)
        judge = lambda *inputs: tuple(1.0001 * output for output in case.judge(*inputs))  # noqa: E731
        return Case(case.module, case.inputs, judge, case.options)

    monkeypatch.setitem(check.__globals__["CASES"], Rescaling, off)
    with pytest.raises(AssertionError, match="scaled_coeffs"):
        check(Choices(Rescaling(9, 33, False, 0, "float32", 5), ".pt", False, *USUAL), tmp_path)


def test_no_time_is_no_file():
    assert round_of(1, end=0.0) == 0
