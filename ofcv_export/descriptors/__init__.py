"""Positions -> descriptors: functions of atomic positions with a fixed sparsity pattern.

Descriptors, boundary conditions, switching functions, and the recognition of mlcolvar's objects.
May import `base` only.
"""

from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.alignment import AlignedPositions
from ofcv_export.descriptors.angles import Angles
from ofcv_export.descriptors.boundaries import (
    Boundaries,
    OrthorhombicBox,
    RuntimeBox,
    TriclinicBox,
)
from ofcv_export.descriptors.contacts import Contacts
from ofcv_export.descriptors.coordination import CoordinationNumbers
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.histogram import ContinuousHistogram
from ofcv_export.descriptors.inverse_distances import InverseDistances
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.rmsd import RMSD
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.switching import Fermi, Rational, Step
from ofcv_export.descriptors.torsions import Torsions

__all__ = [
    "RMSD",
    "AdjacencyEigenvalues",
    "AlignedPositions",
    "Angles",
    "Boundaries",
    "Contacts",
    "ContinuousHistogram",
    "CoordinationNumbers",
    "Descriptor",
    "Fermi",
    "InverseDistances",
    "MultipleDescriptors",
    "OrthorhombicBox",
    "PairDistances",
    "Rational",
    "RuntimeBox",
    "SparsityPattern",
    "Step",
    "Torsions",
    "TriclinicBox",
    "all_pairs",
]
