"""Write variables for the C++ tests of EngineVariable, with what autograd makes of them.

Usage: make_engine_cases.py FOLDER. ``<case>.pt``, ``.so`` come with ``<case>.json``: positions of
its atoms and a box in nm, and values, derivatives and strain derivatives in nm and, for energies,
kJ/mol.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import Boundaries, OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.contacts import Contacts
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.torsions import Torsions
from ofcv_export.integrations.captured_descriptor import CapturedDescriptor

CV = ofcv.CollectiveVariable
ATOMS = [6, 2, 3, 0]
ELEMENTS = ["O", "N", "C", "H"]
# Far from reduced, so that rounding fractional coordinates does not give nearest images.
BOX = np.array([[2.0, 0.0, 0.0], [2.5, 2.1, 0.0], [-4.4, 4.5, 1.9]])
KJ_PER_EV = 96.48533212331002


def main(folder: Path) -> None:
    """Write every case, and files that engines refuse."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    positions = np.cumsum(0.2 * random.standard_normal((4, 3)), axis=0)
    cut = positions + random.integers(-3, 4, (4, 3)) @ BOX
    runtime = cv(RuntimeBox("triclinic"))
    save(folder / "open", ofcv.HarmonicRestraint(cv(), 0.2, 50.0), positions)
    save(folder / "cut", ofcv.HarmonicRestraint(cv(), 0.2, 50.0), positions, given=cut)
    save(folder / "periodic", ofcv.HarmonicRestraint(runtime, 0.2, 50.0), positions, BOX)
    save(folder / "single", ofcv.HarmonicRestraint(cv().float(), 0.2, 50.0), positions)
    in_ev = ofcv.HarmonicRestraint(cv(unit="A"), 0.2, 50.0, "eV")
    save(folder / "angstrom", in_ev, positions, length=10.0, energy=KJ_PER_EV)
    moving = ofcv.MovingRestraint(cv(), [0.0, 4.0], [0.0, 1.0], [30.0, 50.0])
    save(folder / "moving", moving, positions, time=[1.0])
    late = ofcv.MovingRestraint(cv().float(), [1e8, 1e8 + 4], [0.0, 1.0], [30.0, 50.0])
    save(folder / "late", late, positions, time=[1e8 + 1])
    # Many turns away from the centre.
    torsion = Torsions(torch.tensor([[0, 1, 2, 3]]), 4)
    turning = CV(torsion, torch.nn.Linear(1, 1).double(), ATOMS, periods=0.7)
    save(folder / "torsion", ofcv.HarmonicRestraint(turning, 9.0, 50.0), positions)
    export(CV(torsion, torch.nn.Identity(), ATOMS), folder / "angle")
    save(folder / "several", cv(RuntimeBox("triclinic"), n_outputs=3), positions, BOX)
    # One descriptor has the box, the other none: the molecule is whole for both.
    pairs = PairDistances(torch.tensor([[0, 2], [1, 3]]), 4, RuntimeBox("triclinic"))
    torsions = Torsions(torch.tensor([[0, 1, 2, 3]]), 4, ("sin", "cos"))
    mixed = network(MultipleDescriptors([pairs, torsions]), n_outputs=2)
    save(folder / "mixed", mixed, positions, BOX, given=cut)
    # A position, which is not the same elsewhere.
    save(folder / "height", network(CapturedDescriptor(Height(), 4)), positions)

    export(cv(), folder / "five_frames", batch=5)
    fixed = OrthorhombicBox(torch.tensor([2.0, 2.1, 1.9], dtype=torch.float64), periodic=True)
    export(ofcv.Bias(cv(fixed)), folder / "fixed_box")
    own_switch = Contacts(torch.tensor([[0, 1]]), 4, lambda r: torch.exp(-r), fixed)
    export(network(own_switch), folder / "own_switch")
    export(cv(RuntimeBox("orthorhombic", scaled=True)), folder / "fractions")
    export(cv(RuntimeBox("orthorhombic")), folder / "orthorhombic")
    ofcv.export(cv(), folder / "network.pt", contract="plumed-pytorch")


class Height(torch.nn.Module):
    """The first atom's z."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return positions[:, 0, 2:]


def network(descriptors: ofcv.Descriptor, n_outputs: int = 1, unit: str = "nm") -> CV:
    """Return a network of descriptors."""
    torch.manual_seed(0)
    first, last = torch.nn.Linear(descriptors.n_descriptors, 8), torch.nn.Linear(8, n_outputs)
    layers = torch.nn.Sequential(first, torch.nn.Tanh(), last).double()
    return CV(descriptors, layers, ATOMS, unit, ELEMENTS)


def cv(box: Boundaries | None = None, **options: Any) -> CV:
    """Return a network of all distances between four atoms."""
    return network(PairDistances(all_pairs(4), 4, box=box), **options)


def export(variable: CV | ofcv.Bias, path: Path, batch: int | None = None) -> None:
    """Write a variable for LibTorch and as a library."""
    for suffix in (".pt", ".so"):
        ofcv.export(variable, path.with_suffix(suffix), batch)


def save(
    path: Path,
    variable: CV | ofcv.Bias,
    positions: np.ndarray,
    box: np.ndarray | None = None,
    *,
    given: np.ndarray | None = None,
    length: float = 1.0,
    energy: float = 1.0,
    **parameters: list[float],
) -> None:
    """Export a variable; `length` and `energy` are the factors to its unit and from it.

    The engine has the positions `given`, and a box where it has some.
    """
    export(variable, path)
    variable = variable.double()
    places = length * positions
    boxes = [] if box is None else [torch.tensor(length * box)]
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    values, gradients, *by_box = (
        energy * output[0].numpy()
        for output in variable.values_and_derivatives(torch.tensor(places)[None], *boxes, **tensors)
    )
    strains = np.einsum("ia,kib->kab", places, gradients)
    if box is not None:
        strains += np.einsum("ia,kib->kab", length * box, by_box[0])
    arrays = {
        "positions": positions if given is None else given,
        "box": BOX if given is not None else np.zeros(0) if box is None else box,
        **{"values": values, "derivatives": length * gradients, "strains": strains},
        "time": np.array(parameters.get("time", [0.0])),
    }
    content = {name: array.ravel().tolist() for name, array in arrays.items()}
    path.with_suffix(".json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
