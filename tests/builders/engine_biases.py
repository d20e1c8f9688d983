"""Biases that the tests put into several engines, double precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import Boundaries
from ofcv_export.descriptors.distances import PairDistances

# The artifacts' atoms in the engine, not in order, and their elements.
ATOMS = [5, 2, 0]
ELEMENTS = ["O", "N", "C"]
# The restrained pair, in the engine.
PAIR = (5, 0)
# Angstrom and eV.
CENTRE, FORCE_CONSTANT = 3.0, 2.0
KJ_PER_MOL = 96.48533212331002
# In the unit of length: the Angstrom.
ANGSTROM = {"A": 1.0, "nm": 0.1}


def distance_cv(
    length_unit: str = "A", box: Boundaries | None = None, **options: Any
) -> ofcv.CollectiveVariable:
    """Return the distance of the pair."""
    identity = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(identity.weight)
    descriptors = PairDistances(torch.tensor([[0, 2]]), len(ATOMS), box)
    given = {"atoms": ATOMS, "elements": ELEMENTS, **options}
    return ofcv.CollectiveVariable(descriptors, identity, length_unit=length_unit, **given)


def distance_restraint(
    length_unit: str = "A", energy_unit: str = "eV", **options: Any
) -> ofcv.HarmonicRestraint:
    """Return the restraint of the pair's distance, the same energy in every unit."""
    length = ANGSTROM[length_unit]
    energy = {"eV": 1.0, "kJ/mol": KJ_PER_MOL}[energy_unit]
    return ofcv.HarmonicRestraint(
        distance_cv(length_unit, **options),
        CENTRE * length,
        FORCE_CONSTANT * energy / length**2,
        energy_unit,
    )


def pulling_restraint() -> ofcv.MovingRestraint:
    """Return a restraint whose centre moves from 3 to 4 Angstrom between 0.01 and 0.05 ps."""
    force_constants = [FORCE_CONSTANT, FORCE_CONSTANT]
    return ofcv.MovingRestraint(distance_cv(), [0.01, 0.05], [3.0, 4.0], force_constants, "eV")


def network_bias(box: Boundaries | None = None) -> ofcv.Bias:
    """Return a network of three distances, in nm and kJ/mol."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    with torch.no_grad():
        # Sensitive to distances of tenths of a nanometre, and strong.
        network[0].weight.mul_(20.0)
        network[2].weight.mul_(50.0)
    descriptors = PairDistances(torch.tensor([[0, 1], [0, 2], [1, 2]]), len(ATOMS), box)
    return ofcv.Bias(ofcv.CollectiveVariable(descriptors, network, ATOMS, "nm"), "kJ/mol")
