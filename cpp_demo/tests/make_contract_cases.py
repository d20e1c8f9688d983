"""Write the contract files that contract_tests calls as the engines do, and what must come out.

Usage: make_contract_cases.py FOLDER. Every case is a folder with ``model.pt``, the engine's inputs
and the results in float64, one ``.npy`` file each. Energies and forces come from the bias's own
autograd in its own units, converted here; a molecule that the box cuts was whole before it was cut
here.
"""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import Boundaries, OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.torsions import Torsions

ATOMS = [7, 1, 4, 2, 0]
ELEMENTS = ["C", "N", "O", "H", "S"]
NUMBERS = [6, 7, 8, 1, 16]
N_SYSTEM = 9
ANGSTROM, KCAL = 0.1, 4.184
BOX = torch.tensor([[2.4, 0, 0], [0.7, 2.1, 0], [-0.9, 0.6, 2.2]], dtype=torch.float64)


class ManyOperations(nn.Module):
    """A network with what files tend to freeze: indices, masks, new tensors, numbers."""

    def __init__(self, n_in: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_in + 1, 8), nn.GELU(), nn.Linear(8, 6), nn.LeakyReLU(0.1), nn.Linear(6, 2)
        ).to(dtype)
        with torch.no_grad():
            # Central differences must not meet the kink of the leaky ReLU.
            self.layers[2].bias.copy_(torch.linspace(-2.0, 2.0, 6))
        self.register_buffer("mean", torch.linspace(0.2, 0.4, n_in, dtype=dtype))
        self.register_buffer("order", torch.arange(n_in).flip(0))
        self.register_buffer("kept", torch.arange(n_in) % 3 > 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return two values."""
        x = torch.where(self.kept, (x - self.mean) / 0.3, 0.5 * x)
        x = torch.cat([x.index_select(1, self.order), torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        values: Tensor = self.layers(x)
        return values


def main(folder: Path) -> None:
    """Write every case."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        write_gromacs(folder / "gromacs", name, dtype)
        write_openmm(folder / "openmm", name, dtype)
        write_networks(folder / "networks", name, dtype)


def restraint(dtype: torch.dtype, box: Boundaries | None) -> ofcv.HarmonicRestraint:
    """Return a restraint of two collective variables of five atoms, in Angstrom and kcal/mol."""
    distances = PairDistances(all_pairs(5), 5, box)
    torsions = Torsions(torch.tensor([[0, 1, 2, 3]]), 5, ("sin", "cos"), box)
    n_in = distances.n_descriptors + torsions.n_descriptors
    network = nn.Sequential(nn.Linear(n_in, 6), nn.Tanh(), nn.Linear(6, 2)).to(dtype)
    with torch.no_grad():
        network[0].weight *= 0.3
    cv = ofcv.CollectiveVariable(
        MultipleDescriptors([distances, torsions]), network, ATOMS, "A", ELEMENTS
    )
    return ofcv.HarmonicRestraint(cv, [0.3, -0.4], [80.0, 30.0], "kcal/mol")


def molecule() -> Tensor:
    """Return positions of the system in nm, multiples of 1/1024, with a small molecule in it."""
    positions = torch.randn(N_SYSTEM, 3, dtype=torch.float64)
    positions[ATOMS] = torch.randn(3) + 0.15 * torch.randn(len(ATOMS), 3, dtype=torch.float64)
    return torch.round(positions * 1024) / 1024


def cut(positions: Tensor) -> Tensor:
    """Return positions moved by lattice vectors."""
    return positions + torch.randint(-2, 3, positions.shape).double() @ BOX


def judge(
    bias: ofcv.HarmonicRestraint, positions: Tensor, box: Tensor | None, **parameters: Tensor
) -> tuple[Tensor, Tensor]:
    """Return energy and forces of the whole system in kJ/mol and nm, in float64."""
    boxes = {} if box is None else {"box": box / ANGSTROM}
    exact = copy.deepcopy(bias).double()
    values, derivatives, *_ = exact.values_and_derivatives(
        positions[None, ATOMS] / ANGSTROM, **boxes, **parameters
    )
    forces = torch.zeros_like(positions)
    forces[ATOMS] = -derivatives[0, 0] * (KCAL / ANGSTROM)
    return values[0, 0] * KCAL, forces


def write(folder: Path, module: Any, contract: str, arrays: dict[str, Any], **options: Any) -> None:
    """Write one case."""
    folder.mkdir(parents=True)
    ofcv.export(module, folder / "model.pt", contract=contract, **options)
    for name, values in arrays.items():
        array = np.asarray(values, dtype="<i4" if name == "atom_numbers" else "<f8")
        np.save(folder / f"{name}.npy", array)


def write_gromacs(folder: Path, name: str, dtype: torch.dtype) -> None:
    """Write restraints of molecules that are whole, cut, and periodic."""
    numbers = np.full(N_SYSTEM, 2)
    numbers[ATOMS] = NUMBERS
    for title, boundaries in (("open", None), ("periodic", RuntimeBox("triclinic"))):
        bias, positions = restraint(dtype, boundaries), molecule()
        energy, forces = judge(bias, positions, BOX if boundaries else None)
        for energy_only in (False, True):
            case = f"{title}-{'energy' if energy_only else 'forces'}-{name}"
            group = range(N_SYSTEM) if energy_only else sorted(ATOMS)
            listed = ["atom-positions", "pbc", "box", "atom-numbers"]
            if not energy_only:
                listed.reverse()
            arrays = {
                "positions": cut(positions)[group],
                "box": BOX,
                "atom_numbers": numbers[group],
                "energy": energy,
                "forces": forces[group],
            }
            options = {"inputs": listed, "group": group, "energy_only": energy_only}
            write(folder / case, bias, "gromacs-nnpot", arrays, **options)
            (folder / case / "inputs.txt").write_text("\n".join(listed) + "\n")


def write_openmm(folder: Path, name: str, dtype: torch.dtype) -> None:
    """Write restraints with and without a box, and one made for another box than the engine's."""
    parameters = {
        "centre": torch.tensor([0.1, 0.2], dtype=torch.float64),
        "force_constant": torch.tensor([70.0, 20.0], dtype=torch.float64),
    }
    for title, boundaries, takes_box in (
        ("whole", None, False),
        ("open", None, True),
        ("periodic", RuntimeBox("triclinic"), True),
    ):
        bias, positions = restraint(dtype, boundaries), molecule()
        energy, forces = judge(bias, positions, BOX if boundaries else None, **parameters)
        arrays = {
            "positions": cut(positions) if takes_box else positions,
            "parameters": torch.cat(list(parameters.values())),
            "energy": energy,
            "forces": forces,
        }
        if takes_box:
            arrays["box"] = BOX
        for outputs_forces in (True, False):
            case = f"{title}-{'forces' if outputs_forces else 'energy'}-{name}"
            options = {"n_particles": N_SYSTEM, "forces": outputs_forces, "box": takes_box}
            write(folder / case, bias, "openmm-torch", arrays, **options)
    fixed = restraint(dtype, OrthorhombicBox(torch.tensor([20.0, 20.0, 20.0]), periodic=True))
    arrays = {"positions": molecule(), "parameters": arrays["parameters"], "box": BOX}
    write(folder / f"fixed-{name}", fixed, "openmm-torch", arrays, n_particles=N_SYSTEM, box=True)


def write_networks(folder: Path, name: str, dtype: torch.dtype) -> None:
    """Write a network and its derivatives."""
    n_in = 6
    network = ManyOperations(n_in, dtype)
    cv = ofcv.CollectiveVariable(PairDistances(all_pairs(4), 4), network)
    # Multiples of 1/1024, which are the same in both precisions.
    descriptors = torch.round(torch.rand(1, n_in, dtype=torch.float64) * 1024) / 1024
    exact = copy.deepcopy(network).double()
    gradients = torch.autograd.functional.jacobian(exact, descriptors)[0, :, 0]
    arrays = {
        "descriptors": descriptors,
        "values": exact(descriptors).detach(),
        "gradients": gradients,
    }
    for contract in ("plumed-pytorch", "colvars-torchann"):
        write(folder / f"{contract}-{name}", cv, contract, arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
