"""Vectors between atoms under periodic boundary conditions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofcv_export.validation import require_finite, require_shape


class OrthorhombicBox(nn.Module):
    """A fixed box with perpendicular edges, or open boundaries.

    Parameters
    ----------
    lengths : torch.Tensor, optional
        Edge lengths, shape (3,). None for open boundaries in real coordinates.
    periodic : bool
        Whether the nearest image counts.
    scaled : bool
        Whether positions are fractions of the edges.

    Raises
    ------
    ValueError
        If lengths are needed but absent, or are not three positive numbers.
    """

    lengths: Tensor

    def __init__(self, lengths: Tensor | None, periodic: bool, scaled: bool = False) -> None:
        super().__init__()
        if lengths is None:
            if periodic or scaled:
                raise ValueError("box: expected three edge lengths, got none")
            lengths = torch.ones(3)
        lengths = lengths.to(torch.float64)
        require_shape("box", lengths, (3,))
        require_finite("box", lengths)
        if bool((lengths <= 0).any()):
            raise ValueError(f"box: expected positive edge lengths, got {lengths.tolist()}")
        self.register_buffer("lengths", lengths, persistent=False)
        self.periodic = periodic
        self.scaled = scaled

    def displacement(self, start: Tensor, end: Tensor) -> Tensor:
        """Return the vectors from `start` to `end`, shape (..., 3), in real units.

        In a box with perpendicular edges rounding each component gives the nearest image.
        """
        lengths = self.lengths.to(start)
        vectors = end - start
        if self.scaled:
            if self.periodic:
                vectors = vectors - torch.round(vectors)
            return vectors * lengths
        if self.periodic:
            vectors = vectors - lengths * torch.round(vectors / lengths)
        return vectors

    def to_positions(self, derivatives: Tensor) -> Tensor:
        """Turn derivatives with respect to real vectors into those with respect to positions."""
        return derivatives * self.lengths.to(derivatives) if self.scaled else derivatives
