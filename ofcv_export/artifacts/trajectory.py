"""Frames of a trajectory file as the positions and boxes that an artifact takes."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.elements import require_elements
from ofcv_export.base.files import read_npy, require_file
from ofcv_export.base.lattice import is_unit_box, require_same_box
from ofcv_export.base.units import length_factor
from ofcv_export.graph.details import variable_of
from ofcv_export.graph.metadata import Metadata, variable_details


def read_frames(
    path: str | PathLike[str], metadata: Metadata
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Read positions, and boxes for a periodic artifact, in the artifact's unit and atoms.

    Parameters
    ----------
    path : path-like
        Any file that ASE reads, e.g. extended XYZ; its lengths are taken to be in Angstrom.
    metadata : Metadata
        Metadata of a collective variable.

    Returns
    -------
    positions : numpy.ndarray
        Shape (n_frames, n_atoms, 3): the frames' atoms with the artifact's indices.
    boxes : numpy.ndarray or None
        Lattice vectors as rows, shape (n_frames, 3, 3), if the artifact is periodic.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If ASE is not installed.
    ValueError
        If the file cannot be read, a frame lacks an atom or a box, has other elements or another
        box than the artifact, is not periodic where the artifact is, or the artifact has no unit,
        or takes fractions of a box. A box of 1 by 1 by 1 Angstrom is none: PDB files say so.
    """
    require_file("positions", path)
    # Units and atoms that cannot be had need no reading.
    length_factor(metadata.length_unit, "A")
    atoms = list(metadata.atoms or range(variable_details(metadata).n_atoms))
    return from_ase(read(path), metadata, atoms)


def from_ase(
    frames: Sequence[Any], metadata: Metadata, atoms: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return positions and boxes of ASE's Atoms, see `read_frames`.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        The frames, in Angstrom.
    metadata : Metadata
        Metadata of the artifact.
    atoms : sequence of int
        Rows of the frames that are the artifact's atoms.
    """
    # ASE keeps positions in Angstrom.
    unit = length_factor(metadata.length_unit, "A")
    require_frame = FrameCheck(metadata, atoms)
    for number, frame in enumerate(frames):
        lattice = frame.cell.array if frame.cell.rank == 3 else None
        require_frame(number, len(frame), elements_of_ase(frame), lattice)
        if require_frame.takes_box and not frame.pbc.all():
            flags = " ".join("T" if flag else "F" for flag in frame.pbc)
            raise ValueError(
                f'box: expected a periodic system, got one with pbc="{flags}" in frame {number}'
            )
    positions = np.stack([frame.positions[atoms] for frame in frames]) / unit
    boxes = np.stack([frame.cell.array for frame in frames]) / unit if metadata.periodic else None
    return positions, boxes


class FrameCheck:
    """Checks frames of a whole system in Angstrom as engines check theirs.

    Parameters
    ----------
    metadata : Metadata
        Metadata of the artifact.
    atoms : sequence of int
        Rows of the frames that are its atoms.

    Attributes
    ----------
    takes_box : bool
        Whether a frame needs a box.

    Raises
    ------
    ValueError
        If the artifact takes fractions of a box.
    """

    def __init__(self, metadata: Metadata, atoms: Sequence[int]) -> None:
        variable = variable_of(metadata.details)
        assert variable is not None
        if variable.box.fractions:
            raise ValueError(
                "model: expected an artifact that takes positions, "
                "got one that takes fractions of a box"
            )
        self.takes_box = metadata.periodic or bool(variable.box.fixed)
        self._fixed = [np.array(box) for box in variable.box.fixed]
        self._n_atoms = max(atoms) + 1
        # Of a contract's group of atoms only those of the bias have elements.
        self._own, self._elements = list(metadata.atoms or atoms), metadata.elements
        self._unit = length_factor(metadata.length_unit, "A")

    def __call__(
        self,
        number: int,
        n_atoms: int,
        elements: Sequence[str] | None,
        lattice: NDArray[Any] | None,
    ) -> None:
        """Raise ValueError unless a frame is one of a system that the artifact was made for."""
        if n_atoms < self._n_atoms:
            raise ValueError(
                f"positions: expected at least {self._n_atoms} atoms, "
                f"got {n_atoms} in frame {number}"
            )
        require_elements(self._own, self._elements, elements)
        if not self.takes_box:
            return
        if lattice is None or is_unit_box(lattice):
            raise ValueError(f"box: expected lattice vectors, got none in frame {number}")
        for own in self._fixed:
            try:
                require_same_box(lattice / self._unit, own)
            except ValueError as error:
                raise ValueError(f"{error} in frame {number}") from error


def held(frames: Any, name: str) -> Any:
    """Return a user's frames as they are held: what a file has, a list of ASE's Atoms, a Universe.

    Parameters
    ----------
    frames : array_like, path-like, or objects of ASE or MDAnalysis
        Others than a path, Atoms and an AtomGroup are returned as they are.
    name : str
        What an error calls them.
    """
    if isinstance(frames, str | PathLike):
        require_file(name, frames)
        return read_npy(name, frames) if Path(frames).suffix == ".npy" else read(frames, name)
    if hasattr(frames, "universe"):
        return frames.universe
    return [frames] if _is_ase(frames) else frames


def are_ase(frames: Any) -> bool:
    """Return whether frames are a sequence of ASE's Atoms."""
    return isinstance(frames, Sequence) and len(frames) > 0 and _is_ase(frames[0])


def elements_of_ase(frame: Any) -> list[str] | None:
    """Return the chemical symbols of ASE's Atoms, None where none is known."""
    # An atom of number 0 is one that the file says nothing of.
    return frame.get_chemical_symbols() if frame.numbers.any() else None


def elements_of_universe(universe: Any) -> list[str] | None:
    """Return the chemical symbols of a Universe's atoms, None where it has none."""
    elements = getattr(universe.atoms, "elements", None)
    return None if elements is None else [str(element) for element in elements]


def _is_ase(frame: object) -> bool:
    return hasattr(frame, "get_positions") and hasattr(frame, "cell")


def read(path: str | PathLike[str], name: str = "positions") -> list[Any]:
    """Return the frames of a file as ASE's Atoms; `name` is what an error calls it."""
    try:
        import ase.io
    except ImportError as error:
        raise ImportError(
            "ase: expected to be installed to read trajectories, got no such package; "
            "pip install ase"
        ) from error
    try:
        frames = ase.io.read(Path(path), index=":")
    except Exception as error:  # ASE raises whatever a foreign file leads its readers to
        raise ValueError(
            f"{name}: expected a trajectory that ASE reads, got {str(path)!r}"
        ) from error
    return frames if isinstance(frames, list) else [frames]
