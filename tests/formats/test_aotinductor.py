"""AOTInductor packages: compiled once, refused wherever they would not run."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import msgspec
import pytest
import torch
from torch._inductor import config
from torch._inductor.codegen.common import device_codegens

import ofcv_export as ofcv
from ofcv_export.formats import FORMATS, aotinductor
from ofcv_export.graph.details import RescalingDetails
from ofcv_export.graph.export_graph import ExportGraph, TensorSpec
from ofcv_export.graph.tracing import traced
from ofcv_export.runtimes.machine import cpu_features
from tests.builders.systems import all_pairs, dense_jacobian, frames, small_setup

AOTI = FORMATS[".pt2"]
CODE = "data/aotinductor/model/"


class Eigenvalues(torch.nn.Module):
    """An operation that AOTInductor calls by its name, in a file beside the library."""

    def export_graph(self):
        shape = ("batch", 3, 3)
        return ExportGraph(
            RescalingDetails(n_basis=3, epsilon=0.0),
            (TensorSpec("matrix", "float64", shape),),
            (TensorSpec("eigenvalues", "float64", ("batch", 3)),),
            build=lambda graph: traced(self, graph.inputs),
            exact=self,
        )

    def forward(self, matrix):
        return torch.linalg.eigvalsh(matrix + matrix.mT)


def rescaling():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 20, generator=generator, dtype=torch.float64)
    return ofcv.DimensionWiseRescaling(*values)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("aotinductor")


@pytest.fixture(scope="session")
def exporting_process(folder):
    """Export a set-up in a process of its own, which is killed with the model loaded."""
    program = """
import os, signal
import ofcv_export as ofcv
from tests.builders.systems import small_setup
environment = dict(os.environ)
ofcv.export(small_setup(), "smart.pt2", atoms=range(5), length_unit="nm")
assert dict(os.environ) == environment
model = ofcv.load("smart.pt2")
print(os.listdir(os.environ["TMPDIR"]), os.listdir(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    folders = {name: folder / name for name in ("exported", "temporary")}
    for entry in folders.values():
        entry.mkdir()
    environment = os.environ | {
        "TMPDIR": str(folders["temporary"]),
        aotinductor.PRECOMPILE: "",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folders["exported"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def smart_file(exporting_process, folder):
    """Frozen set-up, float32, any number of frames."""
    return folder / "exported" / "smart.pt2"


@pytest.fixture(scope="session")
def rule_file(folder):
    """Sparse chain rule, float64, several outputs, one frame."""
    ofcv.export(
        small_setup(torch.float64).sparse_chain_rule(), folder / "rule.pt2", batch=1, n_outputs=2
    )
    return folder / "rule.pt2"


@pytest.fixture(scope="session")
def rescaling_file(folder):
    """Rescaling of coefficients and gradients, float64."""
    ofcv.export(rescaling(), folder / "rescaling.pt2", gradient=True)
    return folder / "rescaling.pt2"


def rewritten(path, target, records=None, **changes):
    """Write a package with other metadata, and a digest that matches."""
    with zipfile.ZipFile(path) as archive:
        found = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    code = {name: data for name, data in found.items() if name.startswith(CODE)}
    metadata = msgspec.structs.replace(ofcv.read_metadata(path), **changes)
    AOTI.write(code if records is None else records, metadata, target)
    return target


def library_of(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".so"))
        return archive.read(name)


def test_frozen_set_up_equals_autograd(smart_file):
    jacobian = dense_jacobian(all_pairs(5), frames(7, 5, torch.float32).double())
    artifact = ofcv.load(smart_file)
    for index in (torch.tensor([3]), torch.tensor([6, 0, 6, 2]), torch.arange(7).repeat(30)):
        x = torch.randn(len(index), 10)
        expected = torch.einsum("bd,bdax->bax", x.double(), jacobian[index])
        scale = expected.abs().amax(dim=(1, 2), keepdim=True)
        error = ((artifact(x, index).double() - expected) / scale).abs().max()
        assert error < 1e-6


def test_sparse_chain_rule_of_one_frame(rule_file):
    rule = small_setup(torch.float64).sparse_chain_rule()
    jacobian = dense_jacobian(all_pairs(5), frames(7, 5))[3]
    blocks = jacobian[rule.pattern.descriptor_index, rule.pattern.atom_index].flatten()[None]
    x = torch.randn(1, 10, 2, dtype=torch.float64)
    expected = torch.einsum("bdo,dax->baxo", x, jacobian)
    torch.testing.assert_close(ofcv.load(rule_file)(x, blocks), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"output_wrt_descriptors: expected shape \(1, 10, 2\)"):
        ofcv.load(rule_file)(x.repeat(2, 1, 1), blocks.repeat(2, 1))


def test_rescaling_equals_the_formula(rescaling_file):
    module = rescaling()
    for n in (1, 6, 300):
        index = torch.randint(0, 20, (n,))
        coeffs, gradient = torch.randn(2, n, dtype=torch.float64)
        biases, stds, grads = (
            values[index] for values in (module.coeff_biases, module.coeff_stds, module.max_grads)
        )
        scale = torch.where(grads > 0.05, torch.minimum(grads / 0.05, 50 / stds), 1.0)
        found = ofcv.load(rescaling_file)(coeffs, index, gradient)
        torch.testing.assert_close(found[0], scale * (coeffs - biases), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found[1], gradient / (scale + 1e-8), rtol=1e-13, atol=0)


def test_operations_without_compiled_code_of_their_own(folder):
    ofcv.export(Eigenvalues(), folder / "eigenvalues.pt2")
    matrix = torch.randn(4, 3, 3, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(matrix + matrix.mT)
    torch.testing.assert_close(ofcv.load(folder / "eigenvalues.pt2")(matrix), expected)


def test_verified_against_the_module_and_the_probe(smart_file, rescaling_file):
    assert ofcv.verify(smart_file, reference=small_setup()).passed
    assert ofcv.verify(rescaling_file, reference=rescaling()).passed
    report = ofcv.verify(smart_file)
    assert report.passed
    assert report.runtime == "AOTInductor"


def test_inputs_need_not_be_contiguous(smart_file):
    artifact, index = ofcv.load(smart_file), torch.tensor([1, 4])
    x = torch.randn(10, 2).T
    assert not x.is_contiguous()
    assert torch.equal(artifact(x, index), artifact(x.contiguous(), index))


def test_two_files_at_once_and_from_several_threads(smart_file, rescaling_file):
    smart, other = ofcv.load(smart_file), ofcv.load(rescaling_file)
    again = ofcv.load(smart_file)
    x, index = torch.randn(2, 10), torch.tensor([5, 0])
    expected = smart(x, index)
    wrong = []

    def call():
        for _ in range(200):
            if not torch.equal(smart(x, index), expected):
                wrong.append("smart")
            other(torch.zeros(3).double(), torch.arange(3), torch.zeros(3).double())

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert torch.equal(again(x, index), expected)


def test_metadata(smart_file):
    metadata = ofcv.read_metadata(smart_file)
    assert (metadata.format, metadata.device, metadata.opset) == ("aotinductor", "cpu", None)
    assert metadata.instruction_set is not None
    assert set(metadata.instruction_set.split()) <= cpu_features()
    assert metadata.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (metadata.atoms, metadata.length_unit) == ([0, 1, 2, 3, 4], "nm")
    assert metadata.parity.runtime == "AOTInductor"
    assert metadata.inputs[0].shape == ("batch", 10)


def test_code_for_one_thread_that_names_no_file_of_this_machine(smart_file):
    library = library_of(smart_file)
    assert b"GOMP_parallel" not in library
    assert b"libgomp" not in library
    for path in (Path(torch.__file__).parent, Path.cwd(), Path.home()):
        assert str(path).encode() not in library
    assert b".cpp" not in library
    with zipfile.ZipFile(smart_file) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".cpp", ".h"))]


def test_other_loaders_of_packages_read_it(smart_file, tmp_path):
    """In a process of its own: PyTorch's loader compiles a test program and keeps it."""
    program = (
        "import sys, torch\n"
        "model = torch._inductor.aoti_load_package(sys.argv[1])\n"
        "print(model(torch.zeros(2, 10), torch.tensor([0, 6])).shape)\n"
    )
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, smart_file],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "torch.Size([2, 5, 3])\n"


def test_no_files_are_left_behind(exporting_process, folder):
    assert exporting_process.stdout == "[] ['smart.pt2']\n", exporting_process.stderr
    assert not list((folder / "temporary").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"instruction_set": "x86_64 avx2 avx1024"},
            "path: expected an artifact for this CPU, got one that needs avx1024",
        ),
        (
            {"versions": {"torch": "1.99.0"}},
            "path: expected an artifact compiled by PyTorch {release}, "
            "got one compiled by PyTorch 1.99",
        ),
        ({"device": "xpu"}, "path: expected an artifact for {devices}, got one for xpu"),
    ],
    ids=["instruction set", "version", "device"],
)
def test_code_for_another_machine_is_refused_before_it_runs(
    smart_file, tmp_path, monkeypatch, changes, message
):
    other = rewritten(smart_file, tmp_path / "other.pt2", **changes)
    handed_over = []
    monkeypatch.setattr("ofcv_export.runtimes.aotinductor._load", handed_over.append)
    message = message.format(
        release=".".join(torch.__version__.split(".")[:2]),
        devices="cpu or cuda" if torch.cuda.is_available() else "cpu",
    )
    for use in (ofcv.load, ofcv.verify):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            use(other)
    assert not handed_over
    assert ofcv.read_metadata(other).kind == "smart_derivatives"


def test_reading_metadata_executes_nothing(smart_file, monkeypatch):
    def forbidden(*arguments):
        raise RuntimeError("no runtime here")

    monkeypatch.setattr(torch._C._aoti, "AOTIModelContainerRunnerCpu", forbidden)
    monkeypatch.setattr("ofcv_export.runtimes.aotinductor._LOADED", {})
    assert ofcv.read_metadata(smart_file).kind == "smart_derivatives"
    with pytest.raises(ValueError, match="AOTInductor cannot read it: no runtime here"):
        ofcv.load(smart_file)


def test_damaged_and_foreign_files(smart_file, tmp_path):
    whole, path = smart_file.read_bytes(), tmp_path / "bad.pt2"

    def refused(content, why):
        path.write_bytes(content)
        for use in (ofcv.load, ofcv.read_metadata, ofcv.verify):
            expected = f"path: expected an ofcv-export artifact, got {str(path)!r} ({why})"
            with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
                use(path)

    refused(b"positions", "not an AOTInductor package")
    for part in (0.1, 0.9, 0.999):
        refused(whole[: int(part * len(whole))], "truncated or damaged")
    middle = whole.index(b"\x7fELF") + 5000
    flipped = bytearray(whole)
    flipped[middle] ^= 1
    refused(bytes(flipped), "truncated or damaged")

    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), path)
    refused(path.read_bytes(), "no ofcv.json in the archive")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/extra/ofcv.json", "{}")
    refused(path.read_bytes(), "no digest in the archive")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/extra/ofcv.sha256", "0" * 64)
    refused(path.read_bytes(), "its content does not match its digest")


def test_packages_without_code_that_loads(smart_file, tmp_path):
    empty = rewritten(smart_file, tmp_path / "empty.pt2", records={})
    with pytest.raises(ValueError, match="no compiled code in the archive"):
        ofcv.load(empty)
    broken = rewritten(
        smart_file, tmp_path / "broken.pt2", records={CODE + "model.wrapper.so": b"no library"}
    )
    with pytest.raises(ValueError, match="AOTInductor cannot read it: .*invalid ELF|too short"):
        ofcv.load(broken)


def test_file_of_another_format_by_its_name(smart_file, tmp_path):
    ofcv.export(small_setup(), tmp_path / "cv.pt")
    renamed = (tmp_path / "cv.pt").rename(tmp_path / "cv.pt2")
    with pytest.raises(ValueError, match="no compiled code in the archive"):
        ofcv.load(renamed)
    with pytest.raises(ValueError, match="LibTorch cannot read it"):
        ofcv.load(rewritten(smart_file, tmp_path / "cv.pt"))


def test_no_compiler(tmp_path):
    message = (
        "path: expected a C.. compiler to write a .pt2 file, got none named 'no-such-compiler'"
    )
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(FileNotFoundError, match=message),
    ):
        ofcv.export(small_setup(), tmp_path / "cv.pt2")
    assert not list(tmp_path.iterdir())


def test_compiler_that_fails(rescaling_file, tmp_path):
    """One line, and the old file stays. The CPU was probed when that was exported."""
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo g++ 99 && exit 0\nexit 1\n')
    compiler.chmod(0o755)
    before = rescaling_file.read_bytes()
    with (
        config.patch({"cpp.cxx": (None, str(compiler))}),
        pytest.raises(ValueError, match="module: expected a graph that AOTInductor can") as raised,
    ):
        ofcv.export(rescaling(), rescaling_file)
    assert "\n" not in str(raised.value)
    assert rescaling_file.read_bytes() == before
    assert list(rescaling_file.parent.glob(".*")) == []


def test_frozen_data_on_the_gpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA")
    ofcv.export(small_setup(), tmp_path / "cv.pt2", device="cuda")
    assert ofcv.read_metadata(tmp_path / "cv.pt2").device == "cuda"
    x, index = torch.randn(2, 10), torch.tensor([5, 0])
    found = ofcv.load(tmp_path / "cv.pt2", device="cuda")(x.cuda(), index.cuda())
    torch.testing.assert_close(found.cpu(), small_setup()(x, index))
    with pytest.raises(ValueError, match="device: expected cuda on this machine, got 'cpu'"):
        ofcv.load(tmp_path / "cv.pt2")


def test_one_library_for_all_loads_of_a_file(smart_file):
    """LibTorch keeps the memory maps of every library that it loads."""

    def n_maps():
        return len(Path("/proc/self/maps").read_text().splitlines())

    ofcv.load(smart_file)
    before = n_maps()
    for _ in range(20):
        ofcv.load(smart_file)(torch.zeros(1, 10), torch.tensor([0]))
    assert n_maps() - before < 6


def python(program, **environment):
    """Start a program that finds the package and the tests."""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths, aotinductor.PRECOMPILE: "", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_process_that_is_terminated_leaves_nothing(tmp_path):
    (tmp_path / "temporary").mkdir()
    program = """
import os, threading, time
from pathlib import Path
import ofcv_export as ofcv
from tests.builders.systems import small_setup
folder = Path(os.environ["TMPDIR"])
def watch():
    while not list(folder.rglob("*.cpp")):
        time.sleep(0.01)
    print("compiling", flush=True)
threading.Thread(target=watch, daemon=True).start()
ofcv.export(small_setup(), folder.parent / "cv.pt2")
"""
    process = python(program, TMPDIR=str(tmp_path / "temporary"))
    assert process.stdout.readline() == "compiling\n"
    process.terminate()
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert [entry.name for entry in tmp_path.iterdir()] == ["temporary"]
    assert not list((tmp_path / "temporary").iterdir())


def test_a_temporary_folder_with_a_space_and_a_quote(tmp_path):
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    program = f"""
import ofcv_export as ofcv
from tests.builders.systems import small_setup
ofcv.export(small_setup(), {str(tmp_path / "cv.pt2")!r})
"""
    process = python(program, TMPDIR=str(folder))
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert not list(folder.iterdir())
    assert ofcv.verify(tmp_path / "cv.pt2").passed


def test_no_temporary_folder_that_code_may_be_loaded_from(smart_file, monkeypatch, tmp_path):
    monkeypatch.setattr("ofcv_export.runtimes.aotinductor.is_noexec", lambda folder: True)
    message = "TMPDIR: expected a folder with no space or quote .* mounted noexec"
    for use in (
        lambda: ofcv.export(small_setup(), tmp_path / "cv.pt2"),
        lambda: ofcv.load(rewritten(smart_file, tmp_path / "other.pt2", atoms=[4, 3, 2, 1, 0])),
    ):
        with pytest.raises(OSError, match=message):
            use()


def test_exports_in_several_threads(tmp_path):
    """The compiler's settings and folders are those of the process."""
    environment, writer = dict(os.environ), device_codegens.get("cpu")
    errors = []

    def export(number):
        try:
            ofcv.export(small_setup(), tmp_path / f"{number}.pt2", atoms=range(number, 5 + number))
            ofcv.export(rescaling(), tmp_path / f"{number}.onnx")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=export, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert dict(os.environ) == environment
    assert device_codegens.get("cpu") is writer or writer is None
    for number in range(2):
        assert ofcv.verify(tmp_path / f"{number}.pt2", reference=small_setup()).passed
        assert ofcv.read_metadata(tmp_path / f"{number}.pt2").atoms[0] == number


@pytest.mark.parametrize("known", [None, "/elsewhere"])
def test_the_environment_comes_back(monkeypatch, known):
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
        if known is not None:
            monkeypatch.setenv(name, known)
    before, settings = dict(os.environ), config.save_config()
    with pytest.raises(ZeroDivisionError), aotinductor._files_in("/folder"):
        _ = 1 / ("/folder" not in (os.environ["TORCHINDUCTOR_CACHE_DIR"], os.environ["TMPDIR"]))
    assert dict(os.environ) == before
    assert config.save_config() == settings


def test_one_export_at_a_time(tmp_path, monkeypatch):
    """In several threads, since settings of the process are changed meanwhile."""
    compiling, most = [], []

    def compile_slowly(self, graph):
        compiling.append(graph)
        most.append(len(compiling))
        time.sleep(0.5)
        compiling.remove(graph)
        raise OSError("no space left")

    monkeypatch.setattr(type(FORMATS[".pt"]), "compile", compile_slowly)
    errors = []

    def export(number):
        try:
            ofcv.export(small_setup(), tmp_path / f"{number}.pt")
        except OSError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=export, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["no space left"] * 3
    assert most == [1, 1, 1]
