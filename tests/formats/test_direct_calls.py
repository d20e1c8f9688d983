"""Files called through their own runtime, with nothing of ours in between to check inputs."""

import ctypes
import zipfile

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from export_scripts.energy_network import CoefficientNetwork
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.descriptors import PairDistances
from tests.builders.formats import FREE_SIZES
from tests.builders.systems import small_setup

N_BASIS = 20


def rescaling():
    return ofcv.DimensionWiseRescaling(*torch.rand(3, N_BASIS, dtype=torch.float64))


def energy_functional():
    basis = ofcv.BasisInfo([1, 8], ["2x0e", "3x0e+1x1o"])
    n = basis.n_basis
    scaled = ofcv.DimensionWiseRescaling(*torch.rand(3, n, dtype=torch.float64))
    reference = AtomicReference(
        torch.ones(n, dtype=torch.float64), torch.ones(2, dtype=torch.float64), -1.5, basis
    )
    return ofcv.EnergyFunctional(CoefficientNetwork(n, 4, (8,)).double(), scaled, reference)


# What to export with which options; inputs that fit; and an index of each and how many there are.
KINDS = {
    "smart derivatives": (
        small_setup, {}, (torch.ones(2, 10), torch.tensor([0, 1])), {1: 7}
    ),
    "gathered smart derivatives": (
        small_setup, {"form": "gather"}, (torch.ones(2, 10), torch.tensor([0, 1])), {1: 7}
    ),
    "rescaling": (
        rescaling, {}, (torch.ones(2).double(), torch.tensor([0, 1])), {1: N_BASIS}
    ),
    "rescaling of gradients": (
        rescaling,
        {"gradient": True},
        (torch.ones(2).double(), torch.tensor([0, 1]), torch.ones(2).double()),
        {1: N_BASIS},
    ),
}  # fmt: skip


def runner(path):
    """Return a function that runs a file through its runtime's own loader, as a list of arrays."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        names = [entry.name for entry in session.get_inputs()]
        return lambda *inputs: session.run(
            None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)}
        )
    if path.suffix == ".pt":
        module = torch.jit.load(path)
        return lambda *inputs: module(*inputs)
    folder = path.with_suffix("")
    folder.mkdir()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "/data/aotinductor/model/" in name:
                (folder / name.rpartition("/")[2]).write_bytes(archive.read(name))
    library = str(folder / "model.wrapper.so")
    compiled = torch._C._aoti.AOTIModelContainerRunnerCpu(library, 1)
    return lambda *inputs: compiled.run(list(inputs))


def cases():
    for kind in KINDS:
        for suffix in FREE_SIZES:
            # Seconds to compile: one of each kind of index.
            if suffix != ".pt2" or kind in ("smart derivatives", "rescaling"):
                yield kind, suffix


@pytest.mark.parametrize(("kind", "suffix"), list(cases()))
def test_an_index_that_does_not_exist_is_an_error(tmp_path, kind, suffix):
    make, options, inputs, indices = KINDS[kind]
    path = tmp_path / f"file{suffix}"
    ofcv.export(make(), path, **options)
    run = runner(path)
    run(*inputs)
    for place, size in indices.items():
        for wrong in (-1, -size, size):
            given = list(inputs)
            given[place] = torch.tensor([0, wrong])
            with pytest.raises(Exception, match=r"(?i)index|indices|bounds|failed"):
                run(*given)


@pytest.mark.parametrize("suffix", FREE_SIZES)
def test_indices_of_a_functional_that_do_not_exist_are_errors(tmp_path, suffix):
    path = tmp_path / f"functional{suffix}"
    made = energy_functional()
    ofcv.export(made, path)
    run = runner(path)
    coeffs = torch.ones(3, dtype=made.dtype)
    zeros = torch.zeros(3, dtype=torch.int64)
    run(coeffs, zeros, zeros)
    for place, wrong in ((1, -1), (1, made.n_basis), (2, -1)):
        inputs = [coeffs, zeros, zeros]
        inputs[place] = torch.tensor([0, 0, wrong])
        with pytest.raises(Exception, match=r"(?i)index|indices|bounds|failed"):
            run(*inputs)


@pytest.mark.parametrize("suffix", FREE_SIZES)
def test_another_number_of_frames_than_the_file_takes_is_an_error(tmp_path, suffix):
    ofcv.export(small_setup(), tmp_path / f"cv{suffix}", batch=4)
    run = runner(tmp_path / f"cv{suffix}")
    assert np.asarray(run(torch.ones(4, 10), torch.arange(4))[0]).shape[-2:] == (5, 3)
    for n_frames in (1, 5):
        with pytest.raises(Exception, match=r"(?i)expected|shape|failed"):
            run(torch.ones(n_frames, 10), torch.zeros(n_frames).long())


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_a_file_for_one_frame_does_not_take_the_first_of_many(tmp_path, suffix):
    network = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    pairs = torch.combinations(torch.arange(4))
    cv = ofcv.CollectiveVariable(PairDistances(pairs, 4), network)
    ofcv.export(cv, tmp_path / f"cv{suffix}", batch=1)
    run = runner(tmp_path / f"cv{suffix}")
    assert np.asarray(run(torch.ones(1, 4, 3))[0]).shape == (1, 1)
    for shape in ((2, 4, 3), (1, 5, 3)):
        with pytest.raises(Exception, match=r"(?i)positions: expected shape|invalid dimensions"):
            run(torch.ones(shape))


def test_compiled_code_looks_at_what_it_is_given(tmp_path, capfd):
    ofcv.export(small_setup(), tmp_path / "cv.pt2")
    run = runner(tmp_path / "cv.pt2")
    x, index = torch.ones(3, 10), torch.arange(3)
    run(x, index)
    name = "output_wrt_descriptors"
    for wrong, message in (
        ((x.double(), index), f"{name}: expected dtype float32, got float64"),
        ((x.half(), index), f"{name}: expected dtype float32, got another"),
        ((torch.ones(3, 9), index), f"{name}: expected shape (batch, 10), got (3, 9)"),
        ((torch.ones(10), index), f"{name}: expected shape (batch, 10), got (10,)"),
        ((torch.ones(10, 3).T, index), f"{name}: expected row-major order, got strides (1, 3)"),
        ((x, torch.arange(2)), f"ref_idx: expected batch = 3 as in {name}, got 2"),
        ((x, torch.zeros(3).int()), "ref_idx: expected dtype int64, got int32"),
    ):
        with pytest.raises(RuntimeError):
            run(*wrong)
        assert f"{message}\n" in capfd.readouterr().err


class Negated(nn.Module):
    """Minus the squares, as a view of a complex number that notes the sign beside its memory."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, descriptors):
        return torch.complex(descriptors, self.one * descriptors**2).conj().imag[:, :1]


@pytest.mark.parametrize(
    "options",
    [{}, {"batch": 1}, {"contract": "plumed-pytorch"}, {"contract": "openmm-torch"}],
    ids=["any batch", "one frame", "network", "energy"],
)
def test_results_lie_in_memory_as_they_are(tmp_path, options):
    """An engine reads their memory, where a sign that is only noted does not stand."""
    cv = ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 1]]), 2), Negated())
    module, positions = cv, torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]]).double()
    if options.get("contract") == "openmm-torch":
        module, options = ofcv.Bias(cv), options | {"n_particles": 2}
        positions = positions[0]
    elif "contract" in options:
        positions = torch.tensor([[1.5]]).double()
    assert cv(torch.zeros(1, 2, 3).double()).is_neg()
    ofcv.export(module, tmp_path / "cv.pt", **options)
    found = torch.jit.load(tmp_path / "cv.pt")(positions)
    value = found[0] if isinstance(found, tuple) else found
    assert ctypes.c_double.from_address(value.data_ptr()).value == pytest.approx(-(1.5**2))
