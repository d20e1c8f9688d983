"""What every descriptor offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ofcv_export.base.arrays import as_tensor
from ofcv_export.base.validation import (
    require_in_range,
    require_integers,
    require_positive,
)
from ofcv_export.descriptors.described import Described
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern


class Descriptor(Described, ABC):
    """Functions of positions, and of a box, with a fixed sparsity pattern.

    `forward` consists of plain tensor operations without data-dependent control flow: it can be
    scripted, exported with a dynamic batch, and differentiated twice.

    Parameters
    ----------
    n_atoms : int
        Number of atoms in a frame.
    n_descriptors : int
        Number of values per frame.
    takes_box : bool
        Whether the box is an input of `forward`.

    Attributes
    ----------
    n_atoms, n_descriptors, takes_box
        As the parameters.
    antisymmetric : bool
        Whether each descriptor depends on the difference of two positions only: `pattern` then has
        two blocks for each descriptor in turn, and of the derivatives the first is exactly minus
        the second.
    """

    n_atoms: int
    n_descriptors: int
    takes_box: bool
    antisymmetric: bool

    def __init__(self, n_atoms: int, n_descriptors: int, takes_box: bool) -> None:
        super().__init__()
        require_positive("n_atoms", n_atoms)
        require_positive("n_descriptors", n_descriptors)
        self.n_atoms = int(n_atoms)
        self.n_descriptors = int(n_descriptors)
        self.takes_box = takes_box
        self.antisymmetric = False

    @abstractmethod
    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the descriptors.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (batch, n_atoms, 3), float32 or float64.
        box : torch.Tensor, optional
            Lattice vectors as rows, shape (3, 3), the same for all frames, if `takes_box`.

        Returns
        -------
        torch.Tensor
            Shape (batch, n_descriptors).
        """

    @abstractmethod
    def pattern(self) -> SparsityPattern:
        """Return the structure of the derivatives."""

    def periods(self) -> list[float | None]:
        """Return the period of each descriptor, None where it has none."""
        return [None] * self.n_descriptors

    def jacobian(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return descriptors and their derivatives.

        One backward pass for each group of descriptors that share no atom, unless a descriptor
        has formulas of its own.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (batch, n_atoms, 3).
        box : torch.Tensor, optional
            Lattice vectors as rows, shape (3, 3), if `takes_box`.

        Returns
        -------
        torch.Tensor, torch.Tensor
            Shapes (batch, n_descriptors) and (batch, n_blocks, 3), in the order of `pattern`.
        """
        pattern = self.pattern()
        with torch.enable_grad():
            leaf = positions.detach().requires_grad_()
            values = self(leaf, box)
        return values.detach(), compressed_jacobian(values, leaf, pattern)


def compressed_jacobian(values: Tensor, positions: Tensor, pattern: SparsityPattern) -> Tensor:
    """Differentiate by one backward pass for each colour of the pattern.

    Parameters
    ----------
    values : torch.Tensor
        Descriptors with a graph back to `positions`, shape (batch, n_descriptors).
    positions : torch.Tensor
        Shape (batch, n_atoms, 3).
    pattern : SparsityPattern
        Structure of the derivatives.

    Returns
    -------
    torch.Tensor
        Derivatives in block order, shape (batch, n_blocks, 3).
    """
    colours = pattern.colours()
    block_colours = colours[pattern.descriptor_index]
    blocks = positions.new_zeros(len(positions), pattern.n_blocks, 3)
    for colour in range(int(colours.max()) + 1):
        members = (colours == colour).to(values)
        (gradient,) = torch.autograd.grad(
            values, positions, members.expand_as(values), retain_graph=True, materialize_grads=True
        )
        chosen = torch.nonzero(block_colours == colour).flatten()
        atoms = pattern.atom_index[chosen].to(positions.device)
        blocks.index_copy_(1, chosen.to(positions.device), gradient.index_select(1, atoms))
    return blocks


def require_atoms(
    name: str, atoms: Tensor | Sequence[Any], n_atoms: int, width: int | None = None
) -> Tensor:
    """Return atom indices as an int64 tensor on the CPU, checked.

    Parameters
    ----------
    name : str
        Name of the argument, for the error message.
    atoms : torch.Tensor or sequence
        Zero-based indices, shape (n,), or (n, width) for tuples of distinct atoms.
    n_atoms : int
        Number of atoms in a frame.
    width : int, optional
        Number of atoms in a tuple.

    Raises
    ------
    TypeError
        If the indices are not integers.
    ValueError
        If they have another shape, are none at all, or an atom comes twice where it must not.
    IndexError
        If an index is out of range.
    """
    index = as_tensor(name, atoms)
    if index.numel() == 0:
        raise ValueError(f"{name}: expected at least one atom, got none")
    require_integers(name, index, ("n",) if width is None else ("n", width))
    require_in_range(name, index.flatten(), 0, n_atoms)
    index = index.detach().to(device="cpu", dtype=torch.int64)
    for row in index.reshape(-1, index.shape[-1]).tolist():
        if len(set(row)) < len(row):
            raise ValueError(f"{name}: expected distinct atoms, got {row}")
    return index
