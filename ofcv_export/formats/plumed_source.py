"""PLUMED's source (``.cpp``): C source and an action around it, which ``LOAD FILE=`` compiles."""

from __future__ import annotations

from ofcv_export.c_source.plumed import (
    action_text,
    require_action,
    require_no_action,
    require_variable,
)
from ofcv_export.formats.c99 import C99, Compiled
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes.plumed_source import PlumedSourceRuntime


class PlumedSource(PlumedSourceRuntime, C99):
    """C source that is an action of PLUMED."""

    contracts = ("plumed",)
    needs_contract = True

    def require_graph(self, graph: ExportGraph) -> None:
        """Raise ValueError unless it is a collective variable's."""
        require_variable(graph.details, graph.kind)

    def require(self, metadata: Metadata) -> None:
        """Raise ValueError unless PLUMED can give what the file takes."""
        require_action(metadata)

    def compile(self, graph: ExportGraph) -> Compiled:
        """Write the graph of one frame as a function, see `Source.compile`."""
        require_no_action(graph.symbol)
        return super().compile(graph)

    def text(self, compiled: Compiled, metadata: Metadata) -> str:
        """Return the whole file but for its digest."""
        source = super().text(compiled, metadata)
        about = f"{metadata.kind}, {metadata.inputs[0].dtype}, written {metadata.created}"
        return action_text(source, metadata, compiled.symbol, about)
