"""ONNX files: every number in the precision of the file, operators that every runtime has right."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

import ofcv_export as ofcv
from ofcv_export.descriptors import PairDistances
from ofcv_export.formats import FORMATS
from ofcv_export.graph.details import RescalingDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced
from tests.builders.systems import by_autograd, frames, plain_distances

PAIR = torch.tensor([[0, 1]])

# Each of d (batch, 1), with a number that float32 has not.
OPERATORS = {
    "less": lambda d: torch.where(d < 0.7, d.exp(), d.sin()),
    "greater or equal": lambda d: torch.where(d >= 0.7, d.exp(), d.sin()),
    "equal": lambda d: torch.where(d == 0.3, d, 2 * d),
    "where": lambda d: torch.where(d > 0.7, 0.3, d),
    "where of numbers": lambda d: torch.where(d > 0.7, 0.3, 0.1) * d,
    "masked_fill": lambda d: d.masked_fill(d > 0.7, 0.3) * d,
    "clamp": lambda d: d.clamp(0.31, 0.7) * d,
    "clamp_min": lambda d: torch.clamp_min(d, 0.7) * d,
    "pow": lambda d: d**2.7,
    "pow of a number": lambda d: 0.3**d,
    "number that float32 has": lambda d: d - 0.6931471824645996,
    "add alpha": lambda d: torch.add(d, d.sin(), alpha=0.3),
    "sub alpha": lambda d: torch.sub(d, d.sin(), alpha=0.3),
    "rsub": lambda d: torch.rsub(d, 0.3),
    "addcmul": lambda d: torch.addcmul(d, d, d, value=0.3),
    "addcdiv": lambda d: torch.addcdiv(d, d, d + 1, value=0.3),
    "lerp": lambda d: torch.lerp(d, d**2, 0.3),
    "full_like": lambda d: torch.full_like(d, 0.3) * d,
    "full": lambda d: torch.full((1,), 0.3, dtype=torch.float64) * d,
    "linspace": lambda d: (d * torch.linspace(0.1, 0.7, 3).double()).sum(1, keepdim=True),
    "xlogy": lambda d: torch.xlogy(d, d + 0.3),
    "remainder": lambda d: torch.remainder(d, 0.3),
    "softplus": lambda d: functional.softplus(d, beta=1.3, threshold=20.1),
    "leaky_relu": lambda d: functional.leaky_relu(d - 0.7, 0.013),
    "elu": lambda d: functional.elu(d - 0.7, 1.3),
    "celu": lambda d: functional.celu(d - 0.7, 1.3),
    "selu": lambda d: functional.selu(d - 0.7),
    "tanh gelu": lambda d: functional.gelu(d, approximate="tanh"),
    "hardtanh": lambda d: functional.hardtanh(d, -0.3, 0.7) + d,
    "hardswish": lambda d: functional.hardswish(d),
    "hardshrink": lambda d: functional.hardshrink(d, 0.3),
    "softshrink": lambda d: functional.softshrink(d, 0.3),
    "threshold": lambda d: functional.threshold(d, 0.7, 0.1),
    "huber": lambda d: functional.huber_loss(d, 0 * d, reduction="none", delta=0.3),
    "smooth l1": lambda d: functional.smooth_l1_loss(d, 0 * d, reduction="none", beta=0.3),
    "layer_norm": lambda d: functional.layer_norm(
        torch.cat([d, d**2, d.sin()], 1), (3,), eps=1e-3
    )[:, :1],
    "group_norm": lambda d: functional.group_norm(
        torch.cat([d, d**2, d.sin()], 1), 1, eps=1e-3
    )[:, :1],
    "vector_norm": lambda d: torch.linalg.vector_norm(
        torch.cat([d, d**2], 1), ord=2.7, dim=1, keepdim=True
    ),
    "degrees": lambda d: torch.deg2rad(d) + torch.rad2deg(d),
    "logarithms": lambda d: torch.log2(d + 1) + torch.log10(d + 1) + torch.exp2(d),
    "small arguments": lambda d: torch.expm1(1e-6 * d) * torch.log1p(1e-6 * d) * 1e12,
    "erf": torch.erf,
    "gelu": nn.functional.gelu,
    "gelu by tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
}  # fmt: skip
# On both sides of the numbers, closer to them than float32 can tell.
DISTANCES = (0.699999994, 0.70000000001, 0.3, 0.30000000001, 0.2999999995, 0.95, 1.3, 0.05)


class Each(nn.Module):
    """Values and slopes of several functions, each of a number of its own, (batch, n) both."""

    def __init__(self, functions):
        super().__init__()
        self.functions = list(functions)

    def values(self, x):
        columns = x.abs().split(1, dim=1)
        pairs = zip(self.functions, columns, strict=True)
        return torch.cat([function(column) for function, column in pairs], dim=1)

    def forward(self, x):
        values, pullback = torch.func.vjp(self.values, x)
        return values, pullback(torch.ones_like(values))[0]

    def export_graph(self):
        shape = ("batch", len(self.functions))
        return ExportGraph(
            RescalingDetails(n_basis=1, epsilon=0.0),
            (TensorSpec("x", "float64", shape),),
            (TensorSpec("values", "float64", shape), TensorSpec("slopes", "float64", shape)),
            build=lambda graph: traced(self, graph.inputs),
            exact=self,
        )


def one_distance(network):
    return ofcv.CollectiveVariable(PairDistances(PAIR, 2), network)


def test_every_plain_number_of_every_operator_is_float64(tmp_path):
    compiled = FORMATS[".onnx"].compile(Each(OPERATORS.values()).export_graph())
    onnx.save(compiled, tmp_path / "each.onnx")
    x = torch.tensor(DISTANCES, dtype=torch.float64)[:, None].repeat(1, len(OPERATORS))
    session = onnxruntime.InferenceSession(tmp_path / "each.onnx")
    values, slopes = session.run(None, {"x": x.numpy()})
    leaf = x.clone().requires_grad_()
    expected = torch.cat([f(leaf[:, k : k + 1]) for k, f in enumerate(OPERATORS.values())], dim=1)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    assert float(expected[0, 0]) == pytest.approx(math.exp(0.699999994), rel=1e-14)
    for found, judge in ((values, expected.detach()), (slopes, gradient)):
        scale = judge.abs().amax(dim=0).clamp(min=1)
        errors = ((torch.from_numpy(found) - judge) / scale).abs().amax(dim=0)
        wrong = {n: e for n, e in zip(OPERATORS, errors.tolist(), strict=True) if e > 1e-14}
        assert not wrong


def test_comparison_in_a_collective_variable(tmp_path):
    """0.699999994 lies between 0.7 and its neighbour in float32."""
    ofcv.export(one_distance(Step()), tmp_path / "cv.onnx")
    positions = torch.zeros(1, 2, 3, dtype=torch.float64)
    positions[0, 1, 0] = 0.699999994
    session = onnxruntime.InferenceSession(tmp_path / "cv.onnx")
    values, _ = session.run(None, {"positions": positions.numpy()})
    assert values[0, 0] == pytest.approx(math.exp(0.699999994), rel=1e-14)


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, d):
        return torch.where(d < 0.7, d.exp(), d.sin()) * self.scale


def test_numbers_that_only_float32_could_hold_are_refused(monkeypatch):
    """As an operator would be, of which the exporter writes the number itself."""
    from ofcv_export.formats import onnx as onnx_format

    table = dict(onnx_format.FLOAT64_EQUIVALENTS)
    del table[torch.ops.aten.log10.default]
    monkeypatch.setattr(onnx_format, "FLOAT64_EQUIVALENTS", table)
    message = "module: expected operators with float64 numbers in a float64 ONNX file, got Div"
    with pytest.raises(ValueError, match=message):
        FORMATS[".onnx"].compile(Each([lambda d: torch.log10(d + 1)]).export_graph())


class Indexed(nn.Module):
    """Sums over repeated indices, means of groups, and products with a transposed matrix."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.arange(12.0).reshape(6, 2) / 7)

    def forward(self, d):
        d = d.to(self.matrix.dtype)
        groups = torch.tensor([0, 0, 1, 2, 2, 2]).expand(d.shape[0], 6)
        mean = torch.zeros(d.shape[0], 3, dtype=d.dtype).scatter_reduce(
            1, groups, d.sin(), "mean", include_self=False
        )
        chosen = (d[:, [0, 0, 1, 5, 5]] ** 2).sum(1, keepdim=True)
        pairs = (d.reshape(-1, 2, 3)[:, [0, 0, 1], [2, 2, 1]] ** 3).sum(1, keepdim=True)
        product = torch.mv(d.exp(), self.matrix.t()[1]).unsqueeze(1)
        return torch.cat([mean, chosen, pairs, product], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_operators_that_onnx_runtime_computes_wrongly_have_equivalents(tmp_path, dtype):
    pairs = torch.combinations(torch.arange(4))
    network = Indexed().to(dtype)
    ofcv.export(ofcv.CollectiveVariable(PairDistances(pairs, 4), network), tmp_path / "cv.onnx")
    model = onnx.load(tmp_path / "cv.onnx")
    reductions = {
        (node.op_type, attribute.s)
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "reduction"
    }
    assert reductions <= {("ScatterElements", b"add"), ("ScatterND", b"none")}
    assert "Gemm" not in {node.op_type for node in model.graph.node} or dtype == torch.float32
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64).to(dtype)
    judge = Indexed().double()
    expected = by_autograd(
        lambda r: judge((r[:, pairs[:, 1]] - r[:, pairs[:, 0]]).norm(dim=2)), positions
    )
    found = onnxruntime.InferenceSession(tmp_path / "cv.onnx").run(
        None, {"positions": positions.numpy()}
    )
    tolerance = 5e-6 if dtype == torch.float32 else 1e-13
    for values, wanted in zip(found, expected, strict=True):
        error = np.abs(values - wanted.numpy()).max() / wanted.abs().max()
        assert error < tolerance


def test_a_file_of_opset_18_has_the_ir_version_that_came_with_it(tmp_path):
    ofcv.export(one_distance(nn.Linear(1, 1)), tmp_path / "cv.onnx")
    model = onnx.load(tmp_path / "cv.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)


def test_messages_of_the_exporter_come_without_colours(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise torch.onnx.OnnxExporterError("\x1b[96mThis is step 1/3\x1b[0m of exporting")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ValueError, match=r"got This is step 1/3 of exporting$"):
        FORMATS[".onnx"].compile(one_distance(nn.Linear(1, 1)).export_graph())


def test_layer_norm_in_float64(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 1)).double()
    pairs = torch.combinations(torch.arange(4))
    ofcv.export(ofcv.CollectiveVariable(PairDistances(pairs, 4), network), tmp_path / "cv.onnx")
    positions = frames(5, 4)
    expected = by_autograd(lambda r: network(plain_distances(r)), positions)
    session = onnxruntime.InferenceSession(tmp_path / "cv.onnx")
    for found, judge in zip(
        session.run(None, {"positions": positions.numpy()}), expected, strict=True
    ):
        torch.testing.assert_close(torch.from_numpy(found), judge.detach(), rtol=1e-12, atol=1e-12)


def test_what_the_checker_refuses_is_one_line(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise onnx.shape_inference.InferenceError("mismatch\nof types")

    monkeypatch.setattr(onnx.checker, "check_model", fails)
    message = "^module: expected a graph that ONNX's checker accepts, got mismatch$"
    with pytest.raises(ValueError, match=message):
        ofcv.export(one_distance(nn.Linear(1, 1)), tmp_path / "cv.onnx")
