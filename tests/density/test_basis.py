"""The layout of a basis: order, lookup by element, PySCF molecules, and bad input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofcv_export.density.basis import BasisInfo, basis_function_ind, element_text


@pytest.fixture
def water_basis() -> BasisInfo:
    return BasisInfo([1, 8], ["2x0e+1x1o", "1x0e+2x1o+1x2e"])


class Irreps:
    """Reads like e3nn's irreps when turned into text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def test_every_basis_function_is_described(water_basis: BasisInfo) -> None:
    assert (water_basis.n_types, water_basis.n_basis) == (2, 17)
    assert water_basis.basis_dim_per_atom.tolist() == [5, 12]
    assert water_basis.l_per_basis_func.tolist() == [0, 0, 1, 1, 1] + [0] + [1] * 6 + [2] * 5
    p, d = [-1, 0, 1], [-2, -1, 0, 1, 2]
    assert water_basis.m_per_basis_func.tolist() == [0, 0, *p, 0, *p, *p, *d]
    assert np.bincount(water_basis.basis_func_to_shell).tolist() == [1, 1, 3, 1, 3, 3, 5]
    assert (np.diff(water_basis.basis_func_to_shell) >= 0).all()


def test_elements_are_found_by_atomic_number(water_basis: BasisInfo) -> None:
    assert water_basis.atomic_number_to_atom_index.tolist() == [-1, 0, -1, -1, -1, -1, -1, -1, 1]
    hydrogen, oxygen = water_basis.atom_ind_to_basis_function_ind
    assert hydrogen.tolist() == list(range(5))
    assert oxygen.tolist() == list(range(5, 17))


def test_elements_keep_the_order_they_are_given_in() -> None:
    basis = BasisInfo([8, 1], ["2x0e", "1x0e"])
    assert basis.atomic_number_to_atom_index[[8, 1]].tolist() == [0, 1]
    assert basis.basis_function_ind([1, 8, 1]).tolist() == [2, 0, 1, 2]


def test_a_molecule_gathers_atom_by_atom(water_basis: BasisInfo) -> None:
    index = water_basis.basis_function_ind([8, 1, 1])
    assert index.tolist() == [*range(5, 17), *range(5), *range(5)]
    assert index.dtype == np.int64


def test_a_basis_with_the_names_of_mldft_is_enough(water_basis: BasisInfo) -> None:
    theirs = SimpleNamespace(
        n_basis=17,
        atomic_number_to_atom_index=water_basis.atomic_number_to_atom_index.astype(np.int32),
        atom_ind_to_basis_function_ind=water_basis.atom_ind_to_basis_function_ind,
    )
    index = basis_function_ind(theirs, np.array([1, 8], dtype=np.uint8))
    assert index.tolist() == list(range(17))


@pytest.mark.parametrize("spelling", ["3x0e+1x1o", "2x0e+0e+1o", " 3x0e + 1x1o ", "1x0e+2x0e+1o"])
def test_spellings_of_one_basis_are_equal(spelling: str) -> None:
    assert BasisInfo([6], [Irreps(spelling)]).irreps_per_atom == ("3x0e+1x1o",)


def test_repr_names_the_elements(water_basis: BasisInfo) -> None:
    assert repr(water_basis) == "BasisInfo(H: 2x0e+1x1o, O: 1x0e+2x1o+1x2e)"


@given(
    st.dictionaries(
        st.integers(1, 118),
        st.lists(st.integers(0, 5), min_size=1, max_size=6).map(sorted),
        min_size=1,
        max_size=4,
    )
)
def test_dimensions_agree_with_the_shells(shells_of_element: dict[int, list[int]]) -> None:
    irreps = [
        "+".join(f"1x{ell}{'eo'[ell % 2]}" for ell in shells)
        for shells in shells_of_element.values()
    ]
    basis = BasisInfo(list(shells_of_element), irreps)
    sizes = np.bincount(basis.basis_func_to_shell)
    assert sizes.tolist() == [
        2 * ell + 1 for shells in shells_of_element.values() for ell in shells
    ]
    assert basis.n_basis == sizes.sum() == len(basis.l_per_basis_func)
    assert (np.abs(basis.m_per_basis_func) <= basis.l_per_basis_func).all()
    everything = basis.basis_function_ind(list(shells_of_element))
    assert everything.tolist() == list(range(basis.n_basis))


@pytest.mark.parametrize(
    ("numbers", "irreps", "message"),
    [
        ([1], ["1x1o+1x0e"], r"sorted by l, got \'1x1o\+1x0e\'"),
        ([1], ["1x0o"], "parity of the spherical harmonics"),
        ([1], ["1x1e"], "parity of the spherical harmonics"),
        ([1], ["sp3"], 'irreps such as "3x0e'),
        ([1], [""], 'irreps such as "3x0e'),
        ([1], ["0x0e"], "at least one shell"),
        ([1, 8], ["1x0e"], "one entry for each of 2 elements, got 1"),
        ([1, 8, 1], ["1x0e"] * 3, r"each element once, got H \(1\) again at position 2"),
        ([0], ["1x0e"], r"numbers in \[1, 119\), got 0"),
        ([119], ["1x0e"], r"numbers in \[1, 119\), got 119"),
        ([[1]], ["1x0e"], r"expected shape \(n_atoms,\), got \(1, 1\)"),
        ([], [], r"expected shape \(n_atoms,\), got \(0,\)"),
    ],
)
def test_a_bad_basis_is_refused(numbers: list[int], irreps: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BasisInfo(numbers, irreps)


def test_atomic_numbers_are_integers(water_basis: BasisInfo) -> None:
    with pytest.raises(TypeError, match="atomic_numbers: expected integers, got dtype float64"):
        BasisInfo(np.array([1.0]), ["1x0e"])
    with pytest.raises(TypeError, match="atomic_numbers: expected integers"):
        water_basis.basis_function_ind(np.array([1.0]))


@pytest.mark.parametrize(
    ("numbers", "got"),
    [
        ([1, 6], r"got C \(6\) at position 1"),
        ([92], r"got U \(92\) at position 0"),
        ([-1], "got -1 at position 0"),
        ([0], "got 0 at position 0"),
    ],
)
def test_an_absent_element_is_named(water_basis: BasisInfo, numbers: list[int], got: str) -> None:
    with pytest.raises(ValueError, match=r"elements of the basis \(H \(1\), O \(8\)\), " + got):
        water_basis.basis_function_ind(numbers)


def test_symbols_line_up_with_numbers() -> None:
    texts = [element_text(number) for number in (1, 6, 26, 79, 118)]
    assert texts == ["H (1)", "C (6)", "Fe (26)", "Au (79)", "Og (118)"]


def build_mol(**options: Any) -> Any:
    gto = pytest.importorskip("pyscf.gto", reason="reading a PySCF molecule needs PySCF")
    return gto.M(verbose=0, **options)


def test_from_mol_reads_the_shells_of_each_element() -> None:
    mol = build_mol(atom="O 0 0 0; H 0 0 1; H 0 1 0", basis="6-31g*")
    basis = BasisInfo.from_mol(mol)
    assert basis.atomic_numbers.tolist() == [1, 8]
    assert basis.irreps_per_atom == ("2x0e", "3x0e+2x1o+1x2e")
    assert len(basis.basis_function_ind([8, 1, 1])) == mol.nao


def test_from_mol_agrees_with_the_order_of_pyscf() -> None:
    # General contractions: several functions in one PySCF shell.
    mol = build_mol(atom="C 0 0 0; O 0 0 1.1", basis="cc-pvtz")
    basis = BasisInfo.from_mol(mol)
    index = basis.basis_function_ind([6, 8])
    angular_momenta = ["spdfg".index(label[2][1]) for label in mol.ao_labels(fmt=None)]
    assert basis.l_per_basis_func[index].tolist() == angular_momenta


def test_from_mol_sees_through_an_effective_core_potential() -> None:
    mol = build_mol(atom="Au 0 0 0; H 0 0 1.5", basis="lanl2dz", ecp={"Au": "lanl2dz"})
    assert BasisInfo.from_mol(mol).atomic_numbers.tolist() == [1, 79]


def test_from_mol_refuses_what_has_no_layout_by_element() -> None:
    with pytest.raises(ValueError, match="expected spherical basis functions, got Cartesian"):
        BasisInfo.from_mol(build_mol(atom="O 0 0 0", basis="6-31g*", cart=True))
    with pytest.raises(ValueError, match="got a ghost atom at position 1"):
        BasisInfo.from_mol(build_mol(atom="He 0 0 0; ghost-He 0 0 1", basis="6-31g"))
    with pytest.raises(ValueError, match=r"one basis for H \(1\), got 1x0e and 2x0e"):
        BasisInfo.from_mol(
            build_mol(atom="H1 0 0 0; H2 0 0 1", basis={"H1": "sto-3g", "H2": "6-31g"})
        )
