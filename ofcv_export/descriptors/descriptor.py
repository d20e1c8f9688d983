"""What every analytic descriptor offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ofcv_export.sparsity_pattern import SparsityPattern


class Descriptor(nn.Module, ABC):
    """Functions of positions with a fixed sparsity pattern and analytic derivatives.

    Attributes
    ----------
    n_atoms : int
        Number of atoms in a frame.
    n_descriptors : int
        Number of values per frame.
    """

    n_atoms: int
    n_descriptors: int

    @abstractmethod
    def forward(self, positions: Tensor) -> Tensor:
        """Return the descriptors (batch, n_descriptors) of positions (batch, n_atoms, 3)."""

    def specification(self) -> dict[str, Any] | None:
        """Return a JSON-able description for an artifact's metadata, or None where there is none.

        An engine that knows the type can compute the descriptors' derivatives itself.
        """
        return None

    @abstractmethod
    def pattern(self) -> SparsityPattern:
        """Return the structure of the derivatives."""

    @abstractmethod
    def jacobian(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors (batch, n_descriptors) and derivatives (batch, n_blocks, 3)."""
