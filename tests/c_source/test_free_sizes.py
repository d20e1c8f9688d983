"""Functions in C of graphs whose sizes are known when they are called."""

import ctypes
import subprocess
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from ofcv_export.c_source import emit
from ofcv_export.c_source.extent import Extent, FreeSizeError
from ofcv_export.c_source.nests import Nest
from ofcv_export.c_source.slots import in_slots
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced
from tests.c_source.test_emitter import COMPILERS, STRICT

needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler")

SPECS = (
    TensorSpec("x", "float64", ("n_nodes", 3)),
    TensorSpec("edge_index", "int64", (2, "n_edges"), low=0, high="n_nodes"),
    TensorSpec("y", "float64", ("n_edges", 5)),
)
LARGEST = {"n_nodes": 40, "n_edges": 70}
SIZES = [(1, 0), (3, 1), (16, 17), (33, 64), (40, 70)]
WEIGHTS = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def extremes(reduce, include_self):
    def function(x, edge_index, y):
        onto = torch.full_like(x[:, 0], 0.3)
        return onto.scatter_reduce(0, edge_index[1], y[:, 2], reduce, include_self=include_self)

    return function


# Each takes x, edge_index and y; n_nodes and n_edges are free.
FUNCTIONS = {
    "sum over nodes": lambda x, edge_index, y: x.exp().sum(0),
    "sum of one column": lambda x, edge_index, y: (x[:, 1] ** 2).sum().reshape(1),
    "sum of all": lambda x, edge_index, y: (x.sum() * y.sum()).reshape(1),
    "mean": lambda x, edge_index, y: x.mean(0) + x.mean(),
    "gathered": lambda x, edge_index, y: (x[edge_index[1]] - x[edge_index[0]]).tanh(),
    "added up": lambda x, edge_index, y: x.new_zeros(x.shape[0], 5).index_add(0, edge_index[1], y),
    "product": lambda x, edge_index, y: (x @ WEIGHTS).sin() @ WEIGHTS.T,
    "axes joined": lambda x, edge_index, y: (x[:, :, None] * x[:, None]).reshape(-1, 3) @ WEIGHTS,
    "axes split": lambda x, edge_index, y: (x[:, :, None] * x[:, None]).reshape(-1, 9).exp(),
    "einsum": lambda x, edge_index, y: torch.einsum("ij,ni->nj", WEIGHTS, x)[:, None],
    "in a stack": lambda x, edge_index, y: torch.stack([x, x.cos()]),
    "one after the other": lambda x, edge_index, y: torch.cat([x, y[:, :3], 2 * x]),
    "part from a free place": lambda x, edge_index, y: torch.cat([y[:, :3], x])[y.shape[0] :],
    "side by side": lambda x, edge_index, y: torch.cat([x, x.exp()], 1),
    "filled up": lambda x, edge_index, y: functional.pad(x, (1, 2)),
    "numbered": lambda x, edge_index, y: x * torch.arange(x.shape[0])[:, None],
    "number of nodes": lambda x, edge_index, y: x / x.shape[0],
    "filled with the number": lambda x, edge_index, y: torch.full((2,), x.shape[0]) * 1.0,
    "norms": lambda x, edge_index, y: torch.linalg.vector_norm(x, dim=1),
    "layer norm": lambda x, edge_index, y: functional.layer_norm(y, (5,)),
    "embedding": lambda x, edge_index, y: functional.embedding((y[:, 0] > 0).long(), WEIGHTS),
    "largest of a row": lambda x, edge_index, y: y.max(1).values,
    "places of the least": lambda x, edge_index, y: y.min(1, keepdim=True).indices * 1.0,
    "powers": lambda x, edge_index, y: torch.pow(x, torch.tensor(3)) + (x * x).pow(0.5),
    "half powers": lambda x, edge_index, y: sum(
        (x * x).pow(power) for power in (-1.5, -0.5, 0, 0.5, 2.5)
    ),
    "choices": lambda x, edge_index, y: torch.where(x.isnan(), 0.0, x),
    "amax": extremes("amax", True),
    "amin": extremes("amin", True),
    "amax of others": extremes("amax", False),
}  # fmt: skip


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def outputs_of(result):
    """Return a spec that fits a result for any sizes; the tracer wants to know what is free."""
    return (TensorSpec("out", "float64", tuple("any" for _ in result.shape)),)


def inputs_of(n_nodes, n_edges, seed=3):
    generator = torch.Generator().manual_seed(seed)
    real = {"generator": generator, "dtype": torch.float64}
    return [
        torch.randn(n_nodes, 3, **real),
        torch.randint(0, n_nodes, (2, n_edges), generator=generator),
        torch.randn(n_edges, 5, **real),
    ]


def source_of(function, specs=SPECS, largest=LARGEST):
    module = traced(Function(function), specs, outputs=outputs_of(function(*inputs_of(4, 6))))
    return emit(module, probe(specs, largest), "evaluate", specs=specs)


def compiled(source, folder, compiler="cc", options="-O2"):
    text = source.body.replace("OFCV_CLONES static int", "int", 1)
    (folder / "free.c").write_text(f"{source.preamble}\n{text}\n")
    command = [compiler, *STRICT.split(), *options.split(), "-o", "free.so", "free.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "free.so")).evaluate


def called(function, inputs, like):
    # What lies behind the last entry must stay as it is, up to where strides of the largest reach.
    out = torch.full((like.numel() + 1000,), torch.nan, dtype=like.dtype)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*inputs, out)]
    assert function(len(inputs[0]), inputs[1].shape[1], *pointers) == 0
    assert out[like.numel() :].isnan().all()
    return out[: like.numel()].reshape(like.shape)


@needs_compiler
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_one_function_for_all_sizes(tmp_path, name):
    expected = FUNCTIONS[name]
    function = compiled(source_of(expected), tmp_path)
    for sizes in SIZES:
        inputs = inputs_of(*sizes)
        exact = expected(*inputs)
        found = called(function, inputs, exact)
        torch.testing.assert_close(found, exact, rtol=1e-13, atol=1e-13, equal_nan=True)


REFUSED = {
    "joined before a free axis": (lambda x, edge_index, y: x.t().reshape(-1), "view"),
    "reversed": (lambda x, edge_index, y: x.flip(0), "flip"),
    "from the end": (lambda x, edge_index, y: x[-1], "select"),
    "the largest of a column": (lambda x, edge_index, y: x.max(0).values, "max"),
    "variance of nodes": (lambda x, edge_index, y: torch.var_mean(x, 0)[0], "var_mean"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_needs_to_know_a_size_is_refused_by_name(name):
    function, operator = REFUSED[name]
    with pytest.raises(ValueError, match=f"^module: .* for any n_nodes, got aten.{operator}"):
        source_of(function)


def test_a_size_is_multiplied_and_nothing_else():
    size = Extent(7, "n")
    assert 3 * size == 21
    assert size != 7
    assert size == Extent(9, "n")
    for wrong in (lambda: size + 1, lambda: 1 - size, lambda: size // 2, lambda: -1 % size):
        with pytest.raises(FreeSizeError):
            wrong()


def test_large_arrays_take_the_place_of_dead_ones():
    names = [f"b{k}" for k in range(6)]
    loops = (("i", 2000),)
    nests = [Nest(loops, (f"{two}[i] = {one}[i];",)) for one, two in pairwise(names)]
    types, sizes = dict.fromkeys(names, "float"), dict.fromkeys(names, 2000) | {"b4": 8}

    moved, slots = in_slots(nests, types, sizes)

    assert [line for nest in moved for line in nest.lines] == [
        "b1[i] = b0[i];", "b0[i] = b1[i];", "b1[i] = b0[i];", "b4[i] = b1[i];", "b1[i] = b4[i];"
    ]  # fmt: skip
    assert slots == {"b0": ("float", 2000), "b1": ("float", 2000), "b4": ("float", 8)}
