"""Graphs of `ofcv::Neighbourhood` and of `ofcv_export.neighbours.Neighbourhood` are the same.

Usage: neighbourhood_test.py PROGRAM. So are the number of searches and what is said of errors.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.neighbours import Neighbourhood

PROGRAM = Path(sys.argv[1])
REFERENCE = Path(__file__).parents[2] / "tests" / "reference" / "graph_cvs"
BOXES = [
    None,
    np.diag([7.0, 9.0, 5.5]),
    np.array([[7.0, 0.0, 0.0], [3.2, 8.0, 0.0], [-2.9, 3.8, 6.0]]),
    np.array([[1.0, 7.0, 0.5], [8.0, -1.0, 0.3], [0.7, 2.0, 6.5]]),
    np.array([[6.0, 0.0, 0.0], [9.0, 6.0, 0.0], [-7.0, 8.0, 7.0]]),
]

Settings = dict[str, Any]
Floats = NDArray[np.float64]
Frames = list[tuple[Floats, Floats | None]]
Cases = list[tuple[Settings, Frames]]


def main() -> None:
    """Compare them where mlcolvar's graphs are known, in random systems, and where all is wrong."""
    makers = (
        reference_cases,
        random_cases,
        large_cases,
        lattice_cases,
        growing_cases,
        refused_cases,
    )
    for cases in (make() for make in makers):
        expected = [in_python(*case) for case in cases]
        for case, found, wanted in zip(cases, in_cpp(cases), expected, strict=True):
            assert found == wanted, (case[0], difference(found, wanted))
            print(summary(wanted))


def in_cpp(cases: Cases) -> list[Any]:
    """Return what the program says."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cases")
        file.write_text("".join(json.dumps(as_document(*case)) + "\n" for case in cases))
        done = subprocess.run([PROGRAM, file], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def as_document(settings: Settings, frames: Frames) -> Any:
    """Return a case as JSON, which has no infinity."""
    return {
        "settings": settings,
        "frames": [
            {"positions": in_json(positions), "box": None if box is None else in_json(box)}
            for positions, box in frames
        ],
    }


def in_json(values: Floats) -> list[Any]:
    """Return numbers, those that are not finite as text."""
    return [value if np.isfinite(value) else str(value) for value in values.ravel().tolist()]


def in_python(settings: Settings, frames: Frames) -> Any:
    """Return what Python finds, in the form of the program."""
    try:
        search = Neighbourhood(**settings)
    except (ValueError, IndexError) as error:
        return str(error)
    graphs: list[Any] = []
    for positions, box in frames:
        try:
            graph = search.find(positions, box)
        except ValueError as error:
            graphs.append(str(error))
            continue
        graphs.append({name: array.ravel().tolist() for name, array in vars(graph).items()})
    return {"graphs": graphs, "rebuilds": search.rebuilds}


def difference(found: Any, wanted: Any) -> Any:
    """Return the first thing that is not the same."""
    if isinstance(found, str) or isinstance(wanted, str):
        return found, wanted
    frames = enumerate(zip(found["graphs"], wanted["graphs"], strict=True))
    different = [(number, *graphs) for number, graphs in frames if graphs[0] != graphs[1]]
    return different[0] if different else (found["rebuilds"], wanted["rebuilds"])


def summary(found: Any) -> str:
    """Return a line on a case."""
    if isinstance(found, str):
        return found
    n_edges = [0 if isinstance(g, str) else len(g["long_range_mask"]) for g in found["graphs"]]
    return f"{len(n_edges)} frames, {found['rebuilds']} searches, {max(n_edges, default=0)} edges"


def reference_cases() -> Cases:
    """Return the frames of mlcolvar's tests, once without and once with a skin."""
    cases: Cases = []
    for file in sorted(REFERENCE.glob("*.npz")):
        data = np.load(file)
        numbers = data["all_atomic_numbers"]
        is_nacl = 11 in numbers
        system = np.flatnonzero(np.isin(numbers, [11, 17]) if is_nacl else numbers != 1).tolist()
        is_long = data["long_range_cutoff"] > 0
        frames: Frames = []
        for f in range(4):
            box = data[f"box_{f}"]
            frames.append((data[f"all_positions_{f}"], box if box.any() else None))
        for skin in (0.0, 1.0):
            settings = {
                "cutoff": float(data["cutoff"]),
                "n_atoms": len(numbers),
                "system": system,
                "environment": np.flatnonzero(numbers == 8).tolist() if is_nacl else None,
                "buffer": float(data["buffer"]),
                "long_range_cutoff": float(data["long_range_cutoff"]) if is_long else None,
                "subsystem": system if is_long else None,
                "skin": skin,
            }
            cases.append((settings, [frame for frame in frames for _ in range(2)]))
    return cases


def random_cases() -> Cases:
    """Return walks of atoms in boxes that breathe and shear, with cutoffs beyond the box."""
    random = np.random.default_rng(0)
    cases: Cases = []
    for number in range(60):
        box = BOXES[number % len(BOXES)]
        settings = random_settings(random, int(random.integers(1, 20)), 8.0)
        positions = random.uniform(-20.0, 20.0, (settings["n_atoms"], 3))
        if box is None:
            positions /= 3.0
        cases.append((settings, walk(random, positions, box, 30)))
    return cases


def large_cases() -> Cases:
    """Return systems in which vesin's cells are used."""
    random = np.random.default_rng(1)
    cases: Cases = []
    for box in BOXES:
        wide = None if box is None else 3.0 * box
        settings = random_settings(random, 900, 3.0) | {"system": list(range(450))}
        settings |= {"environment": list(range(451, 900)), "subsystem": None}
        settings["long_range_cutoff"] = None
        positions = random.uniform(-20.0, 20.0, (900, 3))
        cases.append((settings, walk(random, positions, wide, 3)))
    # Here vesin would divide by zero.
    line = np.arange(600.0)[:, None] * [0.4, 0.0, 0.0]
    line[-1, 0] = 1e7
    cases.append(({"cutoff": 0.5, "n_atoms": 600}, [(line, None)]))
    return cases


def growing_cases() -> Cases:
    """Return frames at the edge of where a search holds, in a box that grows and shrinks."""
    box = np.diag([10.0, 10.0, 10.0])
    pair = np.array([[1.0, 1.0, 1.0], [3.95, 1.0, 1.0]])
    step = np.array([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]])
    radii: list[Settings] = [
        {"cutoff": 2.0},
        {"cutoff": 0.5, "environment": [1], "buffer": 1.5},
        {"cutoff": 0.5, "long_range_cutoff": 2.0, "subsystem": [0, 1]},
    ]
    return [
        (
            settings | {"n_atoms": 2, "skin": 1.0},
            [(pair, box), (pair * factor + part * step, box * factor)],
        )
        for settings in radii
        for factor, part in itertools.product((0.666, 0.667, 1.0, 3.0), (0.0, 0.999, 1.001))
    ]


def lattice_cases() -> Cases:
    """Return simple cubic lattices, in which many pairs are exactly at the cutoff."""
    cases: Cases = []
    for n, skin in itertools.product((3, 8), (0.0, 0.05)):
        grid = 0.1 * np.array(list(itertools.product(range(n), repeat=3)))
        box = np.eye(3) * 0.1 * n
        settings = {"cutoff": 0.1, "n_atoms": n**3, "skin": skin}
        cases.append((settings, [(grid + start, box) for start in (0.0, 0.01, 7.7)]))
    return cases


def random_settings(random: np.random.Generator, n_atoms: int, longest: float) -> Settings:
    """Return a search in which system, environment and others are mixed."""
    atoms = random.permutation(n_atoms).tolist()
    n_system = int(random.integers(1, n_atoms + 1))
    n_around = int(random.integers(0, n_atoms - n_system + 1))
    cutoff = random.uniform(0.2, 1.0) * longest
    is_long = random.random() < 0.5
    return {
        "cutoff": cutoff,
        "n_atoms": n_atoms,
        "system": atoms[:n_system],
        "environment": atoms[n_system : n_system + n_around],
        "buffer": float(random.choice([0.0, 0.3 * longest])),
        "long_range_cutoff": random.uniform(1.01, 1.4) * cutoff if is_long else None,
        "subsystem": atoms[: random.integers(1, n_system + 1)] if is_long else None,
        "skin": float(random.choice([0.0, 1.0])),
    }


def walk(
    random: np.random.Generator, positions: Floats, box: Floats | None, n_frames: int
) -> Frames:
    """Return frames in which atoms and box move a little."""
    frames: Frames = []
    for _ in range(n_frames):
        positions = positions + random.normal(0.0, 0.05, positions.shape)
        if box is not None and random.random() < 0.7:
            strain = np.eye(3) + random.normal(0.0, 0.003, (3, 3))
            positions, box = positions @ strain, box @ strain
        frames.append((positions, box))
    return frames


def refused_cases() -> Cases:
    """Return settings and frames that make no sense."""
    good: Settings = {"cutoff": 2.0, "n_atoms": 5, "system": [0, 1], "environment": [3, 4]}
    changes: list[Settings] = [
        {"cutoff": 0.0},
        {"cutoff": -1.5},
        {"n_atoms": 0},
        {"buffer": -1.0},
        {"skin": -1e-7},
        {"environment": None, "buffer": 1.0},
        {"system": [0, 5]},
        {"system": [1, 0, 1]},
        {"system": []},
        {"system": None, "environment": [0, 1, 2, 3, 4]},
        {"environment": [-1]},
        {"environment": [4, 1]},
        {"long_range_cutoff": 3.0, "subsystem": [0, 3]},
        {"long_range_cutoff": 3.0, "subsystem": []},
        {"long_range_cutoff": 3.0},
        {"long_range_cutoff": -3.0, "subsystem": [0]},
        {"long_range_cutoff": 2.0, "subsystem": [0]},
        {"subsystem": [0]},
    ]
    x = np.arange(15.0).reshape(5, 3)
    fine = np.diag([9.0, 9.0, 9.0])
    frames: Frames = [
        (x, fine),
        (x[:4], None),
        (np.where(x == 7.0, np.nan, x), None),
        (np.where(x == 14.0, -np.inf, x), None),
        (x, np.diag([1.0, np.inf, 1.0])),
        (x, np.zeros((3, 3))),
        (x, np.diag([9.0, 9.0, 0.19])),
        (x * 1e12, fine),
        (x, fine),
    ]
    refused: Cases = [(good | change, []) for change in changes]
    assert all(isinstance(in_python(*case), str) for case in refused)
    return [*refused, (good, frames), (good | {"skin": 0.5}, frames)]


if __name__ == "__main__":
    main()
