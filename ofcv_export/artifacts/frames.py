"""A user's frames, whatever holds them, as positions and boxes that an artifact takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofcv_export.artifacts.trajectory import (
    FrameCheck,
    are_ase,
    elements_of_universe,
    from_ase,
    held,
)
from ofcv_export.base.units import length_factor
from ofcv_export.base.validation import require_finite, require_shape
from ofcv_export.descriptors.boundaries import require_box
from ofcv_export.graph.details import ContractDetails, Details, box_shape, variable_of
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TensorSpec


@dataclass(frozen=True)
class Frames:
    """Frames of the atoms of an artifact, in its unit.

    Parameters
    ----------
    positions : torch.Tensor
        Shape (n_frames, n_atoms, 3), float64.
    boxes : torch.Tensor or None
        Lattice vectors as rows, shape (n_frames, 3, 3), float64, where a box is an input.
    """

    positions: Tensor
    boxes: Tensor | None


def to_frames(frames: Any, metadata: Metadata) -> Frames:
    """Return frames from whatever holds them.

    Parameters
    ----------
    frames : Frames, array_like, path-like, or objects of ASE or MDAnalysis
        Positions as the artifact's input has them, shape (n_frames, n_atoms, 3), as an array, a
        tensor or a ``.npy`` file; or a pair of such positions and of boxes (n_frames, 3, 3) or
        (3, 3); or the whole system in Angstrom, of which the artifact's atoms are taken: a file
        that ASE reads, ASE's Atoms or a sequence of them, or a Universe or AtomGroup of MDAnalysis.
    metadata : Metadata
        Of the artifact, a collective variable, a bias, or one of them behind a contract.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If ASE is needed and not installed.
    ValueError, TypeError
        If there are no frames, they do not fit, or hold values that are not finite.
    """
    if isinstance(frames, Frames):
        return frames
    frames = held(frames, "frames")
    if hasattr(frames, "universe"):
        return _checked(*_from_mdanalysis(frames, metadata), metadata)
    if are_ase(frames):
        return _checked(*from_ase(frames, metadata, _atoms(metadata)), metadata)
    boxes: Any = None
    if isinstance(frames, tuple) and len(frames) == 2:
        frames, boxes = frames
    return _checked(frames, boxes, metadata)


def _from_mdanalysis(universe: Any, metadata: Metadata) -> tuple[Any, Any]:
    """Return positions and boxes of all frames of a Universe, which are in Angstrom."""
    unit, atoms = length_factor(metadata.length_unit, "A"), _atoms(metadata)
    require_frame = FrameCheck(metadata, atoms)
    symbols = elements_of_universe(universe)
    positions, boxes = [], []
    for number, step in enumerate(universe.trajectory):
        lattice = step.triclinic_dimensions
        if lattice is not None:
            lattice = np.array(lattice, dtype=np.float64)
        require_frame(number, len(universe.atoms), symbols, lattice)
        positions.append(np.array(step.positions[atoms], dtype=np.float64) / unit)
        if metadata.periodic:
            boxes.append(lattice / unit)
    return np.stack(positions), np.stack(boxes) if boxes else None


def _atoms(metadata: Metadata) -> list[int]:
    """Return the atoms of the engine that the input ``positions`` holds, in order."""
    details, n_atoms = metadata.details, n_atoms_in(metadata.inputs, metadata.details)
    if isinstance(details, ContractDetails) and metadata.inputs[0].name == "positions":
        return list(details.group or range(n_atoms))
    return list(metadata.atoms or range(n_atoms))


def n_atoms_in(inputs: Sequence[TensorSpec], details: Details) -> int:
    """Return the number of atoms in the input ``positions``, or behind ``descriptors``."""
    variable = variable_of(details)
    assert variable is not None
    if inputs[0].name != "positions":
        return variable.n_atoms
    n_atoms = inputs[0].shape[-2]
    assert isinstance(n_atoms, int)
    return n_atoms


def _checked(positions: Any, boxes: Any, metadata: Metadata) -> Frames:
    """Return frames whose shapes and values are those of an artifact."""
    x = _numbers(positions)
    require_shape("frames", x, ("n_frames", n_atoms_in(metadata.inputs, metadata.details), 3))
    if len(x) == 0:
        raise ValueError("frames: expected at least one, got none")
    require_finite("frames", x)
    variable = variable_of(metadata.details)
    if not metadata.periodic and (variable is None or variable.box.run_time is None):
        return Frames(x, None)
    if boxes is None:
        raise ValueError("frames: expected (positions, boxes) for a periodic module, got no boxes")
    lattices = _numbers(boxes)
    if lattices.dim() == 2:
        lattices = lattices.expand(len(x), 3, 3)
    require_shape("frames", lattices, (len(x), 3, 3))
    for lattice in lattices.unique(dim=0):
        require_box(lattice, orthorhombic=box_shape(metadata.details) == "orthorhombic")
    return Frames(x, lattices)


def _numbers(value: Any) -> Tensor:
    """Return positions or boxes as a float64 tensor."""
    if isinstance(value, Tensor):
        return value.detach().cpu().double()
    try:
        return torch.from_numpy(np.array(value, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"frames: expected positions, a trajectory or its file, got {type(value).__name__}"
        ) from error
