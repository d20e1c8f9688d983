"""The forms for one frame give what the general graph gives."""

import copy

import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.torsions import Torsions
from tests.builders.systems import frames

aten = torch.ops.aten


def network(n_descriptors, n_outputs=1, activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(n_descriptors, 12), activation(), nn.Linear(12, 7), activation(),
        nn.Linear(7, n_outputs),
    ).double()  # fmt: skip


def cv(pairs, n_atoms, n_outputs=1, box=None, **options):
    descriptors = PairDistances(pairs, n_atoms, box)
    return ofcv.CollectiveVariable(descriptors, network(len(pairs), n_outputs, **options))


def shuffled(pairs, share=1.0):
    """Return some of the pairs in another order, every second one the other way round."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(1))
    pairs = pairs[order[: max(1, int(share * len(pairs)))]].clone()
    pairs[::2] = pairs[::2].flip(1)
    return pairs


def one_frame(module, compiled):
    graph = module.export_graph().for_one_frame(compiled)
    return graph.module, graph.details.form


def assert_right(module, compiled, form, *box):
    graph_module, found = one_frame(module, compiled)
    assert found == form
    for positions in frames(3, module.descriptors.n_atoms).unsqueeze(1):
        expected = module.values_and_derivatives(positions, *box)
        outputs = graph_module(positions, *box)
        assert [output.shape for output in outputs] == [output.shape for output in expected]
        for output, right in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("n_atoms", [2, 3, 4, 5, 8, 9, 16, 17])
def test_all_pairs(n_atoms, compiled):
    assert_right(cv(all_pairs(n_atoms), n_atoms), compiled, "cyclic pairs")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_pairs_in_any_order_and_direction(share, compiled):
    module = cv(shuffled(all_pairs(10), share), 10, n_outputs=2)
    assert_right(module, compiled, "cyclic pairs")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "pairs", [shuffled(all_pairs(10), 0.4), torch.cat([all_pairs(4), all_pairs(4)[:1]])]
)
def test_few_or_repeated_pairs_are_gathered(pairs, compiled):
    assert_right(cv(pairs, 10, n_outputs=2), compiled, "gathered pairs")


def test_a_fixed_box_and_a_box_at_run_time_keep_the_general_graph():
    lengths = torch.tensor([2.0, 1.5, 1.8])
    fixed = OrthorhombicBox(lengths, periodic=True)
    assert_right(cv(all_pairs(5), 5, box=fixed), True, "one frame")
    box = torch.diag(lengths).double()
    assert_right(cv(all_pairs(5), 5, box=RuntimeBox("orthorhombic")), True, "one frame", box)


def test_other_descriptors_keep_the_general_graph():
    torsions = Torsions(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), 5)
    module = ofcv.CollectiveVariable(torsions, network(torsions.n_descriptors, 3))
    assert_right(module, True, "one frame")


@pytest.mark.parametrize(
    "first", [nn.Identity(), nn.LayerNorm(10).double(), nn.BatchNorm1d(10).double()]
)
def test_a_network_that_does_not_begin_with_a_matrix(first):
    descriptors = PairDistances(all_pairs(5), 5)
    module = ofcv.CollectiveVariable(descriptors, nn.Sequential(first, network(10, 2)))
    assert_right(module, True, "cyclic pairs")


def test_operators_in_place_keep_nothing_from_one_call_to_the_next():
    module = cv(all_pairs(5), 5, activation=lambda: nn.ReLU(inplace=True))
    assert_right(module, True, "cyclic pairs")


def test_no_gather_scatter_or_matrix_product_is_left():
    graph_module, _ = one_frame(cv(all_pairs(10), 10), compiled=True)
    used = {node.target for node in graph_module.graph.nodes}
    assert not used & {
        aten.mm.default,
        aten.addmm.default,
        aten.index_select.default,
        aten.index_add.default,
        aten.index_put.default,
    }


def test_weights_lie_in_memory_once():
    graph_module, _ = one_frame(cv(all_pairs(10), 10), compiled=True)
    large = [buffer for buffer in graph_module.buffers() if buffer.numel() >= 45 * 12]
    assert [tuple(buffer.shape) for buffer in large] == [(80, 12)]


@pytest.mark.parametrize("n_pairs", [6, 2])
@pytest.mark.parametrize("compiled", [True, False])
def test_coincident_atoms_have_finite_derivatives(compiled, n_pairs):
    module = cv(all_pairs(4)[:n_pairs], 4)
    positions = torch.zeros(1, 4, 3, dtype=torch.float64)
    positions[0, 3, 0] = 1.0
    outputs = one_frame(module, compiled)[0](positions)
    for output, right in zip(outputs, module.values_and_derivatives(positions), strict=True):
        torch.testing.assert_close(output, right)


def test_forces_add_up_to_nothing():
    """Internal forces: their sum is 0, in float32 to its rounding."""
    module = copy.deepcopy(cv(all_pairs(9), 9)).float()
    _, derivatives = one_frame(module, compiled=True)[0](frames(1, 9, torch.float32))
    assert derivatives.sum(2).abs().max() < 1e-6 * derivatives.abs().max()


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.parametrize(("n_pairs", "form"), [(10, "cyclic pairs"), (4, "gathered pairs")])
def test_files(tmp_path, suffix, n_pairs, form):
    module = cv(all_pairs(5)[:n_pairs], 5, n_outputs=2).float()
    report = ofcv.export(module, tmp_path / f"cv{suffix}", batch=1)
    assert report.metadata.details.form == form
    assert ofcv.verify(tmp_path / f"cv{suffix}", reference=module).passed
    model = ofcv.load(tmp_path / f"cv{suffix}")
    first, second = frames(2, 5, torch.float32).unsqueeze(1)
    before = [output.clone() for output in model(first)]
    outputs = model(first)
    model(second)
    for output, right in zip(outputs, before, strict=True):
        assert torch.equal(output, right)


def test_any_other_batch_and_onnx_have_the_general_form(tmp_path):
    module = cv(all_pairs(5), 5).float()
    for name, batch in (("free.pt", None), ("two.pt", 2), ("one.onnx", 1)):
        report = ofcv.export(module, tmp_path / name, batch=batch)
        assert report.metadata.details.form == "general"


def test_a_bias_with_parameters(tmp_path):
    restraint = ofcv.HarmonicRestraint(cv(all_pairs(5), 5).float(), centre=0.1, force_constant=2.0)
    report = ofcv.export(restraint, tmp_path / "bias.pt", batch=1)
    assert report.metadata.details.form == "cyclic pairs"


@pytest.mark.parametrize(
    ("over", "form"), [("positions", "one frame"), ("descriptors", "cyclic pairs")]
)
def test_a_bias_of_the_gradient_of_a_cv(over, form):
    assert_right(ofcv.KolmogorovBias(cv(all_pairs(5), 5), beta=0.4, over=over), True, form)


def test_descriptors_derived_from_distances_keep_the_general_graph():
    class Squares(PairDistances):
        def forward(self, positions, box=None):
            return super().forward(positions, box) ** 2

    module = ofcv.CollectiveVariable(Squares(all_pairs(5), 5), network(10))
    assert_right(module, True, "one frame")


class Selection(nn.Module):
    """Selects among outputs of a layer that are filled up with a number."""

    def __init__(self, value, index):
        super().__init__()
        self.layer = nn.Linear(10, 4, bias=False).double()
        self.value = value
        self.register_buffer("index", index)

    def forward(self, x):
        filled = nn.functional.pad(self.layer(x), (0, 1), value=self.value)
        return filled.index_select(1, self.index)


@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("index", [torch.tensor([4, 0, 0]), torch.arange(5).repeat(4)])
def test_selections_of_outputs(value, index):
    module = ofcv.CollectiveVariable(
        PairDistances(all_pairs(5), 5),
        nn.Sequential(Selection(value, index), nn.Linear(len(index), 2).double()),
    )
    assert_right(module, True, "cyclic pairs")
