"""The chain rule of descriptors of pairs whose two derivatives are opposite, on frozen frames.

Where descriptor p depends on the difference of two positions only, d(p)/d(second atom) = u[p] and
d(p)/d(first atom) = -u[p], so one vector per pair is stored and

    d(out)/d(pos)[a] = sum over p with second[p] = a of x[p] u[p]
                     - sum over p with first[p] = a of x[p] u[p].

Frames are worked on a few at a time, so that everything but the stored vectors stays in the cache,
and a backward pass looks the vectors up again instead of keeping a copy of them. A layout says in
which order the pairs of a frame are stored, and how to sum them by atom.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.jacobian.chain_rule import blocks_of_pairs, turned
from ofcv_export.jacobian.frame_chain_rule import FrameChainRule

# Vectors of a chunk of frames: this many numbers for each thread.
_NUMBERS_PER_CHUNK = 250_000
# With so few atoms frames are small, and one vector per block takes less time than one per pair.
_FEW_ATOMS = 24
# Beyond so many atoms it costs more than adding up the non-zeros one at a time.
_MANY_ATOMS = 128
_REGISTER = 16
# A circulant layout with more unused places than this costs more than it saves.
_LARGEST_PADDING = 1.25


class PairLayout(nn.Module, ABC):
    """Order in which the pairs of a frame are stored, and the sums over it.

    Attributes
    ----------
    n_places : int
        Vectors stored per frame.
    descriptor : torch.Tensor or None
        Descriptor of every place, shape (n_places,); None where places are descriptors.
    place : torch.Tensor or None
        Place of every descriptor, shape (n_descriptors,), likewise.
    flipped : torch.Tensor
        Whether a place holds the derivative for the descriptor's first atom instead of that for
        its second, shape (n_descriptors,).
    """

    n_places: int
    descriptor: Tensor | None
    place: Tensor | None
    flipped: Tensor

    @abstractmethod
    def sums(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Return the sums by atom, (batch, 3, n_atoms).

        From x (batch, n_places) and vectors (batch, 3, n_places).
        """

    @abstractmethod
    def projections(self, gradient: Tensor, vectors: Tensor) -> Tensor:
        """Return the transposed product, (batch, n_places): u[p] . (g[second[p]] - g[first[p]]).

        From gradient (batch, 3, n_atoms) and vectors (batch, 3, n_places).
        """


class IncidenceLayout(PairLayout):
    """Pairs in the descriptors' own order, summed by a product with the incidence matrix.

    Parameters
    ----------
    first, second : torch.Tensor
        Atoms of every descriptor, shape (n_descriptors,).
    n_atoms : int
        Number of atoms.
    """

    incidence: Tensor

    def __init__(self, first: Tensor, second: Tensor, n_atoms: int) -> None:
        super().__init__()
        self.n_places = len(first)
        self.descriptor = self.place = None
        pairs = torch.arange(len(first))
        self.n_atoms = n_atoms
        # Matrix products are a few times faster when rows fill whole vector registers.
        incidence = torch.zeros(len(first), -(-n_atoms // _REGISTER) * _REGISTER)
        incidence[pairs, first] = -1
        incidence[pairs, second] = 1
        self.register_buffer("flipped", torch.zeros(len(first), dtype=torch.bool), persistent=False)
        self.register_buffer("incidence", incidence, persistent=False)

    def sums(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Return the sums by atom, see `PairLayout.sums`."""
        products = (vectors * x.unsqueeze(1)).reshape(-1, self.n_places)
        sums = products.mm(self.incidence.to(x.dtype))
        return sums.view(len(x), 3, -1)[..., : self.n_atoms]

    def projections(self, gradient: Tensor, vectors: Tensor) -> Tensor:
        """Return the transposed product, see `PairLayout.projections`."""
        incidence = self.incidence.to(gradient.dtype)[:, : self.n_atoms]
        differences = gradient.reshape(-1, gradient.shape[2]).mm(incidence.t())
        return differences.view_as(vectors).mul_(vectors).sum(1)


class CirculantLayout(PairLayout):
    """Pairs (a, a + shift) for one shift after the other, atoms counted round a circle.

    The place of a pair is (row, a) with row = shift - 1. Sums over the first atoms are then sums
    over rows, and those over the second atoms are too, of rows displaced by one atom each: no
    index is looked up. All pairs of n atoms fill n // 2 rows, the last one half if n is even.

    Parameters
    ----------
    first, second, n_atoms
        As for `IncidenceLayout`.
    """

    descriptor: Tensor
    place: Tensor

    def __init__(self, first: Tensor, second: Tensor, n_atoms: int) -> None:
        super().__init__()
        self.n_atoms = n_atoms
        self.n_rows = circulant_rows(first, second, n_atoms)
        self.n_places = self.n_rows * n_atoms
        shift = (second - first) % n_atoms
        flipped = 2 * shift > n_atoms
        # Of a pair that is half a circle apart, the smaller atom comes first.
        flipped |= (2 * shift == n_atoms) & (first > second)
        start = torch.where(flipped, second, first)
        place = (torch.where(flipped, n_atoms - shift, shift) - 1) * n_atoms + start
        descriptor = torch.zeros(self.n_places, dtype=torch.int64)
        descriptor[place] = torch.arange(len(first))
        self.register_buffer("flipped", flipped, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("descriptor", descriptor, persistent=False)

    def sums(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Return the sums by atom, see `PairLayout.sums`."""
        batch, rows, n = len(x), self.n_rows, self.n_atoms
        # Zeros behind each row make room for its displacement.
        width = n + rows - 1
        padded = vectors.new_empty(batch, 3, rows, width)
        padded[..., n:].zero_()
        products = padded[..., :n]
        torch.mul(
            vectors.view(batch, 3, rows, n), x.view(batch, 1, rows, n), out=products
        )  # fmt: skip
        # Element (row, m) of this view is the product of (row, m - row).
        strides = (3 * rows * width, rows * width, width - 1, 1)
        displaced = padded.as_strided((batch, 3, rows, width), strides).sum(2)
        second = displaced[..., :n]
        second[..., : rows - 1] += displaced[..., n:]
        return second.roll(1, -1) - products.sum(2)

    def projections(self, gradient: Tensor, vectors: Tensor) -> Tensor:
        """Return the transposed product, see `PairLayout.projections`."""
        rows, n = self.n_rows, self.n_atoms
        circle = torch.cat([gradient, gradient[..., :rows]], dim=2)
        second = circle[..., 1:].unfold(2, n, 1)
        differences = torch.empty_like(vectors).view(-1, 3, rows, n)
        torch.sub(second, gradient.unsqueeze(2), out=differences)
        return differences.flatten(2).mul_(vectors).sum(1)


def circulant_rows(first: Tensor, second: Tensor, n_atoms: int) -> int:
    """Return the largest number of atoms that a pair is apart, counted round a circle."""
    shift = (second - first) % n_atoms
    return int(torch.minimum(shift, n_atoms - shift).max())


def has_pairs(pattern: SparsityPattern) -> bool:
    """Return whether the pattern has two consecutive blocks for each descriptor in turn."""
    expected = torch.arange(pattern.n_descriptors).repeat_interleave(2)
    return torch.equal(pattern.descriptor_index, expected)


def takes_pairs(pattern: SparsityPattern) -> bool:
    """Return whether one vector per pair pays: among more than a few atoms."""
    return pattern.n_atoms > _FEW_ATOMS


def suitable_layout(pattern: SparsityPattern) -> PairLayout | None:
    """Return the layout that suits a pattern of pairs; None where no layout does."""
    first, second = pattern.atom_index[0::2], pattern.atom_index[1::2]
    n_atoms = pattern.n_atoms
    places = circulant_rows(first, second, n_atoms) * n_atoms
    # A circulant layout has one place for a pair, however often the pair is a descriptor.
    distinct = torch.unique(torch.minimum(first, second) * n_atoms + torch.maximum(first, second))
    if places <= _LARGEST_PADDING * len(first) and len(distinct) == len(first):
        return CirculantLayout(first, second, n_atoms)
    return IncidenceLayout(first, second, n_atoms) if n_atoms <= _MANY_ATOMS else None


class PairChainRule(FrameChainRule):
    """d(out)/d(desc) -> d(out)/d(pos) on frozen frames with one stored vector per pair.

    Parameters
    ----------
    layout : PairLayout
        Order of the pairs, from `suitable_layout`.
    """

    def __init__(self, layout: PairLayout) -> None:
        super().__init__()
        self.layout = layout
        self.n_values = 3 * layout.n_places

    def arrange(self, pairs: Tensor) -> Tensor:
        """Return the values (batch, 3 * n_places) of vectors (batch, n_descriptors, 3)."""
        pairs = turned(pairs, self.layout.flipped).transpose(1, 2)
        if self.layout.place is None:
            return pairs.flatten(1)
        values = pairs.new_zeros(len(pairs), 3, self.layout.n_places)
        return values.index_copy_(2, self.layout.place, pairs).flatten(1)

    def pairs(self, values: Tensor) -> Tensor:
        """Return the vectors (batch, n_descriptors, 3) of values (batch, 3 * n_places)."""
        pairs = values.unflatten(1, (3, -1))
        if self.layout.place is not None:
            pairs = pairs.index_select(2, self.layout.place)
        pairs = pairs.transpose(1, 2)
        return turned(pairs, self.layout.flipped)

    def blocks(self, values: Tensor) -> Tensor:
        """Return the blocks (batch, n_blocks, 3) of values (batch, 3 * n_places)."""
        return blocks_of_pairs(self.pairs(values))

    def product(self, x: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the sums by atom, see `FrameChainRule.product`."""
        descriptor = self.layout.descriptor

        def sums(x: Tensor, vectors: Tensor) -> Tensor:
            return self.layout.sums(
                x if descriptor is None else x.index_select(1, descriptor), vectors
            )

        return _by_chunks(sums, x, values, ref_idx).transpose(2, 3)

    def projection(self, gradient: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the transposed product, see `FrameChainRule.projection`."""
        place = self.layout.place

        def projections(gradient: Tensor, vectors: Tensor) -> Tensor:
            x = self.layout.projections(gradient, vectors)
            return x if place is None else x.index_select(1, place)

        by_component = gradient.transpose(2, 3).contiguous()
        return _by_chunks(projections, by_component, values, ref_idx)


def _by_chunks(
    product: Callable[[Tensor, Tensor], Tensor], factor: Tensor, values: Tensor, ref_idx: Tensor
) -> Tensor:
    """Return products of factors (batch, n_outputs, ...) with their frames' vectors."""
    # A GPU's cache is of no use here, and its launches cost more: all frames in one chunk.
    numbers = _NUMBERS_PER_CHUNK * torch.get_num_threads() if values.is_cpu else values.numel()
    size = max(numbers // values.shape[1], 1)
    results = []
    for factors, rows in zip(factor.split(size), ref_idx.split(size), strict=True):
        vectors = values.index_select(0, rows).view(len(rows), 3, -1)
        results.append([product(one, vectors) for one in factors.unbind(1)])
    stacked = [each[0].unsqueeze(1) if len(each) == 1 else torch.stack(each, 1) for each in results]
    return stacked[0] if len(stacked) == 1 else torch.cat(stacked)
