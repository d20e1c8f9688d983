"""An exported bias in the units and on the atoms of an engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ofcv_export.artifacts.loading import load
from ofcv_export.base.units import ENERGIES, energy_factor, length_factor
from ofcv_export.descriptors.boundaries import require_box
from ofcv_export.descriptors.lattice import NearestImage, reduced_lattice
from ofcv_export.graph.metadata import Metadata

Values = float | Sequence[float] | NDArray[Any]

# Largest relative difference between a box frozen into an artifact and the engine's.
_SAME_BOX = 1e-4


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


class EngineBias:
    """An exported bias in the units and on the atoms of an engine.

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
    ) -> None:
        if threads < 0:
            raise ValueError(f"threads: expected 0 or more, got {threads}")
        self._artifact = load(path, device)
        self.metadata = self._artifact.metadata
        self._threads = threads
        _require_energy(self.metadata)
        self._length = length_factor(length_unit, to=str(self.metadata.length_unit))
        self._energy = energy_factor(self.metadata.output_units["values"], to=energy_unit)
        details = self.metadata.details
        self.atoms = np.array(self.metadata.atoms or range(int(details["n_atoms"])), dtype=np.int64)
        _require_atoms(self.atoms, n_atoms)
        _require_elements(self.atoms, details.get("elements"), elements)
        boxes = list(_boxes(details["descriptors"]))
        _require_positions(boxes)
        self._frozen_boxes = [_vectors(box) for box in boxes if box["type"] != "run time"]
        self.takes_box = self.metadata.periodic or bool(self._frozen_boxes)
        if self.takes_box and not periodic:
            raise ValueError("box: expected a periodic system, got one without a box")
        self.time_unit: str | None = details.get("bias", {}).get("time_unit")
        self.dtype = np.dtype(self.metadata.inputs[0].dtype)
        self.parameters = {
            name: np.array(default, dtype=np.float64)
            for name, default in details.get("parameters", {}).items()
        }
        for name, value in (parameters or {}).items():
            self.set_parameter(name, value)
        self._nearest_image = NearestImage()
        self._box = _Box()

    def set_parameter(self, name: str, value: Values) -> None:
        """Set a run-time parameter.

        Raises
        ------
        ValueError
            If the name is unknown, or the value has another size or is not finite.
        """
        if name not in self.parameters:
            known = ", ".join(self.parameters) or "none"
            raise ValueError(f"parameters: expected {known}, got {name}")
        shape = self.parameters[name].shape
        given = np.asarray(value, dtype=np.float64)
        given = given.reshape(1) if given.ndim == 0 and shape == (1,) else given
        if given.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {given.shape}")
        if not np.isfinite(given).all():
            raise ValueError(f"{name}: expected finite values, got {given.tolist()}")
        self.parameters[name] = given

    def evaluate(self, positions: NDArray[Any], box: NDArray[Any] | None = None) -> Evaluation:
        """Return energy, forces and strain derivative.

        Parameters
        ----------
        positions : numpy.ndarray
            Positions of the artifact's atoms, in its order, shape (n_atoms, 3).
        box : numpy.ndarray, optional
            Lattice vectors as rows, shape (3, 3). An artifact that knows no box takes each of its
            atoms at the image nearest to the atom before it when one is given, and as they are
            when none is.

        Raises
        ------
        ValueError
            If the positions do not fit or are not finite, the box is missing, none, or another
            one than the artifact holds, or the energy or a force is not finite.
        """
        given = np.asarray(positions, dtype=np.float64)
        if given.shape != (len(self.atoms), 3):
            raise ValueError(f"positions: expected shape ({len(self.atoms)}, 3), got {given.shape}")
        # A sum is finite only if all its terms are, and quicker than looking at each.
        if not math.isfinite(given.sum()):
            raise ValueError("positions: expected finite values, got NaN or infinity")
        places = given * self._length
        inputs = [places]
        if box is None:
            if self.takes_box:
                raise ValueError("box: expected shape (3, 3), got none")
        else:
            vectors = self._checked_box(np.asarray(box, dtype=np.float64))
            if self.metadata.periodic:
                inputs.append(vectors)
            elif not self._frozen_boxes:
                places = inputs[0] = self._whole(places)
        inputs += self.parameters.values()
        return self._evaluation(places, inputs)

    def _evaluation(
        self, places: NDArray[np.float64], inputs: list[NDArray[np.float64]]
    ) -> Evaluation:
        tensors = [torch.from_numpy(entry.astype(self.dtype)) for entry in inputs]
        tensors[0] = tensors[0].unsqueeze(0)
        with _threads(self._threads):
            outputs = self._artifact.run(tensors)
        value, *derivatives = (output[0].cpu().numpy().astype(np.float64) for output in outputs)
        gradient = derivatives[0][0]
        if not math.isfinite(value[0] + gradient.sum()):
            raise ValueError("values: expected a finite energy and forces, got NaN or infinity")
        strain = None
        if not self._frozen_boxes:
            strain = places.T @ gradient
            if self.metadata.periodic:
                strain = strain + inputs[1].T @ derivatives[1][0]
            strain = self._energy * strain
        return Evaluation(
            energy=self._energy * float(value[0]),
            forces=(-self._energy * self._length) * gradient,
            strain_derivative=strain,
        )

    def _checked_box(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the box in the artifact's unit; what is costly is done when it changes."""
        if self._box.given is None or not np.array_equal(self._box.given, box):
            vectors = box * self._length
            only = self.metadata.details.get("box") == "orthorhombic"
            require_box(torch.from_numpy(vectors), orthorhombic=only)
            for frozen in self._frozen_boxes:
                if not np.allclose(frozen, vectors, rtol=0, atol=_SAME_BOX * np.abs(frozen).max()):
                    raise ValueError(
                        f"box: expected the artifact's own {frozen.tolist()}, "
                        f"got {vectors.tolist()}"
                    )
            reduced = reduced_lattice(torch.from_numpy(vectors))
            shortest_squared = float(reduced.square().sum(1).min())
            self._box = _Box(box.copy(), vectors, reduced, shortest_squared)
        assert self._box.vectors is not None
        return self._box.vectors

    def _whole(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions in which each atom is the image nearest to the one before it."""
        assert self._box.reduced is not None
        steps = np.diff(places, axis=0)
        # A step within half the shortest lattice vector is its own nearest image.
        if 4 * np.square(steps).sum(1).max(initial=0.0) < self._box.shortest_squared:
            return places
        steps = self._nearest_image(torch.from_numpy(steps), self._box.reduced).numpy()
        return np.concatenate([places[:1], places[:1] + np.cumsum(steps, axis=0)])


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let LibTorch use some threads for a while; 0 leaves their number alone.

    A thread that uses LibTorch for the first time meanwhile starts with this number.
    """
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

    given: NDArray[np.float64] | None = None
    vectors: NDArray[np.float64] | None = None
    reduced: torch.Tensor | None = None
    shortest_squared: float = 0.0


def _require_energy(metadata: Metadata) -> None:
    unit = metadata.output_units.get("values")
    if metadata.kind != "collective_variable" or unit not in ENERGIES:
        raise ValueError(
            f"model: expected a bias, whose values are in {', '.join(ENERGIES)}, "
            f"got a {metadata.kind} in {unit or 'no unit'}"
        )
    if "contract" in metadata.details:
        raise ValueError(
            f"path: expected a bias without a contract, got one for {metadata.details['contract']}"
        )
    if metadata.inputs[0].shape[0] not in ("batch", 1):
        raise ValueError(
            f"model: expected a bias for one frame or any number, got {metadata.inputs[0].shape[0]}"
        )
    if metadata.outputs[0].shape[1] != 1:
        raise ValueError(
            f"model: expected a bias with one value, got {metadata.outputs[0].shape[1]}"
        )


def _require_atoms(atoms: NDArray[np.int64], n_atoms: int) -> None:
    if atoms.max() >= n_atoms:
        raise ValueError(
            f"atoms: expected indices below the system's {n_atoms} atoms, got {atoms.max()}"
        )


def _require_elements(
    atoms: NDArray[np.int64], expected: Sequence[str] | None, elements: Sequence[str] | None
) -> None:
    if expected is None or elements is None:
        return
    for atom, element in zip(atoms, expected, strict=True):
        if elements[atom] != element:
            raise ValueError(
                f"atoms: expected {element} as atom {atom} (zero-based), got {elements[atom]}"
            )


def _require_positions(boxes: Sequence[Mapping[str, Any]]) -> None:
    if any(box["scaled"] for box in boxes):
        raise ValueError(
            "model: expected an artifact that takes positions, "
            "got one that takes fractions of a box"
        )


def _boxes(specification: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the boxes in a description of descriptors, however deep."""
    if isinstance(specification, Mapping):
        if isinstance(specification.get("box"), Mapping):
            yield specification["box"]
        for entry in specification.values():
            yield from _boxes(entry)
    elif isinstance(specification, list):
        for entry in specification:
            yield from _boxes(entry)


def _vectors(box: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return a fixed box as lattice vectors."""
    return np.array(box["vectors"]) if box["type"] == "triclinic" else np.diag(box["lengths"])
