"""Graphs as C99 source: the numbers of float64, and the same bits from any compiler."""

import ctypes
import shutil
import subprocess
from itertools import product

import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.c_source import emit
from ofcv_export.descriptors import Angles, PairDistances, RuntimeBox, Torsions
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced
from ofcv_export.integrations.captured_descriptor import CapturedDescriptor
from tests.builders.systems import OPEN

COMPILERS = [name for name in ("cc", "clang") if shutil.which(name)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason="no C compiler")
# GCC contracts products and sums of its own accord unless a standard is named.
OPTIONS = ("-O0", "-O2", "-O3 -march=native", "-O3 -march=native -std=gnu11")
STRICT = "-std=c99 -pedantic -Wall -Wextra -Werror -shared -fPIC"
PAIRS = torch.combinations(torch.arange(12))


def variable(descriptors, activation=None, widths=(20, 40)):
    torch.manual_seed(0)
    first, second = widths
    activation = activation or nn.Tanh()
    network = nn.Sequential(
        nn.Linear(descriptors.n_descriptors, first), activation,
        nn.Linear(first, second), activation, nn.Linear(second, 2),
    )  # fmt: skip
    return ofcv.CollectiveVariable(descriptors, network)


class Heights(nn.Module):
    """What some atoms' y and z make, as a user slices them."""

    def forward(self, positions):
        return (positions[:, 2:7, 1:] ** 2).flatten(1)


CHAIN = torch.arange(9).unsqueeze(1) + torch.arange(4)
VARIABLES = {
    "all pairs": lambda: variable(PairDistances(PAIRS, 12)),
    "some pairs": lambda: variable(PairDistances(PAIRS[::5], 12)),
    "wide": lambda: variable(PairDistances(PAIRS, 12), widths=(70, 130)),
    "box": lambda: variable(PairDistances(PAIRS[::5], 12, RuntimeBox())),
    "angles": lambda: variable(Angles(CHAIN[:, :3], 12, box=OPEN)),
    "torsions": lambda: variable(Torsions(CHAIN, 12, box=OPEN)),
    "bias": lambda: ofcv.HarmonicRestraint(variable(PairDistances(PAIRS, 12)), [0.1, 0.2], 3.0),
    "part of the atoms": lambda: variable(CapturedDescriptor(Heights(), 12)),
    "periodic bias": lambda: ofcv.HarmonicRestraint(
        ofcv.CollectiveVariable(
            Torsions(CHAIN[:1], 12, box=OPEN), nn.Linear(1, 1).requires_grad_(False), periods=0.7
        ),
        9.0,
        50.0,
    ),
} | {
    layer.__name__: lambda layer=layer: variable(PairDistances(PAIRS[::3], 12), layer())
    for layer in (nn.ReLU, nn.Sigmoid, nn.ELU, nn.SELU, nn.Softplus, nn.GELU, nn.SiLU, nn.LeakyReLU)
}


def inputs_of(specs):
    generator = torch.Generator().manual_seed(1)
    inputs = list(probe(specs, {}))
    for place, spec in enumerate(specs):
        if spec.name == "positions":
            inputs[place] = torch.randn(spec.shape, generator=generator)
        elif spec.name == "box":
            lattice = torch.tensor([[2.5, 0, 0], [0.7, 2.1, 0], [-0.4, 0.3, 1.9]])
            inputs[place] = lattice.expand(spec.shape).contiguous()
    return inputs


def source_of(module, inputs):
    function = emit(module, inputs, "evaluate")
    return f"{function.preamble}\n{function.body.replace('OFCV_CLONES static int', 'int', 1)}\n"


def compiled(source, folder, compiler, options):
    name = f"{compiler}{options.replace(' ', '')}.so"
    (folder / "graph.c").write_text(source)
    command = [compiler, *STRICT.split(), *options.split(), "-o", name, "graph.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / name)).evaluate


def called(function, inputs, like):
    outputs = [torch.full_like(entry, torch.nan) for entry in like]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*inputs, *outputs)]
    assert function(*pointers) == 0
    return outputs


@pytest.mark.parametrize("name", list(VARIABLES))
def test_numbers_are_those_of_float64_and_bits_those_of_every_compiler(tmp_path, name):
    module = VARIABLES[name]()
    graph = module.export_graph().with_size("batch", 1)
    one_frame = graph.for_one_frame(compiled=False)
    inputs = inputs_of(graph.inputs)
    source = source_of(one_frame.module, inputs)
    exact = graph.in_float64()(*(entry.double() for entry in inputs))
    like = [entry.float() for entry in exact]
    results = [
        called(compiled(source, tmp_path, compiler, options), inputs, like)
        for compiler, options in product(COMPILERS, OPTIONS)
    ]
    for found, expected in zip(results[0], exact, strict=True):
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    for others in results[1:]:
        assert all(map(torch.equal, results[0], others))


def test_an_operator_that_is_not_there_is_named():
    specs = [TensorSpec("x", "float32", (4, 5))]

    class Sorted(nn.Module):
        def forward(self, x):
            return x.sort(1).values

    with pytest.raises(ValueError, match="operators that C source can hold, got aten.sort"):
        emit(traced(Sorted(), specs), [torch.ones(4, 5)], "evaluate")


def test_a_view_by_strides_is_refused():
    class Strided(nn.Module):
        def forward(self, x):
            return x.as_strided((4, 4), (1, 4)) * 2

    specs = [TensorSpec("x", "float32", (4, 4))]
    with pytest.raises(ValueError, match="expected no view by strides in C source"):
        emit(traced(Strided(), specs), [torch.ones(4, 4)], "evaluate")


class Views(nn.Module):
    def forward(self, x, index):
        left, right = x.split([2, 3], dim=1)
        joined = torch.cat([left.flip(1), right.roll(1, dims=1), x[:, 1::2]], dim=1)
        rows = joined.index_select(0, index).transpose(0, 1)
        windows = rows.unfold(0, 4, 3)
        stacked = torch.stack([rows.reshape(7, 6)[:, ::2], rows[:, 3:]], dim=1)
        padded = torch.constant_pad_nd(stacked, [1, 0, 0, 2], 0.5)
        return windows.sum((0, 2)), padded, (x.argmin(1) + x.pow(3).clamp(-1, 2).sum(1))


def test_views_and_joins_in_any_order(tmp_path):
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    index = torch.tensor([3, 0, 0, 2, 1, 3])
    specs = [TensorSpec("x", "float32", (4, 5)), TensorSpec("index", "int64", (6,), 0, 4)]
    source = source_of(traced(Views(), specs), [x, index])
    expected = Views()(x, index)
    found = called(compiled(source, tmp_path, COMPILERS[0], "-O2"), [x, index], expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


class Flags(nn.Module):
    def forward(self, x, index):
        above = (x > 0).to(x.dtype)
        share = (x > 0).sum(1) / (x < 9).sum(1)
        ratio = index / (index + 2)
        return above.sum(1) / 2, share, torch.where(x.to(torch.int64) != 0, x, 0.5), ratio


def test_flags_and_integers_become_numbers_before_they_are_divided(tmp_path):
    x = 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    index = torch.tensor([5, 0, 2])
    specs = [TensorSpec("x", "float32", (4, 5)), TensorSpec("index", "int64", (3,), 0, 6)]
    source = source_of(traced(Flags(), specs), [x, index])
    expected = Flags()(x, index)
    found = called(compiled(source, tmp_path, COMPILERS[0], "-O2"), [x, index], expected)
    assert all(map(torch.equal, found, expected))


class Mixed(nn.Module):
    def forward(self, x, y):
        total = (x.double() / 3).sum(1) + y
        return total.float(), (total - 1e8).sin(), x * x


def test_of_two_precisions_the_higher_one_counts(tmp_path):
    x, y = torch.rand(4, 5), 1e8 + torch.rand(4, dtype=torch.float64)
    specs = [TensorSpec("x", "float32", (4, 5)), TensorSpec("y", "float64", (4,))]
    source = source_of(traced(Mixed(), specs), [x, y])
    expected = Mixed()(x, y)
    found = called(compiled(source, tmp_path, COMPILERS[0], "-O2"), [x, y], expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-7 if one.dtype == torch.float32 else 1e-13, atol=0
        )
