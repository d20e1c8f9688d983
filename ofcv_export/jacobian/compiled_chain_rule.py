"""The chain rule on frozen frames as loops compiled with numba, for the CPU.

For each frame and output the stored values are read once, and nothing of their size is written.
The loops are those of the formulas; `PairKernel` holds one vector u[p] for each pair whose
derivatives are opposite, `BlockKernel` one vector v[b] for each block of any pattern:

    d(out)/d(pos)[a] = sum over p with second[p] = a of x[p] u[p]
                     - sum over p with first[p] = a of x[p] u[p]
    d(out)/d(pos)[a] = sum over b with atom[b] = a of x[descriptor[b]] v[b]

Frames are independent, so threads share them and the sums of a frame are always in the same order:
the same input gives the same bits with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

from ofcv_export.base.arrays import in_memory
from ofcv_export.base.validation import require_in_range
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.jacobian.frame_chain_rule import FrameChainRule
from ofcv_export.jacobian.opposite_pairs import StoredPairs, pair_runs

# Values that keep a thread busy for longer than it takes to start it, about 0.2 ms.
_NUMBERS_PER_THREAD = 2_000_000
# Frames to fetch in advance, and numbers per cache line of 64 bytes.
_AHEAD = 4
_NUMBERS_PER_LINE = np.uint64(16)
_THREE = np.uint64(3)

Array = np.ndarray[Any, Any]
Indices = tuple[Array, ...]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, and keep the machine code for later processes."""
    options = {
        "nogil": True,
        "error_model": "numpy",
        # Sums in vector registers and fused multiply-adds; NaN and infinity stay what they are.
        # The order of the sums is that of the machine code, so the same for every call.
        "fastmath": {"reassoc", "contract", "nsz"},
    }
    try:
        return _with_any_cache(numba.njit(cache=True, **options)(function))
    except RuntimeError:
        # No folder to write to, neither beside this file nor in the user's cache.
        return numba.njit(**options)(function)


def _with_any_cache(compiled: Any) -> Any:
    """Let a function be compiled anew where numba's cache of it is damaged."""
    cache = compiled._cache
    load = cache.load_overload

    def load_or_compile(*signature: Any) -> Any:
        try:
            return load(*signature)
        # Damaged bytes lead pickle and numba to errors of any type.
        except Exception:
            cache.flush()
            return None

    cache.load_overload = load_or_compile
    return compiled


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Fetch the line of ``array.flat[index]`` to the second-level cache, without waiting."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        integer = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, integer, integer, integer])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        read, second_level, data_cache = integer(0), integer(2), integer(1)
        builder.call(function, [address, read, second_level, data_cache])
        return context.get_dummy_value()

    return numba.types.void(array, index), generate


@_compiled
def _fetch(u: Array, frame: Any, start: Any, length: Any) -> None:
    """Ask for as many numbers of a frame as a run of pairs has, so that they come meanwhile."""
    first = _THREE * (frame * np.uint64(u.shape[2]) + start)
    for number in range(first, first + _THREE * length, _NUMBERS_PER_LINE):
        _prefetch(u, number)


@_compiled
def _pair_product(x: Array, u: Array, frames: Array, runs: Indices, out: Array) -> None:
    """Sum x[p] u[p] by atom, see `PairKernel.product`."""
    run_start, run_first, run_second = runs
    zero = u.dtype.type(0)
    n_atoms = out.shape[2]
    sums = np.empty((3, n_atoms), u.dtype)
    for row in range(len(frames)):
        frame, ahead = frames[row], frames[min(row + _AHEAD, len(frames) - 1)]
        for o in range(x.shape[1]):
            for c in range(3):
                for a in range(n_atoms):
                    sums[c, a] = zero
            for run in range(len(run_first)):
                start = run_start[run]
                length = run_start[run + 1] - start
                first, second = run_first[run], run_second[run]
                _fetch(u, ahead, start, length)
                sx = sy = sz = zero
                for k in range(length):
                    p = start + k
                    a = second + k
                    fx = x[row, o, p] * u[frame, 0, p]
                    fy = x[row, o, p] * u[frame, 1, p]
                    fz = x[row, o, p] * u[frame, 2, p]
                    sx += fx
                    sy += fy
                    sz += fz
                    sums[0, a] += fx
                    sums[1, a] += fy
                    sums[2, a] += fz
                sums[0, first] -= sx
                sums[1, first] -= sy
                sums[2, first] -= sz
            for a in range(n_atoms):
                for c in range(3):
                    out[row, o, a, c] = sums[c, a]


@_compiled
def _pair_projection(gradient: Array, u: Array, frames: Array, runs: Indices, out: Array) -> None:
    """Take u[p] . (g[second[p]] - g[first[p]]), see `PairKernel.projection`."""
    run_start, run_first, run_second = runs
    n_atoms = gradient.shape[2]
    g = np.empty((3, n_atoms), u.dtype)
    for row in range(len(frames)):
        frame, ahead = frames[row], frames[min(row + _AHEAD, len(frames) - 1)]
        for o in range(out.shape[1]):
            for a in range(n_atoms):
                for c in range(3):
                    g[c, a] = gradient[row, o, a, c]
            for run in range(len(run_first)):
                start = run_start[run]
                length = run_start[run + 1] - start
                first, second = run_first[run], run_second[run]
                _fetch(u, ahead, start, length)
                gx, gy, gz = g[0, first], g[1, first], g[2, first]
                for k in range(length):
                    p = start + k
                    a = second + k
                    out[row, o, p] = (
                        u[frame, 0, p] * (g[0, a] - gx)
                        + u[frame, 1, p] * (g[1, a] - gy)
                        + u[frame, 2, p] * (g[2, a] - gz)
                    )


@_compiled
def _block_product(x: Array, v: Array, frames: Array, blocks: Indices, out: Array) -> None:
    """Sum x[descriptor[b]] v[b] by atom, see `BlockKernel.product`."""
    descriptor, atom = blocks
    for row in range(len(frames)):
        frame = frames[row]
        for o in range(x.shape[1]):
            for a in range(out.shape[2]):
                for c in range(3):
                    out[row, o, a, c] = 0
            for b in range(len(atom)):
                for c in range(3):
                    out[row, o, atom[b], c] += x[row, o, descriptor[b]] * v[frame, b, c]


@_compiled
def _block_projection(g: Array, v: Array, frames: Array, blocks: Indices, out: Array) -> None:
    """Sum v[b] . g[atom[b]] by descriptor, see `BlockKernel.projection`."""
    descriptor, atom = blocks
    for row in range(len(frames)):
        frame = frames[row]
        for o in range(out.shape[1]):
            for d in range(out.shape[2]):
                out[row, o, d] = 0
            for b in range(len(atom)):
                for c in range(3):
                    out[row, o, descriptor[b]] += v[frame, b, c] * g[row, o, atom[b], c]


class _Kernel(FrameChainRule):
    """A chain rule of two compiled loops over frames."""

    loops: tuple[Callable[..., None], Callable[..., None]]

    def __init__(self, pattern: SparsityPattern, vector_shape: tuple[int, ...]) -> None:
        super().__init__(pattern)
        self.n_atoms = pattern.n_atoms
        self.n_descriptors = pattern.n_descriptors
        self.vector_shape = vector_shape
        self.n_values = int(np.prod(vector_shape))
        self.indices: Indices = ()

    def product(self, x: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the sums by atom, see `FrameChainRule.product`."""
        out = x.new_empty(len(x), x.shape[1], self.n_atoms, 3)
        self._run(self.loops[0], x, values, ref_idx, out)
        return out

    def projection(self, gradient: Tensor, values: Tensor, ref_idx: Tensor) -> Tensor:
        """Return the transposed product, see `FrameChainRule.projection`."""
        out = gradient.new_empty(len(gradient), gradient.shape[1], self.n_descriptors)
        self._run(self.loops[1], gradient, values, ref_idx, out)
        return out

    def _run(
        self,
        loop: Callable[..., None],
        factor: Tensor,
        values: Tensor,
        ref_idx: Tensor,
        out: Tensor,
    ) -> None:
        """Run a loop over all rows, which threads share where there is enough to do."""
        factors = in_memory(factor).numpy()
        vectors = in_memory(values).numpy().reshape(len(values), *self.vector_shape)
        frames = ref_idx.to(torch.int64).contiguous().numpy().view(np.uint64)
        outs = out.numpy()
        # The loops don't look whether a frame exists. A negative one is a huge one here, and this
        # is quicker than the check that knows the words.
        if len(frames) and frames.max() >= len(values):
            require_in_range("ref_idx", ref_idx, 0, len(values))
        enough = len(frames) * self.n_values // _NUMBERS_PER_THREAD
        n_threads = min(torch.get_num_threads(), enough, len(frames))
        if n_threads <= 1:
            loop(factors, vectors, frames, self.indices, outs)
            return

        def share(number: int) -> None:
            start, end = (len(frames) * each // n_threads for each in (number, number + 1))
            rows = slice(start, end)
            loop(factors[rows], vectors, frames[rows], self.indices, outs[rows])

        # Threads of this call alone: a pool kept for the next one would not outlive a fork.
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(share, range(n_threads)))


class PairKernel(StoredPairs, _Kernel):
    """One vector for each pair of opposite blocks; values (batch, 3, n_descriptors), flattened.

    The loops go over runs of pairs. A pattern without such an order has runs of one pair each,
    which take longer.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian, two blocks for each descriptor in turn.
    """

    loops = (_pair_product, _pair_projection)

    def __init__(self, pattern: SparsityPattern) -> None:
        super().__init__(pattern, (3, pattern.n_descriptors))
        runs = pair_runs(pattern)
        start = runs.start.numpy()
        # Unsigned indices spare the compiled code the test for Python's negative ones.
        self.indices = (
            np.append(start, pattern.n_descriptors).astype(np.uint64),
            runs.first.numpy()[start].astype(np.uint64),
            runs.second.numpy()[start].astype(np.uint64),
        )
        self.register_buffer("flipped", runs.flipped, persistent=False)


class BlockKernel(_Kernel):
    """One vector for each block of any pattern; values (batch, n_blocks, 3), flattened.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    """

    loops = (_block_product, _block_projection)

    def __init__(self, pattern: SparsityPattern) -> None:
        super().__init__(pattern, (pattern.n_blocks, 3))
        indices = (pattern.descriptor_index, pattern.atom_index)
        self.indices = tuple(index.numpy().astype(np.uint64) for index in indices)
