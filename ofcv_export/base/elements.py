"""Chemical symbols and atomic numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Position is the atomic number; 0 stands for no element.
PERIODIC_TABLE = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
SYMBOLS = tuple(PERIODIC_TABLE.split())


def atomic_numbers(elements: Sequence[str]) -> list[int]:
    """Return the atomic numbers of chemical symbols.

    Raises
    ------
    ValueError
        For what is no symbol.

    Examples
    --------
    >>> atomic_numbers(["C", "O"])
    [6, 8]
    """
    for symbol in elements:
        if symbol not in SYMBOLS[1:]:
            raise ValueError(f"elements: expected chemical symbols, got {symbol!r}")
    return [SYMBOLS.index(symbol) for symbol in elements]


def require_known_elements(
    numbers: NDArray[np.int64],
    known: Sequence[int],
    atoms: Sequence[int] | None = None,
    elements: Sequence[str] | None = None,
) -> None:
    """Raise ValueError at the first atom of an element that a network does not know.

    Parameters
    ----------
    numbers : numpy.ndarray
        Atomic numbers, shape (n,).
    known : sequence of int
        Those that the network knows.
    atoms : sequence of int, optional
        Zero-based indices of the atoms in the engine; by default they count from 0.
    elements : sequence of str, optional
        What the engine calls the atoms; by default their symbols.
    """
    wrong = np.flatnonzero(~np.isin(numbers, known))
    if not len(wrong):
        return
    place = int(wrong[0])
    number = int(numbers[place])
    symbol = SYMBOLS[number] if 0 < number < len(SYMBOLS) else str(number)
    symbol = symbol if elements is None else elements[place]
    names = ", ".join(SYMBOLS[entry] for entry in known)
    atom = place if atoms is None else atoms[place]
    raise ValueError(f"elements: expected {names}, got {symbol} as atom {atom} (zero-based)")


def require_elements(
    atoms: Sequence[int],
    expected: Sequence[str] | None,
    elements: Sequence[str] | None,
    *,
    selected: bool = False,
) -> None:
    """Raise ValueError unless atoms of a system are of the expected elements, where both are known.

    Parameters
    ----------
    atoms : sequence of int
        Zero-based indices in the system.
    expected : sequence of str or None
        Chemical symbols of these atoms.
    elements : sequence of str or None
        Chemical symbols of all atoms of the system.
    selected : bool
        Whether `elements` are those of `atoms` alone, in their order.
    """
    if expected is None or elements is None:
        return
    found = elements if selected else [elements[atom] for atom in atoms]
    for atom, element, got in zip(atoms, expected, found, strict=True):
        if got != element:
            raise ValueError(f"atoms: expected {element} as atom {atom} (zero-based), got {got}")
