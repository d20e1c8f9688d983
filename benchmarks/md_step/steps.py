"""The systems of the benchmark of one MD step, their files, and the times of all ways."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

import ofcv_export as ofcv
from ofcv_export.c_source.compiler import compiler, library
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.graph.details import VariableDetails

SOURCE = Path(__file__).parent
N_PROCESSES = 5
N_ROUNDS, N_CALLS = 200, 25
WAYS = {
    "fused": "hand-fused C++ function (the limit)",
    "autograd": "TorchScript + autograd, C++",
    "pt": "ours, .pt, C++",
    "pt2": "ours, .pt2, C++",
    "c": "ours, .c, C",
    "c_64": "ours, .c, C, 64 frames a call",
    "c_fast": "ours, .c, C, fast=True",
    "emx": "emx-onnx-cgen of our .onnx, C",
    "casadi": "CasADi's generated C",
    "onnx": "ours, .onnx, ONNX Runtime from Python",
}
# Options of the files of C source.
SOURCES: dict[str, dict[str, Any]] = {"c": {}, "c_64": {"batch": 64}, "c_fast": {"fast": True}}
# 10 %, 50 % and 90 % quantiles in microseconds.
Times = tuple[float, float, float]


@dataclass(frozen=True)
class System:
    """All or some pairs of atoms, and the widths of the network's two layers."""

    n_atoms: int
    widths: tuple[int, int]
    n_pairs: int | None = None

    @property
    def pairs(self) -> Tensor:
        """The pairs, shape (n_pairs, 2)."""
        pairs = all_pairs(self.n_atoms)
        if self.n_pairs is None:
            return pairs
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(3))
        return pairs[order[: self.n_pairs].sort().values]

    @property
    def name(self) -> str:
        """What the table calls the system."""
        first, second = self.widths
        return f"{self.n_atoms} atoms, {len(self.pairs)}-{first}-{second}-1"

    def cv(self) -> ofcv.CollectiveVariable:
        """Return the collective variable, with random weights."""
        descriptors = PairDistances(self.pairs, self.n_atoms)
        return ofcv.CollectiveVariable(descriptors, network(len(self.pairs), *self.widths))


def network(n_descriptors: int, first: int, second: int) -> nn.Sequential:
    """Return a network of two layers and tanh, with random weights."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(n_descriptors, first),
        nn.Tanh(),
        nn.Linear(first, second),
        nn.Tanh(),
        nn.Linear(second, 1),
    )


SYSTEMS = (System(10, (32, 32)), System(50, (64, 64)), System(100, (64, 64), 300))


def build_program(build: Path) -> Path:
    """Build the C++ program and return its path."""
    scripts = sysconfig.get_path("scripts")
    cmake = shutil.which("cmake", path=os.pathsep.join([scripts, os.environ.get("PATH", "")]))
    if cmake is None:
        sys.exit("cmake: expected the program on the PATH, got none: nothing was measured")
    options = [f"-DPython3_EXECUTABLE={sys.executable}", "--log-level=WARNING"]
    ninja = Path(scripts) / "ninja"
    if ninja.exists():
        options += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    subprocess.run([cmake, "-S", SOURCE, "-B", build, *options], check=True)
    subprocess.run([cmake, "--build", build, "--target", "md_step"], check=True)
    return build / "md_step"


def write_files(system: System, folder: Path) -> str:
    """Write what the ways run to `folder`; return the form of our files."""
    cv = system.cv()
    first, second, third = (layer for layer in cv.network.modules() if isinstance(layer, nn.Linear))
    layers = [
        first.weight.t(), first.bias, second.weight.t(), second.weight, second.bias,
        third.weight, third.bias,
    ]  # fmt: skip
    weights = torch.cat([layer.detach().flatten() for layer in layers])
    weights.numpy().tofile(folder / "weights.bin")
    random_positions(system.n_atoms).numpy().tofile(folder / "positions.bin")
    system.pairs.to(torch.int32).numpy().tofile(folder / "pairs.bin")
    value_only(cv).save(folder / "value.pt")
    compile_source(cv, folder)
    for suffix in (".onnx", ".pt", ".pt2"):
        report = ofcv.export(cv, folder / f"cv{suffix}", batch=1)
    assert report.metadata is not None
    assert isinstance(report.metadata.details, VariableDetails)
    return str(report.metadata.details.form)


def compile_source(cv: ofcv.CollectiveVariable, folder: Path) -> None:
    """Write the variable as C source in several ways, and compile it to ``cv_WAY.so``."""
    for way, options in SOURCES.items():
        source = folder / f"cv_{way}.c"
        ofcv.export(cv, source, symbol="cv", **options)
        shutil.copy(library(source.read_bytes(), compiler()), source.with_suffix(".so"))


def value_only(cv: ofcv.CollectiveVariable) -> torch.jit.ScriptModule:
    """Return the value alone as TorchScript, for autograd, as engines do it today."""
    return torch.jit.script(nn.Sequential(cv.descriptors, cv.network).eval())


def measure(
    program: Path, n_atoms: int, folder: Path, threads: int, n_processes: int = N_PROCESSES
) -> dict[str, Times]:
    """Return the times of the ways in C++ over several processes, with threads on offer."""
    runs = [run(program, n_atoms, folder, threads) for _ in range(n_processes)]
    return {way: _combined([times[way] for times in runs]) for way in runs[0]}


def _combined(runs: list[Times]) -> Times:
    low, median, high = zip(*runs, strict=True)
    return min(low), statistics.median(median), max(high)


def run(program: Path, n_atoms: int, folder: Path, threads: int) -> dict[str, Times]:
    """Return the times that the C++ program measures."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [program, folder, str(n_atoms)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    return {way: (float(low), float(median), float(high)) for way, low, median, high in lines}


def onnx_times(system: System, folder: Path) -> Times:
    """Return the times of ONNX Runtime in this process, with bound inputs and outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "cv.onnx", options, providers=["CPUExecutionProvider"]
    )
    shapes = {"values": (1, 1), "derivatives": (1, 1, system.n_atoms, 3)}
    binding = session.io_binding()
    arrays = {
        name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, "float32")
        for name, shape in shapes.items()
    }
    arrays["positions"] = onnxruntime.OrtValue.ortvalue_from_numpy(
        random_positions(system.n_atoms).numpy()
    )
    binding.bind_ortvalue_input("positions", arrays["positions"])
    for name in shapes:
        binding.bind_ortvalue_output(name, arrays[name])
    return _quantiles(lambda: session.run_with_iobinding(binding))


def _quantiles(step: Callable[[], object]) -> Times:
    """Return quantiles of the time of a call, in microseconds of this thread."""
    times = []
    for _ in range(N_ROUNDS):
        step()
        start = time.thread_time_ns()
        for _ in range(N_CALLS):
            step()
        times.append((time.thread_time_ns() - start) / (1000 * N_CALLS))
    times.sort()
    return times[N_ROUNDS // 10], times[N_ROUNDS // 2], times[N_ROUNDS * 9 // 10]


def random_positions(n_atoms: int) -> Tensor:
    """Return positions of one frame."""
    generator = torch.Generator().manual_seed(5)
    return 1.5 * torch.rand(1, n_atoms, 3, generator=generator)
