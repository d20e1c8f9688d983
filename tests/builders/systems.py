"""Small systems and judges of derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ofcv_export import SmartDerivatives
from ofcv_export.descriptors.boundaries import OrthorhombicBox
from ofcv_export.descriptors.distances import PairDistances

OPEN = OrthorhombicBox(None, periodic=False)


def all_pairs(n_atoms: int) -> PairDistances:
    """Return all pair distances without a box."""
    return PairDistances(torch.triu_indices(n_atoms, n_atoms, offset=1).T, n_atoms, OPEN)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normally distributed numbers, the same ones in each dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def frames(
    n_frames: int, n_atoms: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    """Return random positions."""
    return normal(n_frames, n_atoms, 3, seed=seed, dtype=dtype)


def dense_jacobian(function: Callable[[Tensor], Tensor], positions: Tensor) -> Tensor:
    """Return d(desc)/d(pos) by autograd, one descriptor at a time, (batch, D, n_atoms, 3)."""
    positions = positions.detach().requires_grad_()
    descriptors = function(positions)
    rows = [
        torch.autograd.grad(
            descriptors[:, index].sum(), positions, retain_graph=True, materialize_grads=True
        )[0]
        for index in range(descriptors.shape[1])
    ]
    return torch.stack(rows, dim=1)


def plain_distances(positions: Tensor, pairs: Tensor | None = None) -> Tensor:
    """Return distances (batch, n_pairs) without a box, of all pairs by default; shares no code."""
    if pairs is None:
        pairs = torch.combinations(torch.arange(positions.shape[1]))
    return (positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]).norm(dim=2)


def by_autograd(function: Callable[[Tensor], Tensor], positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (batch, n) and derivatives (batch, n, n_atoms, 3) in float64."""
    positions = positions.double()
    return function(positions).detach(), dense_jacobian(function, positions)


def small_setup(dtype: torch.dtype = torch.float32) -> SmartDerivatives:
    """Return all pair distances of 5 atoms frozen in 7 frames."""
    smart = SmartDerivatives()
    smart.setup({"data": frames(7, 5, dtype)}, all_pairs(5), n_atoms=5)
    return smart
