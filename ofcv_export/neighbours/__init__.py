"""The neighbourhood of graph collective variables: which atoms are nodes, which pairs are edges.

NumPy and vesin. May import `base` only.
"""

from ofcv_export.neighbours.atom_graph import AtomGraph
from ofcv_export.neighbours.neighbourhood import Neighbourhood

__all__ = ["AtomGraph", "Neighbourhood"]
