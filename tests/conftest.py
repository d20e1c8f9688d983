"""Fixtures shared by the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ofcv_export import SmartDerivatives, export
from ofcv_export.formats import FORMATS
from tests.builders.systems import small_setup


@pytest.fixture
def smart() -> SmartDerivatives:
    """Return a set-up of its own for each test."""
    return small_setup()


@pytest.fixture(scope="session", params=list(FORMATS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small set-up exported to each format, once for all tests."""
    path = tmp_path_factory.mktemp("exported") / f"cv{request.param}"
    export(small_setup(), path)
    return path


@pytest.fixture
def path(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the exported set-up that a test may damage."""
    return Path(shutil.copy(exported, tmp_path))
