"""PLUMED's source: what is refused, and that its functions are those of a .c file.

What PLUMED makes of it is in tests/engines/test_plumed.py.
"""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.c_source import compiler
from ofcv_export.descriptors.boundaries import RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.engines.plumed import ofcv_input


def variable(box=None, unit="nm", dtype=torch.float32):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)
    return ofcv.CollectiveVariable(PairDistances(all_pairs(4), 4, box), network, [5, 2, 0, 6], unit)


def export(module, path, **options):
    return ofcv.export(module, path, contract="plumed", **options)


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_functions_give_the_bits_of_a_c_file(tmp_path, dtype):
    module, path = variable(dtype=dtype), tmp_path / "my-cv.cpp"
    export(module, path)
    ofcv.export(module, tmp_path / "cv.c")
    frames = torch.randn(1, 4, 3, dtype=dtype)
    for ours, theirs in zip(
        ofcv.load(path)(frames), ofcv.load(tmp_path / "cv.c")(frames), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert ofcv.verify(path, module).passed
    # Optimised whatever PLUMED's options are: ten times as fast as with -O1.
    assert '#pragma GCC optimize("O3", "fp-contract=off"' in path.read_text()
    # Hexadecimal numbers are not part of C++11, which PLUMED 2.9 is compiled as.
    assert re.search(r"\b0x[\da-f]+\.", path.read_text()) is None
    assert ofcv_input(path) == "LOAD FILE=my-cv.cpp\ncv: MY_CV ATOMS=6,3,1,7\n"


def test_a_file_that_was_edited_is_refused(tmp_path):
    path = tmp_path / "cv.cpp"
    export(variable(), path)
    path.write_text(path.read_text().replace("length_in_nm = 1.0", "length_in_nm = 2.0"))
    with pytest.raises(ValueError, match="its content does not match its digest"):
        ofcv.read_metadata(path)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_part_before_the_action_is_cpp11_without_warnings(tmp_path):
    restraint = ofcv.HarmonicRestraint(variable(RuntimeBox()), 0.5, 100.0)
    export(restraint, tmp_path / "cv.cpp")
    text = (tmp_path / "cv.cpp").read_text()
    facts = text[: text.index("/* The function above as an action")]
    (tmp_path / "facts.cpp").write_text(
        facts + "int main() { return ofcv_file::Frame().evaluate(); }"
    )
    words = ["g++", "-std=c++11", "-pedantic", "-Wall", "-Werror", "-Wno-unused", "facts.cpp"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "options", "error"),
    [
        (variable(RuntimeBox(scaled=True)), {}, "module: expected positions for PLUMED, got fract"),
        (variable(), {"batch": 4}, "batch: expected 1 for PLUMED, got 4"),
    ],
)
def test_what_plumed_cannot_give(tmp_path, module, options, error):
    with pytest.raises(ValueError, match=f"^{error}"):
        export(module, tmp_path / "cv.cpp", **options)
    assert not list(tmp_path.iterdir())


def test_other_kinds_are_refused(tmp_path, smart):
    with pytest.raises(
        ValueError, match=r"^module: expected a collective_variable for PLUMED, got"
    ):
        export(smart, tmp_path / "cv.cpp")


@pytest.mark.parametrize("name", ["distance.cpp", "METAD.cpp", "ofcv.cpp"])
def test_names_of_plumeds_own_actions_are_refused(tmp_path, name):
    action = name.removesuffix(".cpp").upper()
    with pytest.raises(ValueError, match=f"^path: expected another name than .* {action}, got it"):
        export(variable(), tmp_path / name)
    export(variable(), tmp_path / name, symbol="mine")
    assert "cv: MINE ATOMS" in ofcv_input(tmp_path / name)


def test_a_file_with_another_name_has_the_same_action(tmp_path):
    export(variable(), tmp_path / "cv.cpp")
    (tmp_path / "cv.cpp").rename(tmp_path / "other.cpp")
    assert ofcv_input(tmp_path / "other.cpp") == "LOAD FILE=other.cpp\ncv: CV ATOMS=6,3,1,7\n"


def test_the_contract_and_the_suffix_belong_together(tmp_path):
    with pytest.raises(ValueError, match=r"^contract: expected plumed for a .cpp file, got none$"):
        ofcv.export(variable(), tmp_path / "cv.cpp")
    with pytest.raises(
        ValueError, match=r"^path: expected the suffix .cpp for the contract plumed"
    ):
        export(variable(), tmp_path / "cv.pt")
    with pytest.raises(
        ValueError, match=r"^path: expected the suffix .pt for the contract openmm-"
    ):
        ofcv.export(variable(), tmp_path / "cv.cpp", contract="openmm-torch")


def test_a_compiler_is_not_needed_to_read(tmp_path, monkeypatch):
    export(variable(), tmp_path / "cv.cpp")
    monkeypatch.setattr(compiler, "compiler", None)
    metadata = ofcv.read_metadata(tmp_path / "cv.cpp")
    assert (metadata.format, metadata.atoms) == ("plumed", [5, 2, 0, 6])
