"""C source: what is written, what compiles it, and what is refused."""

import ctypes
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ofcv_export as ofcv
from ofcv_export.c_source import compiler
from ofcv_export.c_source.interface import argument, symbol_of
from ofcv_export.cli import app
from ofcv_export.descriptors import (
    RMSD,
    AdjacencyEigenvalues,
    Angles,
    CoordinationNumbers,
    Fermi,
    PairDistances,
    RuntimeBox,
    Torsions,
)
from ofcv_export.graph.tensor_spec import TensorSpec
from tests.builders.systems import OPEN, all_pairs, by_autograd, frames, small_setup

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
STRICT = "-std=c99 -pedantic -Wall -Wextra -Werror"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("OFCV_CACHE", str(folder))
    monkeypatch.delenv("CC", raising=False)
    return folder


def variable(descriptors=None, n_outputs=2, **options):
    torch.manual_seed(0)
    descriptors = descriptors or all_pairs(6)
    network = nn.Sequential(
        nn.Linear(descriptors.n_descriptors, 9), nn.Tanh(), nn.Linear(9, n_outputs)
    )
    return ofcv.CollectiveVariable(descriptors, network, **options).float()


def compiled(path, *arguments, target=None):
    """Compile a file by a command and return where the result is."""
    target = target or path.with_suffix(".out")
    subprocess.run(["cc", *STRICT.split(), "-O1", path, *arguments, "-o", target], check=True)
    return target


def test_a_file_gives_the_numbers_of_autograd(tmp_path):
    cv = variable()
    report = ofcv.export(cv, tmp_path / "cv.c")
    assert report.passed
    artifact = ofcv.load(tmp_path / "cv.c")
    positions = frames(1, 6, torch.float32)
    exact = by_autograd(lambda x: cv.double().network(cv.descriptors(x)), positions.double())
    cv.float()
    values, derivatives = artifact(positions)
    torch.testing.assert_close(values.double(), exact[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(derivatives.double(), exact[1], rtol=1e-5, atol=1e-5)
    with_numpy = artifact(positions.numpy())
    assert isinstance(with_numpy[0], np.ndarray)
    assert np.array_equal(with_numpy[0], values)


def test_arrays_may_lie_in_memory_as_they_like(tmp_path):
    ofcv.export(variable(), tmp_path / "cv.c")
    artifact, x = ofcv.load(tmp_path / "cv.c"), frames(1, 6, torch.float32).numpy()
    expected = artifact(x)
    read_only = x.copy()
    read_only.flags.writeable = False
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    odd = raw.view(np.float32).reshape(x.shape)
    odd[:] = x
    others = (read_only, np.asfortranarray(x), x[:, ::-1].copy()[:, ::-1], x.astype(">f4"), odd)
    for same in (*others, x.tolist()):
        assert all(map(np.array_equal, artifact(same), expected))
    for same in others[:3]:
        assert all(map(np.array_equal, artifact.run([same]), expected))


def test_frames_of_a_batch_have_the_bits_of_single_ones(tmp_path):
    cv, positions = variable(), frames(5, 6, torch.float32)
    ofcv.export(cv, tmp_path / "one.c")
    ofcv.export(cv, tmp_path / "five.c", batch=5)
    one, five = ofcv.load(tmp_path / "one.c"), ofcv.load(tmp_path / "five.c")
    together = five(positions)
    for k in range(5):
        for part, whole in zip(one(positions[k : k + 1]), together, strict=True):
            assert torch.equal(part[0], whole[k])


def test_metadata_are_read_without_a_compiler(tmp_path, monkeypatch):
    ofcv.export(variable(atoms=[4, 2, 9, 7, 5, 0], length_unit="A"), tmp_path / "cv.c")
    monkeypatch.setenv("PATH", "")
    metadata = ofcv.read_metadata(tmp_path / "cv.c")
    assert metadata.format == "c"
    assert metadata.atoms == [4, 2, 9, 7, 5, 0]
    assert metadata.parity is not None
    assert CliRunner().invoke(app, ["inspect", str(tmp_path / "cv.c")]).exit_code == 0


USER = """
#include <math.h>
#include <stdio.h>
int cv_evaluate(const float *positions, float *values, float *derivatives);
int other_evaluate(const float *positions, float *values, float *derivatives);
const char *cv_error(int code);
const char *cv_metadata(void);
int main(void) {
  float positions[18], values[2], derivatives[36];
  for (int i = 0; i < 18; ++i) positions[i] = (float)(i * i % 7) + 0.25f * (float)i;
  const int code = cv_evaluate(positions, values, derivatives);
  printf("%d %a %a %a\\n", code, values[0], values[1], derivatives[35]);
  other_evaluate(positions, values, derivatives);
  printf("%a %a\\n", values[0], derivatives[35]);
  positions[3] = HUGE_VALF;
  printf("[%s]\\n", cv_error(cv_evaluate(positions, values, derivatives)));
  puts(cv_metadata());
  return 0;
}
"""


def test_a_program_in_c_has_two_of_them_and_the_same_bits(tmp_path):
    cv, other = variable(), variable()
    with torch.no_grad():
        other.network[0].weight.mul_(0.5)
    ofcv.export(cv, tmp_path / "cv.c")
    ofcv.export(other, tmp_path / "other.c")
    (tmp_path / "main.c").write_text(USER)
    main = compiled(tmp_path / "main.c", tmp_path / "cv.c", tmp_path / "other.c", "-lm")
    first, second, error, metadata = subprocess.check_output([main], text=True).splitlines()
    i = np.arange(18)
    positions = ((i * i % 7) + 0.25 * i).astype(np.float32).reshape(1, 6, 3)
    values, derivatives = ofcv.load(tmp_path / "cv.c")(positions)
    numbers = [float.fromhex(word) for word in first.split()[1:]]
    assert numbers == [*values[0].tolist(), derivatives.flatten()[-1].item()]
    theirs = ofcv.load(tmp_path / "other.c")(positions)
    assert float.fromhex(second.split()[0]) == theirs[0][0, 0].item() != values[0, 0].item()
    assert error == "[positions: expected finite numbers, got NaN or infinity]"
    assert json.loads(metadata)["format"] == "c"


def test_it_is_cpp_as_well(tmp_path):
    ofcv.export(variable(AdjacencyEigenvalues(6, Fermi(0.9, q=0.3))), tmp_path / "cv.c")
    subprocess.run(
        ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-x", "c++", "-fsyntax-only",
         tmp_path / "cv.c"], check=True,
    )  # fmt: skip


DESCRIPTORS = {
    "torsions": lambda: Torsions(torch.arange(3).unsqueeze(1) + torch.arange(4), 6, box=OPEN),
    "angles in a box": lambda: Angles(
        torch.arange(4).unsqueeze(1) + torch.arange(3), 6, box=RuntimeBox()
    ),
    "coordination": lambda: CoordinationNumbers(
        torch.tensor([0, 1]), torch.arange(2, 6), 6, Fermi(0.9, q=0.3)
    ),
    "eigenvalues": lambda: AdjacencyEigenvalues(6, Fermi(0.9, q=0.3)),
    "rmsd": lambda: RMSD(torch.randn(4, 3).double(), 6, torch.tensor([5, 0, 3, 2])),
    "distances": lambda: PairDistances(all_pairs(6).pairs[::4], 6),
}


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_every_kind_of_descriptor(tmp_path, name):
    torch.manual_seed(3)
    report = ofcv.export(variable(DESCRIPTORS[name]()), tmp_path / "cv.c")
    assert report.passed
    assert ofcv.verify(tmp_path / "cv.c").passed
    compiled(tmp_path / "cv.c", "-c")


@pytest.mark.parametrize("suffix", [".c", ".so"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rescaling_of_any_number_of_coefficients(tmp_path, dtype, suffix):
    torch.manual_seed(0)
    lambdas, biases = torch.rand(7, dtype=dtype) + 0.1, torch.randn(7, dtype=dtype)
    rescaling = ofcv.DimensionWiseRescaling(biases, lambdas, lambdas)
    path = tmp_path / f"rescaling{suffix}"
    ofcv.export(rescaling, path, gradient=True)
    artifact = ofcv.load(path)
    scale = rescaling.lambda_z.double()
    for n in (1, 31, 32, 33, 1000):
        coeffs, index = torch.randn(n, dtype=dtype), torch.randint(7, (n,))
        gradient = torch.randn(n, dtype=dtype)
        found = artifact(coeffs, index, gradient)
        expected = scale[index] * (coeffs - biases[index].double()), gradient / scale[index]
        for ours, judge in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), judge.double(), rtol=1e-6, atol=1e-6)
    if suffix == ".so":
        library = ctypes.CDLL(str(path))
        library.rescaling_error.restype = ctypes.c_char_p
        code = library.rescaling_evaluate(ctypes.c_int64(0), *[None] * 5)
        assert library.rescaling_error(code) == b"n: expected 1 or more, got less"
    with pytest.raises(IndexError, match=r"^basis_function_ind: expected indices in \[0, 7\)"):
        artifact(coeffs, index + 1, gradient)


@pytest.mark.parametrize("form", ["scatter", "gather"])
def test_a_frozen_dataset_by_index(tmp_path, form):
    smart = small_setup()
    ofcv.export(smart, tmp_path / "smart.c", batch=3, form=form)
    x, index = torch.randn(3, smart.pattern.n_descriptors), torch.tensor([2, 0, 2])
    found = ofcv.load(tmp_path / "smart.c")(x, index)
    torch.testing.assert_close(found, smart(x, index), rtol=1e-5, atol=1e-6)
    run = ofcv.load(tmp_path / "smart.c").run
    with pytest.raises(ValueError, match=r"ref_idx: expected integers in \[0, \d+\), got others"):
        run([x, torch.tensor([0, -1, 2])])


def test_all_compilers_verify(tmp_path):
    path = tmp_path / "cv.c"
    ofcv.export(variable(), path)
    report = ofcv.verify(path)
    expected = {"cpu", *(f"cpu, {Path(other).name}" for other in compiler.compilers()[1:])}
    assert {entry.device for entry in report.comparisons} == expected


def test_it_is_compiled_once(tmp_path, cache, monkeypatch):
    path = tmp_path / "cv.c"
    ofcv.export(variable(), path)
    libraries = set(cache.glob("*.so"))
    assert len(libraries) == len(compiler.compilers())
    started = []
    compile_it = compiler._compiled
    monkeypatch.setattr(compiler, "_compiled", lambda *a: started.append(a) or compile_it(*a))
    ofcv.load(path)
    assert not started
    shutil.rmtree(cache)
    ofcv.load(path)
    assert len(started) == 1


def test_threads_call_it_at_once(tmp_path):
    ofcv.export(variable(), tmp_path / "cv.c")
    artifact = ofcv.load(tmp_path / "cv.c")
    positions = frames(8, 6, torch.float32).unsqueeze(1)
    expected = [artifact(x)[1] for x in positions]
    wrong = []

    def work(k):
        for _ in range(200):
            if not torch.equal(artifact(positions[k])[1], expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("cv.c", "cv"), ("my-cv 2.c", "my_cv_2"), ("2d.c", "model_2d"), ("int.c", "model_int")],
)
def test_names_begin_with_the_stem_of_the_file(tmp_path, name, symbol):
    path = tmp_path / name
    assert symbol_of(path) == symbol
    ofcv.export(variable(), path)
    assert f"int {symbol}_evaluate(const float *positions, " in path.read_text()
    assert ofcv.load(path)(frames(1, 6, torch.float32))[0].shape == (1, 2)


def test_names_begin_with_a_symbol_of_ones_own(tmp_path):
    path = tmp_path / "2d.c"
    ofcv.export(variable(), path, symbol="committor")
    assert "int committor_evaluate(const float *positions, " in path.read_text()
    assert ofcv.load(path)(frames(1, 6, torch.float32))[0].shape == (1, 2)
    assert ofcv.read_metadata(path).options == {"symbol": "committor"}


@pytest.mark.parametrize("symbol", ["2d", "my-cv", "", "int", "class", "_cv", "cv ", "größe"])
def test_a_symbol_is_a_name_in_c(tmp_path, symbol):
    message = "symbol: expected letters, digits and underscores, a letter first, and no keyword"
    with pytest.raises(ValueError, match=message):
        ofcv.export(variable(), tmp_path / "cv.c", symbol=symbol)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"symbol": 3}, "symbol: expected a text, got 3"),
     ({"fast": 1}, "fast: expected True or False, got 1"),
     ({"fastest": True}, "fastest: expected an option of CollectiveVariable")],
)  # fmt: skip
def test_options_of_another_kind_are_refused(tmp_path, options, message):
    with pytest.raises(TypeError, match=message):
        ofcv.export(variable(), tmp_path / "cv.c", **options)


@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".pt2"])
@pytest.mark.parametrize(("name", "value"), [("fast", True), ("symbol", "cv")])
def test_options_of_c_source_are_no_others(tmp_path, suffix, name, value):
    with pytest.raises(
        ValueError, match=f"{name}: expected none but for a .c, .cpp or .so file, got {value!r}"
    ):
        ofcv.export(variable(), tmp_path / f"cv{suffix}", **{name: value})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fast_file_gives_the_numbers_of_autograd(tmp_path, dtype):
    cv, path = variable().to(dtype), tmp_path / "cv.c"
    ofcv.export(cv, path, fast=True)
    assert ofcv.read_metadata(path).options == {"fast": True}
    assert "Made with fast=True" in path.read_text()
    assert ofcv.verify(path, reference=cv).passed
    positions = frames(1, 6, dtype)
    found = ofcv.load(path)(positions)
    cv.double()
    exact = by_autograd(lambda x: cv.network(cv.descriptors(x)), positions.double())
    places = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=places, atol=places)
    with pytest.raises(ValueError, match="positions: expected finite numbers, got NaN or infinity"):
        ofcv.load(path).run([torch.full((1, 6, 3), torch.inf, dtype=dtype)])


@pytest.mark.parametrize("command", ["gcc -x c " + STRICT, "clang -x c " + STRICT,
                         "g++ -x c++ -std=c++17 -Wall -Wextra -Werror"])  # fmt: skip
def test_a_fast_file_compiles_without_warnings(tmp_path, command):
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"no {command.split()[0]}")
    ofcv.export(variable(DESCRIPTORS["eigenvalues"]()), tmp_path / "cv.c", fast=True)
    subprocess.run([*command.split(), "-O3", "-c", "cv.c"], cwd=tmp_path, check=True)


def test_a_fast_file_multiplies_and_adds_at_once(tmp_path):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if " fma " not in flags or shutil.which("objdump") is None:
        pytest.skip("no such instructions, or no objdump")
    fused = []
    for fast in (True, False):
        ofcv.export(variable(), tmp_path / "cv.c", fast=fast)
        compiled(tmp_path / "cv.c", "-c", "-O3", "-march=native")
        code = subprocess.check_output(["objdump", "-d", tmp_path / "cv.out"], text=True)
        fused.append("vfmadd" in code)
    assert fused == [True, False]


@pytest.mark.parametrize("name", ["i", "wrong", "register", "box"])
def test_no_argument_hides_what_the_function_needs(name):
    spec = TensorSpec(name, "float32", (1,))
    assert argument(spec) == (name if name == "box" else f"{name}_")


def test_parameters_are_arguments(tmp_path):
    restraint = ofcv.HarmonicRestraint(variable(n_outputs=1), [0.1], 3.0)
    ofcv.export(restraint, tmp_path / "restraint.c")
    text = (tmp_path / "restraint.c").read_text()
    assert "const float *centre, const float *force_constant" in text


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "cv.c"
    ofcv.export(variable(), path)
    text = path.read_bytes()
    for other in (
        text.replace(b"0x1.", b"0x2.", 1),
        text[:-70],
        text.replace(b"return 1;", b"return 0;"),
        b"",
    ):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="path: expected an ofcv-export artifact, got"):
            ofcv.load(path)


class Sorted(nn.Module):
    def forward(self, x):
        return x.sort(1).values[:, :2]


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(15, 80_000))

    def forward(self, x):
        return (x @ self.weights).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Sorted(), "module: expected operators that C source can hold, got aten.sort"),
        (Large(), r"module: expected at most \d+ constants for a .c file, got 1\d+ \(.pt2 has no"),
    ],
)
def test_what_it_cannot_hold_is_named_and_nothing_is_written(tmp_path, network, message):
    path = tmp_path / "cv.c"
    path.write_text("as it was")
    with pytest.raises(ValueError, match=message):
        ofcv.export(ofcv.CollectiveVariable(all_pairs(6), network), path)
    assert path.read_text() == "as it was"


def test_a_missing_compiler_is_named(tmp_path, monkeypatch):
    ofcv.export(variable(), tmp_path / "cv.c")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(FileNotFoundError, match="path: expected a C compiler for a .c or .so "
                       "file, got none named no-such-compiler .install gcc or clang"):  # fmt: skip
        ofcv.load(tmp_path / "cv.c")


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    ofcv.export(variable(), tmp_path / "cv.c")
    broken = tmp_path / "broken"
    broken.write_text(
        "#!/bin/sh\necho 'note: this' >&2\necho 'fatal error: no stdint.h' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    message = "path: expected source that broken compiles, got fatal error: no stdint.h"
    with pytest.raises(ValueError, match=message):
        ofcv.load(tmp_path / "cv.c")


def test_a_cache_that_others_can_write_to_is_refused(tmp_path, cache):
    ofcv.export(variable(), tmp_path / "cv.c")
    cache.chmod(0o777)
    with pytest.raises(PermissionError, match="OFCV_CACHE: expected a folder that only its owner"):
        ofcv.load(tmp_path / "cv.c")


def test_numbers_that_are_none_are_refused_by_the_file_itself(tmp_path):
    ofcv.export(variable(), tmp_path / "cv.c")
    run = ofcv.load(tmp_path / "cv.c").run
    with pytest.raises(ValueError, match="positions: expected finite numbers, got NaN or infinity"):
        run([torch.full((1, 6, 3), torch.nan)])


def test_no_global_state_and_no_allocation(tmp_path):
    ofcv.export(variable(), tmp_path / "cv.c")
    text = (tmp_path / "cv.c").read_text()
    assert not re.search(r"\b(malloc|calloc|free|alloca)\b", text)
    assert not re.search(r"^static (?!const|inline|int|void)", text, re.MULTILINE)
    compiled(tmp_path / "cv.c", "-c")
    symbols = subprocess.check_output(["nm", tmp_path / "cv.out"], text=True)
    # Neither initialised nor zeroed data that anything could write to.
    assert not re.search(r" [bBdDC] ", symbols)


EXAMPLES = Path(__file__).parents[2] / "cpp_demo" / "c_source"


@pytest.fixture
def example(tmp_path):
    """A file, positions as text, and what it gives for them."""
    ofcv.export(variable(n_outputs=1), tmp_path / "cv.c")
    positions = frames(1, 6, torch.float32)
    value, slopes = ofcv.load(tmp_path / "cv.c")(positions)
    text = " ".join(f"{x:.9g}" for x in positions.flatten().tolist())
    return tmp_path / "cv.c", text, [value.item(), *slopes.flatten().tolist()]


def test_the_example_in_c(example, tmp_path):
    path, text, expected = example
    program = compiled(EXAMPLES / "step.c", path, "-lm", target=tmp_path / "step")
    out = subprocess.run([program, "6"], input=text, capture_output=True, text=True, check=True)
    assert np.array_equal(np.float32(out.stdout.split()), np.float32(expected))
    out = subprocess.run(
        [program, "6"], input=text.replace(text.split()[4], "inf"), capture_output=True, text=True
    )
    assert out.returncode == 1
    assert out.stderr == "positions: expected finite numbers, got NaN or infinity\n"


@pytest.mark.skipif(shutil.which("gfortran") is None, reason="no gfortran")
def test_the_example_in_fortran(example, tmp_path):
    path, text, expected = example
    done = CliRunner().invoke(app, ["fortran", str(path)])
    assert done.exit_code == 0, done.output
    compiled(path, "-c", target=tmp_path / "cv.o")
    sources = [tmp_path / "cv.f90", EXAMPLES / "step.f90", tmp_path / "cv.o"]
    command = ["gfortran", "-Wall", "-std=f2008", "-J", tmp_path, *sources, "-lm"]
    subprocess.run([*command, "-o", tmp_path / "step"], check=True, cwd=tmp_path)
    out = subprocess.check_output([tmp_path / "step"], input=f"6\n{text}\n", text=True)
    assert np.array_equal(np.float32(out.split()), np.float32(expected))


def test_fortran_wants_c_source(tmp_path):
    (tmp_path / "cv.pt").write_bytes(b"")
    done = CliRunner().invoke(app, ["fortran", str(tmp_path / "cv.pt")])
    assert done.exit_code == 1
    assert "path: expected a file name ending in .c or .so, got" in done.output


def test_a_library_has_the_same_interface_in_fortran(tmp_path):
    texts = []
    for suffix in (".c", ".so"):
        ofcv.export(variable(), tmp_path / f"my-cv{suffix}")
        done = CliRunner().invoke(app, ["fortran", str(tmp_path / f"my-cv{suffix}")])
        assert done.exit_code == 0, done.output
        texts.append((tmp_path / "my-cv.f90").read_text())
    assert texts[0] == texts[1]
    assert "function my_cv_evaluate(" in texts[0]


def test_ctypes_can_do_it_alone(tmp_path):
    ofcv.export(variable(), tmp_path / "cv.c")
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "cv.c", "-o", tmp_path / "cv.so", "-lm"],
                   check=True)  # fmt: skip
    library = ctypes.CDLL(str(tmp_path / "cv.so"))
    library.cv_metadata.restype = ctypes.c_char_p
    assert json.loads(library.cv_metadata())["details"]["n_atoms"] == 6
