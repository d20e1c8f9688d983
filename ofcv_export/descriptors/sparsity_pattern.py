"""Which descriptor depends on which atom: the fixed indices of a sparse Jacobian."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ofcv_export.base.arrays import as_tensor
from ofcv_export.base.validation import (
    require_in_range,
    require_integers,
    require_positive,
    require_shape,
)

_COLOURING_SEED = 0
_COLOURING_TRIES = 4


class SparsityPattern:
    """Structure of d(descriptors)/d(positions), one pattern for all frames.

    The unit is a block: one (descriptor, atom) pair with its three Cartesian components, because a
    descriptor that depends on an atom depends on its position, even where a component happens to
    be 0.0. Blocks are sorted by descriptor, then by atom, unless they are given in another order.

    Parameters
    ----------
    descriptor_index, atom_index : torch.Tensor or sequence of int
        Descriptor and atom of every block, shape (n_blocks,).
    n_descriptors, n_atoms : int
        Sizes of the Jacobian.

    Raises
    ------
    ValueError
        If the two index lists differ in length or a block is given twice.
    IndexError
        If an index is out of range.
    """

    def __init__(
        self,
        descriptor_index: Tensor | Sequence[int],
        atom_index: Tensor | Sequence[int],
        n_descriptors: int,
        n_atoms: int,
    ) -> None:
        require_positive("n_descriptors", n_descriptors)
        require_positive("n_atoms", n_atoms)
        self.descriptor_index = _index("descriptor_index", descriptor_index, n_descriptors)
        self.atom_index = _index("atom_index", atom_index, n_atoms)
        require_shape("atom_index", self.atom_index, (len(self.descriptor_index),))
        self.n_descriptors = int(n_descriptors)
        self.n_atoms = int(n_atoms)
        self._colours: Tensor | None = None
        blocks = self.descriptor_index * self.n_atoms + self.atom_index
        n_distinct = len(torch.unique(blocks))
        if n_distinct != len(blocks):
            raise ValueError(
                f"atom_index: expected every (descriptor, atom) pair once, "
                f"got {len(blocks)} pairs of which {n_distinct} are distinct"
            )

    @classmethod
    def from_dependence(cls, dependence: Tensor) -> SparsityPattern:
        """Build the pattern from a boolean matrix (n_descriptors, n_atoms)."""
        descriptor_index, atom_index = torch.nonzero(dependence, as_tuple=True)
        return cls(descriptor_index, atom_index, *dependence.shape)

    @property
    def n_blocks(self) -> int:
        """Number of (descriptor, atom) pairs."""
        return len(self.descriptor_index)

    @property
    def nnz(self) -> int:
        """Number of structural non-zeros per frame, three per block."""
        return 3 * self.n_blocks

    def dependence(self) -> Tensor:
        """Return the boolean matrix (n_descriptors, n_atoms)."""
        dependence = torch.zeros(self.n_descriptors, self.n_atoms, dtype=torch.bool)
        dependence[self.descriptor_index, self.atom_index] = True
        return dependence

    def unused_atoms(self) -> list[int]:
        """Return the zero-based indices of atoms that no descriptor depends on."""
        counts = torch.bincount(self.atom_index, minlength=self.n_atoms)
        return torch.nonzero(counts == 0).flatten().tolist()

    def entries(self) -> tuple[Tensor, Tensor]:
        """Return descriptor and target of every non-zero in block order, shapes (nnz,).

        The target of component `dim` of atom `atom` is ``atom * 3 + dim``.
        """
        targets = (self.atom_index[:, None] * 3 + torch.arange(3)).flatten()
        return self.descriptor_index.repeat_interleave(3), targets

    def digest(self) -> str:
        """Return the SHA-256 of the pattern's sizes and indices."""
        indices = torch.stack([self.descriptor_index, self.atom_index]).numpy().astype("<i8")
        sizes = np.array([self.n_descriptors, self.n_atoms], dtype="<i8")
        return hashlib.sha256(sizes.tobytes() + indices.tobytes()).hexdigest()

    def colours(self) -> Tensor:
        """Group the descriptors so that those of one colour share no atom.

        One backward pass then gives the derivatives of a whole colour (Curtis, Powell and Reid,
        J. Inst. Math. Appl. 13, 117 (1974)). Descriptors take the first colour that is free on all
        of their atoms; of a few orders the one with the fewest colours wins.

        Returns
        -------
        torch.Tensor
            Colour of every descriptor, int64, shape (n_descriptors,).
        """
        if self._colours is not None:
            return self._colours
        dependence = self.dependence().numpy()
        atoms = [np.flatnonzero(row) for row in dependence]
        # Sorting by the sum of the atoms' indices, modulo their number, is the round-robin
        # tournament: it colours all pairs of n atoms with n colours, the optimum for odd n.
        round_robin = np.argsort([row.sum() % self.n_atoms for row in atoms], kind="stable")
        generator = np.random.default_rng(_COLOURING_SEED)
        orders = [round_robin, np.arange(self.n_descriptors)]
        orders += [generator.permutation(self.n_descriptors) for _ in range(_COLOURING_TRIES)]
        best = min((_first_fit(atoms, self.n_atoms, order) for order in orders), key=np.max)
        self._colours = torch.from_numpy(best)
        return self._colours


def _index(name: str, values: Tensor | Sequence[int], high: int) -> Tensor:
    """Return `values` as int64 indices in [0, high)."""
    index = as_tensor(name, values)
    if index.numel() == 0:
        index = index.to(torch.int64)
    require_integers(name, index, ("n_blocks",))
    require_in_range(name, index, 0, high)
    return index.to(device="cpu", dtype=torch.int64)


def _first_fit(atoms: list[np.ndarray], n_atoms: int, order: np.ndarray) -> np.ndarray:
    """Colour descriptors in `order`, each with the first colour free on all of its atoms."""
    taken = np.zeros((len(atoms) + 1, n_atoms), dtype=bool)
    colours = np.zeros(len(atoms), dtype=np.int64)
    n_colours = 0
    for descriptor in order:
        busy = taken[: n_colours + 1, atoms[descriptor]].any(axis=1)
        colour = int(np.argmin(busy))
        taken[colour, atoms[descriptor]] = True
        colours[descriptor] = colour
        n_colours = max(n_colours, colour + 1)
    return colours
