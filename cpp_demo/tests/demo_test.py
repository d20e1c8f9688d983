"""Run ofcv_demo as a user would. Usage: demo_test.py PROGRAM CASES."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

PROGRAM, CASES = Path(sys.argv[1]), Path(sys.argv[2])
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def demo(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo in a folder."""
    words = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def succeeds(*arguments: object, folder: Path) -> str:
    """Return what the demo prints; it must succeed and complain about nothing."""
    done = demo(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


def fails(message: str, *arguments: object, folder: Path) -> None:
    """The demo must end with code 2 and this one line, and leave no file behind."""
    before = sorted(folder.iterdir())
    done = demo(*arguments, folder=folder)
    assert done.returncode == 2, (arguments, done)
    assert done.stderr == f"ofcv_demo: {message}\n", done.stderr
    assert done.stdout == "", done.stdout
    assert sorted(folder.iterdir()) == before


def require_close(path: Path, expected: Path, dtype: str) -> None:
    """The two files must agree as well as the dtype allows."""
    got, wanted = np.load(path), np.load(expected)
    assert (got.dtype, got.shape) == (dtype, wanted.shape), (got.dtype, got.shape)
    assert abs(got - wanted).max() <= TOLERANCE[dtype] * abs(wanted).max()


def test_frozen_dataset(folder: Path, dtype: str) -> None:
    """By position, by name and with the frames counted."""
    case = CASES / f"smart_derivatives-{dtype}"
    x, ind = (case / "5" / f"{name}.npy" for name in ("output_wrt_descriptors", "ref_idx"))
    expected = case / "5" / "output_wrt_positions.npy"
    model = ("--model", case / "model.pt", "--repeat", 3)
    printed = succeeds(*model, "--input", x, "--input", ind, "--output", "a.npy", folder=folder)
    assert "smart_derivatives (torchscript)" in printed, printed
    assert f"output_wrt_descriptors: {dtype} (5, 21), from {x}" in printed, printed
    assert "written to a.npy" in printed, printed
    assert "us per call on cpu with 1 thread " in printed, printed
    require_close(folder / "a.npy", expected, dtype)
    named = ("--input", f"ref_idx={ind}", "--input", x, "--output", "output_wrt_positions=b.npy")
    succeeds(*model, *named, "--threads", 2, folder=folder)
    assert (folder / "a.npy").read_bytes() == (folder / "b.npy").read_bytes()

    np.save(folder / "counted.npy", np.arange(5))
    assert "counted from 0" in succeeds(*model, "--input", x, "--output", "c.npy", folder=folder)
    counted = ("--input", x, "--input", "counted.npy", "--output", "d.npy")
    succeeds(*model, *counted, folder=folder)
    assert (folder / "c.npy").read_bytes() == (folder / "d.npy").read_bytes()


def test_positions(folder: Path, dtype: str) -> None:
    """For pair distances the demo differentiates the descriptors, as an engine would."""
    case = CASES / f"sparse_chain_rule-{dtype}"
    x, frames = case / "5" / "output_wrt_descriptors.npy", case / "5" / "positions.xyz"
    for number, file in enumerate((frames, f"positions={frames}")):
        inputs = ("--input", file, "--input", x, "--output", f"{number}.npy")
        printed = succeeds("--model", case / "model.pt", *inputs, folder=folder)
        assert f"from the positions in {frames} (5 frames)" in printed, printed
        require_close(folder / f"{number}.npy", case / "5" / "output_wrt_positions.npy", dtype)


def test_collective_variable(folder: Path) -> None:
    """The artifact's atoms, in its unit, come from frames in Angstrom."""
    case = CASES / "collective_variable-float64"
    frames = case / "5" / "positions.xyz"
    outputs = ("--output", "values=v.npy", "--output", "derivatives=d.npy")
    for source in (frames, f"positions={frames}", case / "5" / "positions.npy"):
        model = ("--model", case / "model.pt")
        printed = succeeds(*model, "--input", source, *outputs, folder=folder)
        assert "positions: float64 (5, 5, 3), from " in printed, printed
        require_close(folder / "v.npy", case / "5" / "values.npy", "float64")
        require_close(folder / "d.npy", case / "5" / "derivatives.npy", "float64")


def test_lattice(folder: Path) -> None:
    """The box comes from the frames unless there is a file of its own for it."""
    for name in ("triclinic", "orthorhombic"):
        case = CASES / f"collective_variable_{name}-float64"
        frames, box = case / "5" / "positions.xyz", case / "5" / "box.npy"
        text = frames.read_text()
        (folder / "none.xyz").write_text(text.replace("Lattice", "Other"))
        (folder / "other.xyz").write_text(text.replace('Lattice="', 'Lattice="9'))
        results = ("values", "derivatives", "box_derivatives")
        outputs = [word for result in results for word in ("--output", f"{result}={result}.npy")]
        for inputs in (
            ("--input", frames),
            ("--input", "none.xyz", "--input", box),
            ("--input", f"box={box}", "--input", "other.xyz"),
        ):
            printed = succeeds("--model", case / "model.pt", *inputs, *outputs, folder=folder)
            source = box if len(inputs) > 2 else f"{frames} (5 frames)"
            assert f"box: float64 (3, 3), from {source}\n" in printed, printed
            for result in results:
                require_close(folder / f"{result}.npy", case / "5" / f"{result}.npy", "float64")


def test_trajectory_errors(folder: Path) -> None:
    """Frames that an artifact cannot take, and boxes that are none."""
    triclinic, orthorhombic = (
        CASES / f"collective_variable_{name}-float64" / "model.pt"
        for name in ("triclinic", "orthorhombic")
    )
    cubic, tilted = "40 0 0 0 40 0 0 0 40", "40 0 0 4 40 0 0 0 40"

    def refused(message: str, model: Path, *lattices: str, n_atoms: int = 8) -> None:
        """Frames with these lattices must end in this message."""
        atoms = [f"C {i} {i * i} 0.5" for i in range(n_atoms)]
        frames = [[str(n_atoms), f'Lattice="{lattice}"', *atoms] for lattice in lattices]
        (folder / "frames.xyz").write_text("\n".join(line for frame in frames for line in frame))
        fails(message, "--model", model, "--input", "frames.xyz", folder=folder)

    refused("positions: expected at least 8 atoms, got 7 in frame 0", triclinic, cubic, n_atoms=7)
    refused(
        "length_unit: expected nm, A, angstrom, bohr, got pm",
        CASES / "refused" / "length_unit.pt",
        cubic,
    )
    refused("box: expected lattice vectors, got none in frame 1", triclinic, cubic, "")
    refused(
        "box: expected one box for all frames, got others from frame 2",
        *(triclinic, cubic, cubic, tilted),
    )
    refused(
        "frames.xyz, line 2: expected Lattice=\"ax ay az bx by bz cx cy cz\", got '40 40 40'",
        *(triclinic, "40 40 40"),
    )
    refused(
        "box: expected linearly independent vectors, "
        "got [[4.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 4.0]]",
        *(triclinic, "40 0 0 40 0 0 0 0 40"),
    )
    np.save(folder / "box.npy", np.array([[3.0, 0, 0], [0.5, 3, 0], [0, 0, 3]]))
    fails(
        "box: expected positive lengths along x, y and z and zeros, "
        "got [[3.0, 0.0, 0.0], [0.5, 3.0, 0.0], [0.0, 0.0, 3.0]]",
        *("--model", orthorhombic, "--input", "frames.xyz", "--input", "box.npy"),
        folder=folder,
    )
    fails(
        "--input: expected one file for positions, got two",
        *("--model", orthorhombic, "--input", "frames.xyz", "--input", "frames.xyz"),
        folder=folder,
    )


def test_compiled(folder: Path, dtype: str) -> None:
    """An AOTInductor package is used as any artifact."""
    name = {"float32": "sparse_chain_rule", "float64": "smart_derivatives_one_frame"}[dtype]
    case = CASES / f"{name}-{dtype}"
    batch = case / {"float32": "5", "float64": "1"}[dtype]
    second = {"float32": "positions.xyz", "float64": "ref_idx.npy"}[dtype]
    inputs = ("--input", batch / "output_wrt_descriptors.npy", "--input", batch / second)
    model = ("--model", case / "model.pt2")
    printed = succeeds(*model, *inputs, "--output", "out.npy", folder=folder)
    assert f"{name.removesuffix('_one_frame')} (aotinductor)" in printed, printed
    require_close(folder / "out.npy", batch / "output_wrt_positions.npy", dtype)
    metadata = json.loads(succeeds(*model, "--metadata", folder=folder))
    assert metadata["instruction_set"], metadata


def test_rescaling(folder: Path, dtype: str) -> None:
    """Two outputs go to two files."""
    case = CASES / f"rescaling_and_gradient-{dtype}"
    names = ("coeffs", "basis_function_ind", "gradient")
    inputs = [word for name in names for word in ("--input", case / "300" / f"{name}.npy")]
    outputs = ("--output", "scaled_gradient=g.npy", "--output", "scaled_coeffs=c.npy")
    succeeds("--model", case / "model.pt", *inputs, *outputs, folder=folder)
    require_close(folder / "c.npy", case / "300" / "scaled_coeffs.npy", dtype)
    require_close(folder / "g.npy", case / "300" / "scaled_gradient.npy", dtype)
    fails(
        "--output: expected NAME=FILE for a model with several outputs, got 'c.npy'",
        *("--model", case / "model.pt", *inputs, "--output", "c.npy"),
        folder=folder,
    )


def test_information(folder: Path) -> None:
    """--help and --metadata run nothing."""
    assert succeeds("--help", folder=folder).startswith("usage: ofcv_demo")
    model = CASES / "molecule-float64" / "model.pt"
    metadata = json.loads(succeeds("--model", model, "--metadata", folder=folder))
    assert (metadata["schema"], metadata["kind"]) == (1, "dimension_wise_rescaling")


def test_errors(folder: Path) -> None:
    """Code 2, one line, nothing written and nothing overwritten."""
    case = CASES / "smart_derivatives-float32"
    model, x = case / "model.pt", case / "5" / "output_wrt_descriptors.npy"
    run = ("--model", model, "--input", x, "--output", "out.npy")
    (folder / "out.npy").write_text("old")
    fails("--model: expected a file, got nothing", folder=folder)
    fails("--model: expected a value, got nothing", "--model", folder=folder)
    fails(
        "arguments: expected an option that --help lists, got '--frames'", "--frames", folder=folder
    )
    fails("--repeat: expected a positive integer, got '0'", *run, "--repeat", 0, folder=folder)
    fails("--threads: expected a positive integer, got 'x'", *run, "--threads", "x", folder=folder)
    fails(
        "device: expected cpu, cuda or cuda:<index>, got 'gpu'",
        *run,
        "--device",
        "gpu",
        folder=folder,
    )
    if not torch.cuda.is_available():
        no_cuda = "device: expected cpu (this machine or LibTorch has no CUDA), got 'cuda'"
        fails(no_cuda, *run, "--device", "cuda", folder=folder)
    fails("model: expected an existing file, got 'no.pt'", "--model", "no.pt", folder=folder)
    foreign = f"model: expected an ofcv-export artifact, got '{x}' (not a TorchScript archive)"
    fails(foreign, "--model", x, "--input", x, folder=folder)
    fails(foreign, "--model", x, "--metadata", folder=folder)
    other_cpu = "model: expected an artifact for this CPU, got one that needs avx1024 avx2048"
    fails(other_cpu, "--model", CASES / "refused" / "instruction_set.pt2", folder=folder)
    fails(
        "--input: expected a file for output_wrt_descriptors, got none",
        "--model",
        model,
        folder=folder,
    )
    fails(
        "--input: expected one of output_wrt_descriptors, ref_idx, got 'frames'",
        *(*run, "--input", f"frames={x}"),
        folder=folder,
    )
    fails(
        "--input: expected one file for ref_idx, got two",
        *(*run, "--input", f"ref_idx={x}", "--input", f"ref_idx={x}"),
        folder=folder,
    )
    fails(
        "--input: expected 2 files at most, got 3", *run, "--input", x, "--input", x, folder=folder
    )
    fails("no.npy: expected a readable file, got none", *run, "--input", "no.npy", folder=folder)
    fails("ref_idx: expected shape (batch,), got (5, 21)", *run, "--input", x, folder=folder)
    fails(
        "--input: expected a .npy file for every input, got an .xyz file "
        "(only a collective_variable and a sparse_chain_rule of "
        "pairwise_distances without a box take one)",
        *("--model", model, "--input", "frames.xyz"),
        folder=folder,
    )
    fails(
        "--output: expected one of output_wrt_positions, got 'forces'",
        *("--model", model, "--input", x, "--output", "forces=out.npy"),
        folder=folder,
    )
    fails(
        "--output: expected a place to write to, got 'missing/out.npy'",
        *("--model", model, "--input", x, "--output", "missing/out.npy"),
        folder=folder,
    )
    np.save(folder / "far.npy", np.full(5, 12))
    fails(
        "ref_idx: expected indices in [0, 12), got 12 at position 0",
        *(*run, "--input", "far.npy"),
        folder=folder,
    )
    assert (folder / "out.npy").read_text() == "old"


def main() -> None:
    """Run every test in a folder of its own."""
    for test in (test_frozen_dataset, test_positions, test_compiled, test_rescaling):
        for dtype in TOLERANCE:
            with tempfile.TemporaryDirectory() as folder:
                test(Path(folder), dtype)
    for simple_test in (
        test_collective_variable,
        test_lattice,
        test_trajectory_errors,
        test_information,
        test_errors,
    ):
        with tempfile.TemporaryDirectory() as folder:
            simple_test(Path(folder))


if __name__ == "__main__":
    main()
