"""Functions of the distance of each pair of atoms."""

from abc import abstractmethod

from torch import Tensor

from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern


class DistanceFunctions(Descriptor):
    """f(|r_j - r_i|) for chosen pairs (i, j).

    Parameters
    ----------
    pairs, n_atoms, box
        As those of `PairDistances`.
    """

    def __init__(self, pairs: Tensor, n_atoms: int, box: Boundaries | None = None) -> None:
        distances = PairDistances(pairs, n_atoms, box)
        super().__init__(n_atoms, distances.n_descriptors, distances.takes_box)
        self.distances = distances
        self.antisymmetric = True

    @abstractmethod
    def function(self, distances: Tensor) -> Tensor:
        """Return f(r), elementwise."""

    @abstractmethod
    def value_and_slope(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(r) and f'(r), elementwise."""

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the functions, shape (batch, n_pairs)."""
        return self.function(self.distances(positions, box))

    def pattern(self) -> SparsityPattern:
        """Return two blocks per pair: its first atom, then its second."""
        return self.distances.pattern()

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the functions and their derivatives, f'(r) along the unit vectors."""
        distances, blocks = self.distances.jacobian(positions, box)
        values, slopes = self.value_and_slope(distances)
        return values, blocks * slopes.repeat_interleave(2, dim=1).unsqueeze(2)
