"""Checks of exported biases of graphs in OpenMM: against differences, and its own restraint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

from export_scripts.salt_water import SaltWater, barostat_of
from ofcv_export.engines.graph_bias import load_bias
from ofcv_export.engines.openmm import openmm_force

# The group of the force that is checked.
ADDED = 1
# Of errors, relative to the largest component.
TOLERANCE = 1e-5

Place = tuple[np.ndarray, np.ndarray]


class Contribution:
    """What one force adds to a box of salt water, on the Reference platform in double precision.

    Parameters
    ----------
    water : SaltWater
        The box.
    added : openmm.Force
        The force.
    """

    def __init__(self, water: SaltWater, added: openmm.Force) -> None:
        system = water.make_system()
        added.setForceGroup(ADDED)
        system.addForce(added)
        integrator = openmm.VerletIntegrator(0.001)
        # What the barostat calls the pressure is then that of this force and of velocities of zero.
        integrator.setIntegrationForceGroups({ADDED})
        platform = openmm.Platform.getPlatformByName("Reference")
        self.context = openmm.Context(system, integrator, platform)
        self.barostat = barostat_of(system)

    def energy(self, positions: np.ndarray, box: np.ndarray) -> float:
        """Return the force's energy in kJ/mol; positions and box in nm."""
        return self._state(positions, box).getPotentialEnergy()._value

    def forces(self, positions: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return its forces in kJ/mol/nm, shape (n_atoms, 3)."""
        return np.array(self._state(positions, box).getForces(asNumpy=True)._value)

    def pressure(self, positions: np.ndarray, box: np.ndarray, step: float = 1e-4) -> float:
        """Return its share in the pressure, -dE/dV, in kJ/mol/nm^3, all positions scaled."""
        up, down = (self.energy(s * positions, s * box) for s in (1 + step, 1 - step))
        volume = np.linalg.det(box)
        return -(up - down) / (volume * ((1 + step) ** 3 - (1 - step) ** 3))

    def barostat_pressure(self, positions: np.ndarray, box: np.ndarray) -> float:
        """Return what the barostat calls the pressure, in bar, without kinetic energy."""
        self._state(positions, box)
        return self.barostat.computeCurrentPressure(self.context).value_in_unit(unit.bar)

    def _state(self, positions: np.ndarray, box: np.ndarray) -> openmm.State:
        self.context.setPeriodicBoxVectors(*box)
        self.context.setPositions(positions)
        return self.context.getState(energy=True, forces=True, groups={ADDED})


def all_errors(
    water: SaltWater, learned: Path, distance: Path, own: openmm.Force, places: Sequence[Place]
) -> dict[str, float]:
    """Return the errors of two exported biases by what they are, each relative.

    Parameters
    ----------
    water : SaltWater
        The box.
    learned : Path
        A bias that is compared with differences.
    distance : Path
        A bias that is compared with OpenMM's `own`.
    own : openmm.Force
        The same bias.
    places : sequence of (positions, box)
        Frames, in nm.
    """
    found = contribution(water, learned)
    errors = {
        "forces, against differences": max(force_error(found, place) for place in places),
        "virial, against differences": max(strain_error(water, learned, place) for place in places),
    }
    compared = disagreement(contribution(water, distance), Contribution(water, own), places)
    return errors | {f"{name}, against OpenMM's own": error for name, error in compared.items()}


def contribution(water: SaltWater, path: Path) -> Contribution:
    """Return what an exported bias adds."""
    return Contribution(water, openmm_force(path, water.make_system(), water.topology))


def force_error(found: Contribution, place: Place, n_atoms: int = 6) -> float:
    """Return the largest error of the atoms with the largest forces, relative to the largest.

    Against central differences of the energy in the context.
    """
    positions, box = place
    forces = found.forces(positions, box)
    atoms = np.argsort(np.square(forces).sum(1))[-n_atoms:]

    def energy(moved: np.ndarray) -> float:
        whole = positions.copy()
        whole[atoms] = moved
        return found.energy(whole, box)

    expected = -central_differences(energy, positions[atoms], 1e-5)
    return float(np.abs(forces[atoms] - expected).max() / np.abs(forces).max())


def strain_error(water: SaltWater, path: Path, place: Place) -> float:
    """Return the largest error of the strain derivative, relative to its largest component.

    Against central differences of the energy of strained positions in a strained box.
    """
    elements = water.elements
    options = {"length_unit": "nm", "energy_unit": "kJ/mol", "periodic": True}
    bias = load_bias(path, n_atoms=len(elements), elements=elements, **options)
    positions, box = place[0][bias.atoms], place[1]

    def energy(strain: np.ndarray) -> float:
        deformed = np.eye(3) + strain
        return bias.evaluate(positions @ deformed, box @ deformed).energy

    expected = central_differences(energy, np.zeros((3, 3)), 1e-5)
    found = bias.evaluate(positions, box).strain_derivative
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def disagreement(
    found: Contribution, expected: Contribution, places: Sequence[Place]
) -> dict[str, float]:
    """Return how far two forces differ over some frames, relative to the largest of each size."""
    sizes: dict[str, Callable[[Contribution, Place], object]] = {
        "energy": lambda force, place: force.energy(*place),
        "forces": lambda force, place: force.forces(*place),
        "pressure": lambda force, place: force.pressure(*place),
        "barostat's pressure": lambda force, place: force.barostat_pressure(*place),
    }
    errors = {}
    for name, size in sizes.items():
        one, other = (
            np.array([size(force, place) for place in places]) for force in (found, expected)
        )
        errors[name] = float(np.abs(one - other).max() / np.abs(other).max())
    return errors


def central_differences(
    function: Callable[[np.ndarray], float], x: np.ndarray, step: float
) -> np.ndarray:
    """Return the gradient of a function of an array."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient
