"""Frames of a trajectory file as the positions and boxes that an artifact takes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.files import require_file
from ofcv_export.base.units import length_factor
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
        If the file cannot be read, a frame lacks an atom or a box, or the artifact has no unit.
    """
    require_file("positions", path)
    # ASE keeps positions in Angstrom.
    unit = length_factor(metadata.length_unit, "A")
    atoms = list(metadata.atoms or range(variable_details(metadata).n_atoms))
    frames = _read(path)
    for number, frame in enumerate(frames):
        if len(frame) <= max(atoms):
            raise ValueError(
                f"positions: expected at least {max(atoms) + 1} atoms, "
                f"got {len(frame)} in frame {number}"
            )
        if metadata.periodic and frame.cell.rank < 3:
            raise ValueError(f"box: expected lattice vectors, got none in frame {number}")
    positions = np.stack([frame.positions[atoms] for frame in frames]) / unit
    boxes = np.stack([frame.cell.array for frame in frames]) / unit if metadata.periodic else None
    return positions, boxes


def _read(path: str | PathLike[str]) -> list[Any]:
    """Return the frames of a file as ASE's Atoms."""
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
            f"positions: expected a trajectory that ASE reads, got {str(path)!r}"
        ) from error
    return frames if isinstance(frames, list) else [frames]
