"""Compiled C source (``.so``): what a .c file holds, compiled for any processor of this kind."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from ofcv_export.c_source import compiler
from ofcv_export.c_source.interface import code_in, library_text
from ofcv_export.formats.c99 import Compiled, Source
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes.shared_library import SharedLibraryRuntime, Trailer


class SharedLibrary(SharedLibraryRuntime, Source):
    """C source that the system's compiler has compiled."""

    def require(self, metadata: Metadata) -> None:
        """Raise FileNotFoundError where there is no compiler."""
        compiler.compiler()

    def write(self, compiled: Compiled, metadata: Metadata, path: Path) -> None:
        """Write the library, with the metadata in it, and its trailer."""
        text = self.text(compiled, metadata)
        facts = library_text(metadata, compiled.symbol)
        library = compiler.portable_library(code_in(text).encode(), facts.encode())
        json = metadata.to_json().encode()
        trailer = Trailer(compiled.symbol, library.index(json), len(json))
        path.write_bytes(trailer.behind(library))

    def target(self, graph: ExportGraph) -> dict[str, Any]:
        """Return what files of this graph are made for: any processor of this kind."""
        return super().target(graph) | {"instruction_set": platform.machine()}
