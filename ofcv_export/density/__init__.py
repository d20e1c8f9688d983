"""Orbital-free DFT: density coefficients in, rescaled coefficients or energy and gradient out.

`density.fitting` makes the statistics of a data set from density labels. May import `base` and
`graph`.
"""

from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.dataset_statistics import DatasetStatistics
from ofcv_export.density.energy_functional import EnergyFunctional, MoleculeFunctional
from ofcv_export.density.local_frames import local_frame_transform
from ofcv_export.density.natural_reparametrization import natural_transform
from ofcv_export.density.rescaling import DimensionWiseRescaling, MoleculeRescaling

__all__ = [
    "AtomicReference",
    "BasisInfo",
    "DatasetStatistics",
    "DimensionWiseRescaling",
    "EnergyFunctional",
    "MoleculeFunctional",
    "MoleculeRescaling",
    "local_frame_transform",
    "natural_transform",
]
