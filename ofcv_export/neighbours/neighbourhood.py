"""The search for the graph of a frame: system atoms, and the environment atoms near them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.arrays import as_numbers
from ofcv_export.base.lattice import require_independent_vectors
from ofcv_export.base.validation import (
    require_finite,
    require_non_negative,
    require_positive_number,
    require_shape,
)
from ofcv_export.neighbours.atom_graph import AtomGraph
from ofcv_export.neighbours.atom_selection import select_atoms
from ofcv_export.neighbours.pair_search import pairs_among, pairs_between, plane_distances
from ofcv_export.neighbours.pairs import Edges, Pairs
from ofcv_export.neighbours.reference_frame import ReferenceFrame

Floats = NDArray[np.float64]

# Lattice vectors in a direction within the largest radius.
_MOST_IMAGES = 10
_MOST_LATTICE_VECTORS = 10**9


@dataclass(frozen=True)
class _Lists:
    """What a search found, all radii enlarged by the skin."""

    near: Pairs  # of a system atom and an environment atom, within cutoff + buffer
    edges: Edges
    long_range: Edges


class Neighbourhood:
    """Finds the graph of each frame: nodes, edges, and the lattice vectors that edges cross.

    Nodes are the atoms of the system and the environment atoms near them. An environment atom is a
    candidate if an image of it is within ``cutoff + buffer`` of a system atom. Edges join system
    atoms and candidates, in both directions, wherever images are no farther apart than `cutoff`; an
    atom has edges to its own images too. Candidates without an edge are left out, system atoms
    never are. These are the graphs of mlcolvar 2.0 (``mlcolvar.data.graph``).

    Parameters
    ----------
    cutoff : float
        Longest edge, in the unit of the positions.
    n_atoms : int
        Atoms in the positions.
    system : iterable of int, optional
        Zero-based rows of the positions, in the order of the nodes; by default all atoms that are
        not of the environment.
    environment : iterable of int, optional
        Atoms that are nodes where they are near the system; by default none.
    buffer : float
        What is added to the cutoff where environment atoms are chosen.
    long_range_cutoff : float, optional
        Longest edge between atoms of `subsystem`, longer than `cutoff`. These edges come in
        addition to the ordinary ones, and carry a mark.
    subsystem : iterable of int, optional
        Atoms of the system.
    skin : float
        By how much the radii of a search are enlarged. What it found is used again, and measured
        anew, for as long as atoms and box have not moved too far for it; every graph is that of a
        search of its own.

    Attributes
    ----------
    rebuilds : int
        Searches so far.

    Raises
    ------
    TypeError, ValueError, IndexError
        If an argument is none of these, in one line.

    Examples
    --------
    >>> search = Neighbourhood(1.5, n_atoms=3, system=[0], environment=[1, 2])
    >>> graph = search.find([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    >>> graph.nodes.tolist(), graph.edge_index.tolist()
    ([0, 1], [[0, 1], [1, 0]])
    """

    def __init__(
        self,
        cutoff: float,
        *,
        n_atoms: int,
        system: Iterable[int] | None = None,
        environment: Iterable[int] | None = None,
        buffer: float = 0.0,
        long_range_cutoff: float | None = None,
        subsystem: Iterable[int] | None = None,
        skin: float = 0.0,
    ) -> None:
        self.cutoff = require_positive_number("cutoff", cutoff)
        self.buffer = require_non_negative("buffer", buffer)
        self.skin = require_non_negative("skin", skin)
        self.long_range_cutoff = self._long_range_cutoff(long_range_cutoff, subsystem is not None)
        if environment is None and self.buffer > 0:
            raise ValueError(f"buffer: expected 0 without an environment, got {self.buffer!r}")
        self._selection = select_atoms(n_atoms, system, environment, subsystem)
        self.n_atoms = int(n_atoms)
        self.rebuilds = 0
        self._radius = max(self.cutoff + self.buffer, self.long_range_cutoff or 0.0)
        self._lists: _Lists | None = None
        self._reference: ReferenceFrame | None = None
        self._checked_box: Floats | None = None

    def find(self, positions: Any, box: Any = None) -> AtomGraph:
        """Return the graph of a frame.

        Parameters
        ----------
        positions : array_like, shape (n_atoms, 3)
            Of all atoms, of any image.
        box : array_like, shape (3, 3), optional
            Lattice vectors as rows, in any order and of either handedness; none for an open system.

        Raises
        ------
        TypeError
            If they are no real numbers.
        ValueError
            If a shape is another, a number is not finite, the box has no volume or one so small
            that more than ten lattice vectors in a direction are within the largest radius.
        ImportError
            If vesin is needed and not installed (the extra ``graphs``).
        """
        x = _floats("positions", positions)
        require_shape("positions", x, (self.n_atoms, 3))
        require_finite("positions", x)
        lattice = self._checked(box)
        x = x[self._selection.atoms]
        lists = self._lists
        if lists is None or self._reference is None or not self._covered(x, lattice):
            lists = self._search(x, lattice)
        return self._graph(lists, x, lattice)

    def _long_range_cutoff(self, value: float | None, has_subsystem: bool) -> float | None:
        if value is None:
            if has_subsystem:
                raise ValueError("long_range_cutoff: expected one for subsystem, got none")
            return None
        value = require_positive_number("long_range_cutoff", value)
        if not value > self.cutoff:
            raise ValueError(
                f"long_range_cutoff: expected more than the cutoff of {self.cutoff!r}, "
                f"got {value!r}"
            )
        if not has_subsystem:
            raise ValueError("subsystem: expected atoms for long_range_cutoff, got none")
        return value

    def _checked(self, box: Any) -> Floats | None:
        if box is None:
            return None
        lattice = _floats("box", box)
        if self._checked_box is not None and np.array_equal(lattice, self._checked_box):
            return lattice
        require_independent_vectors(lattice)
        reach = self._radius + self.skin
        least = plane_distances(lattice).min()
        if not least * _MOST_IMAGES >= reach:
            raise ValueError(
                f"box: expected one whose planes are at least {reach / _MOST_IMAGES:g} apart for "
                f"radii of up to {reach:g}, got {least:g}"
            )
        self._checked_box = lattice.copy()
        return lattice

    def _require_countable(self, x: Floats, box: Floats) -> None:
        """Raise unless 32 bits hold the lattice vectors between an atom and the origin."""
        is_far = (np.abs(x @ np.linalg.inv(box)) >= _MOST_LATTICE_VECTORS).any(axis=1)
        if is_far.any():
            raise ValueError(
                f"positions: expected atoms within {_MOST_LATTICE_VECTORS} lattice vectors of the "
                f"origin, got atom {self._selection.atoms[is_far.argmax()]} beyond"
            )

    def _covered(self, x: Floats, box: Floats | None) -> bool:
        assert self._reference is not None
        return self._reference.covers(x, box, self._radius, self.skin)

    def _search(self, x: Floats, box: Floats | None) -> _Lists:
        n_system, subsystem = self._selection.n_system, self._selection.subsystem
        if box is not None:
            self._require_countable(x, box)
        near = Pairs.none()
        members = np.arange(n_system)
        if len(x) > n_system:
            near = pairs_between(n_system, x, box, self.cutoff + self.buffer + self.skin)
            members = np.concatenate([members, np.unique(near.second)])
        long_range = Pairs.none()
        if self.long_range_cutoff is not None:
            long_range = _among(subsystem, x, box, self.long_range_cutoff + self.skin)
        edges = _among(members, x, box, self.cutoff + self.skin)
        lists = _Lists(near, Edges.along(edges), Edges.along(long_range))
        self.rebuilds += 1
        if self.skin > 0:
            self._lists = lists
            self._reference = ReferenceFrame(x, None if box is None else box.copy())
        return lists

    def _graph(self, lists: _Lists, x: Floats, box: Floats | None) -> AtomGraph:
        n_system = self._selection.n_system
        is_candidate = np.arange(len(x)) < n_system
        near = lists.near
        is_candidate[near.second[near.within(self.cutoff + self.buffer, x, box)]] = True
        pairs = lists.edges.pairs
        joined = pairs.within(self.cutoff, x, box)
        joined &= is_candidate[pairs.first] & is_candidate[pairs.second]
        ordinary = lists.edges.of(joined)
        far = Pairs.none()
        if self.long_range_cutoff is not None:
            far = lists.long_range.of(lists.long_range.pairs.within(self.long_range_cutoff, x, box))
        is_node = np.arange(len(x)) < n_system
        is_node[ordinary.first] = True
        number = np.cumsum(is_node) - 1
        nodes = self._selection.atoms[is_node]
        sender = np.concatenate([ordinary.first, far.first])
        receiver = np.concatenate([ordinary.second, far.second])
        return AtomGraph(
            nodes=nodes,
            edge_index=number[np.stack([sender, receiver])],
            cell_shifts=np.concatenate([ordinary.shifts, far.shifts]),
            system_mask=(np.arange(nodes.size) < n_system).astype(np.int64),
            long_range_mask=(np.arange(sender.size) >= ordinary.first.size).astype(np.int64),
        )


def _among(members: NDArray[np.int64], x: Floats, box: Floats | None, radius: float) -> Pairs:
    """Return the pairs among some of the atoms."""
    found = pairs_among(x[members], box, radius)
    return Pairs(members[found.first], members[found.second], found.shifts)


def _floats(name: str, values: Any) -> Floats:
    array = as_numbers(name, values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array.astype(np.float64, copy=False)
