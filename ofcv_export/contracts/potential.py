"""A bias as an engine's potential: the engine's positions in, its energy and forces out."""

# No postponed annotations: torch.jit.script wants the classes' own to be types.

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from ofcv_export.base.units import energy_factor, length_factor
from ofcv_export.descriptors.box_check import BoxCheck
from ofcv_export.descriptors.whole_molecules import MakeWhole
from ofcv_export.graph.details import ContractDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.scriptable import scriptable
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.variables.bias import Bias

LENGTH_UNIT, ENERGY_UNIT = "nm", "kJ/mol"
OUTPUT_UNITS = {"energy": ENERGY_UNIT, "forces": f"{ENERGY_UNIT}/{LENGTH_UNIT}"}


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
    anywhere : bool
        Whether the place of the molecule is of no matter, so that the first atom may be put at the
        origin before anything is rounded.
    time : int
        Which of the parameters is a time, which is not rounded to the bias's precision; -1 if none
        is.
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
        anywhere: bool,
        time: int,
    ) -> None:
        super().__init__()
        self.bias = bias
        self.length = length
        self.energy = energy
        self.whole = whole
        self.anywhere = anywhere
        self.time = time
        self.make_whole = MakeWhole()
        self.register_buffer("atoms", torch.tensor(list(atoms)))
        # Its dtype is that of the bias, also after a later `to` of the whole module.
        self.register_buffer("precision", torch.zeros(1, dtype=dtype))

    def forward(
        self,
        positions: Tensor,
        box: Tensor | None,
        parameters: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
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
        # Differences in float64, before anything is rounded.
        place = positions.detach().index_select(0, self.atoms).to(torch.float64)
        if self.anywhere:
            place = place - place[:1]
        place = place.to(self.precision) * self.length
        lattice = torch.eye(3, dtype=place.dtype, device=place.device)
        if box is not None:
            lattice = box.detach().to(self.precision) * self.length
            if self.whole:
                place = self.make_whole(place, lattice)
        given: list[Tensor] = []
        for index, parameter in enumerate(parameters):
            is_time = index == self.time
            given.append(parameter if is_time else parameter.to(self.precision))
        values, derivatives = self.bias(place.unsqueeze(0), lattice, given)
        forces = derivatives[0, 0] * (-self.energy * self.length)
        zeros = torch.zeros_like(positions)
        return (
            (values[0, 0] * self.energy).to(positions.dtype),
            zeros.index_copy(0, self.atoms, forces.to(positions.dtype)),
        )


def differentiable(energy: Tensor, forces: Tensor, positions: Tensor) -> Tensor:
    """Return the energy such that its backward pass gives minus the forces.

    The added term is zero; its derivative with respect to the positions is minus the forces.
    """
    return energy - (forces.detach() * (positions - positions.detach())).sum()


def potential_graph(
    contract: str,
    bias: Bias,
    inputs: Sequence[TensorSpec],
    rows: Sequence[int],
    energy_only: bool,
    bound: bool,
    wrap: Callable[[Potential], nn.Module],
    arguments: Callable[[fx.Graph], tuple[object, ...]],
    engine_inputs: Sequence[str] | None = None,
    group: Sequence[int] | None = None,
) -> ExportGraph:
    """Return the graph of a bias in an engine's calling convention.

    Parameters
    ----------
    contract : str
        Name of the convention.
    bias : Bias
        The bias.
    inputs : sequence of TensorSpec
        What the engine gives; positions first.
    rows : sequence of int
        Rows of the engine's positions that are the bias's atoms, in its order.
    energy_only : bool
        Whether the engine differentiates the energy, instead of taking forces.
    bound : bool
        Whether run-time parameters keep their default values.
    wrap : callable
        Puts the engine's own checks around the potential; the result returns energy and forces.
    arguments : callable
        Adds the engine's inputs to a graph, positions first, and returns the arguments of what
        `wrap` returned.
    engine_inputs, group
        Facts for the metadata.

    Raises
    ------
    ValueError
        If the positions are fractions of a box, or a unit is unknown.
    """
    graph, details = bias.export_graph(), bias.details()
    if details.box.fractions:
        raise ValueError("module: expected positions in real units, got fractions of a box")

    def entry(module: nn.Module) -> fx.GraphModule:
        engine = fx.Graph()
        given = arguments(engine)
        positions = next(iter(engine.nodes))
        outputs = engine.call_module("potential", given)  # type: ignore[arg-type]
        if energy_only:
            outputs = engine.call_function(differentiable, (*_both(outputs), positions))
        engine.output(outputs)
        return fx.GraphModule({"potential": wrap(_potential(bias, module, rows, bound))}, engine)

    place = next(spec for spec in inputs if spec.name == "positions")
    outputs = [TensorSpec("energy", place.dtype, ())]
    if not energy_only:
        outputs.append(TensorSpec("forces", place.dtype, place.shape))
    return ExportGraph(
        ContractDetails(
            contract=contract,
            variable=details,
            engine_inputs=None if engine_inputs is None else tuple(engine_inputs),
            group=None if group is None else tuple(group),
        ),
        tuple(inputs),
        tuple(outputs),
        build=lambda _: entry(scriptable(graph.module)),  # type: ignore[arg-type]
        # Of the user's own module by autograd; what is around it is the contract's.
        exact=entry(graph.exact),
        atoms=bias.atoms,
        elements=bias.elements,
        length_unit=LENGTH_UNIT,
        output_units={spec.name: OUTPUT_UNITS[spec.name] for spec in outputs},
        freeze=False,
        differentiable=energy_only,
    )


def _potential(bias: Bias, module: nn.Module, rows: Sequence[int], bound: bool) -> Potential:
    """Return the potential of a bias that a module evaluates."""
    names = list(bias.parameter_defaults())
    return Potential(
        bias_call(module, bias.periodic, bias.default_parameters(), bound),
        rows,
        length_factor(LENGTH_UNIT, str(bias.length_unit)),
        energy_factor(bias.energy_unit, ENERGY_UNIT),
        bias.dtype,
        whole=bias.box.open,
        anywhere=bias.descriptors.specification() is not None,
        time=names.index("time") if bias.time_unit() else -1,
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
    listed = graph.placeholder("parameters", type_expr=list[Tensor])
    given = [
        graph.get_attr(name) if bound else graph.call_function(operator.getitem, (listed, index))
        for index, name in enumerate(parameters)
    ]
    outputs = graph.call_module("bias", (positions, *([box] if periodic else []), *given))
    graph.output(_both(outputs))
    attributes = {"bias": module, **(parameters if bound else {})}
    return fx.GraphModule(attributes, graph)


def _both(outputs: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Return the first two outputs of a call."""
    first, second = (outputs.graph.call_function(operator.getitem, (outputs, k)) for k in range(2))
    return first, second


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
    boxes = [torch.tensor(lattice, dtype=torch.float64) for lattice in bias.box.fixed]
    for box in boxes[1:]:
        if not torch.allclose(boxes[0], box):
            raise ValueError("module: expected one fixed box in all descriptors, got several")
    factor = length_factor(str(bias.length_unit), LENGTH_UNIT)
    fixed = factor * boxes[0] if boxes else None
    return BoxCheck(bias.box.run_time == "orthorhombic", fixed)


def require_bias(module: object) -> Bias:
    """Return a module, or raise TypeError unless it is a bias."""
    if not isinstance(module, Bias):
        raise TypeError(f"module: expected a Bias (an energy), got {type(module).__name__}")
    return module
