"""A bias as an engine's potential: the engine's positions in, its energy and forces out.

The modules here are scripted by TorchScript, which needs ``Optional`` and ``List``.
"""

import itertools
import operator
from collections.abc import Sequence
from typing import List, Optional, Tuple  # noqa: UP035 (TorchScript)

import torch
from torch import Tensor, fx, nn

from ofcv_export.base.units import energy_factor, length_factor
from ofcv_export.descriptors.boundaries import (
    Boundaries,
    OrthorhombicBox,
    RuntimeBox,
    TriclinicBox,
)
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.lattice import LatticeReduction, NearestImage
from ofcv_export.graph.export_graph import ExportGraph, TensorSpec
from ofcv_export.graph.gradients import scriptable
from ofcv_export.variables.bias import Bias

LENGTH_UNIT, ENERGY_UNIT = "nm", "kJ/mol"
OUTPUT_UNITS = {"energy": ENERGY_UNIT, "forces": f"{ENERGY_UNIT}/{LENGTH_UNIT}"}

# A box that a bias was made for equals the engine's to this relative precision.
_SAME_BOX = 1e-4


class Potential(nn.Module):
    """Energy in kJ/mol and forces in kJ/mol/nm from positions in nm.

    The bias is evaluated in its own precision and in its own units; energy and forces come in the
    dtype of the positions. Nothing is left to differentiate in the forces.

    Parameters
    ----------
    bias : torch.nn.Module
        Energy and derivatives, see `bias_call`.
    atoms : sequence of int
        Rows of the engine's positions that are the bias's atoms, in its order.
    length, energy : float
        Length unit of the bias per nm; kJ/mol per energy unit of the bias.
    dtype : torch.dtype
        Precision of the bias.
    whole : bool
        Whether to make the molecule whole where there is a box.
    """

    atoms: Tensor
    precision: Tensor

    def __init__(
        self,
        bias: nn.Module,
        atoms: Sequence[int],
        length: float,
        energy: float,
        dtype: torch.dtype,
        whole: bool,
    ) -> None:
        super().__init__()
        self.bias = bias
        self.length = length
        self.energy = energy
        self.whole = whole
        self.make_whole = MakeWhole()
        self.register_buffer("atoms", torch.tensor(list(atoms)))
        # Its dtype is that of the bias, also after a later `to` of the whole module.
        self.register_buffer("precision", torch.zeros(1, dtype=dtype))

    def forward(
        self,
        positions: Tensor,
        box: Optional[Tensor],  # noqa: UP045 (TorchScript)
        parameters: List[Tensor],  # noqa: UP006 (TorchScript)
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006 (TorchScript)
        """Return the energy, shape (), and the forces, shape (n, 3).

        Parameters
        ----------
        positions : torch.Tensor
            Positions of the engine's atoms in nm, shape (n, 3).
        box : torch.Tensor, optional
            Lattice vectors as rows in nm, shape (3, 3).
        parameters : list of torch.Tensor
            Run-time parameters of the bias, in its order.
        """
        place = positions.detach().index_select(0, self.atoms).to(self.precision) * self.length
        lattice = torch.eye(3, dtype=place.dtype, device=place.device)
        if box is not None:
            lattice = box.detach().to(self.precision) * self.length
            if self.whole:
                place = self.make_whole(place, lattice)
        given: List[Tensor] = []  # noqa: UP006 (TorchScript)
        for parameter in parameters:
            given.append(parameter.to(self.precision))
        values, derivatives = self.bias(place.unsqueeze(0), lattice, given)
        forces = derivatives[0, 0] * (-self.energy * self.length)
        zeros = torch.zeros_like(positions)
        return (
            (values[0, 0] * self.energy).to(positions.dtype),
            zeros.index_copy(0, self.atoms, forces.to(positions.dtype)),
        )


class MakeWhole(nn.Module):
    """Put each atom at its image nearest to the atom before it, exact in every box."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction = LatticeReduction()
        self.nearest_image = NearestImage()

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return positions (n_atoms, 3) moved by lattice vectors; the first one stays.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (n_atoms, 3).
        box : torch.Tensor
            Lattice vectors as rows, shape (3, 3).
        """
        steps = positions[1:] - positions[:-1]
        edges = torch.diagonal(box)
        if bool((box == torch.diag(edges)).all()):
            # Rounding is exact here, and many times faster.
            nearest = steps - edges * torch.round(steps / edges)
        else:
            nearest = self.nearest_image(steps, self.reduction(box))
        return torch.cat([positions[:1], positions[1:] + (nearest - steps).cumsum(0)])


class BoxCheck(nn.Module):
    """What a bias asks of the engine's box.

    Parameters
    ----------
    orthorhombic : bool
        Whether the lattice vectors must lie along x, y and z.
    fixed : torch.Tensor, optional
        The box that the bias was made for, in nm, shape (3, 3).
    """

    fixed: Tensor

    def __init__(self, orthorhombic: bool, fixed: Tensor | None) -> None:
        super().__init__()
        self.orthorhombic = orthorhombic
        self.has_fixed = fixed is not None
        self.tolerance = _SAME_BOX
        self.register_buffer("fixed", torch.zeros(3, 3) if fixed is None else fixed)

    def forward(self, box: Tensor) -> str:
        """Return what is wrong with a box (3, 3) in nm, the empty string if nothing is."""
        if self.has_fixed:
            fixed = self.fixed.to(box)
            if bool((box - fixed).abs().max() > self.tolerance * fixed.abs().max()):
                made_for, got = vectors_text(fixed), vectors_text(box)
                return f"box: expected {made_for} nm, for which the bias was made, got {got}"
        if self.orthorhombic and bool((box != torch.diag(torch.diagonal(box))).any()):
            return f"box: expected lattice vectors along x, y and z, got {vectors_text(box)}"
        return ""


def vectors_text(box: Tensor) -> str:
    """Return lattice vectors (3, 3) as text."""
    vectors: List[List[float]] = box.tolist()  # noqa: UP006 (TorchScript)
    return str(vectors)


def differentiable(energy: Tensor, forces: Tensor, positions: Tensor) -> Tensor:
    """Return the energy such that its backward pass gives minus the forces.

    The added term is zero; its derivative with respect to the positions is minus the forces.
    """
    return energy - (forces.detach() * (positions - positions.detach())).sum()


def potential_of(
    bias: Bias, graph: ExportGraph, atoms: Sequence[int], bound: bool, exact: bool
) -> Potential:
    """Return the potential of a bias.

    Parameters
    ----------
    bias : Bias
        The bias.
    graph : ExportGraph
        Its graph.
    atoms : sequence of int
        Rows of the engine's positions that are the bias's atoms, in its order.
    bound : bool
        Whether run-time parameters keep their default values.
    exact : bool
        Whether derivatives come from autograd, as the judge of the file, or are written out.

    Raises
    ------
    ValueError
        If the positions are fractions of a box, or a unit is unknown.
    """
    for boundaries in _boundaries(bias):
        if boundaries.scaled:
            raise ValueError("module: expected positions in real units, got fractions of a box")
    inner = graph.exact if exact else scriptable(graph.module)  # type: ignore[arg-type]
    assert inner is not None
    defaults = bias.parameter_defaults()
    tensors = {name: torch.tensor(value, dtype=bias.dtype) for name, value in defaults.items()}
    return Potential(
        bias_call(inner, bias.periodic, tensors, bound),
        atoms,
        length_factor(LENGTH_UNIT, str(bias.length_unit)),
        energy_factor(bias.energy_unit, ENERGY_UNIT),
        bias.dtype,
        whole=not _periodic(bias),
    )


def bias_call(
    module: nn.Module, periodic: bool, parameters: dict[str, Tensor], bound: bool
) -> fx.GraphModule:
    """Return a module that calls a bias by one signature, whatever its inputs are.

    Parameters
    ----------
    module : torch.nn.Module
        Takes positions (1, n_atoms, 3), a box (3, 3) when periodic, and parameters; returns
        values (1, 1), derivatives (1, 1, n_atoms, 3), and others that are not needed.
    periodic : bool
        Whether it takes a box.
    parameters : dict of str to torch.Tensor
        Its parameters and their values.
    bound : bool
        Whether parameters keep these values, or are taken from the list.

    Returns
    -------
    torch.fx.GraphModule
        Takes positions, a box and a list of parameters; returns values and derivatives.
    """
    graph = fx.Graph()
    positions, box = graph.placeholder("positions"), graph.placeholder("box")
    listed = graph.placeholder("parameters", type_expr=List[Tensor])  # noqa: UP006 (TorchScript)
    given = [
        graph.get_attr(name) if bound else graph.call_function(operator.getitem, (listed, index))
        for index, name in enumerate(parameters)
    ]
    outputs = graph.call_module("bias", (positions, *([box] if periodic else []), *given))
    values, derivatives = (
        graph.call_function(operator.getitem, (outputs, index)) for index in range(2)
    )
    graph.output((values, derivatives))
    attributes = {"bias": module, **(parameters if bound else {})}
    return fx.GraphModule(attributes, graph)


def box_spec(dtype: str, check: BoxCheck) -> TensorSpec:
    """Return name, dtype and shape of the engine's box, with one that passes the check."""
    example = tuple(check.fixed.flatten().tolist()) if check.has_fixed else None
    return TensorSpec("box", dtype, (3, 3), example=example)


def box_check(bias: Bias) -> BoxCheck:
    """Return the check of the engine's box that a bias needs.

    Raises
    ------
    ValueError
        If the bias was made for several boxes.
    """
    factor = length_factor(str(bias.length_unit), LENGTH_UNIT)
    boxes = [box * factor for box in map(_fixed_box, _boundaries(bias)) if box is not None]
    for one, other in itertools.pairwise(boxes):
        if not torch.allclose(one, other):
            raise ValueError("module: expected one fixed box in all descriptors, got several")
    orthorhombic = any(
        isinstance(box, RuntimeBox) and box.orthorhombic for box in _boundaries(bias)
    )
    return BoxCheck(orthorhombic, boxes[0] if boxes else None)


def _fixed_box(boundaries: Boundaries) -> Tensor | None:
    """Return the lattice vectors (3, 3) that are frozen in periodic boundaries."""
    if isinstance(boundaries, TriclinicBox) and boundaries.periodic:
        return boundaries.vectors
    if isinstance(boundaries, OrthorhombicBox) and boundaries.periodic:
        return torch.diag(boundaries.lengths)
    return None


def _boundaries(bias: Bias) -> list[Boundaries]:
    return [part for part in bias.descriptors.modules() if isinstance(part, Boundaries)]


def _periodic(bias: Bias) -> bool:
    """Return whether every descriptor takes nearest images itself."""
    return all(
        any(isinstance(part, Boundaries) and part.periodic for part in descriptor.modules())
        for descriptor in bias.descriptors.modules()
        if isinstance(descriptor, Descriptor)
        and not any(isinstance(part, Descriptor) for part in list(descriptor.modules())[1:])
    )
