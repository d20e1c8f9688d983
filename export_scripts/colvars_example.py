"""A small network on distances of alanine dipeptide as a file for Colvars' torchANN.

``python -m export_scripts.colvars_example`` trains a network that tells how extended the molecule
is, writes the file, and prints the block of the Colvars configuration that goes with it. Colvars
itself is not needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import ase.io
import torch
import typer
from rich.console import Console
from torch import Tensor, nn

import ofcv_export as ofcv
from export_scripts.simulation import PDB_PATH, PHI, PSI
from ofcv_export.base.units import length_factor
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.graph.metadata import Metadata

ATOMS = sorted({*PHI, *PSI})

console = Console(soft_wrap=True, highlight=False)


class Standardised(nn.Module):
    """A network of descriptors with mean 0 and standard deviation 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, descriptors: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", descriptors.mean(0))
        self.register_buffer("std", descriptors.std(0))
        self.layers = nn.Sequential(
            nn.Linear(descriptors.shape[1], 16), nn.Tanh(), nn.Linear(16, 1)
        )

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return one value, shape (batch, 1)."""
        value: Tensor = self.layers((descriptors - self.mean) / self.std)
        return value


def train(seed: int) -> ofcv.CollectiveVariable:
    """Return a network of all distances, fitted to the radius of gyration of distorted frames."""
    torch.manual_seed(seed)
    molecule = ase.io.read(PDB_PATH)
    assert isinstance(molecule, ase.Atoms)
    positions = torch.tensor(molecule.positions[ATOMS] / 10, dtype=torch.float32)
    frames = positions + 0.05 * torch.randn(500, len(ATOMS), 3)
    distances = PairDistances(all_pairs(len(ATOMS)), len(ATOMS))
    target = (frames - frames.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt().unsqueeze(1)
    target = (target - target.mean()) / target.std()
    inputs = distances(frames)
    network = Standardised(inputs)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.mse_loss(network(inputs), target).backward()
        optimiser.step()
    return ofcv.CollectiveVariable(distances, network, atoms=ATOMS, length_unit="nm")


def colvars_block(path: Path, metadata: Metadata, engine_unit: str) -> str:
    """Return the configuration of the collective variable.

    Colvars orders components by name, and multiplies each by ``componentCoeff`` before the network
    sees it: that turns the engine's unit of length into the one that the network was trained with.
    """
    assert metadata.atoms is not None
    factor = length_factor(engine_unit, str(metadata.length_unit))
    numbers = [atom + 1 for atom in metadata.atoms]
    lines = ["colvar {", "  name extension", "  torchANN {", f"    modelFile {path}"]
    lines += ["    output_component 0", "    doubleInputTensor on"]
    period = metadata.details.variable.periods[0]
    if period is not None:
        lines.append(f"    period {period:.17g}")
    for index, (first, second) in enumerate(metadata.details.variable.descriptors["pairs"]):
        lines += [
            "    distance {",
            f"      name d{index:04d}",
            f"      componentCoeff {factor:.17g}",
            f"      group1 {{ atomNumbers {numbers[first]} }}",
            f"      group2 {{ atomNumbers {numbers[second]} }}",
            "    }",
        ]
    return "\n".join([*lines, "  }", "}"])


def main(
    output: Annotated[Path, typer.Option(help="Where to write the file.")] = Path(
        "colvars_network.pt"
    ),
    length_unit: Annotated[str, typer.Option(help="Colvars' unit of length: A or nm.")] = "A",
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
) -> None:
    """Write the file and print the configuration that uses it."""
    report = ofcv.export(train(seed), output, contract="colvars-torchann")
    block = colvars_block(report.path, report.metadata, length_unit)
    console.print(f"{report}\n\n{block}", markup=False)


if __name__ == "__main__":
    typer.run(main)
