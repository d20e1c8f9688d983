import json
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
    ],
)  # fmt: skip
def test_errors_are_one_line_and_exit_with_1(setup_file, smart, tmp_path, arguments, message):
    ofcv.export(smart, tmp_path / "cv.onnx")
    (tmp_path / "broken.onnx").write_bytes((tmp_path / "cv.onnx").read_bytes()[:100])
    np.save(tmp_path / "i.npy", np.array([0]))
    before = sorted(entry.name for entry in tmp_path.iterdir())
    places = {
        "setup": setup_file,
        "tmp": tmp_path,
        "cv": tmp_path / "cv.onnx",
        "broken": tmp_path / "broken.onnx",
        "npy": tmp_path / "i.npy",
    }
    result = call(*(argument.format(**places) for argument in arguments), code=1)
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


def test_runs_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "ofcv_export", "--help"], capture_output=True, text=True, check=True
    )
    assert "inspect" in result.stdout
