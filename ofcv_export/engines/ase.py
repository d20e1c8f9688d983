"""A bias in ASE, as a calculator on top of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from ofcv_export.base.lattice import is_unit_box
from ofcv_export.engines.graph_bias import load_bias
from ofcv_export.engines.image_lattice import image_lattice

PROPERTIES = ("energy", "free_energy", "forces", "stress")


class BiasedCalculator(Calculator):
    """Another calculator's energy, forces and stress, with those of a bias added.

    ASE's calculators know no time: the ``time`` of a moving restraint, in ps, is a parameter like
    any other.

    Parameters
    ----------
    path : path-like
        The exported bias.
    atoms : ase.Atoms
        The atoms that the calculator will be used for. Number, elements and periodicity are checked
        against the artifact.
    calculator : ase.calculators.calculator.BaseCalculator, optional
        What the bias is added to. By default the bias is alone. Properties that it does not
        implement are not implemented by the sum either.
    parameters : mapping of str to float or sequence of float, optional
        Run-time parameters that differ from the artifact's defaults.
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the artifact does not fit: not an energy, atoms that do not exist, other elements, a
        cell that is not periodic or lacks vectors.

    Examples
    --------
    >>> from ase.calculators.emt import EMT  # doctest: +SKIP
    >>> atoms.calc = BiasedCalculator("restraint.pt", atoms, EMT())  # doctest: +SKIP
    >>> atoms.calc.set_parameter("centre", 0.4)  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | PathLike[str],
        atoms: Atoms,
        calculator: BaseCalculator | None = None,
        *,
        parameters: Mapping[str, float | Sequence[float]] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.calculator = calculator
        available = PROPERTIES if calculator is None else calculator.implemented_properties
        self.implemented_properties = [name for name in PROPERTIES if name in available]
        self._symbols = atoms.get_chemical_symbols()
        self._pbc = atoms.pbc.copy()
        self._bias = load_bias(
            path,
            length_unit="A",
            energy_unit="eV",
            n_atoms=len(atoms),
            elements=self._symbols,
            periodic=bool(self._pbc.all()),
            parameters=parameters,
            device=device,
        )
        _require_lattice(np.array(atoms.cell), self._pbc)

    @property
    def bias_parameters(self) -> dict[str, NDArray[Any]]:
        """Current values of the run-time parameters."""
        return self._bias.parameters

    def set_parameter(self, name: str, value: float | Sequence[float]) -> None:
        """Set a run-time parameter of the bias.

        Raises
        ------
        ValueError
            For an unknown name and another number of values.
        """
        self._bias.set_parameter(name, value)
        self.reset()

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute what ASE asks for, see `ase.calculators.calculator.Calculator`.

        Raises
        ------
        ValueError
            If number, elements or periodicity of the atoms have changed, or the box does not fit.
        """
        atoms = self.atoms if atoms is None else atoms
        self._require_same_system(atoms)
        results = self._bias_results(atoms)
        if self.calculator is not None:
            results = _added(results, self.calculator, atoms, properties)
        # Nothing is kept before all of it is there: ASE takes what it finds for the whole.
        super().calculate(atoms, properties, system_changes)
        self.results = results

    def _bias_results(self, atoms: Atoms) -> dict[str, Any]:
        box = image_lattice(np.array(atoms.cell), atoms.pbc)
        bias = self._bias.evaluate(atoms.positions[self._bias.atoms], box)
        forces = np.zeros((len(atoms), 3))
        forces[self._bias.atoms] = bias.forces
        results = {"energy": bias.energy, "free_energy": bias.energy, "forces": forces}
        # There is none without a volume, and none that a bias with a fixed box knows.
        if atoms.cell.rank == 3 and bias.strain_derivative is not None:
            stress = bias.strain_derivative / atoms.get_volume()
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
        return results

    def _require_same_system(self, atoms: Atoms) -> None:
        if atoms.get_chemical_symbols() != self._symbols:
            raise ValueError("atoms: expected those the calculator was made for, got others")
        if not np.array_equal(atoms.pbc, self._pbc):
            raise ValueError(f"pbc: expected {self._pbc.tolist()}, got {atoms.pbc.tolist()}")


def _require_lattice(cell: NDArray[np.float64], periodic: NDArray[np.bool_]) -> None:
    """Raise ValueError unless the lattice vectors of the periodic directions are those of a box."""
    vectors = cell[periodic]
    if periodic.all() and is_unit_box(cell):
        raise ValueError(
            "box: expected lattice vectors, got none: 1 by 1 by 1 Angstrom, as PDB files say; "
            "atoms.pbc = False takes positions as they are"
        )
    if np.linalg.matrix_rank(vectors) < len(vectors):
        raise ValueError(f"box: expected independent periodic vectors, got {vectors.tolist()}")


def _added(
    results: dict[str, Any], calculator: BaseCalculator, atoms: Atoms, properties: Sequence[str]
) -> dict[str, Any]:
    """Return the properties of both, those asked for and others that the calculator has by now."""
    for name in properties:
        calculator.get_property(name, atoms)
    sums = {
        name: value + calculator.results[name]
        for name, value in results.items()
        if name in calculator.results and name != "stress"
    }
    if "stress" in results and "stress" in calculator.results:
        # Some calculators give all nine components.
        stress = np.asarray(calculator.results["stress"])
        voigt = full_3x3_to_voigt_6_stress(stress) if stress.shape == (3, 3) else stress
        sums["stress"] = results["stress"] + voigt
    return sums
