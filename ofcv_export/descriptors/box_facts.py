"""What descriptors make of boxes and periodic images, taken together."""

from __future__ import annotations

from typing import Any

from ofcv_export.descriptors.boundaries import Boundaries, RuntimeBox, open_boundaries
from ofcv_export.descriptors.descriptor import Descriptor


def box_facts(descriptor: Descriptor) -> dict[str, Any]:
    """Return the fields of `ofcv_export.graph.details.Box` for a descriptor and all its parts."""
    parts = [boundaries for leaf in _leaves(descriptor) for boundaries in _boundaries(leaf)]
    at_run_time = [part for part in parts if isinstance(part, RuntimeBox)]
    only = "orthorhombic" if any(part.orthorhombic for part in at_run_time) else "triclinic"
    fixed = [part.lattice().tolist() for part in parts if part.periodic and not part.takes_box]
    return {
        "run_time": only if at_run_time else None,
        "fixed": tuple(sorted({tuple(map(tuple, lattice)) for lattice in fixed})),
        "open": not all(part.periodic for part in parts),
        "fractions": any(part.scaled for part in parts),
    }


def _leaves(descriptor: Descriptor) -> list[Descriptor]:
    """Return the descriptors in a descriptor that hold no others."""
    everything = [part for part in descriptor.modules() if isinstance(part, Descriptor)]
    return [
        part
        for part in everything
        if not any(isinstance(inner, Descriptor) for inner in part.modules() if inner is not part)
    ]


def _boundaries(leaf: Descriptor) -> list[Boundaries]:
    """Return a descriptor's boundaries; one without any takes vectors as they are."""
    found = [part for part in leaf.modules() if isinstance(part, Boundaries)]
    return found or [open_boundaries()]
