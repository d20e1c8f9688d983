"""Compiled C source: the numbers of a .c file, from a library that needs no compiler."""

import ctypes
import hashlib
import platform
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.c_source import compiler
from ofcv_export.descriptors.boundaries import RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.formats import FORMATS
from ofcv_export.runtimes.shared_library import Trailer

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler"
)
pytestmark = needs_compiler


def variable(box=None, dtype=torch.float32):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(15, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
    return ofcv.CollectiveVariable(PairDistances(all_pairs(6), 6, box), network)


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [None, 3])
def test_its_numbers_are_those_of_c_source(tmp_path, dtype, batch):
    module = variable(RuntimeBox(), dtype)
    for suffix in (".c", ".so"):
        assert ofcv.export(module, tmp_path / f"cv{suffix}", batch).passed
    numpy_type = str(dtype).removeprefix("torch.")
    positions = np.random.default_rng(0).normal(size=(batch or 1, 6, 3)).astype(numpy_type)
    box = np.array([[2.0, 0, 0], [0.3, 2.1, 0], [-0.2, 0.4, 1.9]], dtype=numpy_type)
    ours, theirs = ofcv.load(tmp_path / "cv.so"), ofcv.load(tmp_path / "cv.c")
    assert same(ours(positions, box), theirs(positions, box))
    assert ofcv.verify(tmp_path / "cv.so", module).passed
    with pytest.raises(ValueError, match="^positions: expected finite"):
        ours.run([np.full_like(positions, np.nan), box])


def test_a_file_that_is_loaded_may_be_written_anew(tmp_path):
    path, positions = tmp_path / "cv.so", np.random.default_rng(0).normal(size=(1, 6, 3))
    ofcv.export(variable(dtype=torch.float64), path)
    first = ofcv.load(path)
    expected = first(positions)
    ofcv.export(ofcv.HarmonicRestraint(variable(dtype=torch.float64), 0.1, 5.0), path)
    second = ofcv.load(path)
    assert second.metadata.output_units["values"] == "kJ/mol"
    assert same(first(positions), expected)
    assert second.run([positions, np.zeros(2), np.ones(2)])[0].shape == (1, 1)


def test_no_compiler_is_needed_to_load_it(tmp_path):
    ofcv.export(variable(), tmp_path / "cv.so")
    code = f"import ofcv_export; print(ofcv_export.load({str(tmp_path / 'cv.so')!r}))"
    environment = {"PATH": "", "CC": "none", "OFCV_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "collective_variable, so" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda content: content[:1000], "no trailer behind the library"),
        (lambda content: content + b"\n", "no trailer behind the library"),
        (lambda content: content[:999] + b"\xff\xfe" + content[1001:], "does not match its digest"),
    ],
)
def test_damage_is_noticed(tmp_path, changed, why):
    path = tmp_path / "cv.so"
    ofcv.export(variable(), path)
    path.write_bytes(changed(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"^path: expected an ofcv-export artifact, got .*{why}"):
        ofcv.load(path)


def test_another_processor_is_named(tmp_path):
    path = tmp_path / "cv.so"
    ofcv.export(variable(), path)
    content = path.read_bytes()
    metadata = msgspec.structs.replace(ofcv.read_metadata(path), instruction_set="riscv64")
    json = metadata.to_json().encode()
    trailer = replace(Trailer.of(content, path), offset=len(content), length=len(json))
    path.write_bytes(trailer.behind(content + json))
    with pytest.raises(ValueError, match=r"^path: expected an artifact for this CPU, .* riscv64$"):
        ofcv.load(path)
    assert metadata.instruction_set != platform.machine()


@pytest.mark.parametrize("places", [(2**63, 10, 3), (0, 2**63, 3), (0, 10, 2**32 - 1)])
def test_a_trailer_that_does_not_fit_is_refused(tmp_path, places):
    content = b"\x7fELF" + b"\0" * 200 + struct.pack("<QQI", *places)
    content += hashlib.sha256(content).hexdigest().encode() + b"ofcv.so\n"
    (tmp_path / "cv.so").write_bytes(content)
    with pytest.raises(ValueError, match=r"\(a trailer that does not fit the library\)$"):
        ofcv.load(tmp_path / "cv.so")


def test_what_the_system_cannot_load_is_named(tmp_path):
    ofcv.export(variable(), tmp_path / "cv.so")
    metadata = ofcv.read_metadata(tmp_path / "cv.so")
    json = metadata.to_json().encode()
    (tmp_path / "cv.so").write_bytes(Trailer("cv", 0, len(json)).behind(json))
    with pytest.raises(ValueError, match=r"^path: expected a library that this system can load"):
        ofcv.load(tmp_path / "cv.so")


def test_a_missing_compiler_is_named_before_long_work(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(FORMATS[".so"], "compile", None)
    with pytest.raises(FileNotFoundError, match=r"^path: expected a C compiler for a .c or .so"):
        ofcv.export(variable(), tmp_path / "cv.so")
    assert not list(tmp_path.iterdir())


def test_its_names_are_those_of_the_file(tmp_path):
    ofcv.export(variable(), tmp_path / "my-cv.so")
    library = ctypes.CDLL(str(tmp_path / "my-cv.so"))
    library.my_cv_metadata.restype = ctypes.c_char_p
    metadata = ofcv.Metadata.from_json(library.my_cv_metadata())
    assert metadata == ofcv.read_metadata(tmp_path / "my-cv.so")
    assert metadata.format == "so"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="code for AVX2 is x86_64's")
def test_it_holds_code_for_any_processor(tmp_path):
    """Its faster code is beside that for every processor of the kind."""
    ofcv.export(variable(), tmp_path / "cv.so")
    names = subprocess.run(
        ["nm", tmp_path / "cv.so"], capture_output=True, text=True, check=True
    ).stdout
    assert "cv_frame.avx2" in names
    assert "cv_frame.default" in names


def test_fused_code_runs_wherever_the_processor_has_it(tmp_path):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if " fma " not in flags or " avx2 " not in flags:
        pytest.skip("no such instructions")
    positions = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    derivatives = []
    for fast in (True, False):
        ofcv.export(variable(), tmp_path / "cv.so", fast=fast)
        derivatives.append(ofcv.load(tmp_path / "cv.so")(positions)[1])
    torch.testing.assert_close(*derivatives)
    assert not torch.equal(*derivatives)


def test_compiled_code_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFCV_CACHE", "cache")
    compiled = []
    compile_it = compiler._compiled
    monkeypatch.setattr(compiler, "_compiled", lambda *a: compiled.append(a[3]) or compile_it(*a))
    ofcv.export(variable(), tmp_path / "cv.so")
    # The code once, the metadata before and after the errors are known.
    assert [target.suffix for target in compiled] == [".o", ".so", ".so"]
