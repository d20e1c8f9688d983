"""A graph of atoms: nodes, and edges with the lattice vectors that they cross."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AtomGraph:
    """Atoms as nodes, pairs of near ones as edges.

    Parameters
    ----------
    nodes : numpy.ndarray of int64, shape (n_nodes,)
        Atoms, zero-based rows of the positions: those of the system in the order given, then those
        of the environment, ascending.
    edge_index : numpy.ndarray of int64, shape (2, n_edges)
        Sender and receiver of each edge, as numbers of nodes. Every pair comes in both directions.
        Ordinary edges come first, then those of long range, each by sender, receiver and shift.
    cell_shifts : numpy.ndarray of int64, shape (n_edges, 3)
        Lattice vectors crossed: an edge's vector is
        ``x[receiver] - x[sender] + cell_shifts @ box``, with ``x = positions[nodes]``.
    system_mask : numpy.ndarray of int64, shape (n_nodes,)
        1 for an atom of the system.
    long_range_mask : numpy.ndarray of int64, shape (n_edges,)
        1 for an edge of long range.
    """

    nodes: NDArray[np.int64]
    edge_index: NDArray[np.int64]
    cell_shifts: NDArray[np.int64]
    system_mask: NDArray[np.int64]
    long_range_mask: NDArray[np.int64]
