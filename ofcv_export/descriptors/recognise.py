"""mlcolvar's descriptor objects turned into analytic ones, without importing mlcolvar.

Objects are recognised by the exact name of their class, so that a subclass with a forward of its
own is never mistaken for its parent. mlcolvar 1.3.1 shifts by half a box length in boxes whose
edges differ; the descriptors here take the nearest image in every orthorhombic box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.coordination import CoordinationNumbers, SwitchingFunction
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.geometry import OrthorhombicBox
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.torsions import MODES, Torsion

_MLCOLVAR = "mlcolvar.core.transform.descriptors."


def recognise(function: object) -> Descriptor | None:
    """Return the analytic descriptor equal to `function`, or None when there is none.

    Parameters
    ----------
    function : object
        A descriptor function: one of ours, one of mlcolvar's, or any callable.
    """
    if isinstance(function, Descriptor):
        return function
    name = f"{type(function).__module__}.{type(function).__qualname__}"
    builder = _BUILDERS.get(name)
    return None if builder is None else builder(function)


def _box(source: Any) -> OrthorhombicBox:
    lengths = torch.as_tensor(source.cell, dtype=torch.float64).detach().cpu().reshape(-1)
    if len(lengths) == 1:
        lengths = lengths.expand(3)
    return OrthorhombicBox(lengths, bool(source.PBC), bool(source.scaled_coords))


def _pairwise_distances(source: Any) -> Descriptor:
    pairs = source.slicing_pairs
    if pairs is None:
        pairs = torch.triu_indices(source.n_atoms, source.n_atoms, offset=1).T
    return PairDistances(pairs.detach().cpu().long(), source.n_atoms, _box(source))


def _torsional_angle(source: Any) -> Descriptor:
    modes = tuple(MODES[index] for index in source.mode_idx)
    atoms = source.indices.detach().cpu().long().flatten()
    return Torsion(atoms, source.n_atoms, modes, _box(source))


def _coordination_numbers(source: Any) -> Descriptor | None:
    group_a = torch.as_tensor(source.group_A, dtype=torch.int64).cpu()
    group_b = torch.as_tensor(source.group_B, dtype=torch.int64).cpu()
    if bool(torch.isin(group_a, group_b).any()):
        return None
    return CoordinationNumbers(
        group_a,
        group_b,
        source.n_atoms,
        _switching_function(source),
        None if source.dmax is None else float(source.dmax),
        _box(source),
    )


def _adjacency_eigenvalues(source: Any) -> Descriptor:
    return AdjacencyEigenvalues(source.n_atoms, _switching_function(source), _box(source))


def _multiple_descriptors(source: Any) -> Descriptor | None:
    descriptors = [recognise(part) for part in source.descriptors_list]
    known = [descriptor for descriptor in descriptors if descriptor is not None]
    if len(known) < len(descriptors) or len({descriptor.n_atoms for descriptor in known}) > 1:
        return None
    return MultipleDescriptors(known)


def _switching_function(source: Any) -> SwitchingFunction:
    if source.mode == "discontinuous":
        cutoff = float(source.cutoff)
        return lambda distances: (distances < cutoff).to(distances.dtype)
    function: Callable[[Tensor], Tensor] = source.switching_function
    return function


_BUILDERS: dict[str, Callable[[Any], Descriptor | None]] = {
    _MLCOLVAR + "pairwise_distances.PairwiseDistances": _pairwise_distances,
    _MLCOLVAR + "torsional_angle.TorsionalAngle": _torsional_angle,
    _MLCOLVAR + "coordination_numbers.CoordinationNumbers": _coordination_numbers,
    _MLCOLVAR + "eigs_adjacency_matrix.EigsAdjMat": _adjacency_eigenvalues,
    _MLCOLVAR + "multiple_descriptors.MultipleDescriptors": _multiple_descriptors,
}
