"""PLUMED's driver on trajectories that tests make."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PLUMED = shutil.which("plumed")
needs_plumed = pytest.mark.skipif(PLUMED is None, reason="there is no plumed on the PATH")


def run_driver(folder, text, frames, *options, box=None, environment=None):
    """Run `plumed driver` in a folder on a trajectory in nm."""
    (folder / "plumed.dat").write_text(text)
    cell = " ".join(repr(float(x)) for x in (np.zeros(3) if box is None else box.ravel()))
    with (folder / "frames.xyz").open("w") as file:
        for frame in frames:
            file.write(f"{len(frame)}\n{cell}\n")
            file.writelines(f"X {x!r} {y!r} {z!r}\n" for x, y, z in frame.tolist())
    words = [PLUMED, "--no-mpi", "driver", "--plumed", "plumed.dat", "--ixyz", "frames.xyz"]
    return subprocess.run(
        [*words, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
    )


def drive(folder, text, frames, *options, box=None):
    """Run `plumed driver`, which must succeed."""
    done = run_driver(folder, text, frames, *options, box=box)
    assert done.returncode == 0, done.stdout + done.stderr


def failure(folder, text, frames, box=None):
    """Return what PLUMED says about input that it must refuse."""
    text += "PRINT ARG=cv.node-0 FILE=values\n"
    done = run_driver(folder, text, frames, box=box)
    assert done.returncode != 0
    return done.stdout + done.stderr


def values_and_derivatives(folder, text, frames, components, box=None):
    """Return values (n_frames, n), derivatives (..., N, 3) and box derivatives (..., 3, 3)."""
    arguments = ",".join(components)
    text += f"PRINT ARG={arguments} FILE=values FMT=%.16g\n"
    text += f"DUMPDERIVATIVES ARG={arguments} FILE=derivatives FMT=%.16g\n"
    drive(folder, text, frames, box=box)
    n = len(components)
    values = np.loadtxt(folder / "values", ndmin=2)[:, 1:]
    table = np.loadtxt(folder / "derivatives", ndmin=2)[:, 2:].reshape(len(frames), -1, n)
    table = table.transpose(0, 2, 1)
    shape = (len(frames), n)
    return values, table[:, :, :-9].reshape(*shape, -1, 3), table[:, :, -9:].reshape(*shape, 3, 3)
