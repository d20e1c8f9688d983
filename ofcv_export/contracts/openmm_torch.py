"""OpenMM-Torch's TorchForce: a bias that it loads as it is.

TorchForce calls ``forward(positions[, box][, parameter, ...])``: positions of all particles in nm,
float64 on the Reference platform and the platform's precision elsewhere; the box where
``setUsesPeriodicBoundaryConditions(True)`` was called; and the global parameters in the order in
which they were added, each a tensor with one value. It takes an energy in kJ/mol, which it
differentiates, or with ``setOutputsForces(True)`` energy and forces in kJ/mol/nm.
"""

import torch
from torch import Tensor, fx, nn

from ofcv_export.base.validation import dtype_name, require_positive
from ofcv_export.contracts.potential import (
    Potential,
    box_check,
    box_spec,
    potential_graph,
    require_bias,
)
from ofcv_export.descriptors.box_check import BoxCheck
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.tensor_spec import TensorSpec
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
        box: Tensor | None,
        parameters: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
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
    bias = require_bias(bias)
    require_positive("n_particles", n_particles)
    if max(bias.atoms) >= n_particles:
        raise ValueError(f"n_particles: expected more than {max(bias.atoms)}, got {n_particles}")
    takes_box = bias.periodic if box is None else box
    if bias.periodic and not takes_box:
        raise ValueError("box: expected True for a periodic bias, got False")
    check = box_check(bias)
    parameters = _names(bias)

    def arguments(graph: fx.Graph) -> tuple[object, ...]:
        positions = graph.placeholder("positions")
        lattice = graph.placeholder("box") if takes_box else None
        scalars = [[graph.placeholder(name) for name in names] for names in parameters]
        # The values come with shape () or (1,), as the platform likes.
        given = [
            graph.call_function(
                torch.cat, ([graph.call_function(torch.reshape, (part, [1])) for part in parts],)
            )
            for parts in scalars
        ]
        return positions, lattice, given

    name = dtype_name(bias.dtype)
    inputs = [TensorSpec("positions", name, (n_particles, 3))]
    if takes_box:
        inputs.append(box_spec(name, check))
    dtypes = [dtype_name(value.dtype) for value in bias.default_parameters().values()]
    inputs += [
        TensorSpec(key, dtype, (1,))
        for keys, dtype in zip(parameters, dtypes, strict=True)
        for key in keys
    ]
    return potential_graph(
        NAME,
        bias,
        inputs,
        bias.atoms,
        energy_only=not forces,
        bound=False,
        wrap=lambda potential: OpenMMPotential(potential, n_particles, check),
        arguments=arguments,
    )


def _names(bias: Bias) -> list[list[str]]:
    """Return the names of the global parameters, grouped by those of the bias."""
    defaults = bias.parameter_defaults()
    return [
        [name] if len(values) == 1 else [f"{name}_{index}" for index in range(len(values))]
        for name, values in defaults.items()
    ]
