"""Descriptors other than distances in the benchmark of one MD step, .c against .pt2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import ofcv_export as ofcv
from benchmarks.md_step.steps import compile_source, network, random_positions
from ofcv_export.descriptors import CoordinationNumbers, Fermi, PairDistances, RuntimeBox, Torsions
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import all_pairs

WIDTHS = (32, 32)
BOX = torch.tensor([[1.4, 0.0, 0.0], [0.3, 1.3, 0.0], [0.2, -0.4, 1.5]])


@dataclass(frozen=True)
class Other:
    """A collective variable of other descriptors."""

    name: str
    n_atoms: int
    descriptors: Callable[[], Descriptor]
    is_in_box: bool = False

    def write_files(self, folder: Path) -> None:
        """Write what the ways run."""
        descriptors = self.descriptors()
        cv = ofcv.CollectiveVariable(descriptors, network(descriptors.n_descriptors, *WIDTHS))
        random_positions(self.n_atoms).numpy().tofile(folder / "positions.bin")
        if self.is_in_box:
            BOX.numpy().tofile(folder / "box.bin")
        ofcv.export(cv, folder / "cv.pt2", batch=1)
        compile_source(cv, folder)


def torsions() -> Descriptor:
    """Return sine and cosine of 20 torsions of a chain."""
    return Torsions(torch.arange(20).unsqueeze(1) + torch.arange(4), 23, ("sin", "cos"))


def coordination_numbers() -> Descriptor:
    """Return coordination numbers of 8 atoms by 200 others."""
    return CoordinationNumbers(torch.arange(8), torch.arange(8, 208), 208, Fermi(0.9, q=0.3))


def distances_in_a_box() -> Descriptor:
    """Return all distances of 10 atoms in a triclinic box that comes with every call."""
    return PairDistances(all_pairs(10), 10, box=RuntimeBox("triclinic"))


OTHERS = (
    Other("20 torsions, sine and cosine", 23, torsions),
    Other("8 coordination numbers, 200 atoms", 208, coordination_numbers),
    Other("45 distances, triclinic box", 10, distances_in_a_box, is_in_box=True),
)
