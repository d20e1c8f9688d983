"""Machine-learned collective variables and OF-DFT rescalings for molecular-dynamics engines.

The chain rule, frozen, and the files that carry it:

- `CollectiveVariable`, `from_mlcolvar`, `KolmogorovBias`: positions -> values and derivatives.
- `SmartDerivatives`, `SparseChainRule`: d(out)/d(descriptors) -> d(out)/d(positions).
- `DimensionWiseRescaling`: density coefficients and gradients <-> a network's scale.
- `EnergyFunctional`: density coefficients -> energies and their gradient, with `AtomicReference`,
  `natural_transform` and `local_frame_transform`.
- `export`, `verify`, `load`, `read_metadata`: C, TorchScript, ONNX and AOTInductor artifacts.

`load`, `read_metadata` and the engines need no PyTorch but for ``.pt`` and ``.pt2`` files. Each
name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofcv_export.base.lazy import lazy_names

if TYPE_CHECKING:
    from ofcv_export.artifacts.exporting import VerificationError, export
    from ofcv_export.artifacts.loading import Artifact, load, read_metadata
    from ofcv_export.artifacts.verification import VerificationReport, verify
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
        GraphCollectiveVariable,
        HarmonicRestraint,
        KolmogorovBias,
        MovingRestraint,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Artifact": "ofcv_export.artifacts.loading",
            "AtomicReference": "ofcv_export.density",
            "BasisInfo": "ofcv_export.density",
            "Bias": "ofcv_export.variables",
            "CollectiveVariable": "ofcv_export.variables",
            "DatasetStatistics": "ofcv_export.density",
            "DimensionWiseRescaling": "ofcv_export.density",
            "EnergyFunctional": "ofcv_export.density",
            "GraphCollectiveVariable": "ofcv_export.variables",
            "HarmonicRestraint": "ofcv_export.variables",
            "KolmogorovBias": "ofcv_export.variables",
            "Metadata": "ofcv_export.graph.metadata",
            "MoleculeFunctional": "ofcv_export.density",
            "MoleculeRescaling": "ofcv_export.density",
            "MovingRestraint": "ofcv_export.variables",
            "SmartDerivatives": "ofcv_export.jacobian",
            "SparseChainRule": "ofcv_export.jacobian",
            "SparsityPattern": "ofcv_export.descriptors.sparsity_pattern",
            "VerificationError": "ofcv_export.artifacts.exporting",
            "VerificationReport": "ofcv_export.artifacts.verification",
            "export": "ofcv_export.artifacts.exporting",
            "from_mlcolvar": "ofcv_export.integrations.mlcolvar_models",
            "load": "ofcv_export.artifacts.loading",
            "local_frame_transform": "ofcv_export.density",
            "natural_transform": "ofcv_export.density",
            "read_metadata": "ofcv_export.artifacts.loading",
            "verify": "ofcv_export.artifacts.verification",
        },
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
    "GraphCollectiveVariable",
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
