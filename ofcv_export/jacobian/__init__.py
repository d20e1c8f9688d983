"""d(out)/d(descriptors) -> d(out)/d(positions) through a sparse Jacobian that is frozen.

The Jacobian's pattern is found, its values are evaluated and proved, and the chain rule applies
them. May import `base`, `descriptors` and `graph`.
"""

from ofcv_export.jacobian.smart_derivatives import SmartDerivatives
from ofcv_export.jacobian.sparse_chain_rule import SparseChainRule

__all__ = ["SmartDerivatives", "SparseChainRule"]
