"""From the atoms of a system to the inputs of an artifact on a graph of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.elements import atomic_numbers, require_known_elements
from ofcv_export.graph.details import GraphVariableDetails
from ofcv_export.neighbours.atom_graph import AtomGraph
from ofcv_export.neighbours.neighbourhood import Neighbourhood

Array = NDArray[np.float64]


class GraphInputs:
    """Finds the graph of an artifact's atoms, frame by frame, and names what the artifact takes.

    Parameters
    ----------
    details : GraphVariableDetails
        Of the artifact.
    atoms : sequence of int
        The artifact's atoms in the engine's numbering: the system's, then the environment's.
    skin : float
        See `Neighbourhood`.

    Attributes
    ----------
    neighbourhood : Neighbourhood
        What finds the graphs.
    """

    def __init__(
        self, details: GraphVariableDetails, atoms: Sequence[int], skin: float = 0.0
    ) -> None:
        self._atoms = list(atoms)
        self._known = atomic_numbers(details.known_elements)
        row_of = {atom: row for row, atom in enumerate(self._atoms)}
        n_system = len(self._atoms) if details.system is None else len(details.system)
        rows = range(len(self._atoms))
        self.neighbourhood = Neighbourhood(
            details.cutoff,
            n_atoms=len(self._atoms),
            system=rows[:n_system],
            environment=None if details.environment is None else rows[n_system:],
            buffer=details.buffer,
            long_range_cutoff=details.long_range_cutoff,
            subsystem=details.subsystem and [row_of[atom] for atom in details.subsystem],
            skin=skin,
        )

    def numbers(self, elements: Sequence[str]) -> NDArray[np.int64]:
        """Return atomic numbers of the atoms, or raise ValueError if the network lacks one."""
        numbers = np.array([_number(symbol) for symbol in elements], dtype=np.int64)
        require_known_elements(numbers, self._known, self._atoms, list(elements))
        return numbers

    def __call__(
        self, positions: Array, numbers: NDArray[np.int64], lattice: Array | None
    ) -> tuple[AtomGraph, dict[str, NDArray[np.generic]]]:
        """Return the graph of a frame, and the inputs by their names.

        Parameters
        ----------
        positions : numpy.ndarray
            Of the atoms, shape (n_atoms, 3), in the artifact's unit.
        numbers : numpy.ndarray
            Their atomic numbers.
        lattice : numpy.ndarray or None
            Lattice vectors as rows, shape (3, 3).
        """
        graph = self.neighbourhood.find(positions, lattice)
        return graph, {
            # Float32 numbers are coarse far from the origin, and only differences matter.
            "positions": positions[graph.nodes] - positions[graph.nodes[0]],
            "elements": numbers[graph.nodes],
            "edge_index": graph.edge_index,
            "cell_shifts": graph.cell_shifts,
            "box": np.zeros((3, 3)) if lattice is None else lattice,
            "system_mask": graph.system_mask,
            "long_range_mask": graph.long_range_mask,
        }


def _number(symbol: str) -> int:
    """Return an atomic number; 0 for what is no element, such as a virtual site."""
    try:
        return atomic_numbers([symbol])[0]
    except ValueError:
        return 0
