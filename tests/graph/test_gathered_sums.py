"""Sums over constant indices as sums over gathered terms, against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ofcv_export.graph.editing import with_shapes
from ofcv_export.graph.gathered_sums import gather_sums, tables
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced
from tests.builders.systems import normal

SCATTERS = {torch.ops.aten.index_add.default, torch.ops.aten.scatter_add.default}


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_every_place_gets_its_terms_once(index):
    index = torch.tensor(index)
    terms = 2.0 ** torch.arange(len(index), dtype=torch.float64).remainder(40)
    expected = torch.zeros(7, dtype=torch.float64).index_add(0, index, terms)
    sums = terms
    for table in tables(index, 7):
        sums = torch.cat([sums, torch.zeros(1, dtype=torch.float64)])[table].sum(1)
    assert torch.equal(sums, expected)


def test_many_terms_of_one_place_are_added_in_steps_of_few():
    star = torch.zeros(1000, dtype=torch.int64)
    steps = tables(star, 1001)
    assert [table.shape for table in steps] == [(63, 16), (4, 16), (1001, 4)]
    balanced = torch.arange(40).repeat(30)
    assert [table.shape for table in tables(balanced, 40)] == [(40, 30)]


class Sum(nn.Module):
    """A sum along an axis, with an index that is a constant."""

    def __init__(self, axis, index):
        super().__init__()
        self.axis = axis
        self.register_buffer("index", index)

    def forward(self, onto, x):
        return onto.index_add(self.axis, self.index, x) * 2


class ScatteredSum(Sum):
    def forward(self, onto, x):
        return onto.scatter_add(1, self.index.unsqueeze(0).expand(x.shape), x) * 2


INDEX = torch.tensor([3, 0, 0, 3, 3, 1] + [3] * 40)


@pytest.mark.parametrize(
    ("module", "shape", "n"),
    [
        (Sum(0, INDEX), (46, 3), 5),
        (Sum(1, INDEX), (2, 46, 3), 4),
        (Sum(-1, INDEX), (2, 46), 4),
        (ScatteredSum(1, INDEX), (2, 46), 6),
    ],
)
def test_graphs_give_the_same_numbers(module, shape, n):
    axis = module.axis % len(shape)
    onto = (*shape[:axis], n, *shape[axis + 1 :])
    specs = [TensorSpec("onto", "float64", onto), TensorSpec("x", "float64", shape)]
    graph = traced(module, specs)
    inputs = normal(*onto), normal(*shape, seed=1)
    with_shapes(graph, inputs)
    assert SCATTERS & {node.target for node in graph.graph.nodes}
    gather_sums(graph)
    assert not SCATTERS & {node.target for node in graph.graph.nodes}
    expected = module(*inputs)
    torch.testing.assert_close(graph(*inputs), expected, rtol=1e-14, atol=1e-14)


def test_an_index_that_comes_with_a_call_is_left_alone():
    class AtCall(nn.Module):
        def forward(self, x, index):
            return x.new_zeros(4).index_add(0, index, x)

    specs = [TensorSpec("x", "float64", (5,)), TensorSpec("index", "int64", (5,), 0, 4)]
    graph = traced(AtCall(), specs)
    inputs = normal(5), torch.tensor([0, 3, 3, 1, 0])
    with_shapes(graph, inputs)
    gather_sums(graph)
    assert SCATTERS & {node.target for node in graph.graph.nodes}
