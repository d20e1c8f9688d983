"""A collective variable of a graph of atoms: system atoms and their surroundings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ofcv_export.base.atoms import atom_indices
from ofcv_export.base.elements import atomic_numbers, require_known_elements
from ofcv_export.base.modes import ordinary_modes
from ofcv_export.base.units import require_length_unit
from ofcv_export.base.validation import (
    dtype_name,
    first_line,
    require_floats,
    require_non_negative,
    require_positive_number,
)
from ofcv_export.graph.details import GraphVariableDetails
from ofcv_export.graph.evaluation import evaluation_copy, network_dtype
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.variables.graph_network import GraphNetwork
from ofcv_export.variables.graph_variable import GraphVariable, Zeros

# Sizes of a graph with which a network is tried.
_TRIED = {"n_nodes": 5, "n_edges": 7}


class GraphCollectiveVariable(GraphVariable):
    r"""A network over a graph of atoms, such as SchNet, PaiNN or GVP of mlcolvar 2.0.

    Nodes are the system's atoms and the environment's atoms near them; edges are the ordered pairs
    of nodes within a cutoff, images included. The vector of an edge is
    :math:`x_{receiver} - x_{sender} + S H` with lattice vectors as the rows of H, of which S are
    crossed, so that derivatives with respect to the box are exact.

    Numbers of nodes and edges are free in every file. A graph without edges is a graph: its values
    are what the network makes of nodes without neighbours.

    Parameters
    ----------
    network : torch.nn.Module
        Maps a graph to values; see `ofcv_export.variables.graph_network.GraphNetwork` for what it
        may ask for. Its dtype is that of the collective variable, which holds a copy of it in
        evaluation mode.
    cutoff : float
        Length of the longest edge, in `length_unit`.
    elements : sequence of str
        Chemical symbols that the network knows, in the order of its one-hot encoding.
    system : sequence of int, optional
        Zero-based indices of the system's atoms; by default all atoms that an engine hands over.
    environment : sequence of int, optional
        Zero-based indices of atoms that become nodes while they are near the system.
    buffer : float
        An atom of the environment is a node while it is within `cutoff` plus `buffer` of some atom
        of the system.
    long_range_cutoff : float, optional
        Length of the longest edge between atoms of `subsystem`; these edges come in addition.
    subsystem : sequence of int, optional
        Zero-based indices of atoms of the system that have long-range edges.
    atoms : sequence of int, optional
        Indices in the engine's numbering of the atoms that `system`, `environment` and `subsystem`
        count; by default those count the engine's own.
    length_unit : str
        Unit of positions, box and cutoffs.
    atom_elements : sequence of str, optional
        Chemical symbols of the atoms of system and environment, in this order, for engines that do
        not know them.

    Raises
    ------
    TypeError
        If the network is no module or has no single floating dtype, or indices are no integers.
    ValueError
        If a length, an index, an element or the unit makes no sense, or the network asks for what
        is not in the graph or returns no values.

    Examples
    --------
    >>> class Network(torch.nn.Module):
    ...     def forward(self, edge_lengths):
    ...         return torch.exp(-edge_lengths).sum().reshape(1)
    >>> cv = GraphCollectiveVariable(Network(), 6.0, ["C", "O"])
    >>> positions, elements = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]), torch.tensor([6, 8])
    >>> edges, shifts = torch.tensor([[0, 1], [1, 0]]), torch.zeros(2, 3)
    >>> values, derivatives, _ = cv.values_and_derivatives(positions, elements, edges, shifts)
    >>> values, derivatives.shape
    (tensor([0.4463]), torch.Size([1, 2, 3]))
    """

    def __init__(
        self,
        network: nn.Module,
        cutoff: float,
        elements: Sequence[str],
        system: Sequence[int] | None = None,
        environment: Sequence[int] | None = None,
        buffer: float = 0.0,
        long_range_cutoff: float | None = None,
        subsystem: Sequence[int] | None = None,
        atoms: Sequence[int] | None = None,
        length_unit: str = "A",
        *,
        atom_elements: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.cutoff = require_positive_number("cutoff", cutoff)
        self.buffer = require_non_negative("buffer", buffer)
        self.long_range_cutoff = _long_range(long_range_cutoff, subsystem, self.cutoff)
        require_length_unit(length_unit)
        self.length_unit = length_unit
        self.known_elements = list(elements)
        self.atomic_numbers = atomic_numbers(self.known_elements)
        if not self.atomic_numbers or len(set(self.atomic_numbers)) < len(self.atomic_numbers):
            raise ValueError(f"elements: expected distinct symbols, got {self.known_elements}")
        self.system, self.environment, self.subsystem = _groups(
            system, environment, subsystem, self.buffer, atoms
        )
        self.elements = _elements(atom_elements, self.atoms, self.known_elements)
        evaluated = evaluation_copy(network)
        # A network without parameters has the default dtype of now, until the variable is cast.
        self.precision: Tensor
        self.register_buffer("precision", torch.empty(0), persistent=False)
        dtype = network_dtype(evaluated, self.precision)
        self.graph_network = GraphNetwork(
            evaluated, self.atomic_numbers, self.long_range_cutoff is not None, dtype
        )
        self.n_outputs = self._count_outputs()
        self.periods: list[float | None] = [None] * self.n_outputs

    @property
    def network(self) -> nn.Module:
        """The user's network."""
        return self.graph_network.network

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype; without parameters, torch's default when the network was given."""
        return network_dtype(self.network, self.precision)

    @property
    def atoms(self) -> list[int] | None:
        """The engine's atoms: those of the system, then those of the environment."""
        return None if self.system is None else [*self.system, *(self.environment or [])]

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return what describes the inputs of the file, in order."""
        name = dtype_name(self.dtype)
        elements = tuple(sorted(self.atomic_numbers))
        specs = [
            TensorSpec("positions", name, ("n_nodes", 3)),
            TensorSpec("elements", "int64", ("n_nodes",), choices=elements),
            TensorSpec("edge_index", "int64", (2, "n_edges"), 0, "n_nodes"),
            TensorSpec("cell_shifts", name, ("n_edges", 3)),
            TensorSpec("box", name, (3, 3)),
        ]
        if self.environment is not None:
            specs.append(TensorSpec("system_mask", "int64", ("n_nodes",), choices=(1, 0)))
        if self.long_range_cutoff is not None:
            specs.append(TensorSpec("long_range_mask", "int64", ("n_edges",), choices=(0, 1)))
        return tuple(specs)

    def values_and_derivatives(
        self,
        positions: Tensor,
        elements: Tensor,
        edge_index: Tensor,
        cell_shifts: Tensor,
        box: Tensor | None = None,
        system_mask: Tensor | None = None,
        long_range_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and derivatives of one graph by autograd.

        Parameters
        ----------
        positions : torch.Tensor
            Of the nodes, shape (n_nodes, 3), in `length_unit`.
        elements : torch.Tensor
            Atomic numbers, shape (n_nodes,), int64.
        edge_index : torch.Tensor
            Sender and receiver of each edge, shape (2, n_edges), int64.
        cell_shifts : torch.Tensor
            Lattice vectors crossed by each edge, shape (n_edges, 3), in the dtype of positions.
        box : torch.Tensor, optional
            Lattice vectors as rows, shape (3, 3); without it there is no periodicity.
        system_mask : torch.Tensor, optional
            1 for a node of the system, 0 for one of the environment, shape (n_nodes,), int64;
            needed if there is an environment.
        long_range_mask : torch.Tensor, optional
            1 for a long-range edge, shape (n_edges,), int64; needed if there are any.

        Returns
        -------
        tuple of torch.Tensor
            Values (n_outputs,), derivatives (n_outputs, n_nodes, 3) with respect to positions and
            (n_outputs, 3, 3) with respect to the box, through the shifts.

        Raises
        ------
        ValueError, TypeError
            For a wrong shape or dtype, values that are not finite, an element that the network does
            not know, and a mask that is missing or not asked for.
        IndexError
            For an edge between nodes that do not exist.
        """
        if box is None:
            box = torch.zeros(3, 3, dtype=self.dtype, device=self.precision.device)
        given = {"system_mask": system_mask, "long_range_mask": long_range_mask}
        inputs = [positions, elements, edge_index, cell_shifts, box]
        specs = self.inputs()
        wanted = {spec.name for spec in specs}
        for name, mask in given.items():
            if (mask is not None) != (name in wanted):
                expected = "0 and 1" if name in wanted else "none"
                raise ValueError(
                    f"{name}: expected {expected}, got {'none' if mask is None else 'one'}"
                )
            inputs += [] if mask is None else [mask]
        return self.of_inputs(inputs)

    def details(self) -> GraphVariableDetails:
        """Return the facts that a file tells."""
        return GraphVariableDetails(
            n_outputs=self.n_outputs,
            known_elements=tuple(self.known_elements),
            cutoff=self.cutoff,
            buffer=self.buffer,
            long_range_cutoff=self.long_range_cutoff,
            system=_tuple(self.system),
            environment=_tuple(self.environment),
            subsystem=_tuple(self.subsystem),
            periods=tuple(self.periods),
            parameters={},
            time_unit=None,
            bias=None,
        )

    def with_atoms(self, atoms: Sequence[int]) -> Self:
        """Return the variable of other atoms of the engine; it shares the weights.

        Parameters
        ----------
        atoms : sequence of int
            Zero-based indices of the atoms of the system, then of the environment.
        """
        if self.system is None:
            raise ValueError("atoms: expected none for a variable of all atoms, got some")
        own = self.atoms
        assert own is not None
        renamed = dict(zip(own, atom_indices("atoms", atoms, len(own)), strict=True))
        other = copy.copy(self)
        other.system = [renamed[atom] for atom in self.system]
        other.environment = self.environment and [renamed[atom] for atom in self.environment]
        other.subsystem = self.subsystem and [renamed[atom] for atom in self.subsystem]
        return other

    def values(self, zeros: Zeros, inputs: Sequence[Tensor]) -> Tensor:
        """Return the values (n_outputs,) of a graph, see `GraphVariable.values`."""
        positions, elements, edge_index, cell_shifts, box, *masks = inputs
        given = iter(masks)
        in_system = torch.ones_like(elements) if self.environment is None else next(given)
        no_edges = torch.zeros_like(edge_index[0])
        is_long = no_edges if self.long_range_cutoff is None else next(given)
        values: Tensor = self.graph_network(
            positions, elements, edge_index, cell_shifts, box, in_system != 0, is_long != 0, zeros
        )
        return values

    @ordinary_modes()
    def _count_outputs(self) -> int:
        """Return the number of values, from a call with an example."""
        inputs = probe(self.inputs(), _TRIED)
        try:
            with torch.no_grad():
                values = self(*inputs)
        except KeyError as error:
            raise ValueError(
                f"network: expected one that asks for what is in the graph, got one for {error}"
            ) from error
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"network: expected one that takes a graph of {dtype_name(self.dtype)}, "
                f"got: {first_line(error)}"
            ) from error
        require_floats("network", values, ("n_outputs",), self.dtype)
        if not len(values):
            raise ValueError("network: expected at least one value, got none")
        return len(values)


def _long_range(
    long_range_cutoff: float | None, subsystem: Sequence[int] | None, cutoff: float
) -> float | None:
    """Return the cutoff of long-range edges, checked."""
    if (long_range_cutoff is None) != (subsystem is None):
        one, other = ("long_range_cutoff", "subsystem")
        name, got = (one, other) if long_range_cutoff is None else (other, one)
        raise ValueError(f"{name}: expected one with {got}, got none")
    if long_range_cutoff is None:
        return None
    if require_positive_number("long_range_cutoff", long_range_cutoff) <= cutoff:
        raise ValueError(
            f"long_range_cutoff: expected more than the cutoff {cutoff}, got {long_range_cutoff}"
        )
    return float(long_range_cutoff)


_Groups = tuple[list[int] | None, list[int] | None, list[int] | None]


def _groups(
    system: Sequence[int] | None,
    environment: Sequence[int] | None,
    subsystem: Sequence[int] | None,
    buffer: float,
    atoms: Sequence[int] | None,
) -> _Groups:
    """Return system, environment and subsystem in the engine's numbering, checked."""
    if system is None:
        for name, group in (("environment", environment), ("subsystem", subsystem)):
            if group is not None:
                raise ValueError(f"system: expected one with {name}, got none")
        if atoms is not None:
            system = range(len(list(atoms)))
    if environment is None and buffer > 0:
        raise ValueError(f"buffer: expected 0 without environment, got {buffer}")
    engine = None if atoms is None else atom_indices("atoms", atoms)
    named = {"system": system, "environment": environment, "subsystem": subsystem}
    given = {
        name: None if group is None else _of_engine(name, group, engine)
        for name, group in named.items()
    }
    inside = set(given["system"] or [])
    shared = sorted(inside & set(given["environment"] or []))
    if shared:
        raise ValueError(f"environment: expected no atom of system, got {shared[0]}")
    outside = sorted(set(given["subsystem"] or []) - inside)
    if outside:
        raise ValueError(f"subsystem: expected atoms of system, got {outside[0]}")
    return given["system"], given["environment"], given["subsystem"]


def _of_engine(name: str, group: Sequence[int], engine: Sequence[int] | None) -> list[int]:
    indices = atom_indices(name, group)
    if not indices:
        raise ValueError(f"{name}: expected at least one atom, got none")
    if engine is None:
        return indices
    if max(indices) >= len(engine):
        raise ValueError(f"{name}: expected indices below {len(engine)}, got {max(indices)}")
    return [engine[index] for index in indices]


def _elements(
    symbols: Sequence[str] | None, atoms: Sequence[int] | None, known: Sequence[str]
) -> list[str] | None:
    """Return the chemical symbols of the atoms, checked."""
    if symbols is None:
        return None
    if atoms is None or len(list(symbols)) != len(atoms):
        expected = "none without system" if atoms is None else f"{len(atoms)} symbols"
        raise ValueError(f"atom_elements: expected {expected}, got {len(list(symbols))}")
    require_known_elements(
        np.array(atomic_numbers(list(symbols))), atomic_numbers(list(known)), atoms
    )
    return list(symbols)


def _tuple(group: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if group is None else tuple(group)
