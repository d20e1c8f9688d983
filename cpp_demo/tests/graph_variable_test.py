"""Graph variables in C++ give the formula's energy, and forces and strains as in Python.

Usage: graph_variable_test.py PROGRAM. What is said of errors is the same, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import ofcv_export as ofcv
from ofcv_export.engines.graph_bias import load_bias
from tests.builders.graph_biases import (
    BOXES,
    CENTRE,
    FORCE_CONSTANT,
    SYMBOLS,
    energy,
    positions,
    restraint,
    sizes,
)

PROGRAM = Path(sys.argv[1])
# The positions are in Angstrom, the engine's in nm.
NM = 0.1


def main() -> None:
    """Compare both languages on one file in each format."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".pt", ".pt2", ".so"):
            path = Path(folder) / f"restraint{suffix}"
            ofcv.export(restraint(), path, **sizes(suffix))
            compare_frames(path)
            compare_refusals(path)
            print(f"{suffix}: same numbers and same words")
        path = Path(folder) / "renumbered.pt"
        ofcv.export(restraint(), path)
        compare_other_atoms(path)


def in_cpp(documents: list[dict[str, Any]]) -> list[Any]:
    """Return what the program says."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cases")
        file.write_text("".join(json.dumps(document) + "\n" for document in documents))
        done = subprocess.run([PROGRAM, file], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def engine(path: Path, **options: Any) -> Any:
    """Return the bias in Python, in the same units."""
    known: dict[str, Any] = {"n_atoms": len(SYMBOLS), "elements": SYMBOLS, "periodic": True}
    return load_bias(path, length_unit="nm", energy_unit="kJ/mol", **(known | options))


def frame(x: np.ndarray, box: np.ndarray | None) -> dict[str, Any]:
    """Return a frame in nm as the program takes it."""
    lattice = None if box is None else (NM * box).flatten().tolist()
    return {"positions": (NM * x).flatten().tolist(), "box": lattice}


def compare_frames(path: Path) -> None:
    """Compare frames of all boxes with the formula and with Python, on one object."""
    python = engine(path)
    frames = [(positions(seed), box) for seed in range(3) for box in BOXES.values()]
    document = {
        "model": str(path),
        "n_atoms": len(SYMBOLS),
        "elements": SYMBOLS,
        "frames": [frame(x[python.atoms], box) for x, box in frames],
    }
    (found,) = in_cpp([document])
    assert found["atoms"] == python.atoms.tolist()
    for (x, box), here in zip(frames, found["frames"], strict=True):
        assert abs(here["value"] - energy(x, box)) < 1e-9 * energy(x, box), here["value"]
        there = python.evaluate(NM * x[python.atoms], None if box is None else NM * box)
        forces = -np.reshape(here["derivatives"], (-1, 3))
        np.testing.assert_allclose(forces, there.forces, atol=1e-9)
        np.testing.assert_allclose(np.reshape(here["strain"], (3, 3)), there.strain_derivative)
    # The same positions a step later, and other parameters.
    x, box = frames[1]
    document["frames"] = [frame(x[python.atoms] + 1e-3 * k, box) for k in range(5)]
    document["parameters"] = {"centre": [CENTRE], "force_constant": [2 * FORCE_CONSTANT]}
    (found,) = in_cpp([document])
    assert found["rebuilds"] == 1, found["rebuilds"]
    assert abs(found["frames"][0]["value"] - 2 * energy(x, box)) < 1e-9 * energy(x, box)


def compare_other_atoms(path: Path) -> None:
    """Compare the same water with its atoms in another order, as the engine says."""
    x, box = positions(), BOXES["triclinic"]
    turned = np.arange(len(SYMBOLS))[::-1]
    python = engine(path)
    last = len(SYMBOLS) - 1
    atoms = {
        "system": [last - atom for atom in python.atoms[:2].tolist()],
        "environment": [last - atom for atom in python.atoms[2:].tolist()],
        "elements": [SYMBOLS[atom] for atom in python.atoms],
    }
    chosen = [*atoms["system"], *atoms["environment"]]
    document = {
        "model": str(path),
        "n_atoms": len(SYMBOLS),
        "atoms": atoms,
        "frames": [frame(x[turned][chosen], box)],
    }
    (found,) = in_cpp([document])
    assert abs(found["frames"][0]["value"] - energy(x, box)) < 1e-9 * energy(x, box)
    print("other atoms: same energy")


def compare_refusals(path: Path) -> None:
    """Compare what is said of elements, atoms and boxes that do not fit."""
    x = positions()
    wrong = ["K", *SYMBOLS[1:]]
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"elements": wrong}, lambda: engine(path, elements=wrong)),
        ({"n_atoms": 9}, lambda: engine(path, n_atoms=9)),
    ]
    for changes, fails in cases:
        document = {"model": str(path), "n_atoms": len(SYMBOLS), "elements": SYMBOLS, "frames": []}
        (found,) = in_cpp([document | changes])
        assert found == said(fails), (found, said(fails))
    (found,) = in_cpp([{"model": str(path), "n_atoms": len(SYMBOLS), "frames": []}])
    assert found == "elements: expected chemical symbols of the atoms, got none", found
    python = engine(path)
    thin = np.diag([9.0, 9.0, 0.5])
    document = {
        "model": str(path),
        "n_atoms": len(SYMBOLS),
        "elements": SYMBOLS,
        "frames": [frame(x[python.atoms], thin)],
    }
    (found,) = in_cpp([document])
    expected = said(lambda: python.evaluate(NM * x[python.atoms], NM * thin))
    assert found["frames"] == [expected], (found["frames"], expected)


def said(call: Any) -> str:
    """Return the message of the error that a call raises."""
    try:
        call()
    except (ValueError, IndexError) as error:
        return str(error)
    raise AssertionError("expected an error, got none")


if __name__ == "__main__":
    main()
