"""The chain rule on frozen frames as kernels compiled with Triton, for CUDA.

One kernel makes a pass: a frame's stored values are read once from where they lie, and nothing of
their size is written. With u[p] the vector of a pair whose two derivatives are opposite, and v[b]
that of a block of any pattern:

    d(out)/d(pos)[a] = sum over p with second[p] = a of x[p] u[p]
                     - sum over p with first[p] = a of x[p] u[p]
    d(out)/d(pos)[a] = sum over b with atom[b] = a of x[descriptor[b]] v[b]

One program makes all sums of an atom, so that they are always in the same order: the same input
gives the same bits. A frame that does not exist gives NaN, since asking for its number first would
wait for the device; the next call of the rule raises an IndexError.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext

import torch
import triton
from torch import Tensor

from ofcv_export.base.groups import Groups
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.jacobian import triton_kernels as kernels
from ofcv_export.jacobian.folded_runs import folded_runs
from ofcv_export.jacobian.frame_chain_rule import FrameChainRule
from ofcv_export.jacobian.opposite_pairs import StoredPairs, pair_runs

# Numbers that a program looks at in one go, and those of a warp: 4 for each of its threads.
_TILE = 256
_PER_WARP = 128
# The same for rows of pairs: with one warp no sum is between two.
_RUN_TILE, _PER_RUN_WARP = 128, 256
# Pairs of a program of the projection, and rows that it makes with the same pairs.
_PAIRS, _ROWS, _PROJECTION_WARPS = 1024, 2, 8
# Most atoms whose sums a program keeps in registers.
_MOST_ATOMS = 512
# Runs of pairs get a row each, as wide as the atoms, if they fill more than this share of the rows.
_FILLED = 0.2

# Takes x or a gradient, values, frames, where to note a missing frame, and the result.
_Launch = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]


class _Kernel(FrameChainRule):
    """A chain rule of two kernels; the values of a frame are vectors (3, n_vectors), flattened.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    n_vectors : int
        Vectors stored per frame.
    """

    # Of the entries of each atom: where they begin, and the vector and descriptor of each.
    start: Tensor
    vector: Tensor
    descriptor: Tensor

    def __init__(self, pattern: SparsityPattern, n_vectors: int) -> None:
        super().__init__(pattern)
        self.n_atoms = pattern.n_atoms
        self.n_descriptors = pattern.n_descriptors
        self.n_vectors = n_vectors
        self.n_values = 3 * n_vectors
        self.width = 0
        self._missing: Tensor | None = None

    def product(self, x: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the sums by atom, see `FrameChainRule.product`."""
        out = x.new_empty(len(x), x.shape[1], self.n_atoms, 3)
        self._launch(self._product, x, values, ref_idx, out)
        return out

    def projection(self, gradient: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the transposed product, see `FrameChainRule.projection`."""
        out = gradient.new_empty(len(gradient), gradient.shape[1], self.n_descriptors)
        self._launch(self._projection, gradient, values, ref_idx, out)
        return out

    def _launch(
        self, kernel: _Launch, factor: Tensor, values: Tensor, ref_idx: Tensor, out: Tensor
    ) -> None:
        """Run a kernel on the device of the values, unless there is nothing to do."""
        missing = self._require_earlier_frames(values)
        if out.numel() == 0:
            return
        with torch.cuda.device(values.device) if values.is_cuda else nullcontext():
            kernel(factor.contiguous(), values.contiguous(), ref_idx.contiguous(), missing, out)

    def _require_earlier_frames(self, values: Tensor) -> Tensor:
        """Return where a kernel notes that a frame does not exist.

        Raises
        ------
        IndexError
            If an earlier call has noted one.
        """
        if self._missing is None:
            # Memory of the host that the device writes to: it can be read without waiting.
            self._missing = torch.zeros(1, dtype=torch.int32, pin_memory=values.is_cuda)
        if self._missing.item():
            self._missing.zero_()
            raise IndexError(
                f"ref_idx: expected indices in [0, {len(values)}), got others in an earlier call, "
                "whose results are NaN there"
            )
        return self._missing

    def _keep(self, **numbers: Tensor) -> None:
        """Keep indices, which no kernel wants longer than 32 bits, on the device of the rule."""
        for name, tensor in numbers.items():
            self.register_buffer(name, tensor.to(torch.int32), persistent=False)

    @abstractmethod
    def _product(
        self, x: Tensor, values: Tensor, frames: Tensor, missing: Tensor, out: Tensor
    ) -> None:
        """Write the sums by atom to `out`."""

    @abstractmethod
    def _projection(
        self, gradient: Tensor, values: Tensor, frames: Tensor, missing: Tensor, out: Tensor
    ) -> None:
        """Write the transposed product to `out`."""

    def _by_atom(
        self, x: Tensor, values: Tensor, frames: Tensor, missing: Tensor, out: Tensor
    ) -> None:
        """Sum over the entries `start`, `vector` and `descriptor` of each atom."""
        width = _power(self.width, 64)
        atoms = _power(self.n_atoms, _TILE // width)
        n_tiles = triton.cdiv(self.n_atoms, atoms)
        kernels.product[(n_tiles * out.shape[0] * out.shape[1],)](
            x, values, frames, self.start, self.vector, self.descriptor, missing, out, len(values),
            out.shape[1], self.n_vectors, self.n_descriptors, self.n_atoms, self.width, n_tiles,
            ATOMS=atoms, WIDTH=width, num_warps=_warps(atoms * width),
        )  # fmt: skip


class PairKernel(StoredPairs, _Kernel):
    """One vector for each pair of opposite blocks; values (batch, 3, n_descriptors), flattened.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian, two blocks for each descriptor in turn.
    """

    first: Tensor
    second: Tensor
    rows: Tensor

    def __init__(self, pattern: SparsityPattern) -> None:
        n_pairs = pattern.n_descriptors
        super().__init__(pattern, n_pairs)
        runs = pair_runs(pattern)
        self.register_buffer("flipped", runs.flipped, persistent=False)
        self._keep(first=runs.first, second=runs.second)
        tile = _power(self.n_atoms, _MOST_ATOMS) * len(runs.start)
        self.has_long_runs = self.n_atoms <= _MOST_ATOMS and n_pairs >= _FILLED * tile
        if self.has_long_runs:
            self._keep(rows=folded_runs(runs, self.n_atoms))
            in_order = torch.triu_indices(self.n_atoms, self.n_atoms, 1)
            self.are_all = torch.equal(torch.stack([runs.first, runs.second]), in_order)
            return
        pair = torch.arange(n_pairs)
        entries = Groups.by(torch.cat([runs.first, runs.second]), self.n_atoms)
        self.width = entries.width
        self._keep(
            start=entries.start,
            vector=torch.cat([-1 - pair, 1 + pair])[entries.order],
            descriptor=pair.repeat(2)[entries.order],
        )

    def _product(
        self, x: Tensor, values: Tensor, frames: Tensor, missing: Tensor, out: Tensor
    ) -> None:
        if not self.has_long_runs:
            self._by_atom(x, values, frames, missing, out)
            return
        atoms = triton.next_power_of_2(self.n_atoms)
        n_rows = len(self.rows)
        rows = max(_power(n_rows, _RUN_TILE // atoms), 2)
        kernels.run_product[(out.shape[0] * out.shape[1],)](
            x, values, frames, self.rows, missing, out, len(values), out.shape[1],
            self.n_descriptors, n_rows, self.n_atoms, self.are_all,
            ROWS=rows, ATOMS=atoms, num_warps=max(rows * atoms // _PER_RUN_WARP, 1),
        )  # fmt: skip

    def _projection(
        self, gradient: Tensor, values: Tensor, frames: Tensor, missing: Tensor, out: Tensor
    ) -> None:
        n_rows = out.shape[0] * out.shape[1]
        pairs = _power(self.n_descriptors, _PAIRS)
        n_tiles = triton.cdiv(self.n_descriptors, pairs)
        kernels.pair_projection[(n_tiles * triton.cdiv(n_rows, _ROWS),)](
            gradient, values, frames, self.first, self.second, missing, out, n_rows, len(values),
            out.shape[1], self.n_descriptors, self.n_atoms, n_tiles,
            PAIRS=pairs, ROWS=_ROWS, num_warps=_PROJECTION_WARPS,
        )  # fmt: skip


class BlockKernel(_Kernel):
    """One vector for each block of any pattern, by atom; values (batch, 3, n_blocks), flattened.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    """

    order: Tensor
    place: Tensor
    start_of_descriptor: Tensor
    vector_of_descriptor: Tensor
    atom: Tensor

    def __init__(self, pattern: SparsityPattern) -> None:
        super().__init__(pattern, pattern.n_blocks)
        by_atom = Groups.by(pattern.atom_index, pattern.n_atoms)
        place = torch.argsort(by_atom.order)
        by_descriptor = Groups.by(pattern.descriptor_index, pattern.n_descriptors)
        self.width, self.widest = by_atom.width, by_descriptor.width
        self.register_buffer("order", by_atom.order, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self._keep(
            start=by_atom.start,
            vector=torch.arange(1, pattern.n_blocks + 1),
            descriptor=pattern.descriptor_index[by_atom.order],
            start_of_descriptor=by_descriptor.start,
            vector_of_descriptor=place[by_descriptor.order],
            atom=pattern.atom_index[by_descriptor.order],
        )

    def arrange(self, vectors: Tensor) -> Tensor:
        """Return the values (batch, 3 * n_blocks) of blocks (batch, n_blocks, 3)."""
        return vectors[:, self.order].transpose(1, 2).flatten(1)

    def vectors(self, values: Tensor) -> Tensor:
        """Return the blocks (batch, n_blocks, 3) of values (batch, 3 * n_blocks)."""
        return values.unflatten(1, (3, -1)).transpose(1, 2)[:, self.place]

    _product = _Kernel._by_atom

    def _projection(
        self, gradient: Tensor, values: Tensor, frames: Tensor, missing: Tensor, out: Tensor
    ) -> None:
        width = _power(self.widest, 64)
        descriptors = _power(self.n_descriptors, _TILE // width)
        n_tiles = triton.cdiv(self.n_descriptors, descriptors)
        kernels.projection[(n_tiles * out.shape[0] * out.shape[1],)](
            gradient, values, frames, self.start_of_descriptor, self.vector_of_descriptor,
            self.atom, missing, out, len(values), out.shape[1], self.n_vectors, self.n_descriptors,
            self.n_atoms, self.widest, n_tiles,
            DESCRIPTORS=descriptors, WIDTH=width, num_warps=_warps(descriptors * width),
        )  # fmt: skip


def _power(size: int, most: int) -> int:
    """Return the power of 2 that holds a size, `most` (one itself) at most."""
    return max(min(int(triton.next_power_of_2(size)), most), 1)


def _warps(tile: int) -> int:
    """Return the warps that share a tile."""
    return max(min(tile // _PER_WARP, 8), 1)
