"""Fixtures shared by the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ofcv_export import SmartDerivatives, export
from tests.builders.formats import FREE_SIZES
from tests.builders.systems import small_setup

if not torch.cuda.is_available():
    # Triton looks when it is imported, by us or by Inductor: without a device it interprets.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def seed() -> None:
    """Start the global generators anew; everything else that tests draw from has its own seed."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (for packages that draw from it)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Seed before a module of tests is imported."""
    seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed before a test and its fixtures, those of a module or session among them."""
    seed()


@pytest.fixture(autouse=True, scope="session")
def cache_of_compiled_source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is compiled out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFCV_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(autouse=True)
def default_dtype() -> Iterator[None]:
    """Fail a test that leaks torch's default dtype, and restore it for the others."""
    before = torch.get_default_dtype()
    yield
    left = torch.get_default_dtype()
    torch.set_default_dtype(before)
    assert left == before, f"default dtype: expected {before} after the test, got {left}"


@pytest.fixture
def float64_default() -> Iterator[None]:
    """Let torch's default dtype be float64 during a test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def smart() -> SmartDerivatives:
    """Return a set-up of its own for each test."""
    return small_setup()


@pytest.fixture(scope="session", params=FREE_SIZES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small set-up exported to each format, once for all tests."""
    path = tmp_path_factory.mktemp("exported") / f"cv{request.param}"
    export(small_setup(), path)
    return path


@pytest.fixture
def path(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the exported set-up that a test may damage."""
    return Path(shutil.copy(exported, tmp_path))
