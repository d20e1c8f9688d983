"""Files of biases that the tests of several engines share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import ofcv_export as ofcv
from ofcv_export.variables.bias import Bias
from tests.builders.engine_biases import distance_restraint

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
