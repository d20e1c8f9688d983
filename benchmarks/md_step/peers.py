"""C that other projects generate for the systems of the benchmark: the extra ``peers``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from torch import nn

import ofcv_export as ofcv
from benchmarks.md_step.steps import System
from ofcv_export.c_source.compiler import OPTIONS, compiler

PACKAGES = {"emx": "emx_onnx_cgen", "casadi": "casadi"}
# Of more atoms CasADi writes a line for each of 10^5 operations.
MOST_ATOMS = {"casadi": 10}
EMX = """
int cv_evaluate(const float *positions, float *values, float *derivatives) {
  peer((const void *)positions, (void *)values, (void *)derivatives);
  return 0;
}
"""
CASADI = """
int cv_evaluate(const float *positions, float *values, float *derivatives) {{
  const float *arguments[{n_arguments}] = {{positions}};
  float *results[{n_results}] = {{values, derivatives}}, work[{n_work}];
  return peer(arguments, results, 0, work, 0);
}}
"""


def missing() -> list[str]:
    """Return the names of the packages that are not installed."""
    return [name for name in PACKAGES.values() if importlib.util.find_spec(name) is None]


def compile_peers(system: System, folder: Path) -> None:
    """Write ``cv_emx.so`` and ``cv_casadi.so``, of what is installed and suits the system."""
    absent = missing()
    for way, package in PACKAGES.items():
        if package not in absent and system.n_atoms <= MOST_ATOMS.get(way, system.n_atoms):
            {"emx": _emx, "casadi": _casadi}[way](system, folder)


def _emx(_: System, folder: Path) -> None:
    """Compile what emx-onnx-cgen makes of our ONNX file."""
    source = folder / "emx.c"
    command = [sys.executable, "-m", "emx_onnx_cgen", "compile", "--model-name", "peer",
               "--large-temp-threshold", "0", "--large-weight-threshold", "0"]  # fmt: skip
    subprocess.run(
        [*command, folder / "cv.onnx", source], check=True, capture_output=True, text=True
    )
    source.write_text(source.read_text() + EMX)
    _compile(source, folder / "cv_emx.so")


def _casadi(system: System, folder: Path) -> None:
    """Compile what CasADi makes of the network and its gradient, in scalar operations."""
    import casadi

    positions = casadi.SX.sym("positions", 3 * system.n_atoms)
    vectors = casadi.reshape(positions, 3, system.n_atoms)
    start, end = system.pairs.t().tolist()
    y = casadi.sqrt(casadi.sum1((vectors[:, end] - vectors[:, start]) ** 2)).T
    for layer in _layers(system.cv()):
        if isinstance(layer, nn.Linear):
            weight, bias = (casadi.DM(p.detach().numpy()) for p in (layer.weight, layer.bias))
            y = casadi.mtimes(weight, y) + bias
        else:
            y = casadi.tanh(y)
    function = casadi.Function("peer", [positions], [y, casadi.gradient(y, positions)])
    code = casadi.CodeGenerator("casadi.c", {"casadi_real": "float"})
    code.add(function)
    code.generate(f"{folder}/")
    source = folder / "casadi.c"
    sizes = {
        "n_arguments": function.sz_arg(), "n_results": function.sz_res(), "n_work": function.sz_w()
    }  # fmt: skip
    source.write_text(source.read_text() + CASADI.format(**sizes))
    # Its numbers are of type double else, and so are its roots.
    _compile(source, folder / "cv_casadi.so", "-fsingle-precision-constant", "-include", "tgmath.h")


def _layers(cv: ofcv.CollectiveVariable) -> list[nn.Module]:
    return [layer for layer in cv.network.modules() if isinstance(layer, (nn.Linear, nn.Tanh))]


def _compile(source: Path, target: Path, *more: str) -> None:
    """Compile with the options that our own files get."""
    options = [*OPTIONS.split(), *more]
    subprocess.run([compiler(), *options, "-o", target, source, "-lm"], check=True)
