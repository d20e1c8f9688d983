"""Exported biases in LAMMPS, against LAMMPS's own restraint, differences and conservation laws."""

import numpy as np
import pytest
import torch

from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.engines.lammps import LammpsBias, import_lammps
from tests.builders.engine_biases import (
    ATOMS,
    CENTRE,
    FORCE_CONSTANT,
    KJ_PER_MOL,
    PAIR,
    distance_cv,
    distance_restraint,
    network_bias,
    pulling_restraint,
)

pytest.importorskip("lammps", reason="lammps is not installed")
lammps = import_lammps()

N_ATOMS = 7
# Types and masses of C, H, N, O in u.
TYPES = [1, 2, 3, 1, 2, 4, 2]
MASSES = [12.011, 1.008, 14.007, 15.999]
# What an eV and a ps are in each unit style.
EV = {"metal": 1.0, "real": KJ_PER_MOL / 4.184}
PS = {"metal": 1.0, "real": 1000.0}
BOXES = {
    "orthorhombic": np.diag([14.0, 15.0, 16.0]),
    "triclinic": np.array([[14.0, 0.0, 0.0], [4.0, 15.0, 0.0], [-5.0, 6.0, 16.0]]),
}
ORIGIN = np.array([-1.0, 2.0, 0.5])
# Moves the chain across the boundaries of the boxes.
ACROSS = np.array([8.0, 9.0, 9.0])


def chain(seed=1):
    """Return a bent chain in Angstrom, in the middle of the boxes."""
    random = np.random.default_rng(seed)
    steps = np.array([1.1, 0.9, 0.5]) * np.where(np.arange(N_ATOMS)[:, None] % 2, 1, [1, -1, 1])
    return (
        ORIGIN
        + np.array([3.0, 6.0, 5.0])
        + np.cumsum(steps, axis=0)
        + 0.05 * random.standard_normal((N_ATOMS, 3))
    )


def start(
    positions=None,
    box=BOXES["orthorhombic"],
    units="metal",
    boundary="p p p",
    order=None,
    interacting=True,
    masses=MASSES,
):
    """Return a LAMMPS with a chain of atoms, moving at about 300 K, its origin off zero."""
    lmp = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
    (x, _, _), (xy, y, _), (xz, yz, z) = box
    low, high = ORIGIN, ORIGIN + np.array([x, y, z])
    shape = " ".join(f"{lo:.17g} {hi:.17g}" for lo, hi in zip(low, high, strict=True))
    lmp.commands_string(f"""
        units {units}
        atom_style bond
        atom_modify map array sort 5 4.0
        boundary {boundary}
        region box prism {shape} {xy:.17g} {xz:.17g} {yz:.17g}
        create_box 4 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 8
        """)
    positions = chain() if positions is None else positions
    velocities = np.random.default_rng(3).normal(0.0, 5.0, (N_ATOMS, 3)) / PS[units]
    order = np.arange(N_ATOMS) if order is None else np.asarray(order)
    lmp.create_atoms(
        N_ATOMS,
        (order + 1).tolist(),
        np.array(TYPES)[order].tolist(),
        positions[order].flatten().tolist(),
        velocities[order].flatten().tolist(),
    )
    lmp.commands_list([f"mass {index + 1} {mass}" for index, mass in enumerate(masses)])
    if interacting:
        energy = EV[units]
        lmp.commands_string(f"""
            bond_style harmonic
            bond_coeff 1 {10 * energy} 1.5
            pair_style lj/cut 5.0
            pair_modify shift yes
            pair_coeff * * {0.005 * energy} 2.0
            """)
        lmp.commands_list(
            [f"create_bonds single/bond 1 {tag} {tag + 1}" for tag in range(1, N_ATOMS)]
        )
    else:
        lmp.commands_list(["bond_style zero", "bond_coeff *", "pair_style zero 5.0"])
        lmp.command("pair_coeff * *")
    lmp.commands_string(f"""
        neighbor 1.0 bin
        neigh_modify every 1 delay 0 check yes
        timestep {0.0005 * PS[units]:.17g}
        thermo_style custom step pe etotal press
        thermo 1
        fix nve all nve
        compute virial all pressure NULL virial
        """)
    return lmp


def by_tag(lmp, name):
    """Return a property of all atoms in the order of their IDs."""
    rows = np.argsort(lmp.numpy.extract_atom("id")[:N_ATOMS])
    return lmp.numpy.extract_atom(name)[:N_ATOMS][rows].copy()


def evaluated(path, positions=None, **system):
    """Return energy, forces (by ID) and virial (3, 3) of the bias alone."""
    lmp = start(positions, interacting=False, **system)
    bias = LammpsBias(lmp, path)
    lmp.command("run 0")
    pressure = lmp.numpy.extract_compute("virial", 0, 1)
    volume = lmp.get_thermo("vol")
    xx, yy, zz, xy, xz, yz = pressure * volume / lmp.extract_global("nktv2p")
    virial = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    assert lmp.get_thermo("pe") == bias.energy
    return bias.energy, by_tag(lmp, "f"), virial


def trajectory(n_steps, path=None, **system):
    """Return positions by ID, (n_steps, n_atoms, 3)."""
    lmp = start(**system)
    if path is not None:
        LammpsBias(lmp, path)
    frames = []
    for _ in range(n_steps):
        lmp.command("run 1 post no")
        frames.append(by_tag(lmp, "x"))
    return np.array(frames)


@pytest.mark.parametrize("units", ["real", "metal"])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("takes_box", [False, True])
def test_forces_and_virial_are_differences(exported, takes_box, box, units):
    make = (lambda: network_bias(RuntimeBox())) if takes_box else network_bias
    path = exported(f"network{takes_box}", make)
    # Across the boundary, so that LAMMPS wraps some of the atoms.
    positions, vectors = chain() + ACROSS, BOXES[box]
    energy, forces, virial = evaluated(path, positions, box=vectors, units=units)
    assert abs(energy) > 0.1 * EV[units]

    step = 1e-4
    for atom in range(N_ATOMS):
        for axis in range(3):
            shift = np.zeros((N_ATOMS, 3))
            shift[atom, axis] = step
            ends = [
                evaluated(path, positions + sign * shift, box=vectors, units=units)[0]
                for sign in (1, -1)
            ]
            difference = (ends[1] - ends[0]) / (2 * step)
            scale = np.abs(forces).max()
            assert forces[atom, axis] == pytest.approx(difference, rel=1e-6, abs=1e-6 * scale)
    assert set(np.flatnonzero(forces.any(axis=1))) == set(ATOMS)

    # Strains that keep the vectors where LAMMPS wants them.
    for row, column in [(0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (2, 1)]:
        ends = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += sign * step
            strained = ORIGIN + (positions - ORIGIN) @ strain
            ends.append(evaluated(path, strained, box=vectors @ strain, units=units)[0])
        difference = (ends[1] - ends[0]) / (2 * step)
        scale = np.abs(virial).max()
        assert virial[row, column] == pytest.approx(difference, rel=1e-6, abs=1e-6 * scale)


@pytest.mark.parametrize("units", ["real", "metal"])
def test_trajectory_equals_that_of_lammps_own_restraint(restraint, units):
    ours = trajectory(100, restraint, units=units)
    lmp = start(units=units)
    lmp.commands_string(f"""
        variable k equal {0.5 * FORCE_CONSTANT * EV[units]:.17g}
        fix own all restrain bond {PAIR[0] + 1} {PAIR[1] + 1} $k $k {CENTRE}
        """)
    theirs = []
    for _ in range(100):
        lmp.command("run 1 post no")
        theirs.append(by_tag(lmp, "x"))
    free = trajectory(100, units=units)
    assert np.abs(ours - free).max() > 0.01
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_real_units_give_the_trajectory_of_metal_units(restraint):
    # LAMMPS's own constants differ between the two by some 1e-7.
    np.testing.assert_allclose(
        trajectory(100, restraint, units="real"),
        trajectory(100, restraint, units="metal"),
        rtol=0,
        atol=1e-5,
    )


def test_nm_and_angstrom_artifacts_agree(exported, restraint):
    other = exported("restraint_nm", lambda: distance_restraint("nm", "kJ/mol"))
    for ours, theirs in zip(evaluated(restraint), evaluated(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".c"])
def test_every_format_gives_the_same(exported, restraint, suffix):
    other = exported("restraint", distance_restraint, suffix)
    for ours, theirs in zip(evaluated(restraint), evaluated(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_energy_is_conserved_as_without_the_bias(restraint):
    def total_energies(path):
        lmp = start()
        lmp.command("timestep 0.00025")
        if path is not None:
            LammpsBias(lmp, path, parameters={"centre": 5.0})
        energies = []
        for _ in range(500):
            lmp.command("run 4 pre no post no" if energies else "run 4 post no")
            energies.append(lmp.get_thermo("etotal"))
        return np.array(energies)

    def drift(energies):
        quarter = len(energies) // 4
        return abs(energies[-quarter:].mean() - energies[:quarter].mean())

    free, biased = total_energies(None), total_energies(restraint)
    # A force that is wrong by 2 % drifts tens of times as much.
    assert drift(biased) < drift(free) + free.std()


@pytest.mark.parametrize("box", BOXES)
def test_a_molecule_across_the_boundary_is_made_whole(restraint, box):
    here = evaluated(restraint, box=BOXES[box])
    across = evaluated(restraint, chain() + ACROSS, box=BOXES[box])
    for ours, theirs in zip(here, across, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("boundary", ["p p f", "f f p", "s s s"])
def test_images_count_along_periodic_directions_only(restraint, boundary):
    # Stretched by more than half the box along every open direction.
    stretch = np.where(np.array(boundary.split()) == "p", 1.0, 2.0)
    positions = ORIGIN + 0.5 + (chain() - chain().min(axis=0)) * stretch
    box = np.diag([14.0, 15.0, 16.0])
    distance = np.linalg.norm(positions[PAIR[0]] - positions[PAIR[1]])
    energy = evaluated(restraint, positions, box=box, boundary=boundary)[0]
    assert energy == pytest.approx(0.5 * FORCE_CONSTANT * (distance - CENTRE) ** 2, rel=1e-10)


def test_atoms_are_found_by_their_ids(restraint):
    order = [3, 6, 0, 2, 5, 1, 4]
    for ours, theirs in zip(evaluated(restraint, order=order), evaluated(restraint), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_atoms_that_move_in_memory_keep_their_forces(restraint):
    lmp = start(order=[3, 6, 0, 2, 5, 1, 4])
    LammpsBias(lmp, restraint)
    before = lmp.numpy.extract_atom("id")[:N_ATOMS].copy()
    lmp.command("run 100")
    assert not np.array_equal(before, lmp.numpy.extract_atom("id")[:N_ATOMS])
    np.testing.assert_allclose(by_tag(lmp, "x"), trajectory(100, restraint)[-1], rtol=0, atol=1e-9)


def test_parameters_change_between_runs(restraint):
    lmp = start(interacting=False)
    bias = LammpsBias(lmp, restraint, parameters={"centre": 2.5})
    lmp.command("run 0")
    first, second = by_tag(lmp, "x")[list(PAIR)]
    distance = np.linalg.norm(first - second)
    assert bias.energy == pytest.approx(0.5 * FORCE_CONSTANT * (distance - 2.5) ** 2)
    bias.set_parameter("force_constant", [7.0])
    lmp.command("run 0")
    assert bias.energy == pytest.approx(0.5 * 7.0 * (distance - 2.5) ** 2)
    assert bias.parameters["force_constant"] == [7.0]
    with pytest.raises(ValueError, match="centre, force_constant, got center"):
        bias.set_parameter("center", 1.0)
    with pytest.raises(ValueError, match=r"centre: expected shape \(1,\)"):
        bias.set_parameter("centre", [1.0, 2.0])


@pytest.mark.parametrize("units", ["real", "metal"])
def test_a_moving_restraint_follows_the_time(exported, units):
    lmp = start(units=units, interacting=False)
    bias = LammpsBias(lmp, exported("pull", pulling_restraint))
    lmp.command(f"reset_timestep 0 time {0.02 * PS[units]}")
    # 0.02 ps, and 20 steps of 0.5 fs.
    lmp.command("run 20")
    first, second = by_tag(lmp, "x")[list(PAIR)]
    centre = 3.0 + (0.03 - 0.01) / 0.04
    expected = 0.5 * FORCE_CONSTANT * EV[units] * (np.linalg.norm(first - second) - centre) ** 2
    assert bias.energy == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="time: expected no value"):
        bias.set_parameter("time", 1.0)


def test_minimisation_reaches_the_centre(restraint):
    lmp = start(interacting=False)
    LammpsBias(lmp, restraint)
    lmp.command("minimize 0 1e-10 1000 1000")
    first, second = by_tag(lmp, "x")[list(PAIR)]
    assert np.linalg.norm(first - second) == pytest.approx(CENTRE, abs=1e-6)


def test_remove_takes_the_bias_away(restraint):
    lmp = start(interacting=False)
    bias = LammpsBias(lmp, restraint)
    bias.remove()
    lmp.command("run 0")
    assert lmp.get_thermo("pe") == 0
    LammpsBias(lmp, restraint)


def test_two_biases_add_up(exported, restraint):
    lmp = start(interacting=False)
    biases = [
        LammpsBias(lmp, restraint, "first"),
        LammpsBias(lmp, exported("networkFalse", network_bias), "second"),
    ]
    lmp.command("run 0")
    assert lmp.get_thermo("pe") == pytest.approx(sum(bias.energy for bias in biases))
    with pytest.raises(ValueError, match="fix_id: expected the ID of no other fix, got 'second'"):
        LammpsBias(lmp, restraint, "second")


def test_wrong_numbering_is_caught(exported, restraint):
    lmp = start()
    lmp.commands_list(["group gone id 3", "delete_atoms group gone bond yes compress no"])
    with pytest.raises(ValueError, match="got the ID 3, which does not"):
        LammpsBias(lmp, restraint)
    shifted = exported("shifted", lambda: distance_restraint(atoms=[6, 3, 1]))
    with pytest.raises(ValueError, match="expected O as atom 6 .*, got H"):
        LammpsBias(start(), shifted)
    beyond = exported("beyond", lambda: distance_restraint(atoms=[7, 3, 1]))
    with pytest.raises(ValueError, match="below the system's 7 atoms, got 7"):
        LammpsBias(start(), beyond)


def test_elements_follow_from_masses_unless_given(restraint):
    heavy = start(masses=[12.011, 1.008, 15.1, 15.999])
    with pytest.raises(ValueError, match=r"expected N as atom 2 .*, got the mass 15\.1"):
        LammpsBias(heavy, restraint)
    LammpsBias(heavy, restraint, elements=["C", "H", "N", "O"])
    with pytest.raises(ValueError, match="expected N as atom 2 .*, got S"):
        LammpsBias(heavy, restraint, "other", elements=["C", "H", "S", "O"])
    with pytest.raises(ValueError, match="elements: expected one for each of 4 types"):
        LammpsBias(heavy, restraint, "other", elements=["C"])


def test_wrong_units_are_caught(exported, restraint):
    lmp = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
    with pytest.raises(ValueError, match="units: expected real or metal, got lj"):
        LammpsBias(lmp, restraint)
    cv = exported("cv", distance_cv)
    with pytest.raises(ValueError, match="expected a bias, whose values are"):
        LammpsBias(start(), cv)


def test_a_system_without_atoms_and_several_processes_are_refused(restraint, monkeypatch):
    lmp = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
    lmp.command("units metal")
    with pytest.raises(ValueError, match="lmp: expected a box with atoms, got none"):
        LammpsBias(lmp, restraint)
    # What LAMMPS says in an MPI run of two.
    monkeypatch.setattr(lmp, "extract_setting", {"world_size": 2}.get)
    with pytest.raises(ValueError, match="lmp: expected one MPI process, got 2"):
        LammpsBias(lmp, restraint)


@pytest.mark.parametrize("boundary", ["f f f", "p p f"])
def test_a_periodic_bias_needs_a_periodic_box(exported, boundary):
    path = exported("networkTrue", lambda: network_bias(RuntimeBox()))
    with pytest.raises(ValueError, match="box: expected a periodic system"):
        LammpsBias(start(boundary=boundary), path)


def test_a_wrong_box_stops_the_run_and_says_why(exported):
    fixed = OrthorhombicBox(torch.tensor([14.0, 15.0, 16.0]), periodic=True)
    path = exported("fixed", lambda: distance_restraint(box=fixed))
    lmp = start()
    bias = LammpsBias(lmp, path)
    lmp.command("run 10")
    lmp.command("change_box all x delta 0 0.1")
    with pytest.raises(Exception, match=r"bias stopped the run: ValueError: box: expected"):
        lmp.command("run 10")
    assert lmp.extract_global("ntimestep") == 10
    lmp.command("change_box all x delta 0 -0.1")
    lmp.command("timer timeout off")
    lmp.command("run 10")
    assert bias.energy > 0


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (
            ["group gone id 1", "delete_atoms group gone bond yes", "reset_atoms id"],
            r"expected [CNO] as atom \d \(zero-based\), got",
        ),
        (["set atom 6 type 2"], r"expected O as atom 5 \(zero-based\), got H"),
        (["mass 4 32.06"], r"expected O as atom 5 \(zero-based\), got S"),
    ],
    ids=["renumbered", "retyped", "reweighed"],
)
def test_atoms_that_change_between_runs_are_caught(restraint, commands, message):
    lmp = start()
    LammpsBias(lmp, restraint)
    lmp.command("run 1")
    lmp.commands_list(commands)
    with pytest.raises(Exception, match=message):
        lmp.command("run 1")


def test_boundaries_that_change_between_runs_count(exported, restraint):
    """An image that is near in a periodic box is far away in an open one."""
    positions = chain()
    positions[ATOMS] = ORIGIN + np.array([[9.5, 5.3, 5.2], [6.0, 5.0, 5.0], [0.5, 5.0, 5.0]])
    lmp = start(positions, box=np.diag([10.0, 30.0, 30.0]), interacting=False)
    bias = LammpsBias(lmp, restraint)
    lmp.command("run 0")
    image = np.linalg.norm([1.0, 0.3, 0.2])
    assert bias.energy == pytest.approx(FORCE_CONSTANT / 2 * (image - CENTRE) ** 2, rel=1e-9)
    lmp.commands_list(["change_box all boundary f p p", "run 0"])
    apart = np.linalg.norm([9.0, 0.3, 0.2])
    assert bias.energy == pytest.approx(FORCE_CONSTANT / 2 * (apart - CENTRE) ** 2, rel=1e-9)
    periodic = LammpsBias(
        start(), exported("networkTrue", lambda: network_bias(RuntimeBox())), "periodic"
    )
    periodic._lmp.commands_list(["run 0", "change_box all boundary f p p"])
    with pytest.raises(Exception, match="box: expected a periodic system, got one without a box"):
        periodic._lmp.command("run 0")
