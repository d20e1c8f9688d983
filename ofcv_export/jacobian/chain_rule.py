"""The chain rule from descriptors to positions, with the sparse Jacobian's values as an input.

    d(out)/d(pos)[frame, t] = sum over entries e with target[e] = t of
                              values[frame, e] * d(out)/d(desc)[frame, descriptor[e]]

Two forms compute it with torch's operators. Each arranges the values of a frame in the order that
suits it. Either can be wrapped to take one vector for each pair of opposite blocks.
"""

# No postponed annotations here: torch.jit.script wants the classes' own to be types.

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]

from ofcv_export.base.groups import Groups
from ofcv_export.base.indexing import select
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.jacobian.opposite_pairs import blocks_of_pairs

# The gather form is faster and reproducible, and padded with zeros where atoms have unequal shares.
_LARGEST_PADDING = 1.5


class ChainRule(nn.Module, ABC):
    """A linear map x -> d(out)/d(pos) for each frame, on a pattern that all frames share.

    Attributes
    ----------
    n_values : int
        Numbers stored per frame.
    stores_pairs : bool
        Whether its vectors are one for each pair of opposite blocks, instead of one a block.
    """

    n_values: int
    stores_pairs = False

    def arrange(self, vectors: Tensor) -> Tensor:
        """Return the values (batch, n_values) of vectors (batch, n_vectors, 3); as they come."""
        return vectors.flatten(1)

    def vectors(self, values: Tensor) -> Tensor:
        """Return the vectors (batch, n_vectors, 3) of values (batch, n_values)."""
        return values.unflatten(1, (-1, 3))

    @abstractmethod
    def forward(self, x: Tensor, values: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(pos).

        Parameters
        ----------
        x : torch.Tensor
            d(out)/d(desc), shape (batch, n_descriptors) or (batch, n_descriptors, n_outputs).
        values : torch.Tensor
            d(desc)/d(pos), shape (batch, n_values), or (n_frames, n_values) with `ref_idx`.
        ref_idx : torch.Tensor, optional
            Frame of each row, int64 (batch,); by default row k has the values of frame k.

        Returns
        -------
        torch.Tensor
            Shape (batch, n_atoms, 3) or (batch, n_atoms, 3, n_outputs).
        """

    def blocks(self, values: Tensor) -> Tensor:
        """Return the blocks (batch, n_blocks, 3) of values (batch, n_values)."""
        vectors = self.vectors(values)
        return blocks_of_pairs(vectors) if self.stores_pairs else vectors


def rows(values: Tensor, ref_idx: Tensor | None) -> Tensor:
    """Return the values of some frames, of all in turn by default."""
    return values if ref_idx is None else select(values, ref_idx)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return x[:, index].

    On CUDA the backward pass of index_select adds with atomics; that of an index sorts, and adds in
    a fixed order. The choice falls in the forward pass, see `ofcv_export.base.fixed_order`.
    """
    if not is_scripting():  # noqa: SIM102 (TorchScript)
        if x.is_cuda and torch.are_deterministic_algorithms_enabled():
            return x[:, index]
    return x.index_select(1, index)


class ScatterChainRule(ChainRule):
    """Scatter-add of every non-zero to its target; values in block order.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    """

    descriptor_index: Tensor
    target_index: Tensor

    def __init__(self, pattern: SparsityPattern) -> None:
        super().__init__()
        _, targets = pattern.entries()
        self.n_atoms = pattern.n_atoms
        self.n_values = pattern.nnz
        self.register_buffer("descriptor_index", pattern.descriptor_index, persistent=False)
        self.register_buffer("target_index", targets, persistent=False)

    def forward(self, x: Tensor, values: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(pos), see `ChainRule.forward`."""
        n_blocks = self.descriptor_index.shape[0]
        right = take(x, self.descriptor_index).unsqueeze(2)
        left = rows(values, ref_idx).reshape(x.shape[0], n_blocks, 3)
        if x.dim() == 3:
            left = left.unsqueeze(3)
        contributions = (left * right).flatten(1, 2)
        targets = self.target_index.unsqueeze(0)
        if x.dim() == 3:
            targets = targets.unsqueeze(2)
        shape = [x.shape[0], 3 * self.n_atoms] + list(x.shape[2:])  # noqa: RUF005 (TorchScript)
        out = torch.zeros(shape, dtype=x.dtype, device=x.device)
        out = out.scatter_add(1, targets.expand(contributions.shape), contributions)
        return out.unflatten(1, [self.n_atoms, 3])


class GatherChainRule(ChainRule):
    """Sum over the blocks of each atom as a batch of small matrix products; no scatter.

    Reproducible on every device, and faster where all atoms have about as many blocks. Atoms with
    fewer are padded with zeros, so the values of a frame have shape (n_atoms, 3, width), flattened.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    """

    descriptor_index: Tensor
    place: Tensor

    def __init__(self, pattern: SparsityPattern) -> None:
        super().__init__()
        self.n_atoms = pattern.n_atoms
        by_atom = Groups.by(pattern.atom_index, pattern.n_atoms)
        self.width = max(by_atom.width, 1)
        self.n_values = pattern.n_atoms * 3 * self.width
        place = torch.empty_like(by_atom.order)
        place[by_atom.order] = pattern.atom_index[by_atom.order] * self.width + by_atom.rank
        descriptors = torch.zeros(pattern.n_atoms * self.width, dtype=torch.int64)
        descriptors[place] = pattern.descriptor_index
        self.register_buffer("descriptor_index", descriptors, persistent=False)
        self.register_buffer("place", place, persistent=False)

    @staticmethod
    def padding(pattern: SparsityPattern) -> float:
        """Return how many times more values this form stores than the pattern has."""
        width = Groups.by(pattern.atom_index, pattern.n_atoms).width
        return pattern.n_atoms * width / max(pattern.n_blocks, 1)

    def arrange(self, vectors: Tensor) -> Tensor:
        """Return the values (batch, n_atoms * 3 * width) of blocks (batch, n_blocks, 3)."""
        padded = vectors.new_zeros(len(vectors), self.n_atoms * self.width, 3)
        padded.index_copy_(1, self.place, vectors)
        return padded.unflatten(1, (self.n_atoms, self.width)).transpose(2, 3).flatten(1)

    def vectors(self, values: Tensor) -> Tensor:
        """Return the blocks (batch, n_blocks, 3) of values (batch, n_atoms * 3 * width)."""
        padded = values.reshape(-1, self.n_atoms, 3, self.width).transpose(2, 3).flatten(1, 2)
        return padded.index_select(1, self.place)

    def forward(self, x: Tensor, values: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(pos), see `ChainRule.forward`."""
        batch = x.shape[0]
        right = take(x, self.descriptor_index)
        left = rows(values, ref_idx).reshape(batch * self.n_atoms, 3, self.width)
        n_outputs = x.shape[2] if x.dim() == 3 else 1
        right = right.reshape(batch * self.n_atoms, self.width, n_outputs)
        out = torch.bmm(left, right)
        shape = [batch, self.n_atoms, 3] + list(x.shape[2:])  # noqa: RUF005 (TorchScript)
        return out.reshape(shape)


class OppositePairs(ChainRule):
    """A form of the chain rule for pairs of blocks -u and u, of which u alone is its input.

    Parameters
    ----------
    rule : ScatterChainRule or GatherChainRule
        The form.
    pattern : SparsityPattern
        Its pattern, with two blocks for each descriptor in turn, the first minus the second.
    """

    source: Tensor
    stores_pairs = True

    def __init__(self, rule: ScatterChainRule | GatherChainRule, pattern: SparsityPattern) -> None:
        super().__init__()
        self.rule = rule
        self.n_values = 3 * pattern.n_descriptors
        # Number the components of all vectors from 1, let the form arrange +-numbers, and read
        # from them where in (values, -values, 0) each of its own values comes from.
        numbers = torch.arange(1, self.n_values + 1).view(1, -1, 3)
        arranged = rule.arrange(blocks_of_pairs(numbers)).flatten()
        source = torch.where(arranged > 0, arranged - 1, self.n_values - arranged - 1)
        source = torch.where(arranged == 0, 2 * self.n_values, source)
        self.register_buffer("source", source, persistent=False)

    def forward(self, x: Tensor, values: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(pos), see `ChainRule.forward`; one vector u for each pair."""
        values = rows(values, ref_idx)
        zero = torch.zeros([x.shape[0], 1], dtype=values.dtype, device=values.device)
        both = torch.cat([values, -values, zero], dim=1)
        out: Tensor = self.rule(x, both.index_select(1, self.source))
        return out


class FrozenDataset(nn.Module):
    """The chain rule together with the derivatives of a dataset's frames.

    Parameters
    ----------
    chain_rule : ChainRule
        The chain rule.
    values : torch.Tensor
        Derivatives as the chain rule arranges them, shape (n_frames, n_values).
    """

    values: Tensor

    def __init__(self, chain_rule: ChainRule, values: Tensor) -> None:
        super().__init__()
        self.chain_rule = chain_rule
        self.register_buffer("values", values)

    def forward(self, output_wrt_descriptors: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(positions) of the frames `ref_idx`, of the first ones by default."""
        if ref_idx is None:
            ref_idx = torch.arange(output_wrt_descriptors.shape[0], device=self.values.device)
        out: Tensor = self.chain_rule(output_wrt_descriptors, self.values, ref_idx)
        return out


def suitable_chain_rule(pattern: SparsityPattern, kernel: str, antisymmetric: bool) -> ChainRule:
    """Return the chain rule that suits a pattern and a kernel best.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    kernel : {"torch", "numba", "triton"}
        What computes it.
    antisymmetric : bool
        Whether the pattern's blocks are pairs of opposite ones, of which compiled kernels take one.
    """
    # Imported here because numba and Triton are optional.
    if kernel == "numba":
        from ofcv_export.jacobian import compiled_chain_rule as compiled
    elif kernel == "triton":
        from ofcv_export.jacobian import triton_chain_rule as compiled  # type: ignore[no-redef]
    if kernel != "torch":
        return compiled.PairKernel(pattern) if antisymmetric else compiled.BlockKernel(pattern)
    if GatherChainRule.padding(pattern) <= _LARGEST_PADDING:
        return GatherChainRule(pattern)
    return ScatterChainRule(pattern)


def exportable_chain_rule(
    pattern: SparsityPattern, form: str, antisymmetric: bool
) -> ScatterChainRule | GatherChainRule | OppositePairs:
    """Return the chain rule of torch's operators in a form that a file can hold.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian.
    form : {"scatter", "gather"}
        Scatter-add, or the sum over gathered blocks.
    antisymmetric : bool
        Whether the pattern's blocks are pairs of opposite ones, of which it then takes one.
    """
    if form not in ("scatter", "gather"):
        raise ValueError(f'form: expected "scatter" or "gather", got {form!r}')
    rule = ScatterChainRule(pattern) if form == "scatter" else GatherChainRule(pattern)
    return OppositePairs(rule, pattern) if antisymmetric else rule
