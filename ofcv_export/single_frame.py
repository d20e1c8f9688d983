"""The graph of a collective variable for one frame at a time, as an MD engine calls it.

It gives what the general graph gives, in a form that is fast for a single frame:

``cyclic pairs``
    For distances of most pairs of the atoms. Pairs are visited by cyclic shifts: the shift s pairs
    every atom i with the atom i + s, wrapped around, for s = 1 to n_atoms / 2. Then neighbours in
    the list are neighbours in memory; nothing is gathered, and no pair force is scattered.
``one frame``
    For everything else: the general graph with its batch fixed at 1.

In both, what depends on no input is computed at export, and for compiled code products with a
vector are written as sums (see `ofcv_export.vector_form`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.gradients import Outputs, differentiated, traced
from ofcv_export.vector_form import as_vectors, fold_constants, fold_selection, with_shapes

# Rows of numbers are filled up to whole vector instructions, of float32 with AVX2.
_VECTOR = 8
# With fewer of all pairs than this share, too many are visited that nobody asked for.
_SMALLEST_SHARE = 0.5


def single_frame(
    function: nn.Module,
    n_outputs: int,
    examples: Sequence[Tensor],
    periodic: bool,
    compiled: bool,
) -> tuple[fx.GraphModule, str]:
    """Return the graph of values and derivatives for one frame, and the name of its form.

    Parameters
    ----------
    function : CollectiveVariable
        Maps positions (1, n_atoms, 3), a box or None, and parameters to values (1, n_outputs).
    n_outputs : int
        Number of values.
    examples : sequence of torch.Tensor
        Positions of one frame, a box when periodic, and parameters.
    periodic : bool
        Whether a box is an input.
    compiled : bool
        Whether Inductor compiles the graph; otherwise it runs operator by operator.

    Returns
    -------
    torch.fx.GraphModule, str
        Plain aten operators, and ``cyclic pairs`` or ``one frame``.
    """
    pairs = _cyclic_pairs(function)
    dtype = examples[0].dtype
    if pairs is None:
        written_out = differentiated(function, n_outputs, dtype, periodic)
    else:
        written_out = _Cyclic(pairs, function, n_outputs, dtype)
    graph_module = traced(written_out, examples, free=[])
    fold_constants(graph_module)
    with_shapes(graph_module, examples)
    fold_selection(graph_module)
    if compiled:
        with_shapes(graph_module, examples)
        as_vectors(graph_module)
    return graph_module, "one frame" if pairs is None else "cyclic pairs"


class _GivenDescriptors(nn.Module):
    """Takes descriptors for positions, so that a collective variable becomes its network."""

    def forward(self, descriptors: Tensor, box: Tensor | None = None) -> Tensor:
        return descriptors


def _cyclic_pairs(function: nn.Module) -> PairDistances | None:
    """Return the descriptors if they are distances, without a box, of most pairs of the atoms."""
    descriptors = function.descriptors
    if not isinstance(descriptors, PairDistances) or descriptors.box.specification() is not None:
        return None
    n_atoms, n_pairs = descriptors.n_atoms, descriptors.n_descriptors
    distinct = {frozenset(pair) for pair in descriptors.pairs.tolist()}
    if len(distinct) < n_pairs or 2 * n_pairs < _SMALLEST_SHARE * n_atoms * (n_atoms - 1):
        return None
    return descriptors


class _Cyclic:
    """Values and derivatives, with distances of all pairs by cyclic shifts.

    Row s - 1 and column i of the arrays of pairs are those of the atoms i and i + s. Columns from
    n_atoms on only fill the rows up; their numbers, and pairs that nobody asked for, get no weight.
    """

    def __init__(
        self, distances: PairDistances, function: nn.Module, n_outputs: int, dtype: torch.dtype
    ) -> None:
        self.n_atoms = distances.n_atoms
        self.n_shifts = self.n_atoms // 2
        self.width = -(-self.n_atoms // _VECTOR) * _VECTOR
        self.seeds = torch.eye(n_outputs, dtype=dtype)
        self.network = copy.deepcopy(function)
        self.network.descriptors = _GivenDescriptors()
        self.place = _places(distances.pairs, self.n_atoms, self.width)
        # The pair at a place; the number of pairs where there is none.
        self.pair = torch.full((self.n_shifts * self.width,), distances.n_descriptors)
        self.pair[self.place] = torch.arange(distances.n_descriptors)

    def __call__(self, positions: Tensor, *parameters: Tensor) -> Outputs:
        shape = (self.n_shifts, self.width)
        columns = self.width + 2 * self.n_shifts
        # Every atom that a row reaches by a shift in either direction, wrapped around.
        atoms = positions[0].t()
        copies = [atoms] * (-(-columns // self.n_atoms) - 1)
        x = torch.cat([atoms[:, self.n_atoms - self.n_shifts :], *copies, atoms], dim=1)
        x = _in_memory(x[:, :columns])
        here = x.as_strided((3, *shape), (columns, 0, 1), self.n_shifts)
        after = x.as_strided((3, *shape), (columns, 1, 1), self.n_shifts + 1)
        before = x.as_strided((3, *shape), (columns, 1, 1), 0).flip(1)
        to_after = after - here
        from_before = here - before

        squared = to_after[0] * to_after[0] + to_after[1] * to_after[1] + to_after[2] * to_after[2]
        inverse = _in_memory(torch.rsqrt(squared).masked_fill(squared == 0, 0.0))
        distances = _in_memory(squared * inverse).view(1, -1)
        values, pullback = torch.func.vjp(  # type: ignore[misc]
            lambda descriptors: self.network(descriptors, None, *parameters),
            distances.index_select(1, self.place),
        )

        derivatives = []
        for k in range(len(self.seeds)):
            (slopes,) = pullback(self.seeds[k].expand_as(values))
            slopes = torch.constant_pad_nd(slopes, [0, 1]).index_select(1, self.pair)
            forces = slopes.view(shape) * inverse
            # The same numbers again from the left, for atoms reached from the pair's other end.
            tail = forces[:, self.n_atoms - self.n_shifts : self.n_atoms]
            forces = _in_memory(torch.cat([tail, forces], dim=1))
            row = self.n_shifts + self.width
            leaving = forces.as_strided(shape, (row, 1), self.n_shifts)
            arriving = forces.as_strided(shape, (row - 1, 1), self.n_shifts - 1)
            total = (arriving * from_before - leaving * to_after).sum(1)
            derivatives.append(total[:, : self.n_atoms].t())
        stacked = torch.stack(derivatives).unsqueeze(0)
        # Inductor would return the transposed rows as they lie in memory, to be copied once more.
        return values, stacked.clone(memory_format=torch.contiguous_format)


def _places(pairs: Tensor, n_atoms: int, width: int) -> Tensor:
    """Return the place of every pair among the rows of shifts, flattened."""
    first, second = pairs[:, 0], pairs[:, 1]
    shift = (second - first) % n_atoms
    other = n_atoms - shift
    is_forward = (shift < other) | ((shift == other) & (first < second))
    start = torch.where(is_forward, first, second)
    return (torch.minimum(shift, other) - 1) * width + start


def _in_memory(x: Tensor) -> Tensor:
    """Return the same numbers, which Inductor then computes once and keeps."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())
