"""Loading: one callable for every format, and refusal of whatever is not a whole artifact."""

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ofcv_export as ofcv
from ofcv_export.formats import FORMATS
from ofcv_export.graph.probe import probe
from tests.builders.systems import all_pairs, frames, small_setup

SUFFIXES = list(FORMATS)


def test_called_by_position_by_name_and_with_numpy(path, smart):
    artifact = ofcv.load(path)
    x, index = torch.randn(3, 10), torch.tensor([1, 1, 6])
    expected = smart(x, index)
    assert expected.shape == (3, 5, 3)
    for found in (
        artifact(x, index),
        artifact(ref_idx=index, output_wrt_descriptors=x),
        artifact(x, ref_idx=index.int()),
        artifact(x.numpy(), index),
    ):
        assert isinstance(found, torch.Tensor)
        torch.testing.assert_close(found, expected)
    found = artifact(x.numpy(), index.numpy())
    assert isinstance(found, torch.Tensor if path.suffix in (".pt", ".pt2") else np.ndarray)
    torch.testing.assert_close(torch.as_tensor(found), expected)
    assert "smart_derivatives" in repr(artifact)
    assert "ref_idx" in repr(artifact)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((torch.zeros(2, 10),), {}, TypeError, "inputs: expected output_wrt_descriptors, ref_idx"),
        ((torch.zeros(2, 10),), {"frame": 0}, TypeError, "got 1 by position, frame"),
        ((torch.zeros(2, 10),) * 3, {}, TypeError, "got 3 by position"),
        ((torch.zeros(2, 9), torch.zeros(2).long()), {}, ValueError,
         r"output_wrt_descriptors: expected shape \(batch, 10\), got \(2, 9\)"),
        ((torch.zeros(0, 10), torch.zeros(0).long()), {}, ValueError, r"got \(0, 10\)"),
        ((torch.zeros(2, 10), torch.zeros(3).long()), {}, ValueError,
         "ref_idx: expected batch = 2 as in output_wrt_descriptors, got 3"),
        ((torch.zeros(2, 10).double(), torch.zeros(2).long()), {}, TypeError,
         "output_wrt_descriptors: expected dtype float32, got float64"),
        ((torch.zeros(2, 10), torch.zeros(2)), {}, TypeError,
         "ref_idx: expected dtype int64, got float32"),
        ((torch.zeros(2, 10), torch.tensor([0, -1])), {}, IndexError,
         r"ref_idx: expected indices in \[0, 7\), got -1 at position 1"),
        ((torch.zeros(2, 10), torch.tensor([7, 0])), {}, IndexError, "got 7 at position 0"),
        ((torch.full((1, 10), float("inf")), torch.tensor([0])), {}, ValueError,
         r"output_wrt_descriptors: expected finite values, got inf at index \(0, 0\)"),
    ],
)  # fmt: skip
def test_bad_inputs_are_refused(path, args, kwargs, error, message):
    with pytest.raises(error, match=message):
        ofcv.load(path)(*args, **kwargs)


def test_absent_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected an existing file, got .*absent.pt"):
        ofcv.load(tmp_path / "absent.pt")
    (tmp_path / "cv.xml").write_text("<xml/>")
    for read in (ofcv.load, ofcv.read_metadata, ofcv.verify):
        with pytest.raises(ValueError, match="path: expected a file name ending in .pt or .onnx"):
            read(tmp_path / "cv.xml")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"positions", bytes(range(256)) * 8], ids=range(3))
def test_foreign_content(tmp_path, suffix, content):
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="path: expected an ofcv-export artifact, got .*foreign"):
        ofcv.load(path)


def test_artifacts_of_others(tmp_path, smart):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no ofcv.json in the archive"):
        ofcv.load(tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("note.txt", "hello")
    with pytest.raises(ValueError, match="got .*zip.pt' .no ofcv.json"):
        ofcv.load(tmp_path / "zip.pt")
    ofcv.export(smart, tmp_path / "cv.onnx")
    model = onnx.load(tmp_path / "cv.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="no metadata of ours in the model"):
        ofcv.load(tmp_path / "other.onnx")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    for read in (ofcv.load, ofcv.read_metadata, ofcv.verify):
        with pytest.raises(ValueError, match="path: expected an ofcv-export artifact, got .*cv"):
            read(path)


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_flipped_bit_is_noticed_or_changes_nothing(path, where, bit):
    whole = path.read_bytes()
    metadata = ofcv.read_metadata(path)
    x = probe(metadata.inputs, metadata.probe.sizes)
    expected = ofcv.load(path)(*x)
    damaged = bytearray(whole)
    damaged[int(where * len(whole))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        found = ofcv.load(path)(*x)
    except ValueError as error:
        assert "path: expected an ofcv-export artifact" in str(error)  # noqa: PT017
    else:
        # Some bytes of an archive, such as dates and padding, mean nothing.
        assert path.suffix != ".onnx"
        assert torch.equal(found, expected)
        assert ofcv.read_metadata(path) == metadata
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("edited", ["extra/ofcv.json", "constants/", "code/"])
def test_an_archive_made_again_with_other_content_is_noticed(tmp_path, edited):
    """Its checksums fit its records, so that only the digest tells."""
    path = tmp_path / "cv.pt"
    ofcv.export(small_setup(), path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    place = next(name for name in records if f"/{edited}" in name and records[name])
    records[place] = records[place][:-1] + bytes([records[place][-1] ^ 1])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    for read in (ofcv.load, ofcv.read_metadata, ofcv.verify):
        with pytest.raises(ValueError, match="its content does not match its digest"):
            read(path)


def test_edited_metadata_are_noticed(path):
    content = path.read_bytes()
    assert content.count(b'"length_unit":null') >= 1
    path.write_bytes(content.replace(b'"length_unit":null', b'"length_unit":"A" '))
    with pytest.raises(ValueError, match="path: expected an ofcv-export artifact"):
        ofcv.read_metadata(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content | {"schema": 1}, "metadata: expected schema 2, got 1"),
        (
            lambda content: content | {"details": content["details"] | {"kind": "energy"}},
            "metadata: expected schema 2, got others: Invalid value 'energy' - at `..details.kind`",
        ),
        (
            lambda content: {k: v for k, v in content.items() if k != "atoms"},
            "got others: Object missing required field `atoms`",
        ),
        (
            lambda content: content | {"details": content["details"] | {"box": None}},
            "got others: Object contains unknown field `box` - at `..details`",
        ),
        (lambda content: [], "metadata: expected schema 2, got others: Expected `object`"),
    ],
)
def test_metadata_of_other_schemas(path, change, message):
    text = ofcv.read_metadata(path).to_json()
    assert ofcv.Metadata.from_json(text) == ofcv.read_metadata(path)
    with pytest.raises(ValueError, match=message):
        ofcv.Metadata.from_json(json.dumps(change(json.loads(text))))
    with pytest.raises(ValueError, match="metadata: expected JSON, got"):
        ofcv.Metadata.from_json(text[:-1])


def test_cuda_without_cuda_is_refused(path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match="device: expected cpu on this machine, got 'cuda'"):
        ofcv.load(path, device="cuda")


def test_reading_metadata_executes_nothing(path, monkeypatch):
    handed_over = []

    def forbidden(*arguments, **keywords):
        handed_over.append(arguments)
        raise RuntimeError("no runtime here")

    monkeypatch.setattr(torch.jit, "load", forbidden)
    monkeypatch.setattr(torch._C._aoti, "AOTIModelContainerRunnerCpu", forbidden)
    monkeypatch.setattr("onnxruntime.InferenceSession", forbidden)
    monkeypatch.setattr("ofcv_export.runtimes.aotinductor._LOADED", {})
    assert ofcv.read_metadata(path).kind == "smart_derivatives"
    assert not handed_over
    with pytest.raises(ValueError, match="cannot read it"):
        ofcv.load(path)
    assert handed_over


def test_saved_again_by_onnx_tools_it_is_still_whole(smart, tmp_path):
    ofcv.export(smart, tmp_path / "cv.onnx")
    onnx.save(onnx.load(tmp_path / "cv.onnx"), tmp_path / "again.onnx")
    assert ofcv.read_metadata(tmp_path / "again.onnx") == ofcv.read_metadata(tmp_path / "cv.onnx")


def test_numpy_arrays_of_the_wrong_kind(path):
    with pytest.raises(TypeError, match="ref_idx: expected dtype int64, got float64"):
        ofcv.load(path)(np.zeros((1, 10), np.float32), np.zeros(1))


def test_lazy_views_are_read_as_what_they_are(path):
    """Their sign stands beside the memory, which raw readers of it do not see."""
    z = torch.complex(torch.zeros(2, 10), torch.randn(2, 10))
    index = torch.tensor([1, 5])
    expected = ofcv.load(path)(-z.imag, index)
    # The latter is contiguous, as an input of one entry always is.
    for lazy in (z.conj().imag, torch._neg_view(z.imag.contiguous())):
        assert lazy.is_neg()
        assert torch.equal(ofcv.load(path)(lazy, index), expected)


@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_lazy_views_in_the_module(kernel):
    smart = ofcv.SmartDerivatives(kernel=kernel)
    smart.setup({"data": frames(7, 5, torch.float32)}, all_pairs(5), n_atoms=5)
    z = torch.complex(torch.zeros(2, 10), torch.randn(2, 10))
    expected = smart(-z.imag, torch.arange(2))
    assert torch.equal(smart(z.conj().imag, torch.arange(2)), expected)
    smart.values = torch.complex(torch.zeros_like(smart.values), -smart.values).conj().imag
    assert smart.values.is_neg()
    assert torch.equal(smart(-z.imag, torch.arange(2)), expected)


def test_numpy_arrays_however_they_lie_in_memory(path):
    artifact = ofcv.load(path)
    x, index = np.random.default_rng(0).standard_normal((3, 10)).astype("f4"), np.array([1, 5, 2])
    expected = np.asarray(artifact(x, index))
    read_only = x.copy()
    read_only.flags.writeable = False
    for same in (x[::-1].copy()[::-1], x[:, ::-1].copy()[:, ::-1], x.astype(">f4"), read_only):
        assert np.array_equal(artifact(same, index.astype(">i8")), expected)
    assert np.array_equal(artifact(x[::-1], index[::-1]), expected[::-1])


def test_results_are_ordinary_tensors(path):
    derivatives = ofcv.load(path)(torch.ones(2, 10), torch.tensor([1, 5]))
    before = derivatives.clone()
    derivatives *= -1
    assert torch.equal(derivatives, -before)
    (derivatives.requires_grad_() ** 2).sum().backward()
    torch.testing.assert_close(derivatives.grad, -2 * before)


def test_autocast_changes_no_number(path, smart):
    x, index = torch.randn(2, 10), torch.tensor([1, 5])
    rule = smart.sparse_chain_rule()
    values = smart.blocks()[index].flatten(1)
    calls = {
        "file": lambda: ofcv.load(path)(x, index),
        "module": lambda: smart(x, index),
        "rule": lambda: rule(x, values),
    }
    expected = {name: call() for name, call in calls.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name, call in calls.items():
            assert torch.equal(call(), expected[name]), name
            assert torch.is_autocast_enabled("cpu")


def replace_files_once_read(monkeypatch):
    before = Path.read_bytes

    def replaced_after_it_was_read(self):
        content = before(self)
        self.write_bytes(b"replaced")
        return content

    monkeypatch.setattr(Path, "read_bytes", replaced_after_it_was_read)


def test_what_was_checked_is_what_runs(path, tmp_path, monkeypatch):
    """A file replaced while it is loaded gives metadata and code of one file or of the other."""
    other = tmp_path / f"other{path.suffix}"
    whole = path.read_bytes()
    replace_files_once_read(monkeypatch)
    artifact = ofcv.load(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"replaced"
    other.write_bytes(whole)
    x, index = torch.randn(2, 10), torch.tensor([1, 5])
    assert torch.equal(artifact(x, index), ofcv.load(other)(x, index))
    assert artifact.digest == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("reference", [None, small_setup])
def test_what_was_checked_is_what_is_verified(path, monkeypatch, reference):
    replace_files_once_read(monkeypatch)
    assert ofcv.verify(path, reference and reference()).passed


def test_pickled_as_its_file(path, tmp_path):
    artifact = ofcv.load(path)
    x, index = torch.randn(2, 10), torch.tensor([1, 5])
    pickled = pickle.dumps(artifact)
    assert torch.equal(pickle.loads(pickled)(x, index), artifact(x, index))
    ofcv.export(small_setup(), tmp_path / "other.pt", atoms=range(5))
    shutil.copy(tmp_path / "other.pt", path)
    with pytest.raises(ValueError, match="path: expected"):
        pickle.loads(pickled)
