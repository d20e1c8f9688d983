"""Units of length and energy, and the factors between them."""

from __future__ import annotations

from collections.abc import Mapping

# In nm; CODATA 2018 for the bohr.
LENGTHS: dict[str, float] = {"nm": 1.0, "A": 0.1, "angstrom": 0.1, "bohr": 0.0529177210903}
# In kJ/mol; CODATA 2018 for the electronvolt, the hartree and the Avogadro constant.
ENERGIES: dict[str, float] = {
    "kJ/mol": 1.0,
    "kcal/mol": 4.184,
    "eV": 96.48533212331002,
    "Hartree": 2625.4996394798254,
}


def length_factor(unit: str | None, to: str) -> float:
    """Return the number by which a length in `unit` becomes one in the unit `to`.

    Raises
    ------
    ValueError
        If a unit is not among ``LENGTHS``.
    """
    return _factor("length_unit", LENGTHS, unit, to)


def energy_factor(unit: str | None, to: str) -> float:
    """Return the number by which an energy in `unit` becomes one in the unit `to`.

    Raises
    ------
    ValueError
        If a unit is not among ``ENERGIES``.
    """
    return _factor("energy_unit", ENERGIES, unit, to)


def require_length_unit(unit: str) -> None:
    """Raise ValueError unless `unit` is among ``LENGTHS``."""
    length_factor(unit, unit)


def require_energy_unit(unit: str) -> None:
    """Raise ValueError unless `unit` is among ``ENERGIES``."""
    energy_factor(unit, unit)


def _factor(name: str, sizes: Mapping[str, float], unit: str | None, to: str) -> float:
    for entry in (unit, to):
        if entry not in sizes:
            raise ValueError(f"{name}: expected {', '.join(sizes)}, got {entry or 'none'}")
    assert unit is not None
    return 1.0 if unit == to else sizes[unit] / sizes[to]
