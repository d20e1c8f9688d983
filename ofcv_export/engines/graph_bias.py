"""An exported bias on a graph of atoms, in the units and on the atoms of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.artifacts.graph_inputs import GraphInputs
from ofcv_export.artifacts.loading import read_metadata
from ofcv_export.base.units import length_factor
from ofcv_export.engines.engine_bias import (
    EngineBias,
    Evaluation,
    Values,
    require_atoms,
    require_energy,
    require_finite_energy,
)
from ofcv_export.graph.details import GraphVariableDetails, VariableDetails

# Atoms move half as far before the neighbours are searched anew.
_SKIN_IN_ANGSTROM = 1.0


class GraphEngineBias(EngineBias):
    """As `EngineBias`, of an artifact that takes graphs of atoms.

    Each call finds the graph of the positions: the neighbourhood is searched anew where atoms or
    box have moved too far since the last search. Calls come from one thread at a time.

    The positions of `evaluate` are those of the system's atoms, then those of the environment's, as
    `atoms` lists them; a box may come or not, from call to call. The elements of these atoms have
    to be known, from the engine or from the file.
    """

    def _require_kind(self) -> VariableDetails | GraphVariableDetails:
        return require_energy(self.metadata, GraphVariableDetails)

    def _fit(
        self,
        details: VariableDetails | GraphVariableDetails,
        n_atoms: int,
        elements: Sequence[str] | None,
        periodic: bool,
    ) -> None:
        assert isinstance(details, GraphVariableDetails)
        self.atoms = np.array(self.metadata.atoms or range(n_atoms), dtype=np.int64)
        require_atoms(self.atoms, n_atoms)
        self.takes_box = periodic
        skin = _SKIN_IN_ANGSTROM * length_factor("A", to=str(self.metadata.length_unit))
        self._graph_inputs = GraphInputs(details, self.atoms.tolist(), skin)
        self._numbers: NDArray[np.int64] | None = None
        own = self.metadata.elements
        if own is not None:
            self._numbers = self._graph_inputs.numbers(own)
        if elements is not None:
            self.require_elements([elements[atom] for atom in self.atoms])

    def require_periodic(self, periodic: bool) -> None:
        """Return: with a box or without one there is a graph."""

    def require_elements(self, elements: Sequence[str]) -> None:
        """Take the elements of the artifact's atoms, or raise ValueError if they do not fit.

        Parameters
        ----------
        elements : sequence of str
            Chemical symbols of the artifact's atoms, in its order.
        """
        super().require_elements(elements)
        self._numbers = self._graph_inputs.numbers(elements)

    def evaluate(
        self,
        positions: NDArray[Any],
        box: NDArray[Any] | None = None,
        parameters: Mapping[str, Values] | None = None,
    ) -> Evaluation:
        """Return energy, forces and strain derivative, see `EngineBias.evaluate`."""
        if self._numbers is None:
            raise ValueError("elements: expected chemical symbols of the atoms, got none")
        places = self._places(positions)
        lattice = None if box is None else np.asarray(box, dtype=np.float64) * self._length
        graph, inputs = self._graph_inputs(places, self._numbers, lattice)
        named = inputs | self._given(parameters)
        specs = self.metadata.inputs
        arrays = [np.ascontiguousarray(named[spec.name], dtype=spec.dtype) for spec in specs]
        value, gradient, by_box = (output[0].astype(np.float64) for output in self._run(arrays))
        require_finite_energy(float(value), gradient)
        forces = np.zeros_like(places)
        forces[graph.nodes] = (-self._energy * self._length) * gradient
        return Evaluation(
            energy=self._energy * float(value),
            forces=forces,
            strain_derivative=self._energy
            * (inputs["positions"].T @ gradient + inputs["box"].T @ by_box),
        )


def load_bias(path: Any, **options: Any) -> EngineBias:
    """Return the exported bias of a file, of frames or of graphs of atoms.

    Parameters
    ----------
    path : path-like
        The artifact.
    **options
        Those of `EngineBias`.
    """
    is_graph = isinstance(read_metadata(path).details, GraphVariableDetails)
    return (GraphEngineBias if is_graph else EngineBias)(path, **options)
