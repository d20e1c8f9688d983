"""What an export hands over: names and shapes, metadata, the traced graph and its rewriting.

Modules of `jacobian`, `variables` and `density` describe themselves with it; formats and contracts
take what it makes. `metadata`, `details` and `tensor_spec` need no PyTorch. May import `base` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofcv_export.base.lazy import lazy_names

if TYPE_CHECKING:
    from ofcv_export.graph.export_graph import Exportable, ExportGraph
    from ofcv_export.graph.metadata import Metadata
    from ofcv_export.graph.tensor_spec import TensorSpec
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ExportGraph": "ofcv_export.graph.export_graph",
            "Exportable": "ofcv_export.graph.export_graph",
            "Metadata": "ofcv_export.graph.metadata",
            "TensorSpec": "ofcv_export.graph.tensor_spec",
        },
    )

__all__ = ["ExportGraph", "Exportable", "Metadata", "TensorSpec"]
