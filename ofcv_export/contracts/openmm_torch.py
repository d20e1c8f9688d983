"""OpenMM-Torch's TorchForce: a bias that it loads as it is.

TorchForce calls ``forward(positions[, box][, parameter, ...])``: positions of all particles in nm,
float64 on the Reference platform and the platform's precision elsewhere; the box where
``setUsesPeriodicBoundaryConditions(True)`` was called; and the global parameters in the order in
which they were added, each a tensor with one value. It takes an energy in kJ/mol, which it
differentiates, or with ``setOutputsForces(True)`` energy and forces in kJ/mol/nm.
"""

from typing import List, Optional, Tuple  # noqa: UP035 (TorchScript)

import torch
from torch import Tensor, fx, nn

from ofcv_export.base.validation import dtype_name, require_positive
from ofcv_export.contracts.potential import (
    LENGTH_UNIT,
    OUTPUT_UNITS,
    BoxCheck,
    Potential,
    box_check,
    box_spec,
    differentiable,
    potential_of,
)
from ofcv_export.graph.export_graph import ExportGraph, TensorSpec
from ofcv_export.variables.bias import Bias

NAME = "openmm-torch"


class OpenMMPotential(nn.Module):
    """A bias behind TorchForce's inputs, which it checks.

    Parameters
    ----------
    potential : Potential
        The bias.
    n_particles : int
        Number of particles in the System.
    box_check : BoxCheck
        What the bias asks of the box.
    """

    def __init__(self, potential: Potential, n_particles: int, box_check: BoxCheck) -> None:
        super().__init__()
        self.potential = potential
        self.n_particles = n_particles
        self.box_check = box_check

    def forward(
        self,
        positions: Tensor,
        box: Optional[Tensor],  # noqa: UP045 (TorchScript)
        parameters: List[Tensor],  # noqa: UP006 (TorchScript)
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006 (TorchScript)
        """Return energy () and forces (n_particles, 3).

        Raises
        ------
        ValueError
            For another number of particles, or a box that does not fit.
        """
        if positions.shape[0] != self.n_particles:
            got = positions.shape[0]
            raise ValueError(f"positions: expected {self.n_particles} particles, got {got}")
        if box is not None:
            complaint: str = self.box_check(box)
            if complaint != "":
                raise ValueError(complaint)
        energy, forces = self.potential(positions, box, parameters)
        return energy, forces


class EnergyAlone(nn.Module):
    """The energy of a potential, for an engine that differentiates it.

    Parameters
    ----------
    potential : OpenMMPotential
        The potential.
    """

    def __init__(self, potential: OpenMMPotential) -> None:
        super().__init__()
        self.potential = potential

    def forward(
        self,
        positions: Tensor,
        box: Optional[Tensor],  # noqa: UP045 (TorchScript)
        parameters: List[Tensor],  # noqa: UP006 (TorchScript)
    ) -> Tensor:
        """Return the energy (), whose derivatives are minus the forces."""
        energy, forces = self.potential(positions, box, parameters)
        return differentiable(energy, forces, positions)


def openmm_torch(
    bias: Bias, *, n_particles: int, forces: bool = True, box: bool | None = None
) -> ExportGraph:
    """Return the graph that TorchForce calls.

    Parameters
    ----------
    bias : Bias
        The bias. Each value of its run-time parameters becomes a global parameter: ``centre``, or
        ``centre_0``, ``centre_1``, ... where there are several.
    n_particles : int
        Number of particles in the System.
    forces : bool
        Whether the file returns energy and forces, for ``setOutputsForces(True)``, or the energy
        alone.
    box : bool, optional
        Whether the file takes the box, for ``setUsesPeriodicBoundaryConditions(True)``. By default
        where the bias is periodic. A molecule that periodic boundaries may cut is made whole with
        it.

    Raises
    ------
    TypeError
        If the module is no bias.
    ValueError
        If there are fewer particles than the bias's atoms need, or no box where one is needed.
    """
    if not isinstance(bias, Bias):
        raise TypeError(f"module: expected a Bias (an energy), got {type(bias).__name__}")
    require_positive("n_particles", n_particles)
    if max(bias.atoms) >= n_particles:
        raise ValueError(f"n_particles: expected more than {max(bias.atoms)}, got {n_particles}")
    takes_box = bias.periodic if box is None else box
    if bias.periodic and not takes_box:
        raise ValueError("box: expected True for a periodic bias, got False")
    check = box_check(bias)
    parameters = _names(bias)
    graph = bias.export_graph()

    def entry(exact: bool) -> fx.GraphModule:
        potential = potential_of(bias, graph, bias.atoms, bound=False, exact=exact)
        core = OpenMMPotential(potential, n_particles, check)
        return _entry(core, takes_box, parameters, forces)

    name = dtype_name(bias.dtype)
    inputs = [TensorSpec("positions", name, (n_particles, 3))]
    if takes_box:
        inputs.append(box_spec(name, check))
    inputs += [TensorSpec(key, name, (1,)) for keys in parameters for key in keys]
    outputs = [TensorSpec("energy", name, ())]
    if forces:
        outputs.append(TensorSpec("forces", name, (n_particles, 3)))
    return ExportGraph(
        "contract",
        entry(exact=False),
        tuple(inputs),
        tuple(outputs),
        {**graph.details, "contract": NAME, "box": graph.details["box"] or "triclinic"},
        exact=entry(exact=True),
        atoms=bias.atoms,
        length_unit=LENGTH_UNIT,
        output_units={spec.name: OUTPUT_UNITS[spec.name] for spec in outputs},
        freeze=False,
        differentiable=not forces,
    )


def _names(bias: Bias) -> list[list[str]]:
    """Return the names of the global parameters, grouped by those of the bias."""
    defaults = bias.parameter_defaults()
    return [
        [name] if len(values) == 1 else [f"{name}_{index}" for index in range(len(values))]
        for name, values in defaults.items()
    ]


def _entry(
    core: OpenMMPotential, takes_box: bool, parameters: list[list[str]], forces: bool
) -> fx.GraphModule:
    """Return the module that takes positions, perhaps a box, and one value per parameter."""
    graph = fx.Graph()
    positions = graph.placeholder("positions")
    box = graph.placeholder("box") if takes_box else None
    scalars = [[graph.placeholder(name) for name in names] for names in parameters]
    # The values come with shape () or (1,), as the platform likes.
    given = [
        graph.call_function(
            torch.cat, ([graph.call_function(torch.reshape, (part, [1])) for part in parts],)
        )
        for parts in scalars
    ]
    graph.output(graph.call_module("potential", (positions, box, given)))
    return fx.GraphModule({"potential": core if forces else EnergyAlone(core)}, graph)
