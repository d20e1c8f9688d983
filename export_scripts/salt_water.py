"""Na+ and Cl- in a box of water, simulated by OpenMM at constant pressure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from rich.progress import track

FORCE_FIELD = ("amber14-all.xml", "amber14/tip3pfb.xml")
# Zero-based indices of Na+ and Cl-.
IONS = (0, 1)
GAS_CONSTANT = 8.31446e-3  # kJ/mol/K
TEMPERATURE, PRESSURE = 300.0, 1.0  # K, bar
TIMESTEP = 0.002  # ps
STEPS_PER_FRAME = 100
NONBONDED_CUTOFF, IN_CONTACT = 0.8, 0.27  # nm; distance of ions that touch
# kJ/mol/nm^2: the distance of the ions fluctuates by 0.025 nm.
STIFFNESS = 4000.0


@dataclass(frozen=True)
class Frames:
    """Frames of a run.

    Attributes
    ----------
    positions : numpy.ndarray
        In nm, shape (n_frames, n_atoms, 3).
    boxes : numpy.ndarray
        Lattice vectors as rows, in nm, shape (n_frames, 3, 3).
    potential, kinetic : numpy.ndarray
        Energies in kJ/mol, shape (n_frames,).
    pressures : numpy.ndarray
        Instantaneous pressures in bar, as the barostat finds them, shape (n_frames,).
    """

    positions: np.ndarray
    boxes: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    pressures: np.ndarray

    @property
    def distances(self) -> np.ndarray:
        """Distances of the ions' nearest images in nm, shape (n_frames,)."""
        sides = np.diagonal(self.boxes, axis1=1, axis2=2)
        vectors = self.positions[:, IONS[1]] - self.positions[:, IONS[0]]
        vectors = vectors - sides * np.round(vectors / sides)
        distances: np.ndarray = np.linalg.norm(vectors, axis=1)
        return distances

    @property
    def volumes(self) -> np.ndarray:
        """Volumes in nm^3, shape (n_frames,)."""
        volumes: np.ndarray = np.linalg.det(self.boxes)
        return volumes


@dataclass(frozen=True)
class SaltWater:
    """A box of salt water in a state to start from.

    Attributes
    ----------
    topology : openmm.app.Topology
        Atoms and elements; the ions come first.
    system : str
        The system with a barostat, as XML.
    state : str
        Positions, box and velocities, as XML.
    """

    topology: app.Topology
    system: str
    state: str

    @classmethod
    def solvated(cls, n_waters: int, n_frames: int, seed: int) -> SaltWater:
        """Return a box in which the ions touch, after some frames at constant pressure."""
        force_field = app.ForceField(*FORCE_FIELD)
        modeller = _ions()
        modeller.addSolvent(force_field, model="tip3p", numAdded=n_waters, neutralize=False)
        system = force_field.createSystem(
            modeller.topology,
            nonbondedMethod=app.PME,
            nonbondedCutoff=NONBONDED_CUTOFF,
            constraints=app.HBonds,
        )
        barostat = openmm.MonteCarloBarostat(PRESSURE, TEMPERATURE)
        barostat.setRandomNumberSeed(seed)
        system.addForce(barostat)
        context = _context(system, seed)
        context.setPositions(modeller.positions)
        openmm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
        context.setVelocitiesToTemperature(TEMPERATURE, seed)
        start = cls(modeller.topology, openmm.XmlSerializer.serialize(system), _state(context))
        return start.run(own_restraint(IN_CONTACT), n_frames, seed, "Equilibrating")[1]

    @property
    def oxygens(self) -> list[int]:
        """Zero-based indices of the waters' oxygens."""
        return [index for index, symbol in enumerate(self.elements) if symbol == "O"]

    @property
    def elements(self) -> list[str]:
        """Chemical symbols of all atoms."""
        return [atom.element.symbol for atom in self.topology.atoms()]

    @property
    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and box of the state, in nm."""
        return places(openmm.XmlSerializer.deserialize(self.state))

    def make_system(self) -> openmm.System:
        """Return a system of one's own, to add forces to."""
        return openmm.XmlSerializer.deserialize(self.system)

    def run(
        self, added: openmm.Force, n_frames: int, seed: int, title: str
    ) -> tuple[Frames, SaltWater]:
        """Return the frames of a run at constant pressure, and the box at its end.

        Parameters
        ----------
        added : openmm.Force
            A restraint.
        n_frames : int
            Frames, `STEPS_PER_FRAME` apart, without the one at the start.
        seed : int
            Of the thermostat.
        title : str
            What the progress bar says.
        """
        system = self.make_system()
        system.addForce(added)
        context = _context(system, seed)
        context.setState(openmm.XmlSerializer.deserialize(self.state))
        barostat = barostat_of(system)
        rows = []
        for _ in track(range(n_frames), description=f"{title:<36}"):
            context.getIntegrator().step(STEPS_PER_FRAME)
            state = context.getState(positions=True, energy=True)
            pressure = barostat.computeCurrentPressure(context).value_in_unit(unit.bar)
            rows.append((*places(state), *energies(state), pressure))
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        return Frames(*columns), SaltWater(self.topology, self.system, _state(context))

    def temperatures(self, kinetic: np.ndarray) -> np.ndarray:
        """Return temperatures in K of kinetic energies in kJ/mol."""
        system = self.make_system()
        # The centre of mass rests.
        n_freedom = 3 * system.getNumParticles() - system.getNumConstraints() - 3
        return 2 * kinetic / (n_freedom * GAS_CONSTANT)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write system and state for the C++ program; return where they are."""
        system, state = folder / "system.xml", folder / "state.xml"
        system.write_text(self.system)
        state.write_text(self.state)
        return system, state


def own_restraint(distance: float, stiffness: float = STIFFNESS) -> openmm.Force:
    """Return OpenMM's own harmonic restraint of the ions' distance in nm.

    A bond force would make the ions one molecule, whose inner distance a barostat does not scale.
    """
    force = openmm.CustomCompoundBondForce(2, "0.5 * k * (distance(p1, p2) - r0)^2")
    force.addPerBondParameter("k")
    force.addPerBondParameter("r0")
    force.addBond(list(IONS), [stiffness, distance])
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def barostat_of(system: openmm.System) -> openmm.MonteCarloBarostat:
    """Return the barostat of a system."""
    barostat = openmm.MonteCarloBarostat
    return next(force for force in system.getForces() if isinstance(force, barostat))


def places(state: openmm.State) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and box of a state in nm."""
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return positions, state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)


def energies(state: openmm.State) -> tuple[float, float]:
    """Return potential and kinetic energy of a state in kJ/mol."""
    found = state.getPotentialEnergy(), state.getKineticEnergy()
    potential, kinetic = (energy.value_in_unit(unit.kilojoule_per_mole) for energy in found)
    return potential, kinetic


def _ions() -> app.Modeller:
    """Return the two ions in contact."""
    topology, positions = app.Topology(), []
    chain = topology.addChain()
    for place, symbol in enumerate(("Na", "Cl")):
        residue = topology.addResidue(symbol.upper(), chain)
        topology.addAtom(symbol.upper(), app.Element.getBySymbol(symbol), residue)
        positions.append(openmm.Vec3(IN_CONTACT * place, 0.0, 0.0))
    return app.Modeller(topology, positions * unit.nanometer)


def _context(system: openmm.System, seed: int) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))


def _state(context: openmm.Context) -> str:
    # Without parameters: a restraint's are not those of the next one.
    return openmm.XmlSerializer.serialize(context.getState(positions=True, velocities=True))
