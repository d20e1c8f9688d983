"""ONNX files of each kind in other versions of ONNX Runtime, see ``.ci/onnxruntime_versions``."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from export_scripts.energy_network import CoefficientNetwork
from ofcv_export.artifacts.samples import sample
from ofcv_export.density.atomic_reference import AtomicReference
from ofcv_export.descriptors import PairDistances, RuntimeBox
from ofcv_export.graph.tensor_spec import symbols
from tests.builders.systems import small_setup
from tests.formats.test_onnx import Indexed

FOLDERS = [entry for entry in os.environ.get("OFCV_ONNXRUNTIMES", "").split(":") if entry]
PAIRS = torch.combinations(torch.arange(4))
# Plain NumPy and ONNX Runtime; nothing of the project's, nor of this process's packages.
PROGRAM = """
import sys, numpy, onnxruntime
file, inputs, outputs = sys.argv[1:]
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
arrays = numpy.load(inputs)
found = session.run(None, {name: arrays[name] for name in arrays.files})
numpy.savez(outputs, **{entry.name: a for entry, a in zip(session.get_outputs(), found)})
print(onnxruntime.__version__)
"""


def network(activation):
    return nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 2))


def variable(made, box=None):
    return ofcv.CollectiveVariable(PairDistances(PAIRS, 4, box), made)


def rescaling(n):
    draw = torch.rand(3, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ofcv.DimensionWiseRescaling(*draw)


def functional():
    basis = ofcv.BasisInfo([1, 8], ["2x0e", "3x0e+1x1o"])
    n = basis.n_basis
    reference = AtomicReference(torch.ones(n).double(), torch.ones(2).double(), -1.5, basis)
    scaled = rescaling(n)
    return ofcv.EnergyFunctional(CoefficientNetwork(n, 4, (8,)).double(), scaled, reference)


# Makers of modules in float64, and options of their export.
KINDS = {
    "smart derivatives": (lambda: small_setup(torch.float64), {}),
    "gathered": (lambda: small_setup(torch.float64), {"form": "gather"}),
    "several outputs": (lambda: small_setup(torch.float64), {"n_outputs": 2}),
    "sparse rule": (lambda: small_setup(torch.float64).sparse_chain_rule(), {}),
    "rescaling": (lambda: rescaling(6), {"gradient": True}),
    "functional": (functional, {}),
    "tanh": (lambda: variable(network(nn.Tanh())), {}),
    "relu": (lambda: variable(network(nn.ReLU())), {}),
    "sigmoid": (lambda: variable(network(nn.Sigmoid())), {}),
    "leaky relu": (lambda: variable(network(nn.LeakyReLU(0.013))), {}),
    "elu": (lambda: variable(network(nn.ELU(1.3))), {}),
    "softplus": (lambda: variable(network(nn.Softplus())), {}),
    "one frame": (lambda: variable(network(nn.Tanh())), {"batch": 1}),
    "box": (lambda: variable(network(nn.Tanh()), RuntimeBox()), {}),
    "restraint": (
        lambda: ofcv.HarmonicRestraint(variable(network(nn.Tanh())), [0.1, 0.2], 3.0), {}
    ),
    "indices": (lambda: variable(Indexed()), {}),
}  # fmt: skip


@pytest.mark.skipif(not FOLDERS, reason="OFCV_ONNXRUNTIMES names no folders of ONNX Runtimes")
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: Path(folder).name)
def test_files_of_each_kind_run_and_are_right(tmp_path, folder, dtype, kind):
    make, options = KINDS[kind]
    torch.manual_seed(0)
    module = make().to(dtype)
    path = tmp_path / "file.onnx"
    ofcv.export(module, path, **options)
    metadata = ofcv.read_metadata(path)
    sizes = dict.fromkeys(symbols(metadata.inputs), 5)
    inputs = sample(metadata.inputs, sizes, "normal", 0)
    named = {spec.name: x.numpy() for spec, x in zip(metadata.inputs, inputs, strict=True)}
    np.savez(tmp_path / "inputs.npz", **named)
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, path, tmp_path / "inputs.npz", tmp_path / "out.npz"],
        env={"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in Path(folder).joinpath("onnxruntime/__init__.py").read_text()
    found = np.load(tmp_path / "out.npz")
    judged = {key: value for key, value in options.items() if key != "batch"}
    exact = module.export_graph(**judged).in_float64()
    expected = exact(*(x.double() if x.is_floating_point() else x for x in inputs))
    outputs = expected if isinstance(expected, tuple) else (expected,)
    for spec, judge in zip(metadata.outputs, outputs, strict=True):
        scale = judge.detach().abs().max()
        error = np.abs(found[spec.name] - judge.detach().numpy()).max() / scale
        assert error < (2e-5 if dtype == torch.float32 else 1e-12)
