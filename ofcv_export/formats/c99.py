"""C source (``.c``): one C99 file that needs no runtime, with the same bits from any compiler."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import fx

from ofcv_export.c_source.emitter import emit
from ofcv_export.c_source.function import ON_STACK, Function
from ofcv_export.c_source.interface import source_text
from ofcv_export.formats.format import Format
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import COUNTED, TensorSpec, symbols
from ofcv_export.runtimes.c99 import DIGEST, C99Runtime

# Numbers in tables that a compiler takes in its stride.
_MOST_CONSTANTS = 2**20
# Memory of a file with free sizes, which is no stack's.
_MOST_BYTES = 2**30
# Rows that are computed at a time where their number is free: some vectors.
_ROWS = 32


@dataclass(frozen=True)
class Compiled:
    """What is written: a function, what it takes and gives, and the beginning of its name."""

    function: Function
    specs: tuple[TensorSpec, ...]
    symbol: str


class Source(Format):
    """What is written as C99 and compiled, now or later."""

    fixes_sizes = True

    def require_graph(self, graph: ExportGraph) -> None:
        """Raise ValueError if a size is free for which there is no largest value."""
        free = [size for size in symbols(_one_frame(graph).inputs) if size not in graph.largest]
        if free:
            raise ValueError(
                f"{free[0]}: expected the largest number of {COUNTED[free[0]]} "
                f"for a {self.suffix} file, got none"
            )

    def compile(self, graph: ExportGraph) -> Compiled:
        """Write the graph of one frame as a function.

        Raises
        ------
        ValueError
            If an operator is one that C source cannot hold, or there are more constants or
            intermediate results than a compiler or a stack has room for.
        """
        frame = _one_frame(graph)
        module = frame.module.eval()
        assert isinstance(module, fx.GraphModule)
        given = probe(frame.inputs, graph.largest)
        specs = frame.inputs if graph.largest else ()
        function = emit(module, given, f"{graph.symbol}_frame", graph.fast, specs)
        most_bytes = _MOST_BYTES if graph.largest else ON_STACK
        _require_at_most("constants", function.n_constants, _MOST_CONSTANTS)
        _require_at_most("bytes of intermediate results", function.n_bytes, most_bytes)
        return Compiled(function, (*frame.inputs, *frame.outputs), graph.symbol)

    def text(self, compiled: Compiled, metadata: Metadata) -> str:
        """Return the whole file but for its digest."""
        version = metadata.versions["ofcv-export"]
        return source_text(compiled.function, compiled.specs, metadata, compiled.symbol, version)


class C99(C99Runtime, Source):
    """C99 source, compiled by the system's compiler."""

    def write(self, compiled: Compiled, metadata: Metadata, path: Path) -> None:
        """Write the source, its metadata as an array, and a digest of both as the last line."""
        content = self.text(compiled, metadata).encode()
        path.write_bytes(content + DIGEST % hashlib.sha256(content).hexdigest().encode())


def _one_frame(graph: ExportGraph) -> ExportGraph:
    """Return the graph that C source calls for one frame or row after the other."""
    if graph.rows is not None:
        return graph.with_size(graph.rows, _ROWS)
    return graph.frame or graph


def _require_at_most(what: str, found: int, most: int) -> None:
    if found > most:
        raise ValueError(
            f"module: expected at most {most} {what} for a .c file, got {found} (.pt2 has no limit)"
        )
