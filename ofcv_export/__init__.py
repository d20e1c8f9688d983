"""Machine-learned collective variables and OF-DFT rescalings for molecular-dynamics engines.

The chain rule, frozen, and the files that carry it:

- `CollectiveVariable`, `from_mlcolvar`, `KolmogorovBias`: positions -> values and derivatives.
- `SmartDerivatives`, `SparseChainRule`: d(out)/d(descriptors) -> d(out)/d(positions).
- `DimensionWiseRescaling`: density coefficients and gradients <-> a network's scale.
- `EnergyFunctional`: density coefficients -> energies and their gradient, with `AtomicReference`,
  `natural_transform` and `local_frame_transform`.
- `export`, `verify`, `load`, `read_metadata`: TorchScript, ONNX and AOTInductor artifacts.
"""

from ofcv_export.artifacts import (
    Artifact,
    VerificationError,
    VerificationReport,
    export,
    load,
    read_metadata,
    verify,
)
from ofcv_export.density import (
    AtomicReference,
    BasisInfo,
    DatasetStatistics,
    DimensionWiseRescaling,
    EnergyFunctional,
    MoleculeFunctional,
    MoleculeRescaling,
    local_frame_transform,
    natural_transform,
)
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.graph.metadata import Metadata
from ofcv_export.integrations.mlcolvar_models import from_mlcolvar
from ofcv_export.jacobian import SmartDerivatives, SparseChainRule
from ofcv_export.variables import (
    Bias,
    CollectiveVariable,
    HarmonicRestraint,
    KolmogorovBias,
    MovingRestraint,
)

__all__ = [
    "Artifact",
    "AtomicReference",
    "BasisInfo",
    "Bias",
    "CollectiveVariable",
    "DatasetStatistics",
    "DimensionWiseRescaling",
    "EnergyFunctional",
    "HarmonicRestraint",
    "KolmogorovBias",
    "Metadata",
    "MoleculeFunctional",
    "MoleculeRescaling",
    "MovingRestraint",
    "SmartDerivatives",
    "SparseChainRule",
    "SparsityPattern",
    "VerificationError",
    "VerificationReport",
    "export",
    "from_mlcolvar",
    "load",
    "local_frame_transform",
    "natural_transform",
    "read_metadata",
    "verify",
]
