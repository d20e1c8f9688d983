"""What an export hands over: names and shapes, metadata, the traced graph and its rewriting.

Modules of `jacobian`, `variables` and `density` describe themselves with it; formats and contracts
take what it makes. May import `base` only.
"""

from ofcv_export.graph.export_graph import Exportable, ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TensorSpec

__all__ = ["ExportGraph", "Exportable", "Metadata", "TensorSpec"]
