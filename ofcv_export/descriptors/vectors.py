"""Norms and angles of vectors with a finite answer, and finite derivatives, at every geometry."""

import torch
from torch import Tensor


def norm(vectors: Tensor) -> Tensor:
    """Return the Euclidean norm over the last dimension.

    At the zero vector, where the norm has no derivative, all derivatives are 0.

    Parameters
    ----------
    vectors : torch.Tensor
        Shape (..., 3).

    Returns
    -------
    torch.Tensor
        Shape (...).
    """
    squared = (vectors * vectors).sum(-1)
    zero = squared == 0
    return torch.sqrt(squared.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def reciprocal(values: Tensor) -> Tensor:
    """Return 1 / values, and 0 with derivatives 0 where a value is 0."""
    zero = values == 0
    return torch.reciprocal(values.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def unit_circle(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Scale points (x, y) of the plane to the neighbourhood of the unit circle.

    The origin, whose angle is undefined, becomes the constant (1, 0): angle 0, derivatives 0.
    The scale is a constant of differentiation, because an angle does not depend on it.

    Parameters
    ----------
    x, y : torch.Tensor
        Coordinates, same shapes.

    Returns
    -------
    torch.Tensor, torch.Tensor
        Coordinates of which the larger one has the absolute value 1.
    """
    scale = torch.maximum(x.abs(), y.abs()).detach()
    origin = scale == 0
    scale = scale.masked_fill(origin, 1.0)
    return x.masked_fill(origin, 1.0) / scale, y.masked_fill(origin, 0.0) / scale
