"""Errors of others that say nothing: one line of ours, which names their class."""

from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ofcv_export as ofcv
from ofcv_export import cli
from ofcv_export.artifacts.cuda_graph import CapturedRunner
from ofcv_export.base.validation import first_line, last_line
from ofcv_export.contracts import network_alone
from ofcv_export.density.store_files import files_at
from ofcv_export.formats import FORMATS
from ofcv_export.formats import onnx as onnx_format
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced
from ofcv_export.integrations.captured_descriptor import CapturedDescriptor
from ofcv_export.runtimes import aotinductor
from tests.builders.systems import all_pairs, small_setup


def silent(*_, **__):
    raise RuntimeError


class Silent(nn.Module):
    """A module that fails in calls beyond some number."""

    def __init__(self, n_calls=0):
        super().__init__()
        self.n_calls = n_calls
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, *inputs):
        self.n_calls -= 1
        if self.n_calls < 0:
            raise RuntimeError
        return self.one * inputs[0].flatten(1)[:, :1]


def functional(_):
    ones = torch.ones(2)
    ofcv.EnergyFunctional(Silent(), ofcv.DimensionWiseRescaling(ones, ones, ones))


def url(monkeypatch):
    monkeypatch.setattr(fsspec.core, "url_to_fs", silent)
    files_at("path", "memory://s.zarr")


def compiler(monkeypatch):
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", silent)
    FORMATS[".pt2"].compile(small_setup().export_graph())


def compiled_code(monkeypatch):
    monkeypatch.setattr(aotinductor, "records", lambda *_: CODE)
    monkeypatch.setattr(aotinductor, "_loaded", silent)
    FORMATS[".pt2"].load(b"", Path("cv.pt2"), "cpu")


CODE = {"data/aotinductor/model/model.wrapper.so": b""}


def onnx_exporter(monkeypatch):
    def fails(*_, **__):
        raise torch.onnx.OnnxExporterError

    monkeypatch.setattr(onnx_format, "_program", fails)
    FORMATS[".onnx"].compile(small_setup().export_graph())


def onnx_session(monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", silent)
    FORMATS[".onnx"].load(b"", Path("cv.onnx"), "cpu")


def recording(monkeypatch):
    nothing = SimpleNamespace(
        CUDAGraph=lambda: None, device=lambda _: torch.no_grad(), graph=lambda _: torch.no_grad()
    )
    monkeypatch.setattr(torch, "cuda", nothing)
    monkeypatch.setattr(CapturedRunner, "_warm_up", lambda *_: None)
    CapturedRunner(silent, (TensorSpec("x", "float32", (1,)),), "cpu")


PLACES = {
    "network": lambda _: ofcv.CollectiveVariable(all_pairs(3), Silent()),
    "functional": functional,
    "tracer": lambda _: traced(silent, (TensorSpec("x", "float32", ("batch",)),)),
    "network of a contract": lambda _: network_alone._traced(Silent(), 3, torch.float32),
    "preprocessing": lambda _: CapturedDescriptor(Silent(), 3),
    "tracer of a preprocessing": lambda _: CapturedDescriptor(Silent(1), 3),
    "URL": url,
    "compiler": compiler,
    "compiled code": compiled_code,
    "exporter": onnx_exporter,
    "session": onnx_session,
    "CUDA graph": recording,
}


@pytest.mark.parametrize("place", list(PLACES))
def test_an_error_without_a_message_is_named(place, monkeypatch):
    name = "OnnxExporterError" if place == "exporter" else "RuntimeError"
    with pytest.raises(ValueError, match=rf"^\w+: expected .*\b{name}\)?$"):
        PLACES[place](monkeypatch)


def test_the_command_line_names_it_too(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros(1))

    def fails(*_):
        raise OSError

    monkeypatch.setattr(ofcv, "load", fails)
    result = CliRunner().invoke(cli.app, ["run", str(tmp_path / "x.pt"), "-i", "x=x.npy"])
    assert (result.exit_code, result.output.strip()) == (1, "error OSError")


def test_first_and_last_lines():
    several = ValueError("\n\x1b[96mone\x1b[0m\ntwo\n\n")
    assert (first_line(several), last_line(several)) == ("one", "two")
    for empty in (KeyError(), OSError(), ValueError("\n"), ValueError("\x1b[0m")):
        assert first_line(empty) == last_line(empty) == type(empty).__name__
