"""Running artifacts in LibTorch and ONNX Runtime, from Python and from C++, on real inputs."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import ofcv_export as ofcv
from export_scripts.cases import DTYPES, Case

# Accepted difference from float64, relative to the largest value of a frame or a molecule.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
RUNTIMES = {".pt": "LibTorch", ".onnx": "ONNX Runtime", ".pt2": "AOTInductor", ".c": "C99"}
CPP_RUNTIMES = {".pt": "LibTorch C++", ".pt2": "AOTInductor C++"}
WARM_UP_CALLS = 50
TIMED_CALLS = 500

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Result:
    """How one artifact fared in one runtime.

    Attributes
    ----------
    case : Case
        What was run.
    suffix : str
        ".pt", ".onnx", ".pt2" or ".c".
    runtime : str
        What ran it.
    errors : mapping
        Largest relative difference from float64 for each name of a dtype.
    microseconds : float
        Median time of a call with one frame or one molecule, float32, one thread.
    outputs : mapping
        The outputs by name for each name of a dtype.
    tolerances : mapping
        Accepted error for each name of a dtype, as verified at export: that of the format, or what
        rounding costs a network in that precision.
    """

    case: Case
    suffix: str
    runtime: str
    errors: Mapping[str, float]
    microseconds: float
    outputs: Mapping[str, Outputs]
    tolerances: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether every error is within its tolerance; NaN is not."""
        return all(error <= self.tolerances[dtype] for dtype, error in self.errors.items())


def artifact_path(folder: Path, case: Case, dtype: str, suffix: str) -> Path:
    """Return where an artifact is written."""
    return folder / f"{case.name}_{dtype}{suffix}"


def max_relative_error(case: Case, outputs: Outputs) -> float:
    """Return the largest difference from the expected outputs.

    It is relative to the largest expected value of the same frame, or of the same molecule; where
    that of a typical frame is larger, to that one, because a CV's value may be close to zero.
    """
    errors = []
    for name, expected in case.expected.items():
        n_rows = len(expected) if case.per_frame else 1
        exact = expected.reshape(n_rows, -1)
        difference = np.abs(outputs[name].astype(np.float64).reshape(n_rows, -1) - exact)
        scale = np.abs(exact).max(axis=1)
        errors.append(np.max(difference.max(axis=1) / np.maximum(scale, np.median(scale))))
    return float(np.max(errors))


def verified_tolerances(case: Case, folder: Path, suffix: str) -> dict[str, float]:
    """Return the tolerances that the files of a case were verified with."""
    paths = {dtype: artifact_path(folder, case, dtype, suffix) for dtype in DTYPES}
    return {dtype: ofcv.read_metadata(path).parity.tolerance for dtype, path in paths.items()}


def replay_in_python(case: Case, folder: Path, suffix: str) -> Result:
    """Run an artifact through `ofcv_export.load`."""
    outputs = {}
    for dtype in DTYPES:
        artifact = ofcv.load(artifact_path(folder, case, dtype, suffix))
        outputs[dtype] = call(artifact, case.inputs_as(dtype), case.per_frame and suffix == ".c")
        if dtype == "float32":
            inputs = {name: torch.from_numpy(value) for name, value in case.one_call(dtype).items()}
            microseconds = median_microseconds(partial(artifact, **inputs))
    errors = {dtype: max_relative_error(case, outputs[dtype]) for dtype in DTYPES}
    tolerances = verified_tolerances(case, folder, suffix)
    return Result(case, suffix, RUNTIMES[suffix], errors, microseconds, outputs, tolerances)


def call(artifact: ofcv.Artifact, inputs: Mapping[str, np.ndarray], one_by_one: bool) -> Outputs:
    """Return the outputs of an artifact by name, for all frames at once or one by one."""
    if one_by_one:
        n_frames = len(next(iter(inputs.values())))
        frames = [
            {name: array[k : k + 1] for name, array in inputs.items()} for k in range(n_frames)
        ]
        found = [call(artifact, frame, False) for frame in frames]
        return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}
    result = artifact(**inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    names = [spec.name for spec in artifact.metadata.outputs]
    return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}


def median_microseconds(function: Callable[[], object]) -> float:
    """Return the median wall time of a call."""
    for _ in range(WARM_UP_CALLS):
        function()
    times = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def replay_in_cpp(
    case: Case, folder: Path, program: Path, scratch: Path, suffix: str = ".pt"
) -> Result:
    """Run an artifact with the C++ demo, which reads and writes .npy files.

    Where the case has positions, the program gets those and differentiates the distances itself.

    Parameters
    ----------
    case : Case
        What to run.
    folder : Path
        Where the artifacts are.
    program : Path
        The built ``ofcv_demo``.
    scratch : Path
        Folder for inputs and outputs.
    suffix : str
        ".pt" or ".pt2".
    """
    outputs = {}
    for dtype in DTYPES:
        model = artifact_path(folder, case, dtype, suffix)
        inputs = dict(case.inputs_as(dtype))
        words = []
        if case.positions_file is not None:
            del inputs["descriptors_wrt_positions"]
            words = ["--input", f"positions={case.positions_file}"]
        words += input_words(inputs, scratch / model.stem)
        files = {name: scratch / f"{model.stem}_{name}.npy" for name in case.expected}
        for name, file in files.items():
            words += ["--output", f"{name}={file}"]
        run_program(program, model, words)
        outputs[dtype] = {name: np.load(file) for name, file in files.items()}
        if dtype == "float32":
            words = input_words(case.one_call(dtype), scratch / f"{model.stem}_one_call")
            text = run_program(program, model, [*words, "--repeat", str(TIMED_CALLS)])
            microseconds = reported_microseconds(text)
    errors = {dtype: max_relative_error(case, outputs[dtype]) for dtype in DTYPES}
    tolerances = verified_tolerances(case, folder, suffix)
    return Result(case, suffix, CPP_RUNTIMES[suffix], errors, microseconds, outputs, tolerances)


def input_words(inputs: Mapping[str, np.ndarray], stem: Path) -> list[str]:
    """Write inputs as .npy files and return the arguments that name them."""
    words = []
    for name, values in inputs.items():
        file = stem.with_name(f"{stem.name}_{name}.npy")
        np.save(file, np.ascontiguousarray(values))
        words += ["--input", f"{name}={file}"]
    return words


def run_program(program: Path, model: Path, words: list[str]) -> str:
    """Run the C++ demo and return what it prints.

    Raises
    ------
    RuntimeError
        If it fails, with its own message.
    """
    command = [str(program), "--model", str(model), "--device", "cpu", *words]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        message = finished.stderr.strip() or "no message"
        raise RuntimeError(f"{program.name}: {message} (exit code {finished.returncode})")
    return finished.stdout


def reported_microseconds(text: str) -> float:
    """Return the time per call from the C++ demo's report.

    Raises
    ------
    RuntimeError
        If the report has no such line.
    """
    match = re.search(r"^time\s+([0-9.]+) us per call", text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"ofcv_demo: expected a line with the time per call, got {text!r}")
    return float(match[1])
