"""A trained collective variable of alanine dipeptide in PLUMED.

``python -m export_scripts.plumed_example --output FOLDER`` simulates a little, trains a network on
the distances of the heavy atoms, exports it and writes the input of well-tempered metadynamics
along it, for any engine that PLUMED is patched into. Where there is a ``plumed`` on the PATH and
``--library`` names the built action, PLUMED evaluates the trajectory and the values are compared.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import ase
import ase.io
import numpy as np
import torch
import typer

import ofcv_export as ofcv
from export_scripts.simulation import HEAVY_ATOMS, Trajectory, basin_labels, simulate
from export_scripts.train import pair_distances, train_committor_like
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.engines.plumed import ofcv_input

METADYNAMICS = (
    "METAD ARG=cv.node-0 SIGMA=0.3 HEIGHT=1.2 BIASFACTOR=8 PACE=500 TEMP=300 FILE=hills\n"
)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("plumed_example"),
    library: Annotated[Path, typer.Option(help="The built OFCV.so.")] = Path(
        "build/plumed/OFCV.so"
    ),
    n_frames: Annotated[int, typer.Option(help="Frames of the simulation.")] = 400,
) -> None:
    """Train, export, write PLUMED's input, and compare where there is a PLUMED."""
    output.mkdir(parents=True, exist_ok=True)
    trajectory = simulate(n_frames)
    cv = trained_cv(trajectory)
    path = (output / "cv.pt").resolve()
    ofcv.export(cv, path, batch=1)
    text = ofcv_input(path, library=library.resolve())
    (output / "metadynamics.dat").write_text(text + METADYNAMICS)
    typer.echo(f"{output / 'metadynamics.dat'}:\n\n{text}{METADYNAMICS}")

    plumed = shutil.which("plumed")
    if plumed is None or not library.exists():
        missing = "plumed on the PATH" if plumed is None else f"{library} (docs/engines/plumed.md)"
        typer.echo(f"Nothing was compared: there is no {missing}")
        return
    values = evaluate(plumed, output, text, trajectory)
    with torch.no_grad():
        exact = cv(torch.from_numpy(trajectory.positions[:, HEAVY_ATOMS]).float()).numpy()
    difference = np.abs(values - exact[:, 0]).max()
    typer.echo(f"{n_frames} frames, values from {values.min():.2f} to {values.max():.2f}; ")
    typer.echo(f"largest difference between PLUMED and the network in PyTorch: {difference:.1e}")


def trained_cv(trajectory: Trajectory) -> ofcv.CollectiveVariable:
    """Return a network that tells alpha-R from alpha-L."""
    positions = torch.from_numpy(trajectory.positions[:, HEAVY_ATOMS])
    labels = torch.from_numpy(basin_labels(trajectory.phi))
    trained = train_committor_like(pair_distances(positions), labels)
    descriptors = PairDistances(all_pairs(len(HEAVY_ATOMS)), len(HEAVY_ATOMS))
    return ofcv.CollectiveVariable(descriptors, trained.network, HEAVY_ATOMS)


def evaluate(plumed: str, folder: Path, text: str, trajectory: Trajectory) -> np.ndarray:
    """Return the values (n_frames,) that PLUMED finds on a trajectory."""
    frames = [ase.Atoms(trajectory.elements, positions) for positions in trajectory.positions]
    ase.io.write(folder / "trajectory.xyz", frames, format="xyz", comment="0 0 0", fmt="%.12f")
    (folder / "values.dat").write_text(text + "PRINT ARG=cv.node-0 FILE=values FMT=%.8f\n")
    subprocess.run(
        [plumed, "--no-mpi", "driver", "--plumed", "values.dat", "--ixyz", "trajectory.xyz"],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    values: np.ndarray = np.loadtxt(folder / "values")[:, 1]
    return values


if __name__ == "__main__":
    typer.run(main)
