"""Files of biases that the tests of several engines share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ofcv_export as ofcv
from ofcv_export.variables.bias import Bias
from tests.builders.engine_biases import distance_restraint
from tests.builders.plumed_driver import ROOT

Export = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Return a function that exports a bias once, and the file's path."""
    folder = tmp_path_factory.mktemp("engine")

    def export(name: str, make: Callable[[], Bias], suffix: str = ".pt") -> Path:
        path = folder / f"{name}{suffix}"
        if not path.exists():
            ofcv.export(make(), path, batch=1)
        return path

    return export


@pytest.fixture(scope="module")
def restraint(exported: Export) -> Path:
    """Return the file of the restraint of the pair's distance."""
    return exported("restraint", distance_restraint)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return OFCV.so, built with CMake against the installed PLUMED."""
    beside_python = Path(sys.executable).with_name("cmake")
    cmake = str(beside_python) if beside_python.exists() else shutil.which("cmake")
    if cmake is None:
        pytest.skip("there is no cmake")
    folder = tmp_path_factory.mktemp("plumed_build")
    source = ROOT / "cpp_demo" / "plumed"
    for words in (
        ["-S", source, "-B", folder, f"-DPython3_EXECUTABLE={sys.executable}"],
        ["--build", folder],
    ):
        done = subprocess.run([cmake, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("OFCV.*"))
