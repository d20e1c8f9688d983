"""Which atoms are the system, its environment, and the subsystem of the edges of long range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.arrays import as_numbers
from ofcv_export.base.validation import require_in_range, require_positive, require_shape

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class AtomSelection:
    """Atoms as zero-based rows of the positions.

    Parameters
    ----------
    atoms : numpy.ndarray of int64, shape (n,)
        All that may be nodes: the system in the order given, then the environment, ascending.
    n_system : int
        How many of them are the system.
    subsystem : numpy.ndarray of int64
        Rows of `atoms`, ascending.
    """

    atoms: Indices
    n_system: int
    subsystem: Indices


def select_atoms(
    n_atoms: int,
    system: Iterable[int] | None,
    environment: Iterable[int] | None,
    subsystem: Iterable[int] | None,
) -> AtomSelection:
    """Return the atoms of a graph, checked.

    Raises
    ------
    TypeError
        If indices are no integers.
    IndexError
        If an index is below zero or not below `n_atoms`.
    ValueError
        If there is no system, an index comes twice, an atom is of the system and of the
        environment, or one of the subsystem is not of the system.
    """
    require_positive("n_atoms", n_atoms)
    around = np.sort(_indices("environment", () if environment is None else environment, n_atoms))
    if system is None:
        within = np.delete(np.arange(n_atoms), around)
    else:
        within = _indices("system", system, n_atoms)
    _require_some("system", within)
    _require_none("environment", "atoms that are not in system", around[np.isin(around, within)])
    atoms = np.concatenate([within, around])
    chosen = np.empty(0, dtype=np.int64)
    if subsystem is not None:
        chosen = _indices("subsystem", subsystem, n_atoms)
        _require_some("subsystem", chosen)
        _require_none("subsystem", "atoms of system", chosen[~np.isin(chosen, within)])
    return AtomSelection(atoms, within.size, np.flatnonzero(np.isin(atoms, chosen)))


def _indices(name: str, atoms: Iterable[int], n_atoms: int) -> Indices:
    """Return distinct indices as an array of their own."""
    is_array = hasattr(atoms, "__array__")
    values: NDArray[Any] = as_numbers(name, atoms if is_array else list(atoms))
    if values.size == 0:
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {values.dtype}")
    require_shape(name, values, ("n",))
    require_in_range(name, values, 0, n_atoms)
    found, counts = np.unique(values, return_counts=True)
    if found.size < values.size:
        raise ValueError(
            f"{name}: expected distinct indices, got {found[counts > 1][0]} more than once"
        )
    return values.astype(np.int64)


def _require_some(name: str, atoms: Indices) -> None:
    if atoms.size == 0:
        raise ValueError(f"{name}: expected at least one atom, got none")


def _require_none(name: str, expected: str, others: Indices) -> None:
    if others.size:
        raise ValueError(f"{name}: expected {expected}, got {others[0]}")
