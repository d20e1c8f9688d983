"""mlcolvar's descriptor objects turned into ours, without importing mlcolvar.

Objects are recognised by the exact name of their class, so that a subclass with a forward of its
own is never mistaken for its parent. Where mlcolvar 1.3.1 errs, the descriptors here do not:

- It shifts by half a box length in boxes whose edges differ; here the nearest image counts.
- Its rational switching function adds a small eps to avoid 0/0 at the cutoff, and thereby has a
  pole next to it, and in float32 a noisy derivative around it. An eps of up to 1e-6 is taken for
  what it is meant to be, the limit eps -> 0; a larger one is kept.
- Its histogram takes a batch of as many frames as there are values for one frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.boundaries import OrthorhombicBox, open_boundaries
from ofcv_export.descriptors.contacts import Contacts
from ofcv_export.descriptors.coordination import CoordinationNumbers
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.histogram import ContinuousHistogram
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.switching import Fermi, Rational, Step, SwitchingFunction
from ofcv_export.descriptors.torsions import Torsions

_MLCOLVAR = "mlcolvar.core.transform."
_TORSION_MODES = ("angle", "sin", "cos")
_LARGEST_NEGLIGIBLE_EPS = 1e-6


def recognise(function: object) -> Descriptor | None:
    """Return our descriptor equal to `function`, or None when there is none.

    Parameters
    ----------
    function : object
        A descriptor function: one of ours, one of mlcolvar's, a sequence (mlcolvar's
        ``SequentialTransform`` or ``torch.nn.Sequential``) that begins with one of them and goes
        on with mlcolvar's ``SwitchingFunctions`` of pair distances or ``ContinuousHistogram``, or
        any callable.
    """
    if isinstance(function, Descriptor):
        return function
    builder = _BUILDERS.get(_class_name(function))
    return None if builder is None else builder(function)


def recognise_switching_function(function: Any) -> SwitchingFunction:
    """Return our switching function equal to one of mlcolvar's, any other callable as it is.

    Parameters
    ----------
    function : callable
        s(r), elementwise.
    """
    if _class_name(function) != _MLCOLVAR + "tools.switching_functions.SwitchingFunctions":
        return function  # type: ignore[no-any-return]
    options = dict(function.options)
    dmax = None if function.dmax is None else float(function.dmax)
    if function.name == "Fermi":
        return Fermi(float(function.cutoff), dmax=dmax, **options)
    if not all(isinstance(options.get(name, 1), int) for name in ("n", "m")):
        return function  # type: ignore[no-any-return]
    if options.get("eps", 0.0) <= _LARGEST_NEGLIGIBLE_EPS:
        options["eps"] = 0.0
    return Rational(float(function.cutoff), dmax=dmax, **options)


def _class_name(function: object) -> str:
    return f"{type(function).__module__}.{type(function).__qualname__}"


def _box(source: Any) -> OrthorhombicBox:
    if not source.PBC and not source.scaled_coords:
        return open_boundaries()
    lengths = torch.as_tensor(source.cell, dtype=torch.float64).detach().cpu().reshape(-1)
    if len(lengths) == 1:
        lengths = lengths.expand(3)
    return OrthorhombicBox(lengths, bool(source.PBC), bool(source.scaled_coords))


def _pairwise_distances(source: Any) -> PairDistances:
    pairs = source.slicing_pairs
    pairs = all_pairs(source.n_atoms) if pairs is None else pairs.detach().cpu().long()
    return PairDistances(pairs, source.n_atoms, _box(source))


def _torsional_angle(source: Any) -> Descriptor:
    modes = tuple(_TORSION_MODES[index] for index in source.mode_idx)
    atoms = source.indices.detach().cpu().long().reshape(1, 4)
    return Torsions(atoms, source.n_atoms, modes, _box(source))


def _coordination_numbers(source: Any) -> Descriptor | None:
    group_a = torch.as_tensor(source.group_A, dtype=torch.int64).cpu()
    group_b = torch.as_tensor(source.group_B, dtype=torch.int64).cpu()
    # mlcolvar counts an atom of both groups as its own neighbour, at distance 0.
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


def _sequence(source: Any) -> Descriptor | None:
    first, *others = list(source) or [None]
    descriptor = recognise(first)
    for transform in others:
        descriptor = None if descriptor is None else _followed_by(descriptor, transform)
    return descriptor


def _followed_by(descriptor: Descriptor, transform: Any) -> Descriptor | None:
    """Return the descriptor with one of mlcolvar's functions of its values on top."""
    name = _class_name(transform)
    if name == _MLCOLVAR + "tools.continuous_hist.ContinuousHistogram":
        return ContinuousHistogram(
            descriptor,
            float(transform.min),
            float(transform.max),
            int(transform.bins),
            float(transform.sigma_to_center),
        )
    is_switch = name == _MLCOLVAR + "tools.switching_functions.SwitchingFunctions"
    if is_switch and type(descriptor) is PairDistances:
        switch = recognise_switching_function(transform)
        return Contacts(descriptor.pairs, descriptor.n_atoms, switch, descriptor.box)
    return None


def _switching_function(source: Any) -> SwitchingFunction:
    if source.mode == "discontinuous":
        return Step(float(source.cutoff))
    return recognise_switching_function(source.switching_function)


_BUILDERS: dict[str, Callable[[Any], Descriptor | None]] = {
    _MLCOLVAR + "descriptors.pairwise_distances.PairwiseDistances": _pairwise_distances,
    _MLCOLVAR + "descriptors.torsional_angle.TorsionalAngle": _torsional_angle,
    _MLCOLVAR + "descriptors.coordination_numbers.CoordinationNumbers": _coordination_numbers,
    _MLCOLVAR + "descriptors.eigs_adjacency_matrix.EigsAdjMat": _adjacency_eigenvalues,
    _MLCOLVAR + "descriptors.multiple_descriptors.MultipleDescriptors": _multiple_descriptors,
    _MLCOLVAR + "utils.SequentialTransform": _sequence,
    "torch.nn.modules.container.Sequential": _sequence,
}
