"""An exported bias as a force of OpenMM, by way of ``openmm.PythonForce``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.artifacts.loading import read_metadata
from ofcv_export.engines.engine_bias import Evaluation, NotFiniteError
from ofcv_export.engines.graph_bias import load_bias

if TYPE_CHECKING:
    import openmm
    from openmm.app import Topology

Values = float | Sequence[float]


def openmm_force(
    path: str | PathLike[str],
    system: openmm.System | None = None,
    topology: Topology | None = None,
    *,
    parameters: Mapping[str, Values] | None = None,
    prefix: str = "",
    device: str = "cpu",
) -> openmm.PythonForce:
    """Return a force that evaluates an exported bias, for ``system.addForce``.

    Run-time parameters of the bias become global parameters of the context: one number under the
    parameter's own name, several as ``name_0``, ``name_1``, and so on. ``context.setParameter``
    changes them at any time. The `time` of a moving restraint is the context's time instead.

    A bias without a box takes positions as OpenMM has them, in which molecules are whole but may be
    any number of boxes apart, as OpenMM's own forces without periodic boundaries do.

    The force can be serialised, with the system or alone: the XML holds the file's path, its digest
    and the arguments given here, not the file. Another file in its place, or none, is refused at
    the first evaluation.

    Parameters
    ----------
    path : path-like
        The bias, a ``.c``, ``.pt``, ``.onnx`` or ``.pt2`` file, in any unit of length and energy.
    system : openmm.System, optional
        The system that the force will be added to, with its other forces in it. Number of atoms and
        boundary conditions are checked against it at once. Without system and topology the number
        is checked at each evaluation, which then reads the positions of all atoms.
    topology : openmm.app.Topology, optional
        Where given, the elements are checked as well, if the file knows its own.
    parameters : mapping, optional
        Other default values than the file's.
    prefix : str
        Goes before the names of the global parameters, so that two biases can have their own.
    device : str
        ``cpu`` or ``cuda``.

    Returns
    -------
    openmm.PythonForce
        Its `usesPeriodicBoundaryConditions` is true if the bias takes a box.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If OpenMM 8.5 or later is not installed.
    ValueError
        If the file is no energy in known units, its atoms, elements or boundary conditions do not
        fit, or a parameter is unknown.
    """
    python_force = _python_force()
    n_atoms, periodic = _n_atoms(system, topology), _is_periodic(system, topology)
    # OpenMM hands over the artifact's atoms alone where it can and is safe: it does not check their
    # indices, OpenMM 8.5 cannot, and up to 8.6.1 it does not bring wrapped atoms back on a GPU
    # (openmm issue 5421).
    can_select = hasattr(python_force, "setParticles") and n_atoms is not None
    selected = can_select and (not periodic or read_metadata(path).periodic)
    bias = OpenMMBias(
        path,
        n_atoms=n_atoms,
        elements=None if topology is None else _elements(topology),
        periodic=periodic,
        selected=selected,
        parameters=dict(parameters or {}),
        prefix=prefix,
        device=device,
    )
    force = python_force(bias, bias.global_parameters())
    force.setUsesPeriodicBoundaryConditions(bias.takes_box)
    if selected:
        force.setParticles(bias.atoms.tolist())
    return force


class OpenMMBias:
    """What the PythonForce calls: a state in, energy and forces out.

    It is pickled as its arguments, and loads the file again when it is unpickled.

    Parameters
    ----------
    path : path-like
        The bias.
    n_atoms : int or None
        Number of atoms of the system, None where it is not known before the first call.
    elements : list of str, optional
        Chemical symbols of the system's atoms.
    periodic : bool or None
        Whether the system has a box, None where it is not known.
    selected : bool
        Whether states hold the bias's atoms alone, in its order.
    parameters, prefix, device
        As in `openmm_force`.
    digest : str, optional
        SHA-256 that the file must have; by default any.

    Attributes
    ----------
    atoms : numpy.ndarray
        Zero-based indices of the bias's atoms in the system, int64.
    takes_box : bool
        Whether states must hold the box.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        n_atoms: int | None,
        elements: list[str] | None,
        periodic: bool | None,
        selected: bool,
        parameters: dict[str, Values],
        prefix: str,
        device: str,
        digest: str | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "path": str(Path(path).resolve()),
            "n_atoms": n_atoms,
            "elements": elements,
            "periodic": periodic,
            "selected": selected,
            "parameters": parameters,
            "prefix": prefix,
            "device": device,
        }
        self._bias = load_bias(
            path,
            length_unit="nm",
            energy_unit="kJ/mol",
            n_atoms=sys.maxsize if n_atoms is None else n_atoms,
            elements=elements,
            periodic=periodic is not False,
            parameters=parameters,
            device=device,
            digest=digest,
        )
        self._arguments["digest"] = self._bias.digest
        self.atoms = self._bias.atoms
        self.takes_box = self._bias.takes_box
        if self.takes_box and periodic is None:
            raise ValueError("system: expected the System of a bias with a box, got None")
        self._moves = self._bias.time_unit is not None
        if self._moves and "time" in parameters:
            raise ValueError("parameters: expected none for time, the context's own, got one")
        self._selected = selected
        self._names = {
            name: _global_names(prefix + name, len(values))
            for name, values in self._bias.parameters.items()
            if not (self._moves and name == "time")
        }

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Return the energy in kJ/mol and the forces in kJ/mol/nm of OpenMM's particles."""
        # In nm. `value_in_unit` would cost as much again as everything else that OpenMM does.
        positions = state.getPositions(asNumpy=True)._value
        box = None
        if self.takes_box:
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)
        if self._selected:
            found = self._evaluation(state, positions, box)
            return found.energy, found.forces
        if self.atoms.max() >= len(positions):
            raise ValueError(
                f"atoms: expected indices below the system's {len(positions)} atoms, "
                f"got {self.atoms.max()}"
            )
        found = self._evaluation(state, positions[self.atoms], box)
        forces = np.zeros_like(positions)
        forces[self.atoms] = found.forces
        return found.energy, forces

    def _evaluation(
        self, state: openmm.State, positions: NDArray[Any], box: NDArray[Any] | None
    ) -> Evaluation:
        try:
            return self._bias.evaluate(positions, box, self._parameters(state))
        except NotFiniteError as error:
            raise error.at_step(state.getStepCount()) from error

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
        """Return how to load the file again, which is all that a pickle holds."""
        return restored, (self._arguments,)

    def global_parameters(self) -> dict[str, float]:
        """Return the context's parameters and their default values."""
        return {
            key: value
            for name, keys in self._names.items()
            for key, value in zip(keys, self._bias.parameters[name].tolist(), strict=True)
        }

    def _parameters(self, state: openmm.State) -> dict[str, Values]:
        """Return the context's parameters, and its time for a bias that moves."""
        values = state.getParameters() if self._names else {}
        found: dict[str, Values] = {
            name: [values[key] for key in keys] for name, keys in self._names.items()
        }
        if self._moves:
            found["time"] = state.getTime()._value
        return found


class Unreadable:
    """What stands for a bias that cannot be read again: every evaluation raises the error.

    Parameters
    ----------
    arguments : dict
        Arguments of the bias.
    error : Exception
        Why it cannot be read.
    """

    def __init__(self, arguments: dict[str, Any], error: Exception) -> None:
        self.arguments = arguments
        self.error = error

    def __call__(self, _: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Raise the error."""
        raise self.error

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
        """Return how to try again."""
        return restored, (self.arguments,)


def restored(arguments: dict[str, Any]) -> OpenMMBias | Unreadable:
    """Return the bias of these arguments, read again.

    OpenMM's deserialiser ends the process when an object in its XML raises an error (8.5), so an
    error waits for the first evaluation.
    """
    try:
        return OpenMMBias(**arguments)
    except Exception as error:  # whatever it is, it is raised later
        return Unreadable(arguments, error)


def _python_force() -> type[openmm.PythonForce]:
    """Return the class, from an OpenMM that has it."""
    try:
        import openmm
    except ImportError as error:
        raise ImportError("openmm: expected OpenMM 8.5 or later, got none") from error
    if not hasattr(openmm, "PythonForce"):
        raise ImportError(f"openmm: expected OpenMM 8.5 or later, got {openmm.__version__}")
    return openmm.PythonForce


def _n_atoms(system: openmm.System | None, topology: Topology | None) -> int | None:
    """Return the number of atoms, which system and topology must agree on."""
    sizes = [] if system is None else [system.getNumParticles()]
    if topology is not None:
        sizes.append(topology.getNumAtoms())
    if len(set(sizes)) > 1:
        raise ValueError(f"topology: expected the system's {sizes[0]} atoms, got {sizes[1]}")
    return sizes[0] if sizes else None


def _is_periodic(system: openmm.System | None, topology: Topology | None) -> bool | None:
    """Return whether there is a box, None where nothing says so."""
    if system is not None:
        return bool(system.usesPeriodicBoundaryConditions())
    return None if topology is None else topology.getPeriodicBoxVectors() is not None


def _elements(topology: Topology) -> list[str]:
    """Return the chemical symbols of all atoms."""
    return [atom.element.symbol if atom.element else "virtual site" for atom in topology.atoms()]


def _global_names(name: str, size: int) -> list[str]:
    return [name] if size == 1 else [f"{name}_{index}" for index in range(size)]
