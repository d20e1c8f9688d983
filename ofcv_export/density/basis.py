"""The layout of an atom-centred basis: which coefficient belongs to which element, shell and m."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.elements import SYMBOLS

IntArray = NDArray[np.int64]

IRREP = re.compile(r"(?:(?P<multiplicity>[0-9]+)x)?(?P<l>[0-9]+)(?P<parity>[eo])")


class BasisLayout(Protocol):
    """What is needed to place a molecule's coefficients; mldft's ``BasisInfo`` has it too.

    ``l_per_basis_func`` and ``irreps_per_atom`` are looked at where a layout has them.
    """

    @property
    def n_basis(self) -> Any:
        """Number of basis functions of all elements together."""
        ...

    @property
    def atomic_number_to_atom_index(self) -> Any:
        """Row of an element, -1 where absent; indexed by atomic number."""
        ...

    @property
    def atom_ind_to_basis_function_ind(self) -> Any:
        """Indices of an element's basis functions, one array an element."""
        ...


class BasisInfo:
    """The basis functions of every element, concatenated element after element.

    Attribute names are those of mldft's ``BasisInfo``.

    Parameters
    ----------
    atomic_numbers : array_like of int, shape (n_types,)
        Elements of the basis, each once.
    irreps_per_atom : sequence of str, length n_types
        Shells of each element as multiplicity x angular momentum and parity, sorted by angular
        momentum: ``"3x0e+1x1o"`` is three s shells and one p shell. Anything whose ``str`` reads so
        is accepted, e.g. ``e3nn.o3.Irreps``. Parity is that of the spherical harmonics, (-1)^l.

    Attributes
    ----------
    atomic_numbers : numpy.ndarray of int64, shape (n_types,)
    irreps_per_atom : tuple of str
        In the spelling ``"3x0e+1x1o"``.
    basis_dim_per_atom : numpy.ndarray of int64, shape (n_types,)
        Number of basis functions of each element.
    atomic_number_to_atom_index : numpy.ndarray of int64, shape (max(atomic_numbers) + 1,)
        Position of an element in `atomic_numbers`, -1 where absent.
    atom_ind_to_basis_function_ind : list of numpy.ndarray of int64
        Indices of the basis functions of each element.
    l_per_basis_func, m_per_basis_func : numpy.ndarray of int64, shape (n_basis,)
        Angular momentum and its component, m = -l, ..., l within a shell.
    basis_func_to_shell : numpy.ndarray of int64, shape (n_basis,)
        Shell of each basis function, counted through all elements.

    Raises
    ------
    ValueError
        For an element that is repeated or unknown, irreps that can't be read, that are not sorted
        or that have the wrong parity, or a number of irreps other than the number of elements.
    TypeError
        If atomic numbers are not integers.

    Notes
    -----
    The order of m is e3nn's. PySCF orders p functions x, y, z, which is m = 1, -1, 0; only
    `m_per_basis_func` depends on it.

    Examples
    --------
    >>> basis = BasisInfo([1, 8], ["2x0e", "1x0e+1x1o"])
    >>> basis.basis_function_ind([8, 1, 1]).tolist()
    [2, 3, 4, 5, 0, 1, 0, 1]
    """

    def __init__(
        self, atomic_numbers: Sequence[int] | NDArray[Any], irreps_per_atom: Iterable[object]
    ) -> None:
        self.atomic_numbers = _distinct_elements(atomic_numbers)
        shells = [_parse_irreps(str(irreps)) for irreps in irreps_per_atom]
        if len(shells) != len(self.atomic_numbers):
            raise ValueError(
                f"irreps_per_atom: expected one entry for each of {len(self.atomic_numbers)} "
                f"elements, got {len(shells)}"
            )
        self.irreps_per_atom = tuple(_irreps_text(shells_of_one) for shells_of_one in shells)
        self.basis_dim_per_atom = np.array(
            [sum(2 * ell + 1 for ell in shells_of_one) for shells_of_one in shells], dtype=np.int64
        )
        self.atomic_number_to_atom_index = np.full(
            self.atomic_numbers.max() + 1, -1, dtype=np.int64
        )
        self.atomic_number_to_atom_index[self.atomic_numbers] = np.arange(self.n_types)
        self.atom_ind_to_basis_function_ind = np.split(
            np.arange(self.n_basis, dtype=np.int64), np.cumsum(self.basis_dim_per_atom)[:-1]
        )

        l_per_shell = np.concatenate([np.array(shells_of_one) for shells_of_one in shells])
        functions_per_shell = 2 * l_per_shell + 1
        self.l_per_basis_func = np.repeat(l_per_shell, functions_per_shell)
        self.m_per_basis_func = np.concatenate([np.arange(-ell, ell + 1) for ell in l_per_shell])
        self.basis_func_to_shell = np.repeat(np.arange(len(l_per_shell)), functions_per_shell)

    @classmethod
    def from_mol(cls, mol: Any) -> BasisInfo:
        """Read the layout of a PySCF molecule's own basis.

        Parameters
        ----------
        mol : pyscf.gto.Mole
            A built molecule with spherical basis functions. Elements are sorted by atomic number.

        Raises
        ------
        ValueError
            For Cartesian functions, a ghost atom, or two atoms of one element with different
            shells.
        """
        if mol.cart:
            raise ValueError("mol: expected spherical basis functions, got Cartesian ones")
        shells: list[list[int]] = [[] for _ in range(mol.natm)]
        for shell in range(mol.nbas):
            shells[mol.bas_atom(shell)] += [mol.bas_angular(shell)] * mol.bas_nctr(shell)

        irreps_of_element: dict[int, str] = {}
        for atom, shells_of_atom in enumerate(shells):
            # An effective core potential hides electrons from the charge.
            element = int(mol.atom_charge(atom)) + int(mol.atom_nelec_core(atom))
            if element == 0:
                raise ValueError(f"mol: expected elements, got a ghost atom at position {atom}")
            irreps = _irreps_text(shells_of_atom)
            if irreps_of_element.setdefault(element, irreps) != irreps:
                raise ValueError(
                    f"mol: expected one basis for {element_text(element)}, got "
                    f"{irreps_of_element[element]} and {irreps}"
                )
        elements = sorted(irreps_of_element)
        return cls(elements, [irreps_of_element[element] for element in elements])

    @property
    def n_types(self) -> int:
        """Number of elements."""
        return len(self.atomic_numbers)

    @property
    def n_basis(self) -> int:
        """Number of basis functions of all elements together."""
        return int(self.basis_dim_per_atom.sum())

    def basis_function_ind(self, atomic_numbers: Sequence[int] | NDArray[Any]) -> IntArray:
        """Return the basis function behind each coefficient of a molecule.

        See `basis_function_ind` of this module.
        """
        return basis_function_ind(self, atomic_numbers)

    def __repr__(self) -> str:
        """Return the elements and their shells."""
        return f"BasisInfo({_basis_text(self)})"


def basis_function_ind(
    basis_info: BasisLayout, atomic_numbers: Sequence[int] | NDArray[Any]
) -> IntArray:
    """Return the basis function behind each coefficient of a molecule.

    Parameters
    ----------
    basis_info : BasisInfo
        Ours or mldft's.
    atomic_numbers : array_like of int, shape (n_atoms,)
        Elements of the molecule, atom by atom, in the order of its coefficients.

    Returns
    -------
    numpy.ndarray of int64, shape (n_coeffs,)
        Gather indices in [0, n_basis).

    Raises
    ------
    ValueError
        If an element is not in the basis, or there is no atom.
    TypeError
        If atomic numbers are not integers.
    """
    numbers = _integers(atomic_numbers)
    row_of_element = np.asarray(basis_info.atomic_number_to_atom_index)
    present = (numbers >= 0) & (numbers < len(row_of_element))
    present[present] = row_of_element[numbers[present]] >= 0
    if not present.all():
        atom = int(np.argmin(present))
        known = ", ".join(element_text(int(z)) for z in np.flatnonzero(row_of_element >= 0))
        raise ValueError(
            f"atomic_numbers: expected elements of the basis ({known}), "
            f"got {element_text(int(numbers[atom]))} at position {atom}"
        )
    functions = basis_info.atom_ind_to_basis_function_ind
    return np.concatenate([functions[row] for row in row_of_element[numbers]]).astype(np.int64)


def chosen_basis(given: Any, recorded: Any, holder: str) -> Any:
    """Return the basis to use: the one given, which has to be the recorded one, or that.

    Parameters
    ----------
    given : BasisInfo or None
        Ours or mldft's, as an argument ``basis_info``.
    recorded : BasisInfo or None
        What the data say that they were made for.
    holder : str
        Where the basis is recorded, for the error message, e.g. "the statistics".

    Raises
    ------
    ValueError
        If there is neither, or the basis functions of the two differ or are in another order.
    """
    if given is None and recorded is None:
        raise ValueError(f"basis_info: expected a basis, got none, nor one kept in {holder}")
    if given is None:
        return recorded
    if recorded is not None and not same_basis(given, recorded):
        raise ValueError(
            f"basis_info: expected the basis of {holder}, {_basis_text(recorded)}, "
            f"got {_basis_text(given)}"
        )
    return given


def same_basis(one: Any, other: Any) -> bool:
    """Return whether two layouts put the same functions of the same elements at the same places."""
    momenta: list[Any] = [getattr(layout, "l_per_basis_func", None) for layout in (one, other)]
    same_shells = any(entry is None for entry in momenta) or np.array_equal(*momenta)
    return same_shells and _functions_by_element(one) == _functions_by_element(other)


def irreps_per_element(basis_info: Any) -> dict[str, str]:
    """Return the shells of every element in order, e.g. ``{"H": "6x0e+3x1o+1x2e"}``.

    Parameters
    ----------
    basis_info : BasisInfo
        Ours or mldft's.
    """
    return {
        SYMBOLS[int(number)]: str(irreps)
        for number, irreps in zip(
            basis_info.atomic_numbers, basis_info.irreps_per_atom, strict=True
        )
    }


def basis_of_irreps(irreps: Mapping[str, str]) -> BasisInfo:
    """Return the basis that `irreps_per_element` describes.

    Raises
    ------
    ValueError
        For an unknown element, or see `BasisInfo`.
    TypeError
        If `irreps` is no mapping.
    """
    if not isinstance(irreps, Mapping):
        raise TypeError(f"irreps: expected a mapping, got {type(irreps).__name__}")
    unknown = [symbol for symbol in irreps if symbol not in SYMBOLS[1:]]
    if unknown:
        raise ValueError(f"irreps: expected element symbols, got {unknown[0]!r}")
    return BasisInfo([SYMBOLS.index(symbol) for symbol in irreps], list(irreps.values()))


def element_text(atomic_number: int) -> str:
    """Return an element as text, e.g. ``O (8)``."""
    known = 0 < atomic_number < len(SYMBOLS)
    return f"{SYMBOLS[atomic_number]} ({atomic_number})" if known else str(atomic_number)


def _functions_by_element(basis_info: BasisLayout) -> dict[int, list[int]]:
    rows = np.asarray(basis_info.atomic_number_to_atom_index)
    functions = basis_info.atom_ind_to_basis_function_ind
    return {
        number: np.asarray(functions[rows[number]]).tolist()
        for number in np.flatnonzero(rows >= 0).tolist()
    }


def _basis_text(basis_info: Any) -> str:
    """Return a basis as ``H: 2x0e, O: 3x0e+1x1o``, or its elements with numbers of functions."""
    if hasattr(basis_info, "irreps_per_atom"):
        shells = irreps_per_element(basis_info)
    else:
        # In the order of the functions, which is what may differ.
        ordered = sorted(_functions_by_element(basis_info).items(), key=lambda item: item[1])
        shells = {SYMBOLS[number]: f"{len(functions)} functions" for number, functions in ordered}
    return ", ".join(f"{element}: {irreps}" for element, irreps in shells.items())


def _integers(atomic_numbers: Sequence[int] | NDArray[Any]) -> IntArray:
    numbers = np.asarray(atomic_numbers)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"atomic_numbers: expected shape (n_atoms,), got {numbers.shape}")
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"atomic_numbers: expected integers, got dtype {numbers.dtype}")
    return numbers.astype(np.int64)


def _distinct_elements(atomic_numbers: Sequence[int] | NDArray[Any]) -> IntArray:
    numbers = _integers(atomic_numbers)
    for position, number in enumerate(numbers.tolist()):
        if not 0 < number < len(SYMBOLS):
            raise ValueError(
                f"atomic_numbers: expected numbers in [1, {len(SYMBOLS)}), "
                f"got {number} at position {position}"
            )
        if number in numbers[:position]:
            raise ValueError(
                f"atomic_numbers: expected each element once, got {element_text(number)} again "
                f"at position {position}"
            )
    return numbers


def _parse_irreps(text: str) -> list[int]:
    """Return the angular momentum of every shell, e.g. [0, 0, 0, 1] of ``3x0e+1x1o``."""
    shells: list[int] = []
    for term in text.split("+"):
        match = IRREP.fullmatch(term.strip())
        if match is None:
            raise ValueError(f'irreps_per_atom: expected irreps such as "3x0e+1x1o", got {text!r}')
        ell = int(match["l"])
        if match["parity"] != "eo"[ell % 2]:
            raise ValueError(
                f"irreps_per_atom: expected the parity of the spherical harmonics (0e, 1o, 2e, "
                f"...), got {text!r}"
            )
        shells += [ell] * int(match["multiplicity"] or 1)
    if not shells:
        raise ValueError(f"irreps_per_atom: expected at least one shell, got {text!r}")
    if shells != sorted(shells):
        raise ValueError(f"irreps_per_atom: expected shells sorted by l, got {text!r}")
    return shells


def _irreps_text(shells: Sequence[int]) -> str:
    """Return the inverse of `_parse_irreps`; the order of shells is kept."""
    runs: list[list[int]] = []
    for ell in shells:
        if runs and runs[-1][1] == ell:
            runs[-1][0] += 1
        else:
            runs.append([1, ell])
    return "+".join(f"{multiplicity}x{ell}{'eo'[ell % 2]}" for multiplicity, ell in runs)
