"""Run ofcv_demo as a user would. Usage: demo_test.py PROGRAM CASES."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from program import fails, run_tests, succeeds

import ofcv_export as ofcv

CASES = Path(sys.argv[2])
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def require_close(path: str, expected: Path, dtype: str) -> None:
    """The two files must agree as well as the dtype allows."""
    got, wanted = np.load(path), np.load(expected)
    assert (got.dtype, got.shape) == (dtype, wanted.shape), (got.dtype, got.shape)
    assert abs(got - wanted).max() <= TOLERANCE[dtype] * abs(wanted).max()


def require_same(path: str, other: str) -> None:
    """The two files must be the same."""
    assert Path(path).read_bytes() == Path(other).read_bytes()


def test_frozen_dataset(dtype: str) -> None:
    """By position, by name and with the frames counted."""
    case = CASES / f"smart_derivatives-{dtype}"
    x, ind = (case / "5" / f"{name}.npy" for name in ("output_wrt_descriptors", "ref_idx"))
    model = f"--model {case}/model.pt --repeat 3 --input {x}"
    printed = succeeds(model, f"--input {ind} --output a.npy")
    assert "smart_derivatives (torchscript)" in printed, printed
    assert f"output_wrt_descriptors: {dtype} (5, 21), from {x}" in printed, printed
    assert "written to a.npy" in printed, printed
    assert "us per call on cpu with 1 thread " in printed, printed
    require_close("a.npy", case / "5" / "output_wrt_positions.npy", dtype)
    succeeds(model, f"--input ref_idx={ind} --output output_wrt_positions=b.npy --threads 2")
    require_same("a.npy", "b.npy")

    np.save("counted.npy", np.arange(5))
    assert "counted from 0" in succeeds(model, "--output c.npy")
    succeeds(model, "--input counted.npy --output d.npy")
    require_same("c.npy", "d.npy")


def test_positions(dtype: str) -> None:
    """For pair distances the demo differentiates the descriptors, as an engine would."""
    case = CASES / f"sparse_chain_rule-{dtype}"
    x, frames = case / "5" / "output_wrt_descriptors.npy", case / "5" / "positions.xyz"
    for file in (frames, f"positions={frames}"):
        inputs = f"--input {file} --input {x} --output out.npy"
        printed = succeeds(f"--model {case}/model.pt", inputs)
        assert f"from the positions in {frames} (5 frames)" in printed, printed
        require_close("out.npy", case / "5" / "output_wrt_positions.npy", dtype)


def test_compiled(dtype: str) -> None:
    """An AOTInductor package is used as any artifact."""
    name = {"float32": "sparse_chain_rule", "float64": "smart_derivatives_one_frame"}[dtype]
    case = CASES / f"{name}-{dtype}"
    batch = case / {"float32": "5", "float64": "1"}[dtype]
    second = {"float32": "positions.xyz", "float64": "ref_idx.npy"}[dtype]
    model = f"--model {case}/model.pt2"
    inputs = f"--input {batch}/output_wrt_descriptors.npy --input {batch}/{second}"
    printed = succeeds(model, inputs, "--output out.npy")
    assert f"{name.removesuffix('_one_frame')} (aotinductor)" in printed, printed
    require_close("out.npy", batch / "output_wrt_positions.npy", dtype)
    assert json.loads(succeeds(model, "--metadata"))["instruction_set"]


def test_library(dtype: str) -> None:
    """A shared library is used as any artifact, for any number of coefficients."""
    rescaling = ofcv.DimensionWiseRescaling(*(torch.rand(3, 7) + 0.1).to(getattr(torch, dtype)))
    ofcv.export(rescaling, "rescaling.so")
    for n in (1, 70):
        coeffs, index = torch.randn(n).to(getattr(torch, dtype)), torch.randint(7, (n,))
        np.save("coeffs.npy", coeffs.numpy())
        np.save("index.npy", index.numpy())
        inputs = "--input coeffs.npy --input basis_function_ind=index.npy"
        printed = succeeds("--model rescaling.so", inputs, "--output out.npy")
        assert "dimension_wise_rescaling (so)" in printed, printed
        scale, bias = rescaling.lambda_z[index], rescaling.coeff_biases[index]
        np.save("expected.npy", (scale * (coeffs - bias)).numpy())
        require_close("out.npy", Path("expected.npy"), dtype)


def test_rescaling(dtype: str) -> None:
    """Two outputs go to two files."""
    case = CASES / f"rescaling_and_gradient-{dtype}"
    names = ("coeffs", "basis_function_ind", "gradient")
    model = f"--model {case}/model.pt " + " ".join(f"--input {case}/300/{n}.npy" for n in names)
    succeeds(model, "--output scaled_gradient=g.npy --output scaled_coeffs=c.npy")
    require_close("c.npy", case / "300" / "scaled_coeffs.npy", dtype)
    require_close("g.npy", case / "300" / "scaled_gradient.npy", dtype)
    message = "--output: expected NAME=FILE for a model with several outputs, got 'c.npy'"
    fails(message, model, "--output c.npy")


def test_collective_variable() -> None:
    """The artifact's atoms, in its unit, come from frames in Angstrom."""
    case = CASES / "collective_variable-float64"
    frames = case / "5" / "positions.xyz"
    for source in (frames, f"positions={frames}", case / "5" / "positions.npy"):
        outputs = "--output values=v.npy --output derivatives=d.npy"
        printed = succeeds(f"--model {case}/model.pt --input {source}", outputs)
        assert "positions: float64 (5, 5, 3), from " in printed, printed
        require_close("v.npy", case / "5" / "values.npy", "float64")
        require_close("d.npy", case / "5" / "derivatives.npy", "float64")


def test_lattice() -> None:
    """The box comes from the frames unless there is a file of its own for it."""
    for name in ("triclinic", "orthorhombic"):
        case = CASES / f"collective_variable_{name}-float64"
        frames, box = case / "5" / "positions.xyz", case / "5" / "box.npy"
        text = frames.read_text()
        Path("none.xyz").write_text(text.replace("Lattice", "Other"))
        Path("other.xyz").write_text(text.replace('Lattice="', 'Lattice="9'))
        results = ("values", "derivatives", "box_derivatives")
        outputs = " ".join(f"--output {result}={result}.npy" for result in results)
        for inputs, source in (
            (f"--input {frames}", f"{frames} (5 frames)"),
            (f"--input none.xyz --input {box}", box),
            (f"--input box={box} --input other.xyz", box),
        ):
            printed = succeeds(f"--model {case}/model.pt", inputs, outputs)
            assert f"box: float64 (3, 3), from {source}\n" in printed, printed
            for result in results:
                require_close(f"{result}.npy", case / "5" / f"{result}.npy", "float64")


def test_trajectory_errors() -> None:
    """Frames that an artifact cannot take, and boxes that are none."""
    triclinic, orthorhombic = (
        CASES / f"collective_variable_{name}-float64" / "model.pt"
        for name in ("triclinic", "orthorhombic")
    )
    cubic, tilted = "40 0 0 0 40 0 0 0 40", "40 0 0 4 40 0 0 0 40"

    def refused(message: str, *lattices: str, model: Path = triclinic, n_atoms: int = 8) -> None:
        """Frames with these lattices must end in this message."""
        atoms = [f"C {i} {i * i} 0.5" for i in range(n_atoms)]
        frames = [[str(n_atoms), f'Lattice="{lattice}"', *atoms] for lattice in lattices]
        Path("frames.xyz").write_text("\n".join(line for frame in frames for line in frame))
        fails(message, f"--model {model} --input frames.xyz")

    refused("positions: expected at least 8 atoms, got 7 in frame 0", cubic, n_atoms=7)
    unknown_unit = CASES / "refused" / "length_unit.pt"
    message = "length_unit: expected nm, A, angstrom, bohr, got pm"
    refused(message, cubic, model=unknown_unit)
    for none in ("", "1 0 0 0 1 0 0 0 1"):
        refused("box: expected lattice vectors, got none in frame 1", cubic, none)
    message = 'box: expected a periodic system, got one with pbc="T F T" in frame 1'
    refused(message, f'{cubic}" pbc="T T T', f'{cubic}" pbc="T F T')
    message = "box: expected one box for all frames, got others from frame 2"
    refused(message, cubic, cubic, tilted)
    lattice = 'Lattice="ax ay az bx by bz cx cy cz"'
    refused(f"frames.xyz, line 2: expected {lattice}, got '40 40 40'", "40 40 40")
    flat = "[[4.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 4.0]]"
    message = f"box: expected linearly independent vectors, got {flat}"
    refused(message, "40 0 0 40 0 0 0 0 40")
    np.save("box.npy", np.array([[3.0, 0, 0], [0.5, 3, 0], [0, 0, 3]]))
    message = "box: expected positive lengths along x, y and z and zeros, got [[3.0, 0.0, 0.0], "
    frames = f"--model {orthorhombic} --input frames.xyz"
    fails(f"{message}[0.5, 3.0, 0.0], [0.0, 0.0, 3.0]]", frames, "--input box.npy")
    fails("--input: expected one file for positions, got two", frames, "--input frames.xyz")


def test_information() -> None:
    """--help and --metadata run nothing."""
    assert succeeds("--help").startswith("usage: ofcv_demo")
    metadata = json.loads(succeeds(f"--model {CASES}/molecule-float64/model.pt --metadata"))
    assert (metadata["schema"], metadata["details"]["kind"]) == (2, "dimension_wise_rescaling")


def test_errors() -> None:
    """Code 2, one line, nothing written and nothing overwritten."""
    case = CASES / "smart_derivatives-float32"
    x = case / "5" / "output_wrt_descriptors.npy"
    model, other_cpu = f"--model {case}/model.pt", CASES / "refused" / "instruction_set.pt2"
    run = f"{model} --input {x} --output out.npy"
    Path("out.npy").write_text("old")
    np.save("far.npy", np.full(5, 12))
    foreign = f"model: expected an ofcv-export artifact, got '{x}' (not a TorchScript archive)"
    lists = "arguments: expected an option that --help lists"
    cpu = "model: expected an artifact for this CPU, got one that needs avx1024 avx2048"
    given, out = "--input: expected", "--output: expected"
    xyz = (
        f"{given} a .npy file for every input, got an .xyz file (only a collective_variable and a "
        "sparse_chain_rule of pairwise_distances without a box take one)"
    )
    for message, words in (
        ("--model: expected a file, got nothing", ""),
        ("--model: expected a value, got nothing", "--model"),
        (f"{lists}, got '--frames'", "--frames"),
        ("--repeat: expected a positive integer, got '0'", f"{run} --repeat 0"),
        ("--threads: expected a positive integer, got 'x'", f"{run} --threads x"),
        ("device: expected cpu, cuda or cuda:<index>, got 'gpu'", f"{run} --device gpu"),
        ("model: expected an existing file, got 'no.pt'", "--model no.pt"),
        (foreign, f"--model {x} --input {x}"),
        (foreign, f"--model {x} --metadata"),
        (cpu, f"--model {other_cpu}"),
        (f"{given} a file for output_wrt_descriptors, got none", model),
        (f"{given} one of output_wrt_descriptors, ref_idx, got 'b'", f"{run} --input b={x}"),
        (
            f"{given} one file for ref_idx, got two",
            f"{run} --input ref_idx={x} --input ref_idx={x}",
        ),
        (f"{given} 2 files at most, got 3", f"{run} --input {x} --input {x}"),
        ("no.npy: expected a readable file, got none", f"{run} --input no.npy"),
        ("ref_idx: expected shape (batch,), got (5, 21)", f"{run} --input {x}"),
        (xyz, f"{model} --input a.xyz"),
        (f"{out} one of output_wrt_positions, got 'f'", f"{model} --input {x} --output f=a.npy"),
        (f"{out} a place to write to, got 'a/b.npy'", f"{model} --input {x} --output a/b.npy"),
        ("ref_idx: expected indices in [0, 12), got 12 at position 0", f"{run} --input far.npy"),
    ):
        fails(message, words)
    if not torch.cuda.is_available():
        no_cuda = "device: expected cpu (this machine or LibTorch has no CUDA), got 'cuda'"
        fails(no_cuda, run, "--device cuda")
    assert Path("out.npy").read_text() == "old"


if __name__ == "__main__":
    for test in (test_frozen_dataset, test_positions, test_compiled, test_library, test_rescaling):
        run_tests(*(partial(test, dtype) for dtype in TOLERANCE))
    run_tests(test_collective_variable, test_lattice, test_trajectory_errors)
    run_tests(test_information, test_errors)
