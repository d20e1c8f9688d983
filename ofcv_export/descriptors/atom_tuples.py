"""Functions of the bonds in tuples of atoms."""

from typing import ClassVar

import torch
from torch import Tensor

from ofcv_export.descriptors.boundaries import Boundaries, open_boundaries
from ofcv_export.descriptors.descriptor import Descriptor, require_atoms
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern


class AtomTuples(Descriptor):
    """Descriptors of tuples of atoms, one or several values for each tuple in turn.

    Parameters
    ----------
    atoms : torch.Tensor
        Zero-based atom indices, int64, shape (n_tuples, width).
    n_atoms : int
        Number of atoms in a frame.
    box : Boundaries, optional
        Boundary conditions; open by default.
    n_values : int
        Number of values for each tuple.

    Attributes
    ----------
    tuples : str
        Name of the argument, and of the buffer, that holds the tuples.
    bonds : tuple of pairs of int
        Places in a tuple that a bond leads from and to.
    start, end : torch.Tensor
        Atoms that the bonds lead from and to, all first bonds first, shape (n_bonds * n_tuples,).
    """

    tuples: ClassVar[str] = "atoms"
    bonds: ClassVar[tuple[tuple[int, int], ...]]
    start: Tensor
    end: Tensor

    def __init__(
        self, atoms: Tensor, n_atoms: int, box: Boundaries | None, n_values: int = 1
    ) -> None:
        width = 1 + max(max(bond) for bond in self.bonds)
        atoms = require_atoms(self.tuples, atoms, n_atoms, width)
        box = open_boundaries() if box is None else box
        super().__init__(n_atoms, n_values * len(atoms), box.takes_box)
        start, end = (atoms[:, places].t().flatten() for places in torch.tensor(self.bonds).t())
        self.register_buffer(self.tuples, atoms, persistent=False)
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("end", end, persistent=False)
        self.box = box

    def vectors(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the vectors along the bonds, shape (batch, n_bonds * n_tuples, 3)."""
        start = positions.index_select(1, self.start)
        end = positions.index_select(1, self.end)
        return self.box.displacement(start, end, box)

    def pattern(self) -> SparsityPattern:
        """Return, for each value of each tuple, the blocks of its atoms in their order."""
        atoms = getattr(self, self.tuples).cpu()
        descriptors = torch.arange(self.n_descriptors).repeat_interleave(atoms.shape[1])
        atoms = atoms.repeat_interleave(self.n_descriptors // len(atoms), dim=0).flatten()
        return SparsityPattern(descriptors, atoms, self.n_descriptors, self.n_atoms)
