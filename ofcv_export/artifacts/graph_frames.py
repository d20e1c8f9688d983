"""A user's frames, whatever holds them, as graphs that an artifact takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofcv_export.artifacts.graph_inputs import Array, GraphInputs
from ofcv_export.artifacts.trajectory import are_ase, elements_of_ase, elements_of_universe, held
from ofcv_export.base.arrays import is_tensor, to_array
from ofcv_export.base.elements import require_elements
from ofcv_export.base.lattice import is_unit_box, require_box
from ofcv_export.base.units import length_factor
from ofcv_export.base.validation import require_finite, require_shape
from ofcv_export.graph.details import GraphVariableDetails
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import COUNTED
from ofcv_export.neighbours.atom_graph import AtomGraph

# Frames that a file is tried with, evenly spaced among those that are given.
_MOST = 64

Inputs = Mapping[str, NDArray[Any]]


class FrameGraph(NamedTuple):
    """The graph of a frame.

    Parameters
    ----------
    number : int
        Of the frame.
    n_atoms : int
        Atoms of the artifact.
    graph : AtomGraph
        Its nodes are among these atoms.
    inputs : mapping of numpy.ndarray
        Inputs by their names, but for parameters.
    """

    number: int
    n_atoms: int
    graph: AtomGraph
    inputs: Inputs


class _Frame(NamedTuple):
    """The atoms of an artifact, or of a whole system, with their elements where these are known."""

    positions: Array
    lattice: Array | None
    elements: list[str] | None


def graphs_of(
    frames: Any, metadata: Metadata, most: int | None = None, name: str = "frames"
) -> Iterator[FrameGraph]:
    """Yield the graphs of frames, from whatever holds these.

    Parameters
    ----------
    frames : array_like, path-like, or objects of ASE or MDAnalysis
        Positions of the artifact's atoms in its unit, the system's before the environment's, shape
        (n_frames, n_atoms, 3), as an array, a tensor or a ``.npy`` file; or a pair of such
        positions and of boxes (n_frames, 3, 3) or (3, 3); or the whole system in Angstrom, of which
        the artifact's atoms are taken: a file that ASE reads, ASE's Atoms or a sequence of them, or
        a Universe or AtomGroup of MDAnalysis.
    metadata : Metadata
        Of the artifact, a graph variable or a bias of one.
    most : int, optional
        Of so many frames at most, evenly spaced among those that are given; by default of all.
    name : str
        What an error calls the frames.

    Yields
    ------
    FrameGraph
        Of one frame after the other.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If ASE or vesin is needed and not installed.
    ValueError, TypeError
        If there are no frames, or they do not fit.
    """
    details = metadata.details
    assert isinstance(details, GraphVariableDetails)
    given = _own_atoms(frames, metadata, name)
    if not given:
        raise ValueError(f"{name}: expected at least one, got none")
    n_chosen = min(most or len(given), len(given))
    chosen = np.unique(np.linspace(0, len(given) - 1, n_chosen).astype(int))
    atoms = list(metadata.atoms or range(len(given[0].positions)))
    make = GraphInputs(details, atoms)
    for number in chosen.tolist():
        frame = given[number]
        require_shape(f"frame {number}", frame.positions, (len(atoms), 3))
        require_finite(f"frame {number}", frame.positions)
        if frame.lattice is not None:
            require_box(frame.lattice)
        elements = frame.elements or metadata.elements
        if elements is None:
            raise ValueError("elements: expected chemical symbols of the atoms, got none")
        made = make(frame.positions, make.numbers(elements), frame.lattice)
        yield FrameGraph(number, len(atoms), *made)


def to_graph_frames(frames: Any, metadata: Metadata, largest: Mapping[str, int]) -> list[Inputs]:
    """Return the graphs that a file is tried with, of at most 64 of a user's frames.

    Parameters
    ----------
    frames, metadata
        As those of `graphs_of`.
    largest : mapping
        The most nodes and edges that the file takes, where it does not take any number.

    Returns
    -------
    list of dict of numpy.ndarray
        Inputs by their names, but for parameters.

    Raises
    ------
    ValueError
        If a graph is too large; and what `graphs_of` raises.
    """
    graphs: list[Inputs] = []
    for number, _, graph, inputs in graphs_of(frames, metadata, _MOST):
        found = {"n_nodes": len(graph.nodes), "n_edges": graph.edge_index.shape[1]}
        for size, most in largest.items():
            if found[size] > most:
                raise ValueError(
                    f"{size}: expected {found[size]} {COUNTED[size]} or more for frame {number}, "
                    f"got {most}"
                )
        graphs.append(inputs)
    return graphs


def _own_atoms(frames: Any, metadata: Metadata, name: str) -> list[_Frame]:
    """Return frames of the artifact's atoms, in its unit."""
    frames = held(frames, name)
    if hasattr(frames, "universe"):
        return [
            _selected(k, frame, metadata, name) for k, frame in enumerate(_of_mdanalysis(frames))
        ]
    if are_ase(frames):
        return [_selected(k, _of_ase(k, one), metadata, name) for k, one in enumerate(frames)]
    boxes = None
    if isinstance(frames, tuple) and len(frames) == 2:
        frames, boxes = frames
    n_atoms = len(metadata.atoms) if metadata.atoms else "n_atoms"
    return _of_arrays(frames, boxes, n_atoms)


def _of_arrays(positions: Any, boxes: Any, n_atoms: int | str) -> list[_Frame]:
    try:
        places = _numbers(positions)
        lattices = None if boxes is None else _numbers(boxes)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"frames: expected positions, a trajectory or its file, got {type(positions).__name__}"
        ) from error
    require_shape("frames", places, ("n_frames", n_atoms, 3))
    if lattices is None:
        return [_Frame(place, None, None) for place in places]
    if lattices.ndim == 2:
        lattices = np.tile(lattices, (len(places), 1, 1))
    require_shape("frames", lattices, (len(places), 3, 3))
    return [_Frame(place, box, None) for place, box in zip(places, lattices, strict=True)]


def _numbers(values: Any) -> Array:
    return np.array(to_array(values) if is_tensor(values) else values, dtype=np.float64)


def _of_ase(number: int, atoms: Any) -> _Frame:
    """Return a frame of ASE's, in Angstrom."""
    if atoms.pbc.any() and not (atoms.pbc.all() and atoms.cell.rank == 3):
        flags = " ".join("T" if flag else "F" for flag in atoms.pbc)
        raise ValueError(
            "box: expected a system that is periodic along three lattice vectors or along none, "
            f'got one with pbc="{flags}" in frame {number}'
        )
    lattice = np.array(atoms.cell.array) if atoms.pbc.all() else None
    return _Frame(np.array(atoms.positions), lattice, elements_of_ase(atoms))


def _of_mdanalysis(universe: Any) -> list[_Frame]:
    """Return all frames of a Universe, in Angstrom."""
    symbols = elements_of_universe(universe)
    return [
        _Frame(np.array(step.positions, dtype=np.float64), step.triclinic_dimensions, symbols)
        for step in universe.trajectory
    ]


def _selected(number: int, frame: _Frame, metadata: Metadata, name: str) -> _Frame:
    """Return the artifact's atoms of a whole system in Angstrom, in the artifact's unit."""
    atoms = list(metadata.atoms or range(len(frame.positions)))
    if max(atoms) >= len(frame.positions):
        raise ValueError(
            f"{name}: expected at least {max(atoms) + 1} atoms, "
            f"got {len(frame.positions)} in frame {number}"
        )
    require_elements(atoms, metadata.elements, frame.elements)
    unit = length_factor(metadata.length_unit, "A")
    lattice = None if frame.lattice is None else np.array(frame.lattice, dtype=np.float64)
    return _Frame(
        frame.positions[atoms] / unit,
        None if lattice is None or is_unit_box(lattice) else lattice / unit,
        frame.elements and [frame.elements[atom] for atom in atoms],
    )
