"""Positions after optimal superposition on a reference structure."""

from abc import abstractmethod

import torch
from torch import Tensor

from ofcv_export.base.validation import require_finite, require_floats
from ofcv_export.descriptors.boundaries import Boundaries, open_boundaries
from ofcv_export.descriptors.descriptor import Descriptor, require_atoms
from ofcv_export.descriptors.optimal_rotation import OptimalRotation
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern

_COLLINEAR = 1e-6


class Superposition(Descriptor):
    """A function of centred positions of some atoms, rotated onto centred reference positions.

    Under periodic boundaries every atom is taken at its image nearest to the first one: a
    molecule that the box cuts is whole as long as no atom is farther from the first than half the
    box.

    Parameters
    ----------
    reference : torch.Tensor
        Reference positions of the chosen atoms in real units, shape (n_chosen, 3).
    n_atoms : int
        Number of atoms in a frame.
    atoms : torch.Tensor, optional
        Zero-based indices of the chosen atoms, int64, shape (n_chosen,); all by default.
    weights : torch.Tensor, optional
        Positive weights of the chosen atoms, e.g. masses, shape (n_chosen,); equal by default.
    box : Boundaries, optional
        Boundary conditions; open by default.

    Raises
    ------
    ValueError
        If the reference is not finite or on a line, where no rotation is the best one, or a
        weight is not positive.
    """

    facts = ("n_atoms", "atoms", "reference", "weights", "box")
    atoms: Tensor
    first: Tensor
    reference: Tensor
    weights: Tensor

    def __init__(
        self,
        reference: Tensor,
        n_atoms: int,
        atoms: Tensor | None = None,
        weights: Tensor | None = None,
        box: Boundaries | None = None,
    ) -> None:
        atoms = require_atoms("atoms", torch.arange(n_atoms) if atoms is None else atoms, n_atoms)
        weights = torch.ones(len(atoms)) if weights is None else weights
        for name, tensor, shape in (
            ("reference", reference, (len(atoms), 3)),
            ("weights", weights, (len(atoms),)),
        ):
            require_floats(name, tensor, shape)
            require_finite(name, tensor)
        if bool((weights <= 0).any()):
            raise ValueError(f"weights: expected positive numbers, got {weights.tolist()}")
        weights = weights.detach().to(device="cpu", dtype=torch.float64)
        reference = reference.detach().to(device="cpu", dtype=torch.float64)
        _require_not_collinear(reference)
        box = open_boundaries() if box is None else box
        super().__init__(n_atoms, self.count(len(atoms)), box.takes_box)
        self.register_buffer("atoms", atoms, persistent=False)
        self.register_buffer("first", atoms[:1].clone(), persistent=False)
        self.register_buffer("reference", reference, persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.rotation = OptimalRotation()
        self.box = box

    @staticmethod
    @abstractmethod
    def count(n_chosen: int) -> int:
        """Return the number of values of so many chosen atoms."""

    def superposed(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return centred superposed positions and the centred reference.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (batch, n_atoms, 3).
        box : torch.Tensor, optional
            Lattice vectors as rows, shape (3, 3), if the boundaries take it.

        Returns
        -------
        torch.Tensor, torch.Tensor
            Shapes (batch, n_chosen, 3) and (n_chosen, 3).
        """
        share = self.normalised_weights(positions).unsqueeze(1)
        reference = self.reference.to(positions)
        reference = reference - (share * reference).sum(0)
        first = positions.index_select(1, self.first)
        x = self.box.displacement(first, positions.index_select(1, self.atoms), box)
        x = x - (share * x).sum(1, keepdim=True)
        rotation = self.rotation(torch.matmul((share * reference).t(), x))
        return torch.matmul(x, rotation.transpose(1, 2)), reference

    def normalised_weights(self, like: Tensor) -> Tensor:
        """Return the weights divided by their sum, shape (n_chosen,), in the dtype of `like`."""
        return (self.weights / self.weights.sum()).to(like)

    def pattern(self) -> SparsityPattern:
        """Return the pattern in which every value depends on all chosen atoms."""
        used = torch.zeros(self.n_atoms, dtype=torch.bool)
        used[self.atoms.cpu()] = True
        return SparsityPattern.from_dependence(used.expand(self.n_descriptors, -1))


class AlignedPositions(Superposition):
    """Positions of some atoms, superposed on a reference by the optimal translation and rotation.

    Derivatives include those of the rotation (W. Kabsch, Acta Cryst. A 32, 922 (1976), is the
    problem that it solves; see `OptimalRotation` for where it is not unique).

    Parameters
    ----------
    reference, n_atoms, atoms, weights, box
        As those of `Superposition`.
    """

    type_name = "aligned_positions"

    @staticmethod
    def count(n_chosen: int) -> int:
        """Return the number of components."""
        return 3 * n_chosen

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return x, y, z of each chosen atom in turn, shape (batch, 3 * n_chosen)."""
        aligned, centred = self.superposed(positions, box)
        centroid = self.reference.to(positions)[0] - centred[0]
        return (aligned + centroid).flatten(1)


def _require_not_collinear(reference: Tensor) -> None:
    sizes = torch.linalg.svdvals(reference - reference.mean(0))
    if not (len(sizes) == 3 and bool(sizes[1] > _COLLINEAR * sizes[0])):
        raise ValueError(
            "reference: expected at least three atoms that are not on a line, "
            f"got {reference.tolist()}"
        )
