"""Exported biases in ASE, against ASE's own spring, differences and conservation laws."""

import pickle

import numpy as np
import pytest
import torch

from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from tests.builders.engine_biases import (
    ATOMS,
    CENTRE,
    FORCE_CONSTANT,
    PAIR,
    distance_cv,
    distance_restraint,
    network_bias,
    pulling_restraint,
)

pytest.importorskip("ase", reason="ASE is not installed")
from ase import Atoms, units
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from ase.constraints import Hookean
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from ofcv_export.engines.ase import BiasedCalculator

SYMBOLS = "CHNCHO"
CELLS = {
    "orthorhombic": np.diag([9.0, 10.0, 11.0]),
    # Not the lower triangle that some engines ask for.
    "triclinic": np.array([[9.0, 1.0, -2.0], [3.0, 10.0, 0.5], [-1.0, 4.0, 11.0]]),
}
# Moves the atoms across the boundaries of the cells.
ACROSS = np.array([8.0, 8.0, 7.0])


def molecule(cell=CELLS["orthorhombic"], pbc=True, symbols=SYMBOLS):
    """Return atoms about 1.2 Angstrom apart, moving."""
    random = np.random.default_rng(2)
    steps = np.array([0.7, 0.8, 0.5]) * np.where(np.arange(6)[:, None] % 2, 1, [1, -1, 1])
    positions = 2.0 + np.cumsum(steps, axis=0) + 0.05 * random.standard_normal((6, 3))
    atoms = Atoms(symbols, positions, cell=cell, pbc=pbc)
    atoms.set_velocities(0.02 * random.standard_normal((6, 3)))
    return atoms


def evaluated(path, atoms, calculator=None):
    """Return energy, forces and stress."""
    atoms = atoms.copy()
    atoms.calc = BiasedCalculator(path, atoms, calculator)
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()


def trajectory(atoms, n_steps):
    """Return positions in a run at constant energy, (n_steps, n_atoms, 3)."""
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    return np.array([atoms.positions.copy() for _ in dynamics.irun(n_steps)])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("takes_box", [False, True])
@pytest.mark.parametrize("calculator", [None, EMT], ids=["alone", "on EMT"])
def test_forces_and_stress_are_differences(exported, takes_box, cell, calculator):
    make = (lambda: network_bias(RuntimeBox())) if takes_box else network_bias
    path = exported(f"network{takes_box}", make)
    atoms = molecule(CELLS[cell])
    atoms.positions += ACROSS
    atoms.wrap()
    atoms.calc = BiasedCalculator(path, atoms, calculator and calculator())
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    assert set(ATOMS) <= set(np.flatnonzero(forces.any(axis=1)))

    step = 1e-4
    difference = np.zeros_like(forces)
    for index in np.ndindex(forces.shape):
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[index] += sign * step
            difference[index] -= sign * moved.get_potential_energy() / (2 * step)
    np.testing.assert_allclose(forces, difference, rtol=1e-6, atol=1e-6 * np.abs(forces).max())

    strained_difference = np.zeros((3, 3))
    for row, column in np.ndindex(3, 3):
        for sign in (1, -1):
            strain = np.eye(3)
            strain[[row, column], [column, row]] += sign * step / (1 if row == column else 2)
            strained = atoms.copy()
            strained.calc = atoms.calc
            strained.set_cell(atoms.cell @ strain, scale_atoms=True)
            strained_difference[row, column] += sign * strained.get_potential_energy() / (2 * step)
    strained_difference /= atoms.get_volume()
    scale = np.abs(stress).max()
    np.testing.assert_allclose(stress, strained_difference, rtol=1e-6, atol=1e-6 * scale)


def test_trajectory_equals_that_of_ases_own_spring(restraint):
    # ASE's spring pulls beyond its threshold only, so the pair starts beyond it.
    atoms = molecule(pbc=False)
    atoms.positions[PAIR[0]] += 1.0
    assert atoms.get_distance(*PAIR) > CENTRE + 0.5
    ours, theirs, free = atoms.copy(), atoms.copy(), atoms.copy()
    ours.calc = BiasedCalculator(restraint, ours, EMT(), parameters={"force_constant": 0.5})
    theirs.calc, free.calc = EMT(), EMT()
    theirs.set_constraint(Hookean(*PAIR, k=0.5, rt=CENTRE))
    frames = trajectory(ours, 100)
    distances = np.linalg.norm(frames[:, PAIR[0]] - frames[:, PAIR[1]], axis=1)
    assert distances.min() > CENTRE
    np.testing.assert_allclose(frames, trajectory(theirs, 100), rtol=0, atol=1e-10)
    assert np.abs(frames - trajectory(free, 100)).max() > 0.01


def test_energy_is_conserved_as_without_the_bias(restraint):
    def total_energies(path):
        atoms = relaxed.copy()
        atoms.calc = EMT()
        if path is not None:
            centre = atoms.get_distance(*PAIR) + 0.2
            atoms.calc = BiasedCalculator(path, atoms, EMT(), parameters={"centre": centre})
        dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
        return np.array([atoms.get_total_energy() for _ in dynamics.irun(600)])

    def drift(energies):
        quarter = len(energies) // 4
        return abs(energies[-quarter:].mean() - energies[:quarter].mean())

    relaxed = molecule(pbc=False)
    relaxed.calc = EMT()
    BFGS(relaxed, logfile=None).run(fmax=0.05)
    free, biased = total_energies(None), total_energies(restraint)
    # A force that is wrong by 2 % drifts by 1e-4 eV, a hundred times as much.
    assert drift(biased) < drift(free) + free.std()


def test_results_are_those_of_the_calculators_added(restraint):
    atoms = molecule()
    bias = BiasedCalculator(restraint, atoms)
    for both in (SumCalculator([EMT(), bias]), BiasedCalculator(restraint, atoms, EMT())):
        atoms.calc = both
        summed = [atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()]
        summed.append(atoms.get_potential_energy(force_consistent=True))
        atoms.calc = EMT()
        plain = [atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()]
        plain.append(atoms.get_potential_energy(force_consistent=True))
        atoms.calc = bias
        added = [atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()]
        added.append(atoms.get_potential_energy(force_consistent=True))
        for whole, *parts in zip(summed, plain, added, strict=True):
            np.testing.assert_allclose(whole, parts[0] + parts[1], rtol=1e-12, atol=1e-12)


class EnergyOnly(Calculator):
    """Forces and energy of nothing, and the stress as nine components where asked."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 1.0, "forces": np.zeros((len(atoms), 3))}
        if "stress" in properties:
            self.results["stress"] = np.diag([1.0, 2.0, 3.0])


def test_a_calculator_may_lack_properties_and_give_nine_components(restraint):
    atoms = molecule()
    energy, _, stress = evaluated(restraint, atoms)
    atoms.calc = BiasedCalculator(restraint, atoms, EnergyOnly())
    assert atoms.get_potential_energy() == pytest.approx(energy + 1.0)
    np.testing.assert_allclose(atoms.get_stress(), stress + np.array([1, 2, 3, 0, 0, 0]))
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy(force_consistent=True)


class FailsOnce(EMT):
    """A calculator that fails the first time that it is asked, as one that runs a program may."""

    has_failed = False

    def calculate(self, *arguments):
        super().calculate(*arguments)
        if not self.has_failed:
            self.has_failed = True
            raise RuntimeError("no result")


def test_a_calculator_that_failed_is_asked_again(restraint):
    atoms = molecule()
    expected = evaluated(restraint, atoms, EMT())[0]
    atoms.calc = BiasedCalculator(restraint, atoms, FailsOnce())
    with pytest.raises(RuntimeError, match="no result"):
        atoms.get_potential_energy()
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-12)
    atoms.rattle(0.01, seed=1)
    atoms.calc.calculator.has_failed = False
    with pytest.raises(RuntimeError, match="no result"):
        atoms.calc.calculate(atoms)
    assert atoms.get_potential_energy() == pytest.approx(evaluated(restraint, atoms, EMT())[0])


def test_a_pickled_calculator_is_the_same(restraint):
    atoms = molecule()
    atoms.calc = BiasedCalculator(restraint, atoms, EMT())
    atoms.calc.set_parameter("centre", 2.5)
    again = atoms.copy()
    again.calc = pickle.loads(pickle.dumps(atoms.calc))
    assert again.get_potential_energy() == atoms.get_potential_energy()


@pytest.mark.parametrize("suffix", [".onnx"])
def test_every_format_gives_the_same(exported, restraint, suffix):
    other = exported("restraint", distance_restraint, suffix)
    for ours, theirs in zip(
        evaluated(restraint, molecule()), evaluated(other, molecule()), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_nm_and_angstrom_artifacts_agree(exported, restraint):
    other = exported("restraint_nm", lambda: distance_restraint("nm", "kJ/mol"))
    for ours, theirs in zip(
        evaluated(restraint, molecule()), evaluated(other, molecule()), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_molecule_across_the_boundary_is_made_whole(restraint, cell):
    atoms = molecule(CELLS[cell])
    across = atoms.copy()
    across.positions += ACROSS
    across.wrap()
    for ours, theirs in zip(evaluated(restraint, atoms), evaluated(restraint, across), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_images_count_along_periodic_directions_only(restraint):
    atoms = molecule(cell=[9.0, 10.0, 0.0], pbc=[True, True, False])
    atoms.positions[:, 2] *= 5.0
    distance = atoms.get_distance(*PAIR)
    atoms.positions[:, :2] += ACROSS[:2]
    atoms.wrap()
    atoms.calc = BiasedCalculator(restraint, atoms)
    expected = 0.5 * FORCE_CONSTANT * (distance - CENTRE) ** 2
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_parameters_change_at_run_time(restraint):
    atoms = molecule()
    distance = atoms.get_distance(*PAIR)
    atoms.calc = BiasedCalculator(restraint, atoms, parameters={"centre": 2.5})
    expected = 0.5 * FORCE_CONSTANT * (distance - 2.5) ** 2
    assert atoms.get_potential_energy() == pytest.approx(expected)
    atoms.calc.set_parameter("force_constant", [7.0])
    assert atoms.get_potential_energy() == pytest.approx(0.5 * 7.0 * (distance - 2.5) ** 2)
    assert atoms.calc.bias_parameters["force_constant"] == [7.0]
    with pytest.raises(ValueError, match="centre, force_constant, got center"):
        atoms.calc.set_parameter("center", 1.0)


def test_a_moving_restraint_follows_the_time_it_is_told(exported):
    atoms = molecule()
    atoms.calc = BiasedCalculator(exported("pull", pulling_restraint), atoms)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(
        lambda: atoms.calc.set_parameter("time", dynamics.get_time() / (1000 * units.fs))
    )
    dynamics.run(60)
    centre = 3.0 + (0.03 - 0.01) / 0.04
    expected = 0.5 * FORCE_CONSTANT * (atoms.get_distance(*PAIR) - centre) ** 2
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-9)


def test_optimisation_reaches_the_centre(restraint):
    atoms = molecule()
    atoms.calc = BiasedCalculator(restraint, atoms)
    BFGS(atoms, logfile=None).run(fmax=1e-6)
    assert atoms.get_distance(*PAIR) == pytest.approx(CENTRE, abs=1e-5)


def test_wrong_numbering_is_caught(exported, restraint):
    atoms = molecule(symbols="CHNCHN")
    with pytest.raises(ValueError, match="expected O as atom 5 .*, got N"):
        BiasedCalculator(restraint, atoms)
    beyond = exported("beyond", lambda: distance_restraint(atoms=[6, 2, 0]))
    with pytest.raises(ValueError, match="below the system's 6 atoms, got 6"):
        BiasedCalculator(beyond, molecule())


def test_other_atoms_than_the_calculator_was_made_for_are_caught(restraint):
    calculator = BiasedCalculator(restraint, molecule(), EMT())
    for other in (molecule(symbols="OHNCHC"), molecule()[:5]):
        with pytest.raises(ValueError, match="atoms: expected those the calculator was made for"):
            calculator.get_potential_energy(other)
    with pytest.raises(ValueError, match=r"pbc: expected \[True, True, True\]"):
        calculator.get_potential_energy(molecule(pbc=False))


def test_no_energy_is_caught(exported):
    with pytest.raises(ValueError, match="expected a bias, whose values are"):
        BiasedCalculator(exported("cv", distance_cv), molecule())


def test_a_wrong_box_is_caught(exported, restraint):
    path = exported("networkTrue", lambda: network_bias(RuntimeBox()))
    with pytest.raises(ValueError, match="box: expected a periodic system"):
        BiasedCalculator(path, molecule(pbc=[True, True, False]))
    for checked in (path, restraint):
        with pytest.raises(ValueError, match="box: expected independent periodic vectors"):
            BiasedCalculator(checked, molecule(cell=[9.0, 10.0, 0.0]))
        with pytest.raises(
            ValueError, match="box: expected lattice vectors, got none: 1 by 1 by 1"
        ):
            BiasedCalculator(checked, molecule(cell=[1.0, 1.0, 1.0]))


def test_a_fixed_box_must_be_the_cell_and_has_no_stress(exported):
    fixed = OrthorhombicBox(torch.tensor([9.0, 10.0, 11.0]), periodic=True)
    atoms = molecule()
    atoms.calc = BiasedCalculator(exported("fixed", lambda: distance_restraint(box=fixed)), atoms)
    assert atoms.get_forces().any()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    atoms.set_cell([9.1, 10.0, 11.0])
    with pytest.raises(ValueError, match="box: expected the artifact's"):
        atoms.get_forces()
