"""GROMACS's neural-network potential interface (NNPot): a bias that ``mdrun`` loads as it is.

GROMACS calls ``forward`` with the inputs that the ``.mdp`` file lists, in that order: positions of
the atoms of the input group in the order of their indices, float32 in nm, with ``requires_grad``
set; atomic numbers, int32; the box, float32, lattice vectors as rows in nm; and three booleans for
periodicity. It takes the energy in kJ/mol and, from a second output, the forces in kJ/mol/nm;
without one it differentiates the energy with respect to the first input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from ofcv_export.base.atoms import atom_indices
from ofcv_export.base.elements import atomic_numbers
from ofcv_export.contracts.potential import (
    Potential,
    box_check,
    box_spec,
    potential_graph,
    require_bias,
)
from ofcv_export.descriptors.box_check import BoxCheck, vectors_text
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.variables.bias import Bias

NAME = "gromacs-nnpot"
# GROMACS's names of the inputs, and those of the arguments of `GromacsPotential`.
ARGUMENTS = {
    "atom-positions": "positions",
    "atom-numbers": "atom_numbers",
    "box": "box",
    "pbc": "pbc",
}
# Stands for atoms whose element the bias does not know.
_ANY_ELEMENT = 6


class GromacsPotential(nn.Module):
    """A bias behind GROMACS's inputs, which it checks.

    Parameters
    ----------
    potential : Potential
        The bias.
    n_group : int
        Number of atoms in the input group.
    elements : sequence of int, optional
        Atomic numbers of the bias's atoms, in its order.
    box_check : BoxCheck
        What the bias asks of the box.
    """

    elements: Tensor

    def __init__(
        self,
        potential: Potential,
        n_group: int,
        elements: Sequence[int] | None,
        box_check: BoxCheck,
    ) -> None:
        super().__init__()
        self.potential = potential
        self.n_group = n_group
        self.has_elements = elements is not None
        self.register_buffer("elements", torch.tensor(list(elements or []), dtype=torch.int64))
        self.box_check = box_check

    def forward(
        self,
        positions: Tensor,
        atom_numbers: Tensor | None,
        box: Tensor | None,
        pbc: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return energy () and forces (n_group, 3); inputs that are not listed are None.

        Raises
        ------
        ValueError
            For another number of atoms, other elements, or a box that does not fit.
        """
        complaint = self.complaint(positions, atom_numbers, box, pbc)
        if complaint != "":
            if is_trial(positions):
                return torch.zeros_like(positions).sum(), torch.zeros_like(positions)
            raise ValueError(complaint)
        none: list[Tensor] = []
        energy, forces = self.potential(positions, box, none)
        return energy, forces

    def complaint(
        self,
        positions: Tensor,
        atom_numbers: Tensor | None,
        box: Tensor | None,
        pbc: Tensor | None,
    ) -> str:
        """Return what is wrong with the inputs, the empty string if nothing is."""
        if positions.shape[0] != self.n_group:
            got = positions.shape[0]
            return f"atom-positions: expected an input group of {self.n_group} atoms, got {got}"
        if atom_numbers is not None and self.has_elements:
            found = atom_numbers.index_select(0, self.potential.atoms).to(torch.int64)
            if bool((found != self.elements).any()):
                numbers: list[int] = self.elements.tolist()
                others: list[int] = found.tolist()
                return f"atom-numbers: expected {numbers} for the bias's atoms, got {others}"
        if pbc is not None and not bool(pbc.all()):
            flags: list[bool] = pbc.tolist()
            return f"pbc: expected all three directions periodic, got {flags}"
        if box is not None:
            # GROMACS's boxes are lower triangular.
            if not bool((torch.diagonal(box) > 0).all()):
                return f"box: expected lattice vectors, got {vectors_text(box)}"
            wrong: str = self.box_check(box)
            return wrong
        return ""


def is_trial(positions: Tensor) -> bool:
    """Return whether these are positions with which ``gmx grompp`` tries out a model.

    It runs a model once with one or two atoms at the origin (2025, 2026), or with the atoms of the
    group on a line, atom i at (i + 1) times 0.01 nm times (1, 2, 3), all of one element. No
    simulation has such positions.
    """
    index = torch.arange(1, positions.shape[0] + 1, device=positions.device)
    line = 0.01 * torch.outer(index, torch.arange(1, 4, device=positions.device))
    return bool((positions == 0).all()) or bool(((positions - line).abs() < 1e-5 * line).all())


def gromacs_nnpot(
    bias: Bias,
    *,
    inputs: Sequence[str] | None = None,
    group: Sequence[int] | None = None,
    energy_only: bool = False,
) -> ExportGraph:
    """Return the graph that GROMACS calls.

    Run-time parameters keep their default values, as GROMACS has no input for them.

    Parameters
    ----------
    bias : Bias
        The bias.
    inputs : sequence of str, optional
        GROMACS's names of the inputs, in the order of ``nnpot-model-input1``, ... in the ``.mdp``
        file. By default atom-positions, atom-numbers where the elements are known, box and pbc.
        Without the box GROMACS must be run without periodic boundaries, or with a molecule that
        never crosses them.
    group : sequence of int, optional
        Zero-based indices of all atoms of ``nnpot-input-group``. By default exactly the bias's
        atoms; ``range(n)`` for a system of n atoms.
    energy_only : bool
        Leave the forces to GROMACS, which differentiates the energy.

    Raises
    ------
    TypeError
        If the module is no bias.
    ValueError
        For inputs that GROMACS or the bias does not have, a group that lacks atoms of the bias,
        or a bias that needs the time.
    """
    bias = require_bias(bias)
    if "time" in bias.parameter_defaults():
        raise ValueError("module: expected a bias without a time, which GROMACS does not give")
    listed = _inputs(bias, inputs, energy_only)
    members = _group(bias.atoms, group)
    rows = [members.index(atom) for atom in bias.atoms]
    elements = None if bias.elements is None else atomic_numbers(bias.elements)
    check = box_check(bias)

    def arguments(graph: fx.Graph) -> tuple[fx.Node | None, ...]:
        given = {name: graph.placeholder(ARGUMENTS[name]) for name in listed}
        return tuple(given.get(name) for name in ARGUMENTS)

    return potential_graph(
        NAME,
        bias,
        _specs(listed, len(members), rows, elements, check),
        rows,
        energy_only,
        bound=True,
        wrap=lambda potential: GromacsPotential(potential, len(members), elements, check),
        arguments=arguments,
        engine_inputs=listed,
        group=members,
    )


def _inputs(bias: Bias, inputs: Sequence[str] | None, energy_only: bool) -> list[str]:
    """Return the names of the inputs, checked."""
    if inputs is None:
        return [name for name in ARGUMENTS if name != "atom-numbers" or bias.elements is not None]
    names = list(inputs)
    if not set(names) <= set(ARGUMENTS) or len(set(names)) < len(names):
        raise ValueError(f"inputs: expected some of {', '.join(ARGUMENTS)}, got {names}")
    if "atom-positions" not in names or (energy_only and names[0] != "atom-positions"):
        place = "as the first one" if energy_only else "among them"
        raise ValueError(f"inputs: expected atom-positions {place}, got {names}")
    if bias.periodic and "box" not in names:
        raise ValueError(f"inputs: expected box, which the bias needs, got {names}")
    return names


def _group(atoms: Sequence[int], group: Sequence[int] | None) -> list[int]:
    """Return the atoms of the input group in GROMACS's order, which is that of their indices."""
    members = sorted(atom_indices("group", atoms if group is None else group))
    if not set(atoms) <= set(members):
        raise ValueError(
            f"group: expected distinct zero-based indices, the bias's {sorted(atoms)} among them, "
            f"got {members}"
        )
    return members


def _specs(
    inputs: Sequence[str],
    n_group: int,
    rows: Sequence[int],
    elements: Sequence[int] | None,
    check: BoxCheck,
) -> tuple[TensorSpec, ...]:
    """Return names, dtypes and shapes of the inputs, with what checks let pass."""
    numbers = [_ANY_ELEMENT] * n_group
    for row, number in zip(rows, elements or numbers, strict=False):
        numbers[row] = number
    specs = {
        "atom-positions": TensorSpec("positions", "float32", (n_group, 3)),
        "atom-numbers": TensorSpec(
            "atom_numbers", "int32", (n_group,), low=1, high=119, example=tuple(numbers)
        ),
        "box": box_spec("float32", check),
        "pbc": TensorSpec("pbc", "bool", (3,), low=0, high=2, example=(1, 1, 1)),
    }
    return tuple(specs[name] for name in inputs)
