"""Export modules of every make and compare their files with plain formulas in float64.

``python -m tests.hunt --minutes 10`` draws modules, dtypes, shapes, strides, sizes, formats and
modes with hypothesis. Every round prints its seed; ``--seed N`` runs that round alone. At a finding
it prints the choices that lead to it and ends with exit status 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import torch
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from rich.console import Console

import ofcv_export as ofcv
from tests.hunt.layouts import LAYOUTS
from tests.hunt.modes import MODES
from tests.hunt.sums import (
    ChainRule,
    Rescaling,
    chain_rule_case,
    chain_rules,
    rescaling_case,
    rescalings,
)
from tests.hunt.variables import Variable, case_of, variables

# Compiling a .pt2 takes as long as twenty of the others.
SUFFIXES = (*[".pt", ".onnx"] * 10, ".pt2")
TOLERANCES = {torch.float32: 2e-5, torch.float64: 1e-11}
EXAMPLES = 25
# Inputs whose first axis counts frames.
FRAMED = ("positions", "output_wrt_descriptors", "ref_idx", "descriptors_wrt_positions")
CASES = {Variable: case_of, ChainRule: chain_rule_case, Rescaling: rescaling_case}


@dataclass(frozen=True)
class Choices:
    """What is exported, and how it is exported and called."""

    of: Variable | ChainRule | Rescaling
    suffix: str
    one_frame: bool
    layout: str
    export_mode: str
    call_mode: str


CHOICES = st.builds(
    Choices,
    of=st.one_of(variables(), variables(), chain_rules(), rescalings()),
    suffix=st.sampled_from(SUFFIXES),
    one_frame=st.booleans(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    export_mode=st.sampled_from(sorted(MODES)),
    call_mode=st.sampled_from(sorted(MODES)),
)


def check(choices: Choices, folder: Path) -> None:
    """Raise AssertionError unless the file gives what plain formulas give."""
    case = CASES[type(choices.of)](choices.of)  # type: ignore[operator]
    path = folder / f"file{choices.suffix}"
    one_frame = choices.one_frame and not isinstance(choices.of, Rescaling)
    with MODES[choices.export_mode](), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ofcv.export(case.module, path, batch=1 if one_frame else None, **case.options)
    artifact = ofcv.load(path)
    inputs = {
        name: value[:1] if one_frame and name in FRAMED else value
        for name, value in case.inputs.items()
    }
    expected = case.judge(
        *(value.double() if value.is_floating_point() else value for value in inputs.values())
    )
    with MODES[choices.call_mode]():
        given = {name: LAYOUTS[choices.layout](value) for name, value in inputs.items()}
        found = artifact(**given)
    outputs = [torch.as_tensor(x) for x in (found if isinstance(found, tuple) else (found,))]
    assert len(outputs) == len(expected)
    for spec, output, judge in zip(artifact.metadata.outputs, outputs, expected, strict=True):
        assert output.shape == judge.shape, (spec.name, output.shape, judge.shape)
        assert output.dtype == spec.torch_dtype
        scale = judge.abs().max() if judge.numel() else 1.0
        error = (output.double() - judge).abs().max() if judge.numel() else 0.0
        tolerance = TOLERANCES[spec.torch_dtype]
        assert error <= tolerance * max(float(scale), 1e-3), (spec.name, float(error), float(scale))


def round_of(seed: int, end: float) -> int:
    """Check the examples of a seed until the time is over; return how many were checked."""
    checked = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # An example takes seconds: no simpler one is looked for.
        phases=[Phase.generate],
    )
    @hypothesis.given(CHOICES)
    def run(choices: Choices) -> None:
        nonlocal checked
        if time.monotonic() > end:
            return
        with tempfile.TemporaryDirectory(prefix="ofcv-hunt-") as folder:
            check(choices, Path(folder))
        checked += 1

    run()
    return checked


def main(arguments: list[str] | None = None) -> int:
    """Hunt for some minutes, or through one seed; return 1 at a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="Only the round of this seed.")
    options = parser.parse_args(arguments)
    console = Console()
    end = time.monotonic() + 60 * options.minutes
    first = int(time.time()) if options.seed is None else options.seed
    total = 0
    for seed in [first] if options.seed is not None else range(first, sys.maxsize):
        if time.monotonic() > end:
            break
        console.print(f"seed {seed}: ", end="")
        try:
            n = round_of(seed, end if options.seed is None else float("inf"))
        except Exception:
            console.print("[bold red]a finding[/]")
            console.print_exception(max_frames=3)
            console.print(f"again: python -m tests.hunt --seed {seed}")
            return 1
        total += n
        console.print(f"{n} files give the numbers of plain formulas")
    console.print(f"{total} files, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
