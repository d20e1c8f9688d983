"""Descriptors and their derivatives by plain formulas and autograd, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Displacement = Callable[[Tensor, Tensor], Tensor]


def displacement(box: Tensor | None) -> Displacement:
    """Return vectors from one point to another; the shortest of all images where there is a box.

    The 26 neighbours of the cell are looked at, which is enough for a lattice not very skewed.
    """
    if box is None:
        return lambda start, end: end - start
    shifts = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)

    def nearest(start: Tensor, end: Tensor) -> Tensor:
        # To the cell around the origin first, where one of the neighbours is the nearest image.
        fractions = torch.linalg.solve(box.T, (end - start).unsqueeze(-1)).squeeze(-1)
        inside = end - start - torch.round(fractions.detach()) @ box
        images = inside.unsqueeze(-2) + shifts @ box
        best = images.detach().norm(dim=-1).argmin(-1, keepdim=True)
        return images.gather(-2, best.unsqueeze(-1).expand(*best.shape, 3)).squeeze(-2)

    return nearest


def distances(r: Tensor, pairs: Tensor, vector: Displacement) -> Tensor:
    """Return distances (batch, n_pairs)."""
    return vector(r[:, pairs[:, 0]], r[:, pairs[:, 1]]).pow(2).sum(-1).sqrt()


def angles(r: Tensor, triples: Tensor, vector: Displacement) -> Tensor:
    """Return angles (batch, n) at the second atom of each triple."""
    a = vector(r[:, triples[:, 1]], r[:, triples[:, 0]])
    c = vector(r[:, triples[:, 1]], r[:, triples[:, 2]])
    return torch.acos((a * c).sum(-1) / (a.norm(dim=-1) * c.norm(dim=-1)))


def torsions(r: Tensor, chains: Tensor, vector: Displacement) -> Tensor:
    """Return torsional angles (batch, n), as the angle between two planes with a sign."""
    p, q, s = (vector(r[:, chains[:, k]], r[:, chains[:, k + 1]]) for k in range(3))
    m, n = torch.linalg.cross(p, q), torch.linalg.cross(q, s)
    cos = (m * n).sum(-1) / (m.norm(dim=-1) * n.norm(dim=-1))
    return torch.acos(cos) * torch.sign((p * n).sum(-1)).detach()


def fermi(d: Tensor, cutoff: float, q: float) -> Tensor:
    """Return 1 / (1 + exp((d - cutoff) / q))."""
    return torch.sigmoid((cutoff - d) / q)


def slopes(values: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Return the derivatives of values (batch, n), summed over frames, as (n, *shape of leaf)."""
    rows = [
        torch.autograd.grad(values[:, k].sum(), leaves, retain_graph=True, materialize_grads=True)
        for k in range(values.shape[1])
    ]
    return [torch.stack(entries) for entries in zip(*rows, strict=True)]
