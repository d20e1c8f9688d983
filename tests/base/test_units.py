import ase.units
import pytest

from ofcv_export.base.units import ENERGIES, LENGTHS, energy_factor, length_factor


def test_lengths_are_those_of_ase():
    ours = {"nm": ase.units.nm, "A": ase.units.Angstrom, "bohr": ase.units.Bohr}
    for unit, size in ours.items():
        # ASE has CODATA 2014 for the bohr.
        assert length_factor(unit, "A") == pytest.approx(size, rel=1e-9)


def test_energies_are_those_of_ase():
    ours = {
        "eV": ase.units.eV,
        "Hartree": ase.units.Hartree,
        "kJ/mol": ase.units.kJ / ase.units.mol,
        "kcal/mol": ase.units.kcal / ase.units.mol,
    }
    for unit, size in ours.items():
        assert energy_factor(unit, "eV") == pytest.approx(size, rel=1e-7)


@pytest.mark.parametrize(
    ("factor", "sizes"),
    [(length_factor, LENGTHS), (energy_factor, ENERGIES)],
    ids=["length", "energy"],
)
def test_there_and_back(factor, sizes):
    for unit in sizes:
        assert factor(unit, unit) == 1.0
        for other in sizes:
            assert factor(unit, other) * factor(other, unit) == pytest.approx(1, rel=1e-15)


def test_unknown_units_are_named():
    with pytest.raises(ValueError, match="^length_unit: expected nm, A, angstrom, bohr, got pm$"):
        length_factor("pm", "nm")
    with pytest.raises(ValueError, match=r"^energy_unit: expected kJ/mol, .*, got none$"):
        energy_factor(None, "eV")
