"""Values and derivatives of a network of pair distances, for one frame and without a box.

``cyclic pairs``
    For most pairs of the atoms. Pairs are visited by cyclic shifts: the shift s pairs every atom i
    with the atom i + s, wrapped around, for s = 1 to n_atoms / 2. Then neighbours in the list are
    neighbours in memory; nothing is gathered, and no pair force is scattered.
``gathered pairs``
    For chosen pairs. A position is a row that fills a vector register: fetching one, and adding a
    force to one, is one instruction instead of three. On a GPU for all pairs: there each atom
    fetches its partners and adds its own forces up, in the fewest kernels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ofcv_export.base.groups import Groups
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.graph.derivatives import Outputs
from ofcv_export.graph.matrix_vector import KEEPS_VIEWS

if TYPE_CHECKING:
    from ofcv_export.variables.variable import Head, Variable

# Rows of numbers are filled up to whole vector instructions, of float32 with AVX2.
_VECTOR = 8
# With fewer of all pairs than this share, cyclic shifts visit too many that nobody asked for.
_SMALLEST_SHARE = 0.5
# A row for each atom as long as the longest may take so many times what the pairs themselves do.
_LARGEST_TABLE = 8


def pair_form(variable: Variable, device: str, compiled: bool) -> PairForm | None:
    """Return the form that suits a collective variable of pair distances.

    Parameters
    ----------
    variable : Variable
        Any one.
    device : str
        Where it will run.
    compiled : bool
        Whether Inductor compiles it, which likes rows of whole vectors.

    Returns
    -------
    PairForm or None
        None for other descriptors, for distances in a box, and for variables that read positions.
    """
    distances, head = variable.descriptors, variable.head()
    # A subclass of PairDistances may give something else.
    if type(distances) is not PairDistances or head is None:
        return None
    if distances.box.specification() is not None:
        return None
    n_atoms, n_pairs = distances.n_atoms, distances.n_descriptors
    are_distinct = len({frozenset(pair) for pair in distances.pairs.tolist()}) == n_pairs
    are_most = 2 * n_pairs >= _SMALLEST_SHARE * n_atoms * (n_atoms - 1)
    form: type[PairForm] = GatheredPairs
    if device != "cpu":
        widest = int(torch.bincount(distances.pairs.flatten()).max())
        if n_atoms * widest <= _LARGEST_TABLE * 2 * n_pairs:
            form = GatheredPartners
    elif are_distinct and are_most:
        form = CyclicPairs
    return form(distances, head, variable.n_outputs, variable.dtype, _VECTOR if compiled else 1)


class PairForm(ABC):
    """Maps positions (1, n_atoms, 3) and parameters to values and derivatives.

    Parameters
    ----------
    distances : PairDistances
        The descriptors, without a box.
    head : callable
        Maps distances (1, n_pairs) and parameters to values (1, n_outputs).
    n_outputs : int
        Number of values.
    dtype : torch.dtype
        Of positions and values.
    multiple : int
        Rows are filled up to a multiple of so many numbers.

    Attributes
    ----------
    name : str
        What metadata call the form.
    """

    name: Literal["cyclic pairs", "gathered pairs"]

    def __init__(
        self,
        distances: PairDistances,
        head: Head,
        n_outputs: int,
        dtype: torch.dtype,
        multiple: int,
    ) -> None:
        self.multiple = multiple
        self.n_atoms = distances.n_atoms
        self.n_pairs = distances.n_descriptors
        self.first, self.second = distances.start, distances.end
        self.seeds = torch.eye(n_outputs, dtype=dtype)
        self.head = head
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Compute what depends on the pairs alone."""

    @abstractmethod
    def __call__(self, positions: Tensor, *parameters: Tensor) -> Outputs:
        """Return values (1, n_outputs) and derivatives (1, n_outputs, n_atoms, 3)."""

    def _derivatives(
        self,
        distances: Tensor,
        parameters: tuple[Tensor, ...],
        from_slopes: Callable[[Tensor], Tensor],
    ) -> Outputs:
        """Return values and derivatives.

        From distances (1, n_pairs), and a function that takes the derivatives of a value with
        respect to them to those with respect to positions (n_atoms, 3).
        """
        values, pullback = torch.func.vjp(  # type: ignore[misc]
            lambda descriptors: self.head(descriptors, *parameters), distances
        )
        derivatives = [from_slopes(pullback(seed.expand_as(values))[0]) for seed in self.seeds]
        stacked = torch.stack(derivatives).unsqueeze(0)
        # Inductor would return transposed rows as they lie in memory, to be copied once more.
        return values, stacked.clone(memory_format=torch.contiguous_format)


class CyclicPairs(PairForm):
    """Distances of all pairs by cyclic shifts.

    Row s - 1 and column i of the arrays of pairs are those of the atoms i and i + s. Columns from
    n_atoms on only fill the rows up; their numbers, and pairs that nobody asked for, get no weight.
    """

    name = "cyclic pairs"

    def _prepare(self) -> None:
        self.n_shifts = self.n_atoms // 2
        self.width = _filled_up(self.n_atoms, self.multiple)
        self.place = self._places()
        # The pair at a place; the number of pairs where there is none.
        self.pair = torch.full((self.n_shifts * self.width,), self.n_pairs)
        self.pair[self.place] = torch.arange(self.n_pairs)

    def __call__(self, positions: Tensor, *parameters: Tensor) -> Outputs:
        """Return values and derivatives, see `PairForm`."""
        shape = (self.n_shifts, self.width)
        columns = self.width + 2 * self.n_shifts
        # Every atom that a row reaches by a shift in either direction, wrapped around.
        atoms = positions[0].t()
        copies = [atoms] * (-(-columns // self.n_atoms) - 1)
        x = torch.cat([atoms[:, self.n_atoms - self.n_shifts :], *copies, atoms], dim=1)
        x = _in_memory(x[:, :columns])
        shifted = x.unfold(1, self.width, 1)
        before, here, after = shifted.split([self.n_shifts, 1, self.n_shifts], dim=1)
        to_after = after - here
        from_before = here - before.flip(1)

        squared = to_after[0] * to_after[0] + to_after[1] * to_after[1] + to_after[2] * to_after[2]
        inverse = _in_memory(_inverse(squared))
        distances = _in_memory(squared * inverse).view(1, -1)

        def from_slopes(slopes: Tensor) -> Tensor:
            slopes = torch.constant_pad_nd(slopes, [0, 1]).index_select(1, self.pair)
            forces = slopes.view(shape) * inverse
            # The same numbers again from the left, for atoms reached from the pair's other end.
            tail = forces[:, self.n_atoms - self.n_shifts : self.n_atoms]
            forces = _in_memory(torch.cat([tail, forces], dim=1))
            leaving = forces[:, self.n_shifts :]
            # Each row begins one place further to the left than the one before it.
            row = self.n_shifts + self.width - 1
            arriving = forces.flatten()[self.n_shifts - 1 : -1].view(self.n_shifts, row)
            arriving = arriving[:, : self.width]
            total = (arriving * from_before - leaving * to_after).sum(1)
            return total[:, : self.n_atoms].t()

        return self._derivatives(distances.index_select(1, self.place), parameters, from_slopes)

    def _places(self) -> Tensor:
        """Return the place of every pair among the rows of shifts, flattened."""
        shift = (self.second - self.first) % self.n_atoms
        other = self.n_atoms - shift
        is_forward = (shift < other) | ((shift == other) & (self.first < self.second))
        start = torch.where(is_forward, self.first, self.second)
        return (torch.minimum(shift, other) - 1) * self.width + start


class GatheredPairs(PairForm):
    """Distances of chosen pairs, from positions as rows of a vector's length."""

    name = "gathered pairs"

    def _prepare(self) -> None:
        # What makes a row of three numbers one of whole vectors.
        self.filling = [0, _filled_up(3, self.multiple) - 3]

    def __call__(self, positions: Tensor, *parameters: Tensor) -> Outputs:
        """Return values and derivatives, see `PairForm`."""
        rows = _in_memory(torch.constant_pad_nd(positions[0], self.filling))
        vectors = rows.index_select(0, self.second) - rows.index_select(0, self.first)
        vectors = _in_memory(vectors)
        squared = (vectors * vectors).sum(1)
        inverse = _in_memory(_inverse(squared))
        distances = _in_memory(squared * inverse)

        def from_slopes(slopes: Tensor) -> Tensor:
            forces = _in_memory(slopes[0] * inverse).unsqueeze(1) * vectors
            total = torch.zeros_like(rows).index_add(0, self.second, forces)
            return total.index_add(0, self.first, -forces)[:, :3]

        return self._derivatives(distances.unsqueeze(0), parameters, from_slopes)


class GatheredPartners(PairForm):
    """Distances of pairs, with the forces on an atom summed over a row of its pairs.

    Rows are as long as the longest; what fills the others up gets no weight.
    """

    name = "gathered pairs"

    def _prepare(self) -> None:
        here = torch.cat([self.first, self.second])
        there = torch.cat([self.second, self.first])
        groups = Groups.by(here, self.n_atoms)
        place = here[groups.order], groups.rank
        self.width = groups.width
        self.partner = torch.zeros(self.n_atoms, self.width, dtype=torch.int64)
        self.partner[place] = there[groups.order]
        # The number of pairs where there is none.
        self.pair = torch.full((self.n_atoms, self.width), self.n_pairs)
        self.pair[place] = groups.order % self.n_pairs

    def __call__(self, positions: Tensor, *parameters: Tensor) -> Outputs:
        """Return values and derivatives, see `PairForm`."""
        x = positions[0]
        vectors = x.index_select(0, self.second) - x.index_select(0, self.first)
        # Not as a sum over an axis, which would be a kernel of its own.
        squared = vectors[:, 0].square() + vectors[:, 1].square() + vectors[:, 2].square()
        inverse = _inverse(squared)

        def from_slopes(slopes: Tensor) -> Tensor:
            tension = torch.constant_pad_nd(slopes[0] * inverse, [0, 1])
            tension = tension.index_select(0, self.pair.flatten()).view(self.n_atoms, -1, 1)
            partners = x.index_select(0, self.partner.flatten()).view(self.n_atoms, -1, 3)
            return (tension * (x.unsqueeze(1) - partners)).sum(1)

        return self._derivatives((squared * inverse).unsqueeze(0), parameters, from_slopes)


def _filled_up(size: int, multiple: int) -> int:
    """Return the least multiple that is not below a size."""
    return -(-size // multiple) * multiple


def _inverse(squared: Tensor) -> Tensor:
    """Return the inverse of distances, and 0 for coincident atoms."""
    return torch.rsqrt(squared).masked_fill(squared == 0, 0.0)


def _in_memory(x: Tensor) -> Tensor:
    """Return the same numbers, which Inductor then computes once and keeps.

    It has to where a view of them is taken by strides (from PyTorch 2.13 on, see
    `ofcv_export.graph.matrix_vector`); otherwise it would compute them anew at every use.
    """
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride()) if KEEPS_VIEWS else x
