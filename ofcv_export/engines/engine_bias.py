"""An exported bias in the units and on the atoms of an engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ofcv_export.artifacts.loading import load
from ofcv_export.base.elements import require_elements
from ofcv_export.base.files import require_file
from ofcv_export.base.lattice import reduced_lattice, require_box, require_same_box
from ofcv_export.base.units import ENERGIES, energy_factor, length_factor
from ofcv_export.base.validation import require_known
from ofcv_export.engines.whole_molecules import made_whole
from ofcv_export.graph.details import ContractDetails, GraphVariableDetails, VariableDetails
from ofcv_export.graph.metadata import Metadata

Values = float | Sequence[float] | NDArray[Any]
Kind = TypeVar("Kind", VariableDetails, GraphVariableDetails)


@dataclass(frozen=True)
class Evaluation:
    """Energy and derivatives of a bias, float64, in the engine's units.

    Parameters
    ----------
    energy : float
        The energy.
    forces : numpy.ndarray
        Minus the derivatives with respect to positions, shape (n_atoms, 3).
    strain_derivative : numpy.ndarray or None
        Derivative of the energy with respect to a strain of positions and box together, shape
        (3, 3); minus it is the virial. None where the artifact holds a fixed periodic box, whose
        contribution it does not know.
    """

    energy: float
    forces: NDArray[np.float64]
    strain_derivative: NDArray[np.float64] | None


class NotFiniteError(ValueError):
    """Positions, an energy or forces with NaN or infinity, as diverging dynamics have them."""

    def at_step(self, step: int) -> NotFiniteError:
        """Return the error of a step of a simulation."""
        return NotFiniteError(f"{self}; the dynamics diverged at step {step}")


class EngineBias:
    """An exported bias in the units and on the atoms of an engine.

    A pickle, or a copy, holds the arguments and the present parameters, and the file's digest
    instead of the file, which is read again.

    Parameters
    ----------
    path : path-like
        The artifact, in any format, with an energy as its value.
    length_unit, energy_unit : str
        The engine's units, see `ofcv_export.base.units`.
    n_atoms : int
        Number of atoms of the engine's system.
    elements : sequence of str, optional
        Chemical symbols of all atoms of the system, compared with the artifact's where it has
        some. None where the engine does not know them.
    periodic : bool
        Whether the system has a periodic box.
    parameters : mapping, optional
        Values of run-time parameters other than the artifact's defaults.
    device : str
        ``cpu`` or ``cuda``.
    threads : int
        Threads of LibTorch during a call: one, since the engine owns the cores; 0 leaves the choice
        to PyTorch. ONNX Runtime always uses one.
    digest : str, optional
        SHA-256 that the file must have; by default any.

    Attributes
    ----------
    metadata : Metadata
        What the artifact says about itself.
    atoms : numpy.ndarray
        Zero-based indices of the artifact's atoms in the engine, shape (n_atoms,), int64.
    parameters : dict of str to numpy.ndarray
        Present values of the run-time parameters.
    time_unit : str or None
        Unit of the parameter ``time``, None if the bias does not depend on time.
    takes_box : bool
        Whether `evaluate` needs a box.
    dtype : numpy.dtype
        The artifact's precision.
    digest : str
        SHA-256 of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is no energy, or does not fit the engine's units, atoms or box.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        length_unit: str,
        energy_unit: str,
        n_atoms: int,
        elements: Sequence[str] | None = None,
        periodic: bool,
        parameters: Mapping[str, Values] | None = None,
        device: str = "cpu",
        threads: int = 1,
        digest: str | None = None,
    ) -> None:
        if threads < 0:
            raise ValueError(f"threads: expected 0 or more, got {threads}")
        # Another working directory must not mean another file.
        path = require_file("path", path).resolve()
        self._artifact = load(path, device, digest=digest)
        self.digest = self._artifact.digest
        self._arguments: dict[str, Any] = {
            "path": path,
            "length_unit": length_unit,
            "energy_unit": energy_unit,
            "n_atoms": n_atoms,
            "elements": elements,
            "periodic": periodic,
            "device": device,
            "threads": threads,
            "digest": self.digest,
        }
        self.metadata = self._artifact.metadata
        self._threads = threads
        details = self._require_kind()
        self._length = length_factor(length_unit, to=str(self.metadata.length_unit))
        self._energy = energy_factor(self.metadata.output_units["values"], to=energy_unit)
        self._fit(details, n_atoms, elements, periodic)
        self.time_unit = details.time_unit
        self.dtype = np.dtype(self.metadata.inputs[0].dtype)
        self.parameters = {
            name: np.array(default, dtype=np.float64)
            for name, default in details.parameters.items()
        }
        for name, value in (parameters or {}).items():
            self.set_parameter(name, value)

    def _require_kind(self) -> VariableDetails | GraphVariableDetails:
        """Return the facts about the bias, or raise ValueError if it is none of frames."""
        return require_energy(self.metadata, VariableDetails)

    def _fit(
        self,
        details: VariableDetails | GraphVariableDetails,
        n_atoms: int,
        elements: Sequence[str] | None,
        periodic: bool,
    ) -> None:
        """Set what depends on the engine's atoms and box, or raise ValueError if they do not fit.

        Parameters
        ----------
        details : VariableDetails or GraphVariableDetails
            The facts about the bias.
        n_atoms, elements, periodic
            See `EngineBias`.
        """
        assert isinstance(details, VariableDetails)
        self.atoms = np.array(self.metadata.atoms or range(details.n_atoms), dtype=np.int64)
        require_atoms(self.atoms, n_atoms)
        require_elements(self.atoms.tolist(), self.metadata.elements, elements)
        if details.box.fractions:
            raise ValueError(
                "model: expected an artifact that takes positions, "
                "got one that takes fractions of a box"
            )
        self._facts = details.box
        self._is_described = details.descriptors is not None
        self._own_boxes = [np.array(fixed) for fixed in details.box.fixed]
        self.takes_box = self.metadata.periodic or bool(details.box.fixed)
        self.require_periodic(periodic)
        self._last_box: _Box | None = None

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Return how to load the file again, which is all that a pickle holds."""
        return partial(type(self), parameters=self.parameters, **self._arguments), ()

    def require_periodic(self, periodic: bool) -> None:
        """Raise ValueError unless the system has what the artifact wants of boxes.

        Parameters
        ----------
        periodic : bool
            Whether the system is periodic in all three directions.
        """
        if self.takes_box and not periodic:
            raise ValueError("box: expected a periodic system, got one without a box")

    def require_elements(self, elements: Sequence[str]) -> None:
        """Raise ValueError unless the system has the artifact's elements, where it has some.

        Parameters
        ----------
        elements : sequence of str
            Chemical symbols of the artifact's atoms, in its order.
        """
        require_elements(self.atoms.tolist(), self.metadata.elements, elements, selected=True)

    def set_parameter(self, name: str, value: Values) -> None:
        """Set a run-time parameter.

        Raises
        ------
        ValueError
            If the name is unknown, or the value has another size or is not finite.
        """
        self.parameters[name] = self._checked(name, value)

    def _checked(self, name: str, value: Values) -> NDArray[np.float64]:
        require_known(name, self.parameters)
        shape = self.parameters[name].shape
        given = np.asarray(value, dtype=np.float64)
        given = given.reshape(1) if given.ndim == 0 and shape == (1,) else given
        if given.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {given.shape}")
        if not np.isfinite(given).all():
            raise ValueError(f"{name}: expected finite values, got {given.tolist()}")
        return given

    def evaluate(
        self,
        positions: NDArray[Any],
        box: NDArray[Any] | None = None,
        parameters: Mapping[str, Values] | None = None,
    ) -> Evaluation:
        """Return energy, forces and strain derivative; calls may come from several threads.

        Parameters
        ----------
        positions : numpy.ndarray
            Positions of the artifact's atoms, in its order, shape (n_atoms, 3). A molecule far from
            the origin loses no digits in float32, except behind a module that has no description:
            only it knows whether it may be moved.
        box : numpy.ndarray, optional
            Lattice vectors as rows, shape (3, 3). Where descriptors take vectors between atoms as
            they are, each atom is put at its image nearest to the atom before it when a box is
            given.
        parameters : mapping, optional
            Values of run-time parameters in this call, other than the present ones.

        Raises
        ------
        ValueError
            If the positions do not fit or are not finite, the box is missing, none, or another
            one than the artifact holds, or the energy or a force is not finite.
        """
        places = self._places(positions)
        lattice: list[NDArray[np.float64]] = []
        if box is None:
            if self.takes_box:
                raise ValueError("box: expected shape (3, 3), got none")
        else:
            known = self._known_box(np.asarray(box, dtype=np.float64))
            if self._facts.open:
                places = self._whole(places, known)
            lattice = [known.vectors] * self.metadata.periodic
        if self._is_described:
            # Float32 numbers are coarse far from the origin; no descriptor of ours depends on the
            # place of the molecule, and so neither does the strain derivative.
            places = places - places[0]
        return self._evaluation(places, [places, *lattice, *self._given(parameters).values()])

    def _places(self, positions: NDArray[Any]) -> NDArray[np.float64]:
        """Return the positions of a call in the artifact's unit, checked."""
        given = np.asarray(positions, dtype=np.float64)
        if given.shape != (len(self.atoms), 3):
            raise ValueError(f"positions: expected shape ({len(self.atoms)}, 3), got {given.shape}")
        # A sum is finite only if all its terms are, and quicker than looking at each.
        if not math.isfinite(given.sum()):
            raise NotFiniteError("positions: expected finite values, got NaN or infinity")
        return given * self._length

    def _given(self, parameters: Mapping[str, Values] | None) -> dict[str, NDArray[np.float64]]:
        """Return the parameters of a call in order, checked."""
        values = dict(self.parameters)
        for name, value in (parameters or {}).items():
            values[name] = self._checked(name, value)
        return values

    def _evaluation(
        self, places: NDArray[np.float64], inputs: list[NDArray[np.float64]]
    ) -> Evaluation:
        # Each in its own precision: a time is float64 also where the rest is not.
        dtypes = [spec.dtype for spec in self.metadata.inputs]
        arrays = [entry.astype(dtype) for entry, dtype in zip(inputs, dtypes, strict=True)]
        arrays[0] = arrays[0][None]
        value, *derivatives = (output[0].astype(np.float64) for output in self._run(arrays))
        gradient = derivatives[0][0]
        require_finite_energy(value[0], gradient)
        strain = None
        if not self._facts.fixed:
            strain = places.T @ gradient
            if self.metadata.periodic:
                strain = strain + inputs[1].T @ derivatives[1][0]
            strain = self._energy * strain
        return Evaluation(
            energy=self._energy * float(value[0]),
            forces=(-self._energy * self._length) * gradient,
            strain_derivative=strain,
        )

    def _run(self, arrays: list[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the artifact's outputs."""
        if not self._artifact.on_torch:
            return self._artifact.run(arrays)
        import torch

        with _threads(self._threads):
            outputs = self._artifact.run([torch.from_numpy(array) for array in arrays])
        return tuple(output.cpu().numpy() for output in outputs)

    def _known_box(self, box: NDArray[np.float64]) -> _Box:
        """Return the box in the artifact's unit; what is costly is done when it changes."""
        last = self._last_box
        if last is not None and np.array_equal(last.given, box):
            return last
        vectors = box * self._length
        require_box(vectors, orthorhombic=self._facts.run_time == "orthorhombic")
        for own in self._own_boxes:
            require_same_box(vectors, own)
        reduced = reduced_lattice(vectors)
        shortest_squared = float(np.square(reduced).sum(1).min())
        # Not read again: another thread may have put its own there by then.
        known = self._last_box = _Box(box.copy(), vectors, reduced, shortest_squared)
        return known

    def _whole(self, places: NDArray[np.float64], box: _Box) -> NDArray[np.float64]:
        """Return positions in which each atom is the image nearest to the one before it."""
        steps = np.diff(places, axis=0)
        # A step within half the shortest lattice vector is its own nearest image.
        if 4 * np.square(steps).sum(1).max(initial=0.0) < box.shortest_squared:
            return places
        return made_whole(places, box.reduced)


def require_finite_energy(energy: float, gradient: NDArray[np.float64]) -> None:
    """Raise NotFiniteError unless an energy and its derivatives are finite."""
    if not math.isfinite(energy + gradient.sum()):
        raise NotFiniteError("values: expected a finite energy and forces, got NaN or infinity")


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let LibTorch use some threads for a while; 0 leaves their number alone.

    A thread that uses LibTorch for the first time meanwhile starts with this number.
    """
    import torch

    before = torch.get_num_threads()
    if number in (0, before):
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Box:
    """The last box as it was given, in the artifact's unit, and as a reduced lattice."""

    given: NDArray[np.float64]
    vectors: NDArray[np.float64]
    reduced: NDArray[np.float64]
    shortest_squared: float


def require_energy(metadata: Metadata, kind: type[Kind]) -> Kind:
    """Return the facts about a bias, or raise ValueError if it is none that an engine can call."""
    details, unit = metadata.details, metadata.output_units.get("values")
    if isinstance(details, ContractDetails):
        raise ValueError(
            f"path: expected a bias without a contract, got one for {details.contract}"
        )
    if not isinstance(details, kind) or unit not in ENERGIES:
        raise ValueError(
            f"model: expected a bias, whose values are in {', '.join(ENERGIES)}, "
            f"got a {metadata.kind} in {unit or 'no unit'}"
        )
    if metadata.inputs[0].shape[0] not in ("batch", "n_nodes", 1):
        raise ValueError(
            f"model: expected a bias for one frame or any number, got {metadata.inputs[0].shape[0]}"
        )
    if metadata.outputs[0].shape[-1] != 1:
        raise ValueError(
            f"model: expected a bias with one value, got {metadata.outputs[0].shape[-1]}"
        )
    return details


def require_atoms(atoms: NDArray[np.int64], n_atoms: int) -> None:
    """Raise ValueError unless all atoms are of a system of some size."""
    if atoms.max() >= n_atoms:
        raise ValueError(
            f"atoms: expected indices below the system's {n_atoms} atoms, got {atoms.max()}"
        )
