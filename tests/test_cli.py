import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ofcv_export as ofcv
from ofcv_export.cli import app

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


def call(*arguments, code=0):
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


@pytest.fixture
def setup_file(smart, tmp_path):
    smart.save(tmp_path / "setup.npz")
    return tmp_path / "setup.npz"


@pytest.fixture
def statistics(tmp_path):
    store = ofcv.DatasetStatistics(tmp_path / "statistics.zarr", create_store=True)
    generator = np.random.default_rng(0)
    for key in ("coeffs/mean", "coeffs/std", "gradient_max_after_atom_ref"):
        store.save_statistic("has_energy_label", key, generator.random(8))
    return tmp_path / "statistics.zarr"


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_export_inspect_verify_and_run_a_setup(setup_file, smart, tmp_path, suffix):
    path = tmp_path / f"cv{suffix}"
    result = call("export", setup_file, path, "--atoms", "0,2-4,8", "--length-unit", "nm")
    assert "passed" in result.output
    assert ofcv.read_metadata(path).atoms == [0, 2, 3, 4, 8]

    output = call("inspect", path).output
    for text in (
        "smart_derivatives",
        "ref_idx",
        "0 to 6",
        "nm",
        "digest matches",
        "[0, 2, 3, 4, 8]",
    ):
        assert text in output
    assert json.loads(call("inspect", path, "--json").output)["length_unit"] == "nm"

    assert "float64 outputs recorded" in call("verify", path).output
    assert "the module in float64" in call("verify", path, "--reference", setup_file).output

    x = torch.randn(4, 10)
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "i.npy", np.array([0, 6, 6, 1]))
    call(
        "run", path,
        "--input", f"output_wrt_descriptors={tmp_path / 'x.npy'}",
        "-i", f"ref_idx={tmp_path / 'i.npy'}",
        "--output", tmp_path / "out.npy",
    )  # fmt: skip
    found = torch.from_numpy(np.load(tmp_path / "out.npy"))
    torch.testing.assert_close(found, smart(x, torch.tensor([0, 6, 6, 1])))


def test_a_file_for_one_frame_runs_over_many(setup_file, smart, tmp_path):
    call("export", setup_file, tmp_path / "cv.pt", "--batch", "1")
    x, index = torch.randn(3, 10), torch.tensor([6, 0, 2])
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "i.npy", index.numpy())
    call(
        "run", tmp_path / "cv.pt",
        "-i", f"output_wrt_descriptors={tmp_path / 'x.npy'}", "-i", f"ref_idx={tmp_path / 'i.npy'}",
        "-o", tmp_path / "out.npy",
    )  # fmt: skip
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "out.npy")), smart(x, index))
    np.save(tmp_path / "i.npy", index[:2].numpy())
    result = call(
        "run", tmp_path / "cv.pt",
        "-i", f"output_wrt_descriptors={tmp_path / 'x.npy'}", "-i", f"ref_idx={tmp_path / 'i.npy'}",
        code=1,
    )  # fmt: skip
    assert "expected shape (1, 10), got (3, 10)" in result.output


def test_export_the_chain_rule_alone(setup_file, tmp_path):
    call("export", setup_file, tmp_path / "rule.onnx", "--chain-rule", "--n-outputs", "2")
    metadata = ofcv.read_metadata(tmp_path / "rule.onnx")
    assert metadata.kind == "sparse_chain_rule"
    assert metadata.outputs[0].shape == ("batch", 5, 3, 2)
    call("verify", tmp_path / "rule.onnx", "--reference", setup_file, "--chain-rule")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_names_and_speed_of_c_source(statistics, tmp_path):
    call("export", statistics, tmp_path / "r.c", "--symbol", "scaled", "--fast")
    assert "int scaled_evaluate(" in (tmp_path / "r.c").read_text()
    options = ofcv.read_metadata(tmp_path / "r.c").options
    assert (options["symbol"], options["fast"]) == ("scaled", True)


def test_export_statistics(statistics, tmp_path):
    call("export", statistics, tmp_path / "r.onnx", "--gradient")
    assert [spec.name for spec in ofcv.read_metadata(tmp_path / "r.onnx").outputs] == [
        "scaled_coeffs",
        "scaled_gradient",
    ]
    assert "scaled_gradient" in call(
        "verify", tmp_path / "r.onnx", "--reference", statistics
    ).output  # fmt: skip


def test_verify_fails_against_other_numbers(setup_file, smart, tmp_path):
    call("export", setup_file, tmp_path / "cv.onnx")
    smart.values += 0.01
    smart.save(tmp_path / "other.npz")
    result = call("verify", tmp_path / "cv.onnx", "--reference", tmp_path / "other.npz", code=1)
    assert "FAILED" in result.output


FURTHER_ERRORS = [
    (
        "run {cv} -i ref_idx={npy} -i ref_idx={npy}",
        "input: expected each name once, got ref_idx again",
    ),
    ("run {cv} -i ref_idx={npy} -o {tmp}/a.npy -o {tmp}/b.npy", "output: expected each name once"),
    ("run {cv} -i ref_idx={npy} -o {tmp}/no/a.npy", "output: expected an existing folder, got"),
    (
        "run {rescaling} -o scaled_coeffs={npy} -o scaled_gradient={tmp}/../{name}/i.npy",
        "output: expected a file for each name, got",
    ),
    ("run {cv} -i ref_idx={damaged}", "ref_idx: expected a .npy file"),
    ("export {zipped} {tmp}/cv.pt", "path: expected an .npz file with"),
    ("export {setup} {tmp}/no/cv.pt", "path: expected an existing folder, got"),
    ("export {setup} s3://b/cv.pt", "path: expected a path on this machine, got the URL"),
    ("export {setup} {tmp}/cv.pt --gradient", "gradient: expected none for a frozen set-up"),
    ("export {setup} {tmp}/cv.pt --dtype float32", "dtype: expected none for a frozen"),
    ("export {setup} {tmp}/cv.pt --symbol s", "symbol: expected none but for a .c, .cpp or .so"),
    ("export {setup} {tmp}/cv.cpp", "contract: expected plumed for a .cpp file, got none"),
    ("export {setup} {tmp}/cv.cpp --contract plumed", "module: expected a collective_variable for"),
    ("export {setup} {tmp}/cv.pt --weigher w", "weigher: expected none for a frozen"),
    ("export {setup} {tmp}/cv.pt --chain-rule --form gather", "form: expected none for the sparse"),
    (
        "export {store} {tmp}/r.pt --form gather",
        "form: expected none for dataset statistics, got 'gather'",
    ),
    (
        "export {store} {tmp}/r.pt --n-outputs 2",
        "n_outputs: expected none for dataset statistics, got 2",
    ),
    (
        "export {store} {tmp}/r.pt --atoms 0,1",
        "atoms: expected none for a dimension_wise_rescaling, got [0, 1]",
    ),
    ("export {store} {tmp}/r.pt --chain-rule", "chain_rule: expected none for dataset statistics"),
    ("export {store} {tmp}/r.pt --dtype half", "dtype: expected float32 or float64, got 'half'"),
    ("fit {tmp}/a.zarr.zip {tmp}/s.zarr --basis {npy}", "basis: expected a JSON file such as"),
    ("fit {tmp}/a.zarr.zip {tmp}/s.zarr --basis {tmp}/no", "basis: expected an existing file"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "{setup}", "{tmp}/cv.xml"), "path: expected a file name ending in .pt"),
        (("export", "{tmp}/a.txt", "{tmp}/cv.pt"), "source: expected a file name ending in .npz"),
        (("export", "{tmp}/absent.npz", "{tmp}/cv.pt"), "path: expected an existing file"),
        (("export", "{tmp}/absent.zarr", "{tmp}/cv.pt"), "absent.zarr"),
        (("export", "{setup}", "{tmp}/cv.pt", "--atoms", "a-b"), "atoms: expected indices such as"),
        (("export", "{setup}", "{tmp}/cv.pt", "--batch", "0"), "batch: expected a positive"),
        (("export", "{setup}", "{tmp}/cv.pt", "--form", "sum"), "form: expected"),
        (("inspect", "{setup}"), "path: expected a file name ending in .pt"),
        (("inspect", "{tmp}/absent.pt"), "path: expected an existing file"),
        (("verify", "{broken}"), "path: expected an ofcv-export artifact, got"),
        (("run", "{broken}", "-i", "x"), "path: expected an ofcv-export artifact"),
        (("run", "{cv}", "-i", "x.npy"), "input: expected NAME=FILE with a NAME among"),
        (("run", "{cv}", "-i", "ref_idx={tmp}/absent.npy"), "ref_idx: expected an existing file"),
        (("run", "{cv}", "-i", "ref_idx={broken}"), "ref_idx: expected a .npy file"),
        (("run", "{cv}", "-i", "ref_idx={npy}"), "inputs: expected output_wrt_descriptors"),
        (("run", "{cv}", "-i", "ref_idx={npy}", "--device", "tpu"), "device: expected"),
        (("run", "{cv}", "-i", "ref_idx={npy}", "-o", "y={npy}"), "output: expected NAME=FILE"),
    ] + [(line.split(), message) for line, message in FURTHER_ERRORS],
)  # fmt: skip
def test_errors_are_one_line_and_exit_with_1(
    setup_file, statistics, smart, tmp_path, arguments, message
):
    ofcv.export(smart, tmp_path / "cv.onnx")
    if "{rescaling}" in arguments:
        rescaling = ofcv.DimensionWiseRescaling(*torch.ones(3, 4))
        ofcv.export(rescaling, tmp_path / "rescaling.pt", gradient=True)
        files = [("-i", f"{name}={{npy}}") for name in ("coeffs", "basis_function_ind", "gradient")]
        arguments = (*arguments, *(word for pair in files for word in pair))
    # A header that Python can't read, and a member that is packed in an unknown way.
    damaged = bytearray((setup_file).read_bytes())
    directory = damaged.rindex(b"PK\x01\x02descriptors.npy"[:4])
    damaged[directory + 10] = 99
    (tmp_path / "zipped.npz").write_bytes(damaged)
    (tmp_path / "broken.onnx").write_bytes((tmp_path / "cv.onnx").read_bytes()[:100])
    np.save(tmp_path / "i.npy", np.array([0]))
    header = (tmp_path / "i.npy").read_bytes()
    (tmp_path / "damaged.npy").write_bytes(header[:10] + header[10:].replace(b"}", b"(", 1))
    before = sorted(entry.name for entry in tmp_path.iterdir())
    places = {
        "setup": setup_file,
        "tmp": tmp_path,
        "cv": tmp_path / "cv.onnx",
        "broken": tmp_path / "broken.onnx",
        "npy": tmp_path / "i.npy",
        "name": tmp_path.name,
        "damaged": tmp_path / "damaged.npy",
        "zipped": tmp_path / "zipped.npz",
        "store": statistics,
        "rescaling": tmp_path / "rescaling.pt",
    }
    result = call(*(argument.format(**places) for argument in arguments), code=1)
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


def test_statistics_keep_their_precision(statistics, tmp_path):
    for options, dtype in (((), "float64"), (("--dtype", "float32"), "float32")):
        call("export", statistics, tmp_path / "r.onnx", *options)
        assert ofcv.read_metadata(tmp_path / "r.onnx").inputs[0].dtype == dtype
        assert "passed" in call(
            "verify", tmp_path / "r.onnx", "--reference", statistics
        ).output  # fmt: skip


def test_files_may_have_any_name(smart, tmp_path):
    folder = tmp_path / "T=300 K"
    folder.mkdir()
    ofcv.export(smart, tmp_path / "cv.pt")
    np.save(folder / "x.npy", np.ones((1, 10), np.float32))
    np.save(folder / "i.npy", np.array([0]))
    arguments = ["-i", f"output_wrt_descriptors={folder}/x.npy", "-i", f"ref_idx={folder}/i.npy"]
    call("run", tmp_path / "cv.pt", *arguments, "-o", f"{folder}/[a].npy")
    assert "[b].npy" in call(
        "run", tmp_path / "cv.pt", *arguments, "-o", f"output_wrt_positions={folder}/[b].npy"
    ).output  # fmt: skip
    assert (np.load(folder / "[a].npy") == np.load(folder / "[b].npy")).all()


@pytest.mark.parametrize("columns", [20, 60, 200])
def test_no_terminal_cuts_names_and_verdicts(smart, tmp_path, columns):
    ofcv.export(smart, tmp_path / "cv.pt")
    environment = os.environ | {"COLUMNS": str(columns), "PYTHONIOENCODING": "ascii"}
    code = (
        "import rich.console, ofcv_export.cli as cli\n"
        f"cli.console = rich.console.Console(width={columns})\n"
        "cli.app()"
    )
    for command in ("verify", "inspect"):
        result = subprocess.run(
            [sys.executable, "-c", code, command, tmp_path / "cv.pt"],
            capture_output=True, text=True, env=environment, check=True,
        )  # fmt: skip
        assert "output_wrt_positions" in result.stdout
        assert ("passed" if command == "verify" else "float32") in result.stdout


def test_an_ascii_terminal_gets_codes(smart, tmp_path):
    (tmp_path / "é").mkdir()
    ofcv.export(smart, tmp_path / "é" / "Δφ.pt")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    for arguments, code in (
        (("inspect", tmp_path / "é" / "Δφ.pt"), 0),
        (("inspect", tmp_path / "é" / "absent.pt"), 1),
    ):
        result = subprocess.run(
            [sys.executable, "-m", "ofcv_export", *arguments],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        assert result.returncode == code, result.stderr
        assert r"\u0394\u03c6.pt" in result.stdout if code == 0 else r"\xe9" in result.stderr


def test_runs_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "ofcv_export", "--help"], capture_output=True, text=True, check=True
    )
    assert "inspect" in result.stdout


def test_no_frames_at_all_are_told(setup_file, tmp_path):
    call("export", setup_file, tmp_path / "one.pt", "--batch", 1)
    np.save(tmp_path / "x.npy", np.zeros((0, 10), np.float32))
    np.save(tmp_path / "i.npy", np.zeros(0, np.int64))
    result = call(
        "run", tmp_path / "one.pt", "-i", f"output_wrt_descriptors={tmp_path / 'x.npy'}",
        "-i", f"ref_idx={tmp_path / 'i.npy'}", code=1,
    )  # fmt: skip
    assert "output_wrt_descriptors: expected shape (1, 10), got (0, 10)" in result.output
