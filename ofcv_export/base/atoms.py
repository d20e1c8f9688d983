"""Indices of a module's atoms in an engine's numbering."""

from __future__ import annotations

import operator
from collections.abc import Iterable


def atom_indices(name: str, atoms: Iterable[object], n_atoms: int | None = None) -> list[int]:
    """Return zero-based indices as integers, checked.

    Parameters
    ----------
    name : str
        Name of the argument, for the error message.
    atoms : iterable of int
        Distinct indices.
    n_atoms : int, optional
        Number of them, where it is known.

    Raises
    ------
    TypeError
        If an index is no integer.
    ValueError
        If there are others than `n_atoms`, one comes twice or is below zero.

    Examples
    --------
    >>> atom_indices("atoms", range(2), 2)
    [0, 1]
    """
    given = list(atoms)
    indices = [_integer(name, atom) for atom in given]
    size_fits = n_atoms is None or len(indices) == n_atoms
    if not size_fits or len(set(indices)) < len(indices) or min(indices, default=0) < 0:
        size = "" if n_atoms is None else f"{n_atoms} "
        raise ValueError(f"{name}: expected {size}distinct zero-based indices, got {indices}")
    return indices


def _integer(name: str, atom: object) -> int:
    try:
        if isinstance(atom, bool):
            raise TypeError
        return operator.index(atom)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"{name}: expected integers, got {atom!r}") from error
