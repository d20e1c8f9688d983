"""Write biases for the C++ tests of EngineBias, with what autograd makes of them.

Usage: make_engine_cases.py FOLDER. ``<case>.pt`` comes with ``<case>.json``: positions of the whole
system and a box in nm, and energy, forces and strain derivative in kJ/mol and nm.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs

ATOMS = [6, 2, 3, 0]
N_ATOMS = 8
BOX = np.array([[2.0, 0.0, 0.0], [0.5, 2.1, 0.0], [-0.4, 0.3, 1.9]])
KJ_PER_EV = 96.48533212331002


def main(folder: Path) -> None:
    """Write every bias, and files that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    positions = 0.4 * np.random.default_rng(0).standard_normal((N_ATOMS, 3))
    runtime = cv(RuntimeBox("triclinic"))
    save(folder / "open", ofcv.HarmonicRestraint(cv(), 0.2, 50.0), positions)
    save(folder / "periodic", ofcv.HarmonicRestraint(runtime, 0.2, 50.0), positions, BOX)
    save(folder / "single", ofcv.HarmonicRestraint(cv().float(), 0.2, 50.0), positions)
    in_ev = ofcv.HarmonicRestraint(cv(length_unit="A"), 0.2, 50.0, "eV")
    save(folder / "angstrom", in_ev, positions, length=10.0, energy=KJ_PER_EV)
    moving = ofcv.MovingRestraint(cv(), [0.0, 4.0], [0.0, 1.0], [30.0, 50.0])
    save(folder / "moving", moving, positions, time=[1.0])

    ofcv.export(cv(), folder / "no_energy.pt")
    ofcv.export(ofcv.Bias(cv()), folder / "five_frames.pt", batch=5)
    fixed = OrthorhombicBox(torch.tensor([2.0, 2.1, 1.9], dtype=torch.float64), periodic=True)
    ofcv.export(ofcv.Bias(cv(fixed)), folder / "frozen_box.pt")
    scaled = RuntimeBox("orthorhombic", scaled=True)
    ofcv.export(ofcv.Bias(cv(scaled)), folder / "fractions.pt")


def cv(
    box: RuntimeBox | OrthorhombicBox | None = None, length_unit: str = "nm"
) -> ofcv.CollectiveVariable:
    """Return a network of all distances between four atoms."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    distances = PairDistances(all_pairs(4), 4, box=box)
    return ofcv.CollectiveVariable(distances, network.double(), ATOMS, length_unit)


def save(
    path: Path,
    bias: ofcv.Bias,
    positions: np.ndarray,
    box: np.ndarray | None = None,
    length: float = 1.0,
    energy: float = 1.0,
    **parameters: list[float],
) -> None:
    """Export a bias; `length` and `energy` are the factors to its unit and from it."""
    ofcv.export(bias, path.with_suffix(".pt"))
    bias = bias.double()
    places = length * positions[ATOMS]
    boxes = [] if box is None else [torch.tensor(length * box)]
    given = {name: torch.tensor(value).double() for name, value in parameters.items()}
    value, gradient, *by_box = (
        output[0, 0].numpy()
        for output in bias.values_and_derivatives(torch.tensor(places)[None], *boxes, **given)
    )
    strain = places.T @ gradient + (length * box.T @ by_box[0] if box is not None else 0.0)
    forces = np.zeros_like(positions)
    forces[ATOMS] = -energy * length * gradient
    content = {
        "positions": positions.ravel().tolist(),
        "box": [] if box is None else box.ravel().tolist(),
        "parameters": parameters,
        "energy": energy * float(value),
        "forces": forces.ravel().tolist(),
        "strain": (energy * strain).ravel().tolist(),
    }
    path.with_suffix(".json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
