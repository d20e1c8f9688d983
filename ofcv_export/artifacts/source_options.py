"""Options that C source has and no other format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ofcv_export.c_source.interface import require_symbol
from ofcv_export.formats.format import Format

_NAMES = ("fast", "symbol")


def graph_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an export that are the module's."""
    return {name: value for name, value in options.items() if name not in _NAMES}


def source_options(options: Mapping[str, Any], file_format: Format) -> dict[str, Any]:
    """Return the options of an export that are those of C source, checked.

    Raises
    ------
    ValueError
        If there are any for another format, or the symbol is no name in C.
    TypeError
        If they are no flag and no text.
    """
    own = {name: value for name, value in options.items() if name in _NAMES}
    for name, value in own.items():
        if not file_format.fixes_sizes:
            raise ValueError(f"{name}: expected none but for a .c, .cpp or .so file, got {value!r}")
    if not isinstance(own.get("fast", False), bool):
        raise TypeError(f"fast: expected True or False, got {own['fast']!r}")
    if "symbol" in own:
        require_symbol("symbol", own["symbol"])
    return own
