"""A restraint of the number of oxygens around two ions, as a graph variable and as a formula."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

import ofcv_export as ofcv

# In Angstrom.
CUTOFF, BUFFER = 4.0, 1.0
CENTRE, FORCE_CONSTANT = 2.0, 3.0
N_WATERS = 20
SYMBOLS = ["Na", "Cl", *["O", "H", "H"] * N_WATERS]
SYSTEM = [0, 1]
ENVIRONMENT = list(range(2, len(SYMBOLS), 3))
BOXES = {
    "none": None,
    "orthorhombic": np.diag([8.5, 9.0, 9.5]),
    "triclinic": np.array([[8.5, 0.0, 0.0], [2.0, 9.0, 0.0], [-3.0, 2.5, 9.5]]),
    "small": np.diag([8.5, 6.0, 7.0]),
}


class Coordination(nn.Module):
    """Neighbours of the system's atoms, each counted as (1 - (r / cutoff)^2)^3 times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64))

    def forward(
        self, node_attrs: Tensor, edge_index: Tensor, edge_lengths: Tensor, system_mask: Tensor
    ) -> Tensor:
        counted = (1 - (edge_lengths / CUTOFF) ** 2) ** 3 * (node_attrs @ self.weights)[
            edge_index[0]
        ]
        return (counted * system_mask[edge_index[1]]).sum().reshape(1)


def coordination() -> ofcv.GraphCollectiveVariable:
    """Return the variable."""
    return ofcv.GraphCollectiveVariable(
        Coordination(), CUTOFF, ["O", "Na", "Cl"], SYSTEM, ENVIRONMENT, BUFFER
    )


def restraint() -> ofcv.HarmonicRestraint:
    """Return the restraint, in kJ/mol."""
    return ofcv.HarmonicRestraint(coordination(), CENTRE, FORCE_CONSTANT)


def sizes(suffix: str) -> dict[str, int]:
    """Return the largest graph of these atoms where a format has to know it."""
    return {"n_nodes": len(SYMBOLS), "n_edges": 2000} if suffix in (".c", ".so") else {}


def energy(positions: np.ndarray, box: np.ndarray | None) -> float:
    """Return the restraint's energy in kJ/mol by summing over all images; positions in Angstrom."""
    weight = {"O": 1.0, "Na": 0.6, "Cl": 0.3}
    lattice = np.zeros((3, 3)) if box is None else box
    if box is not None:
        fractions = positions @ np.linalg.inv(box)
        positions = (fractions - np.floor(fractions)) @ box
    shifts = [np.zeros(3)]
    if box is not None:
        shifts = [np.array(n) @ lattice for n in itertools.product((-2, -1, 0, 1, 2), repeat=3)]
    total = 0.0
    for receiver in SYSTEM:
        for sender in [*SYSTEM, *ENVIRONMENT]:
            for shift in shifts:
                r = np.linalg.norm(positions[receiver] - positions[sender] + shift)
                if 0 < r < CUTOFF:
                    total += weight[SYMBOLS[sender]] * (1 - (r / CUTOFF) ** 2) ** 3
    return 0.5 * FORCE_CONSTANT * (total - CENTRE) ** 2


def positions(seed: int = 0) -> np.ndarray:
    """Return positions in Angstrom, some of them a box or two away from the others."""
    random = np.random.default_rng(seed)
    return random.uniform(-3.0, 9.0, (len(SYMBOLS), 3))


def by_differences(function, x: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Return the gradient of a function of an array by central differences."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient
