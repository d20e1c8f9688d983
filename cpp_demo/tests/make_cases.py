"""Write the artifacts, inputs and float64 results that the C++ tests compare with.

Usage: make_cases.py FOLDER. Every case becomes ``<case>-<dtype>/model.pt`` with one folder per
batch, which holds a ``.npy`` file per input and, in float64, per output. The results are summed up
here from the frozen numbers with NumPy, not with the modules that were exported; those of
collective variables come from autograd. The cases in ``COMPILED`` hold a ``model.pt2`` as well, and
the folder ``refused`` some that do not run here.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

import ofcv_export as ofcv
from export_scripts.energy_network import CoefficientNetwork
from ofcv_export.descriptors.boundaries import Boundaries, OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.formats import FORMATS
from ofcv_export.runtimes.archive import checked_records

N_ATOMS = 7
N_FRAMES = 12
HYDROGEN, OXYGEN = "2x0e+1x1o", "6x0e+3x1o"
N_BASIS = 20
EPSILON = 1e-8
# Atoms of the collective variables among those of the engine.
CV_ATOMS = [7, 1, 4, 2, 0]
N_ENGINE_ATOMS = 9
BOHR = 0.529177210903
# Each takes some ten seconds to compile.
COMPILED = (
    "smart_derivatives-float32",
    "smart_derivatives_one_frame-float64",
    "sparse_chain_rule-float32",
    "rescaling_and_gradient-float64",
    "collective_variable_strided-float64",
)
OTHER_MACHINES = {
    "instruction_set": {"instruction_set": "x86_64 avx2 avx1024 avx2048"},
    "version": {"versions": {"torch": "1.99.0"}},
    "device": {"device": "xpu"},
}

Floats = NDArray[np.floating]


def main(folder: Path) -> None:
    """Write every case in both dtypes."""
    shutil.rmtree(folder, ignore_errors=True)
    for dtype in ("float32", "float64"):
        random = np.random.default_rng(0)
        write_chain_rules(folder, dtype, random)
        write_rescalings(folder, dtype, random)
    write_refused(folder / COMPILED[0] / "model.pt2", folder / "refused")
    write_collective_variables(folder, np.random.default_rng(0))
    write_functional(folder)


def export(module: Any, case: Path, **options: Any) -> None:
    """Export to TorchScript, and to AOTInductor where the case is to be compiled."""
    case.mkdir(parents=True)
    ofcv.export(module, case / "model.pt", **options)
    if case.name in COMPILED:
        ofcv.export(module, case / "model.pt2", **options)


def write_refused(path: Path, folder: Path) -> None:
    """Write packages with the metadata of another machine's, and with code that is none."""
    folder.mkdir()
    package = FORMATS[".pt2"]
    records = checked_records(path, path.read_bytes(), "a package")
    code = {name: data for name, data in records.items() if name.startswith("data/")}
    metadata = package.metadata(path.read_bytes(), path)
    for name, changes in OTHER_MACHINES.items():
        changed = msgspec.structs.replace(metadata, **changes)
        package.write(code, changed, folder / f"{name}.pt2")
    package.write({}, metadata, folder / "no_code.pt2")
    package.write(dict.fromkeys(code, b"no library"), metadata, folder / "no_library.pt2")


def write_chain_rules(folder: Path, dtype: str, random: np.random.Generator) -> None:
    """Write frozen datasets with and without several outputs, and a sparse chain rule."""
    positions = random.standard_normal((N_FRAMES, N_ATOMS, 3)).astype(dtype)
    pairs = torch.combinations(torch.arange(N_ATOMS))
    smart = ofcv.SmartDerivatives()
    smart.setup(
        {"data": torch.from_numpy(positions)},
        PairDistances(pairs, N_ATOMS, OrthorhombicBox(None, periodic=False)),
        N_ATOMS,
    )
    rule = smart.sparse_chain_rule()
    derivatives = smart.blocks().flatten(1).numpy()

    one, three, fixed, engine = (
        folder / f"{name}-{dtype}"
        for name in (
            *("smart_derivatives", "smart_derivatives_three_outputs"),
            *("smart_derivatives_one_frame", "sparse_chain_rule"),
        )
    )
    export(smart, one, length_unit="nm")
    export(smart, three, n_outputs=3)
    export(smart, fixed, batch=1)
    export(rule, engine)

    for batch in (1, 5, N_FRAMES):
        frames = random.integers(0, N_FRAMES, batch)
        x = random.standard_normal((batch, len(pairs), 3)).astype(dtype)
        result = chain_rule(rule.pattern, x, derivatives[frames])
        frozen = {"ref_idx": frames}
        save(three, batch, output_wrt_descriptors=x, output_wrt_positions=result, **frozen)
        single = {"output_wrt_descriptors": x[..., 0], "output_wrt_positions": result[..., 0]}
        save(one, batch, **single, **frozen)
        if batch == 1:
            save(fixed, batch, **single, **frozen)
        save(engine, batch, **single, descriptors_wrt_positions=derivatives[frames])
        write_xyz(engine / str(batch) / "positions.xyz", positions[frames])


def chain_rule(pattern: ofcv.SparsityPattern, x: Floats, derivatives: Floats) -> Floats:
    """Return d(out)/d(pos) in float64."""
    out = np.zeros((len(x), N_ATOMS, 3, x.shape[2]))
    blocks = derivatives.astype("float64").reshape(len(x), -1, 3, 1)
    terms = blocks * x[:, pattern.descriptor_index.numpy(), None]
    np.add.at(out, (slice(None), pattern.atom_index.numpy()), terms)
    return out


def write_rescalings(folder: Path, dtype: str, random: np.random.Generator) -> None:
    """Write rescalings of coefficients and of gradients, for any and for one molecule."""
    biases, stds = random.standard_normal((2, N_BASIS)).astype(dtype)
    max_grads = np.logspace(-3, 2, N_BASIS).astype(dtype)
    rescaling = ofcv.DimensionWiseRescaling(
        *(torch.from_numpy(values) for values in (biases, abs(stds) + 0.01, max_grads)),
        epsilon=EPSILON,
    )
    scales = rescaling.lambda_z.numpy().astype("float64")
    basis = ofcv.BasisInfo([1, 8], [HYDROGEN, OXYGEN])
    water = rescaling.for_molecule([8, 1, 1], basis)
    water_ind = basis.basis_function_ind([8, 1, 1])

    for gradient in (False, True):
        suffix = "_and_gradient" if gradient else ""
        any_molecule = folder / f"rescaling{suffix}-{dtype}"
        one_molecule = folder / f"molecule{suffix}-{dtype}"
        export(rescaling, any_molecule, gradient=gradient)
        export(water, one_molecule, gradient=gradient)
        for n in (1, len(water_ind), 300):
            is_water = n == len(water_ind)
            ind = water_ind if is_water else random.integers(0, N_BASIS, n)
            coeffs, gradients = random.standard_normal((2, n)).astype(dtype)
            arrays = {"coeffs": coeffs, "scaled_coeffs": scales[ind] * (coeffs - biases[ind])}
            scaled = {"scaled_gradient": gradients / (scales[ind] + EPSILON)}
            arrays |= {"gradient": gradients, **scaled} if gradient else {}
            save(any_molecule, n, **arrays, basis_function_ind=ind)
            if is_water:
                save(one_molecule, n, **arrays)


def write_collective_variables(folder: Path, random: np.random.Generator) -> None:
    """Write collective variables in float64 without a box and with boxes at run time."""
    torch.manual_seed(0)
    upright = np.diag([1.5, 2.0, 2.5])
    tilted = np.array([[1.5, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.25, 0.75, 2.5]])
    cases: dict[str, tuple[Boundaries | None, str, float, Floats | None]] = {
        "collective_variable": (None, "nm", 10.0, None),
        "collective_variable_triclinic": (RuntimeBox("triclinic"), "nm", 10.0, tilted),
        "collective_variable_orthorhombic": (RuntimeBox("orthorhombic"), "bohr", BOHR, upright),
    }
    for name, (boundaries, unit, angstrom, box) in cases.items():
        cv = collective_variable(boundaries, unit)
        case = folder / f"{name}-float64"
        export(cv, case)
        for batch in (1, 5):
            frames = random.standard_normal((batch, N_ENGINE_ATOMS, 3))
            save_collective_variable(case, cv, frames[:, CV_ATOMS], box)
            lattice = None if box is None else angstrom * box
            write_xyz(case / str(batch) / "positions.xyz", angstrom * frames, lattice)
    in_pm = collective_variable(None, "nm")
    in_pm.length_unit = "pm"  # no constructor takes it
    ofcv.export(in_pm, folder / "refused" / "length_unit.pt")

    cv = collective_variable(None, "nm")
    cv.network = torch.nn.Sequential(StridedScale(cv.descriptors.n_descriptors), cv.network)
    case = folder / "collective_variable_strided-float64"
    export(cv, case)
    save_collective_variable(case, cv, random.standard_normal((5, len(CV_ATOMS), 3)), None)


def collective_variable(boundaries: Boundaries | None, unit: str) -> ofcv.CollectiveVariable:
    """Return two functions of all distances."""
    pairs = PairDistances(all_pairs(len(CV_ATOMS)), len(CV_ATOMS), boundaries)
    first, last = torch.nn.Linear(pairs.n_descriptors, 8), torch.nn.Linear(8, 2)
    network = torch.nn.Sequential(first, torch.nn.Tanh(), last).double()
    return ofcv.CollectiveVariable(pairs, network, CV_ATOMS, unit)


def write_functional(folder: Path) -> None:
    """Write a functional of any molecules, whose number only the entries of an input tell."""
    torch.manual_seed(0)
    rescaling = ofcv.DimensionWiseRescaling(*torch.rand(3, N_BASIS, dtype=torch.float64))
    network = CoefficientNetwork(N_BASIS, 4, (8,)).double()
    functional = ofcv.EnergyFunctional(network, rescaling)
    ofcv.export(functional, folder / "functional.pt")
    ofcv.export(functional, folder / "functional.so", n=8)


class StridedScale(torch.nn.Module):
    """A factor for each descriptor, whose factors do not lie next to each other in memory."""

    def __init__(self, n_descriptors: int) -> None:
        super().__init__()
        factors = torch.linspace(0.5, 1.5, 3 * n_descriptors, dtype=torch.float64)
        self.register_buffer("factors", factors[::3])

    def forward(self, descriptors: torch.Tensor) -> torch.Tensor:
        return descriptors * self.factors


def save_collective_variable(
    case: Path, cv: ofcv.CollectiveVariable, positions: Floats, box: Floats | None
) -> None:
    """Write positions, the box and what autograd makes of them."""
    inputs = {"positions": positions} | ({} if box is None else {"box": box})
    outputs = cv.values_and_derivatives(*map(torch.from_numpy, inputs.values()))
    names = ("values", "derivatives", "box_derivatives")
    results = {name: output.numpy() for name, output in zip(names, outputs, strict=False)}
    save(case, len(positions), **inputs, **results)


def save(case: Path, batch: int, **arrays: NDArray[np.generic]) -> None:
    """Write the arrays of one batch."""
    (case / str(batch)).mkdir()
    for name, values in arrays.items():
        np.save(case / str(batch) / f"{name}.npy", np.ascontiguousarray(values))


def write_xyz(path: Path, frames: Floats, box: Floats | None = None) -> None:
    """Write extended XYZ with the positions in the last columns, to all digits."""
    comment = 'note="pos:R:3 here" Properties=species:S:1:id:I:1:pos:R:3'
    if box is not None:
        comment += f' Lattice="{" ".join(map(repr, box.flatten().tolist()))}"'
    lines = []
    for frame in frames.astype("float64").tolist():
        lines += [str(len(frame)), comment]
        lines += [f"C {i} {x!r} {y!r} {z!r}" for i, (x, y, z) in enumerate(frame)]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
