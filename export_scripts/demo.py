"""The demo: real input to artifacts to three runtimes, with one table and figures at the end.

Run it with ``make demo``, or from the repository's root with ``python -m export_scripts.demo``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import ase.io
import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import ofcv_export as ofcv
from export_scripts import figures
from export_scripts.cases import (
    DTYPES,
    Case,
    collective_variable_cases,
    converged_sample,
    rescaling_cases,
    setup_smart_derivatives,
)
from export_scripts.density_labels import MOLECULES, compute_all_labels, density_basis_info
from export_scripts.replay import (
    CPP_RUNTIMES,
    Result,
    artifact_path,
    replay_in_cpp,
    replay_in_python,
)
from export_scripts.simulation import HEAVY_ATOMS, basin_labels, simulate, write_extended_xyz
from export_scripts.train import pair_distances, train_committor_like
from ofcv_export.density.fitting.fit_statistics import fit_statistics

MOLECULE = "CH3OH"
N_ENGINE_FRAMES = 40

console = Console()


def step(title: str) -> None:
    """Announce a step in one line."""
    console.print(f"[bold cyan]>[/] {title}")


def collective_variable_side(output: Path, n_frames: int, seed: int) -> list[Case]:
    """Simulate, train, set up SmartDerivatives, and return the cases of the CV side."""
    step("Simulate alanine dipeptide with OpenMM, from alpha-R and from alpha-L")
    trajectory = simulate(n_frames, seed=seed)
    positions_file = output / "frames.xyz"
    frames = np.linspace(0, n_frames - 1, N_ENGINE_FRAMES).astype(np.int64)
    write_extended_xyz(positions_file, trajectory, frames)

    step("Train a 45-32-32-1 tanh network on the distances of the heavy atoms")
    positions = torch.from_numpy(trajectory.positions[:, HEAVY_ATOMS])
    labels = torch.from_numpy(basin_labels(trajectory.phi))
    distances = pair_distances(positions)
    trained = train_committor_like(distances, labels, seed=seed)
    console.print(f"  {trained.accuracy:.1%} of held-out frames on the right side of q = 1/2")
    z = trained.network(distances.float()).squeeze(1).numpy()
    figures.plot_ramachandran(output / "ramachandran.png", trajectory.phi, trajectory.psi, z)

    step("Set up SmartDerivatives: freeze d(distances)/d(positions) of all frames")
    smart = {
        dtype: setup_smart_derivatives(positions.to(getattr(torch, dtype)), labels)
        for dtype in DTYPES
    }
    pattern = smart["float64"].pattern
    assert pattern is not None
    figures.plot_sparsity(output / "sparsity.png", pattern, smart["float64"].blocks()[0].numpy())

    # Angstrom to nm; read back, so that C++ and Python see the same rounded numbers.
    images = ase.io.read(positions_file, index=":")
    engine_positions = torch.from_numpy(
        np.stack([image.positions for image in images])[:, HEAVY_ATOMS] * 0.1
    )
    return collective_variable_cases(
        trained.network, positions, engine_positions, smart, positions_file, seed
    )


def density_side(output: Path, seed: int) -> list[Case]:
    """Compute density labels, fit statistics, build the rescaling, and return its cases."""
    step(f"Run Kohn-Sham calculations of {len(MOLECULES)} molecules with PySCF, and fit densities")
    labels = compute_all_labels(
        output / "labels", seed=seed, processes=min(4, os.cpu_count() or 1), console=console
    )
    step("Fit dataset statistics to the density labels")
    basis_info = density_basis_info()
    store = output / "density_statistics.zarr"
    statistics = fit_statistics(labels, store, basis_info, overwrite=True)
    console.print(f"  {len(labels)} molecules, {basis_info.n_basis} basis dimensions")
    step("Build DimensionWiseRescaling from these statistics")
    molecule = output / "labels" / f"{MOLECULE}.zarr.zip"
    return rescaling_cases(statistics, basis_info, converged_sample(molecule, basis_info))


def export_all(cases: Sequence[Case], folder: Path) -> None:
    """Export every case in its formats and dtypes, and verify each file as it lies there."""
    jobs = [(case, dtype, suffix) for case in cases for dtype in DTYPES for suffix in case.suffixes]
    for case, dtype, suffix in track(jobs, description="Exporting", console=console):
        path = artifact_path(folder, case, dtype, suffix)
        ofcv.export(case.modules[dtype], path, **case.options)
        report = ofcv.verify(path, reference=case.modules[dtype])
        if not report.passed:
            raise ofcv.VerificationError(str(report))


def replay_all(cases: Sequence[Case], folder: Path, program: Path, scratch: Path) -> list[Result]:
    """Run every artifact in every runtime that takes it."""
    results = []
    for case in track(cases, description="Running", console=console):
        for suffix in case.suffixes:
            results.append(replay_in_python(case, folder, suffix))
            if suffix in CPP_RUNTIMES:
                results.append(replay_in_cpp(case, folder, program, scratch, suffix))
    return results


def results_table(results: Sequence[Result]) -> Table:
    """Return the table of all results."""
    table = Table(
        title="Artifacts on real input: max error against float64, time per call",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("artifact", "format", "runtime"):
        table.add_column(heading, no_wrap=True)
    for heading in ("error\nfloat32", "error\nfloat64", "time per\ncall (µs)"):
        table.add_column(heading, justify="right")
    previous = None
    for result in results:
        if previous not in (None, result.case):
            table.add_section()
        cells = [
            f"{error:.1e}" if error <= result.tolerances[dtype] else f"[bold red]{error:.1e}[/]"
            for dtype, error in result.errors.items()
        ]
        title = result.case.title if result.case is not previous else ""
        table.add_row(title, result.suffix, result.runtime, *cells, f"{result.microseconds:.1f}")
        previous = result.case
    table.caption = (
        "Errors are relative to the largest float64 value of a (typical) frame or molecule. A call "
        "is one "
        "frame or one molecule, float32, on one thread. Without C++ a runtime is called from "
        "Python, whose checks of the input are part of the time."
    )
    return table


def main(
    output: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "demo_output"
    ),
    cpp_demo: Annotated[Path, typer.Option(help="The C++ demo, built.")] = Path(
        "build/cpp_demo/ofcv_demo"
    ),
    n_frames: Annotated[int, typer.Option(min=40, help="Frames to simulate.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 2026,
) -> None:
    """Make artifacts from real input, run them in three runtimes, and compare with float64."""
    if not cpp_demo.is_file():
        raise typer.BadParameter(
            f"expected the built program, got no file {cpp_demo}; make demo builds it",
            param_hint="--cpp-demo",
        )
    # Small networks are fastest on one thread, and an MD engine gives an artifact no more.
    torch.set_num_threads(1)
    start = time.monotonic()
    artifacts, scratch = output / "artifacts", output / "cpp"
    for folder in (artifacts, scratch):
        folder.mkdir(parents=True, exist_ok=True)

    cases = collective_variable_side(output, n_frames, seed) + density_side(output, seed)
    step("Export everything as TorchScript and ONNX, the CV as AOTInductor and C; verify all files")
    export_all(cases, artifacts)
    step("Run everything in its runtimes, from Python and from C++")
    results = replay_all(cases, artifacts, cpp_demo, scratch)
    figures.plot_parity(output / "parity.png", results)
    figures.plot_timing(output / "timing.png", results)

    console.print(results_table(results))
    console.print(
        f"Figures and artifacts are in {output}, made in {time.monotonic() - start:.0f} s"
    )
    failed = [result for result in results if not result.passed]
    if failed:
        console.print(f"[bold red]{len(failed)} of {len(results)} runs are out of tolerance[/]")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
