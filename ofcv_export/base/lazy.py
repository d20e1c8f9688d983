"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ofcv_export.base.packages import missing_package


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package : str
        Its name.
    modules : mapping of str to str
        The module of each name.

    Examples
    --------
    >>> get, listed = lazy_names("ofcv_export.base", {"length_factor": "ofcv_export.base.units"})
    >>> get("length_factor")("nm", "A")
    10.0
    """

    def get(name: str) -> Any:
        """Return what stands behind a name.

        Raises
        ------
        ImportError
            In one line, if it needs a package that is not installed.
        """
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value: Any = getattr(importlib.import_module(modules[name]), name)
        except ModuleNotFoundError as error:
            raise missing_package(f"{package}.{name}", error) from error
        # Found at once from now on.
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, listed
