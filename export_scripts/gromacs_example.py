"""A restraint of alanine dipeptide's psi torsion as a file for GROMACS's NNPot interface.

``python -m export_scripts.gromacs_example`` writes the file with the forces and the one whose
energy GROMACS differentiates, and prints the lines of the ``.mdp`` file and of the index file that
go with them. GROMACS itself is not needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import ase.io
import torch
import typer
from rich.console import Console
from torch import nn

import ofcv_export as ofcv
from export_scripts.simulation import PDB_PATH, PSI
from ofcv_export.descriptors.torsions import Torsions
from ofcv_export.graph.metadata import Metadata

GROUP = "Dipeptide"

console = Console(soft_wrap=True, highlight=False)


def psi_restraint() -> tuple[ofcv.HarmonicRestraint, int]:
    """Return a restraint of (sin psi, cos psi) to psi = 140 degrees, and the number of atoms."""
    molecule = ase.io.read(PDB_PATH)
    assert isinstance(molecule, ase.Atoms)
    torsion = Torsions(torch.tensor([[0, 1, 2, 3]]), n_atoms=4, modes=("sin", "cos"))
    symbols = molecule.get_chemical_symbols()
    cv = ofcv.CollectiveVariable(
        torsion, nn.Identity(), atoms=PSI, elements=[symbols[index] for index in PSI]
    )
    target = torch.deg2rad(torch.tensor(140.0))
    centre = [float(torch.sin(target)), float(torch.cos(target))]
    return ofcv.HarmonicRestraint(cv, centre, force_constant=100.0), len(molecule)


def mdp_lines(path: Path, metadata: Metadata) -> str:
    """Return the options that make GROMACS call a file."""
    options = {
        "nnpot-active": "true",
        "nnpot-modelfile": str(path),
        "nnpot-input-group": GROUP,
    }
    for number, name in enumerate(metadata.details.engine_inputs, start=1):
        options[f"nnpot-model-input{number}"] = name
    return "\n".join(f"{key:20} = {value}" for key, value in options.items())


def index_lines(metadata: Metadata) -> str:
    """Return the input group of a file as a group of an index file, which counts from 1."""
    return f"[ {GROUP} ]\n" + " ".join(str(atom + 1) for atom in metadata.details.group)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("gromacs_output"),
) -> None:
    """Write the files and print the lines that go with them."""
    output.mkdir(exist_ok=True)
    restraint, n_atoms = psi_restraint()
    for name, energy_only in (("restraint.pt", False), ("restraint_energy.pt", True)):
        report = ofcv.export(
            restraint,
            output / name,
            contract="gromacs-nnpot",
            group=range(n_atoms),
            energy_only=energy_only,
        )
        console.print(f"\n{report}\n\n{mdp_lines(report.path, report.metadata)}")
    console.print(f"\nIn the index file (gmx grompp -n):\n\n{index_lines(report.metadata)}")


if __name__ == "__main__":
    typer.run(main)
