"""Machine-learned collective variables and OF-DFT rescalings for molecular-dynamics engines.

The chain rule, frozen, and the files that carry it:

- `CollectiveVariable`, `from_mlcolvar`, `KolmogorovBias`: positions -> values and derivatives.
- `SmartDerivatives`, `SparseChainRule`: d(out)/d(descriptors) -> d(out)/d(positions).
- `DimensionWiseRescaling`: density coefficients and gradients <-> a network's scale.
- `EnergyFunctional`: density coefficients -> energies and their gradient, with `AtomicReference`,
  `natural_transform` and `local_frame_transform`.
- `export`, `verify`, `load`, `read_metadata`: TorchScript, ONNX and AOTInductor artifacts.
"""

from ofcv_export.artifact import Metadata
from ofcv_export.atomic_reference import AtomicReference
from ofcv_export.basis import BasisInfo
from ofcv_export.bias import Bias
from ofcv_export.collective_variable import CollectiveVariable
from ofcv_export.energy_functional import EnergyFunctional, MoleculeFunctional
from ofcv_export.exporting import VerificationError, export
from ofcv_export.integrations.mlcolvar_models import from_mlcolvar
from ofcv_export.kolmogorov_bias import KolmogorovBias
from ofcv_export.loading import Artifact, load, read_metadata
from ofcv_export.local_frames import local_frame_transform
from ofcv_export.natural_reparametrization import natural_transform
from ofcv_export.rescaling import DimensionWiseRescaling, MoleculeRescaling
from ofcv_export.restraints import HarmonicRestraint, MovingRestraint
from ofcv_export.smart_derivatives import SmartDerivatives
from ofcv_export.sparse_chain_rule import SparseChainRule
from ofcv_export.sparsity_pattern import SparsityPattern
from ofcv_export.statistics import DatasetStatistics
from ofcv_export.verify import VerificationReport, verify

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
