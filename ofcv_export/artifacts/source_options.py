"""Options that C source has and no other format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ofcv_export.base.validation import require_positive
from ofcv_export.c_source.interface import require_symbol
from ofcv_export.formats.format import Format
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.probe import probe_sizes

# The largest values of free sizes.
_SIZES = ("n", "n_nodes", "n_edges")
_NAMES = ("fast", "symbol", *_SIZES)


def graph_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an export that are the module's."""
    return {name: value for name, value in options.items() if name not in _NAMES}


def source_options(options: Mapping[str, Any], file_format: Format) -> dict[str, Any]:
    """Return the options of an export that are those of C source, checked.

    Raises
    ------
    ValueError
        If there are any for another format, the symbol is no name in C, or a size is below 1.
    TypeError
        If they are no flag, no text and no integers.
    """
    own = {name: value for name, value in options.items() if name in _NAMES}
    for name, value in own.items():
        if not file_format.fixes_sizes:
            raise ValueError(f"{name}: expected none but for a .c, .cpp or .so file, got {value!r}")
    if not isinstance(own.get("fast", False), bool):
        raise TypeError(f"fast: expected True or False, got {own['fast']!r}")
    if "symbol" in own:
        require_symbol("symbol", own["symbol"])
    for size in _SIZES:
        if size in own:
            require_positive(size, own[size])
    return own


def bounded(graph: ExportGraph, options: Mapping[str, Any]) -> ExportGraph:
    """Return a graph whose free sizes have the largest values that options of an export give.

    Raises
    ------
    ValueError
        If there are any for a graph without such sizes, or too small to try a file with.
    """
    sizes = {size: options[size] for size in _SIZES if size in options}
    tried = probe_sizes(graph.inputs)
    for size, largest in sizes.items():
        if size not in tried or size == graph.rows:
            raise ValueError(f"{size}: expected none for a {graph.kind}, got {largest}")
        if largest < tried[size]:
            raise ValueError(f"{size}: expected {tried[size]} or more, got {largest}")
    return replace(graph, largest=sizes)
