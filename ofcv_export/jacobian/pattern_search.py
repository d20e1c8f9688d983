"""Finding on which atoms each descriptor of an arbitrary function depends."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ofcv_export.descriptors.sparsity_pattern import SparsityPattern

DescriptorFunction = Callable[[Tensor], Tensor]

_SEED = 0
_BASE_FRAMES = 4
_PROBE_FRAMES_AT_ONCE = 512
_MAX_VISITS_PER_FRAME = 4096
# A value that changes by less than this many rounding errors has not changed.
_ROUNDING = 64


@torch.no_grad()
def find_pattern(descriptor_function: DescriptorFunction, positions: Tensor) -> SparsityPattern:
    """Find the structure of d(descriptors)/d(positions) by moving one atom at a time.

    A descriptor depends on an atom if its value changes when that atom alone moves. In a few
    frames spread over the trajectory every atom is displaced by a random vector, and brought next
    to every other atom in turn, to half and to a hundredth of the usual distance (to a random
    subset of them when there are more than 4096 such visits a frame). The visits are finite moves:
    a switching function shows its dependence on a pair even when the two are beyond its cutoff in
    every frame given, and an axis along which a component is 0.0 is of no consequence.

    What is not guaranteed: a dependence that needs three or more atoms at special places can stay
    hidden. A set-up therefore proves each batch of frames against a plain backward pass and widens
    the pattern where it has to, see `ofcv_export.jacobian.sparse_jacobian`.

    Parameters
    ----------
    descriptor_function : callable
        Maps positions (batch, n_atoms, 3) to descriptors (batch, n_descriptors), frame by frame.
    positions : torch.Tensor
        Frames, shape (n_frames, n_atoms, 3).

    Returns
    -------
    SparsityPattern
        The structure found.
    """
    generator = torch.Generator().manual_seed(_SEED)
    n_frames, n_atoms, _ = positions.shape
    rows = torch.linspace(0, n_frames - 1, min(_BASE_FRAMES, n_frames)).long()
    dependence: Tensor | None = None
    for frame in positions[rows]:
        atoms, places = _probes(frame, generator)
        for chunk in torch.arange(len(atoms)).split(_PROBE_FRAMES_AT_ONCE):
            changed = _changes(descriptor_function, frame, atoms[chunk], places[chunk]).cpu()
            if dependence is None:
                dependence = torch.zeros(changed.shape[1], n_atoms, dtype=torch.bool)
            probe, descriptor = torch.nonzero(changed, as_tuple=True)
            dependence[descriptor, atoms[chunk][probe]] = True
    assert dependence is not None
    return SparsityPattern.from_dependence(dependence)


def _probes(frame: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return which atom moves in each probe (n_probes,) and where it goes (n_probes, 3)."""
    atoms = torch.arange(len(frame))
    visitor, host = torch.cartesian_prod(atoms, atoms).T
    visitor, host = visitor[visitor != host], host[visitor != host]
    if len(visitor) > _MAX_VISITS_PER_FRAME:
        chosen = torch.randperm(len(visitor), generator=generator)[:_MAX_VISITS_PER_FRAME]
        visitor, host = visitor[chosen], host[chosen]
    moving = torch.cat([atoms, atoms, visitor, visitor])
    origin = torch.cat([atoms, atoms, host, host])
    # Each atom goes far and a little away from itself, and visits others near and very near.
    lengths = torch.tensor([2.0, 0.1, 0.5, 0.01], dtype=torch.float64)
    counts = torch.tensor([len(atoms), len(atoms), len(visitor), len(visitor)])
    steps = torch.randn(len(moving), 3, generator=generator, dtype=torch.float64)
    steps = torch.nn.functional.normalize(steps, dim=1) * _spacing(frame)
    steps = steps * lengths.repeat_interleave(counts)[:, None]
    return moving, frame[origin.to(frame.device)] + steps.to(frame)


def _spacing(frame: Tensor) -> float:
    """Return the typical distance between neighbouring atoms, in the positions' unit."""
    distances = torch.cdist(frame.double(), frame.double()).fill_diagonal_(float("inf"))
    nearest = float(distances.amin(dim=1).median())
    return nearest if 0 < nearest < float("inf") else 1.0


def _changes(function: DescriptorFunction, frame: Tensor, atoms: Tensor, places: Tensor) -> Tensor:
    """Return which descriptors change in each probe, boolean (n_probes, n_descriptors)."""
    probes = frame.repeat(len(atoms) + 1, 1, 1)
    probes[torch.arange(1, len(probes)), atoms.to(frame.device)] = places
    descriptors = function(probes)
    before, after = descriptors[:1], descriptors[1:]
    noise = _ROUNDING * torch.finfo(descriptors.dtype).eps * before.abs()
    # Written so that a value that turns NaN counts as changed.
    return ~((after - before).abs() <= noise)
