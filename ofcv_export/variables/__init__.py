"""Collective variables and biases: positions in, values and their derivatives out.

May import `base`, `descriptors` and `graph`.
"""

from ofcv_export.variables.bias import Bias
from ofcv_export.variables.collective_variable import CollectiveVariable
from ofcv_export.variables.graph_collective_variable import GraphCollectiveVariable
from ofcv_export.variables.kolmogorov_bias import KolmogorovBias
from ofcv_export.variables.restraints import HarmonicRestraint, MovingRestraint

__all__ = [
    "Bias",
    "CollectiveVariable",
    "GraphCollectiveVariable",
    "HarmonicRestraint",
    "KolmogorovBias",
    "MovingRestraint",
]
