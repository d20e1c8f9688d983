"""Machine-learned collective variables and OF-DFT rescalings for molecular-dynamics engines.

The chain rule, frozen, and the files that carry it:

- `CollectiveVariable`, `from_mlcolvar`, `KolmogorovBias`: positions -> values and derivatives.
- `SmartDerivatives`, `SparseChainRule`: d(out)/d(descriptors) -> d(out)/d(positions).
- `DimensionWiseRescaling`: density coefficients and gradients <-> a network's scale.
- `EnergyFunctional`: density coefficients -> energies and their gradient, with `AtomicReference`,
  `natural_transform` and `local_frame_transform`.
- `export`, `verify`, `load`, `read_metadata`: TorchScript, ONNX and AOTInductor artifacts.
"""

from ofcv_export.artifacts.exporting import VerificationError, export
from ofcv_export.artifacts.loading import Artifact, load, read_metadata
from ofcv_export.artifacts.verification import VerificationReport, verify
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.dataset_statistics import DatasetStatistics
from ofcv_export.density.energy_functional import EnergyFunctional, MoleculeFunctional
from ofcv_export.density.local_frames import local_frame_transform
from ofcv_export.density.natural_reparametrization import natural_transform
from ofcv_export.density.rescaling import DimensionWiseRescaling, MoleculeRescaling
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.graph.metadata import Metadata
from ofcv_export.integrations.mlcolvar_models import from_mlcolvar
from ofcv_export.jacobian.smart_derivatives import SmartDerivatives
from ofcv_export.jacobian.sparse_chain_rule import SparseChainRule
from ofcv_export.variables.bias import Bias
from ofcv_export.variables.collective_variable import CollectiveVariable
from ofcv_export.variables.kolmogorov_bias import KolmogorovBias
from ofcv_export.variables.restraints import HarmonicRestraint, MovingRestraint

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
