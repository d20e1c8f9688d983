"""The forms for one frame give what the general graph gives."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.torsions import Torsions
from tests.builders.systems import by_autograd, frames, plain_distances

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


def one_frame(module, compiled, device="cpu"):
    graph = dataclasses.replace(module.export_graph(), device=device).for_one_frame(compiled)
    return graph.module, graph.details.form


def assert_right(module, compiled, form, *box, device="cpu"):
    graph_module, found = one_frame(module, compiled, device)
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


@pytest.mark.parametrize(
    "pairs",
    [
        shuffled(all_pairs(10)), shuffled(all_pairs(10), 0.4),
        torch.cat([all_pairs(4), all_pairs(4)[:1]]),
        torch.tensor([[0, 9]]),
    ],
)  # fmt: skip
def test_on_a_gpu_pairs_are_gathered_by_atom(pairs):
    module = cv(pairs, 10, n_outputs=2)
    assert_right(module, True, "gathered pairs", device="cuda")
    graph_module, _ = one_frame(module, True, "cuda")
    assert not any(node.target is aten.index_add.default for node in graph_module.graph.nodes)


def test_on_a_gpu_a_table_much_larger_than_the_pairs_is_not_made():
    star = torch.tensor([[0, partner] for partner in range(1, 40)])
    module = cv(star, 40)
    assert_right(module, True, "gathered pairs", device="cuda")
    graph_module, _ = one_frame(module, True, "cuda")
    assert any(node.target is aten.index_add.default for node in graph_module.graph.nodes)


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


class AddsInPlace(nn.Module):
    """Adds descriptors to copies of a constant, which for one frame depend on no input."""

    def __init__(self):
        super().__init__()
        self.layers = network(10, 2)
        self.register_buffer("start", torch.ones(1, 10).double())

    def forward(self, x):
        return self.layers(self.start.repeat(len(x), 1).add_(x))


@pytest.mark.parametrize("compiled", [True, False])
def test_constants_changed_in_place_are_new_in_every_call(compiled):
    module = ofcv.CollectiveVariable(PairDistances(all_pairs(5), 5), AddsInPlace())
    user = network(10, 2)
    graph_module, _ = one_frame(module, compiled)
    for positions in frames(3, 5).unsqueeze(1):
        expected = by_autograd(lambda r: user(1 + plain_distances(r)), positions)
        for output, right in zip(graph_module(positions), expected, strict=True):
            torch.testing.assert_close(output, right, rtol=1e-10, atol=1e-12)


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


def assert_energy(bias, energy, compiled, n_pairs, *parameters):
    """Compare a bias of the first pairs of 5 atoms with its formula, an energy of their CV."""
    user = network(n_pairs)
    graph_module, _ = one_frame(bias, compiled)
    given = [torch.tensor([value], dtype=torch.float64) for value in parameters]
    for positions in frames(3, 5).unsqueeze(1):
        expected = by_autograd(
            lambda r: energy(user(plain_distances(r, all_pairs(5)[:n_pairs]))), positions
        )
        for output, right in zip(graph_module(positions, *given), expected, strict=True):
            torch.testing.assert_close(output, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("n_pairs", "form"), [(10, "cyclic pairs"), (4, "gathered pairs")])
def test_a_restraint_follows_its_parameters(n_pairs, form, compiled):
    restraint = ofcv.HarmonicRestraint(cv(all_pairs(5)[:n_pairs], 5), 0.1, 2.0)
    assert one_frame(restraint, compiled)[1] == form
    for centre, force_constant in ((0.1, 2.0), (-0.7, 5.0)):
        assert_energy(
            restraint,
            lambda s, c=centre, k=force_constant: k / 2 * (s - c) ** 2,
            compiled,
            n_pairs,
            centre,
            force_constant,
        )


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("n_pairs", [10, 4])
def test_a_moving_restraint_follows_its_parameter(n_pairs, compiled):
    pull = ofcv.MovingRestraint(cv(all_pairs(5)[:n_pairs], 5), [1.0, 3.0], [0.0, 0.5], [2.0, 6.0])
    for time, centre, force_constant in ((0.0, 0.0, 2.0), (2.0, 0.25, 4.0), (9.0, 0.5, 6.0)):
        assert_energy(
            pull,
            lambda s, c=centre, k=force_constant: k / 2 * (s - c) ** 2,
            compiled,
            n_pairs,
            time,
        )


def test_a_file_of_a_bias_follows_its_parameters(tmp_path):
    restraint = ofcv.HarmonicRestraint(cv(all_pairs(5), 5).float(), centre=0.1, force_constant=2.0)
    report = ofcv.export(restraint, tmp_path / "bias.pt", batch=1)
    assert report.metadata.details.form == "cyclic pairs"
    positions = frames(1, 5, torch.float32)
    energy, _ = ofcv.load(tmp_path / "bias.pt")(
        positions, torch.tensor([-0.7]), torch.tensor([5.0])
    )
    # Its weights were rounded to float32.
    value = network(10).float().double()(plain_distances(positions.double()))
    torch.testing.assert_close(energy.double(), 2.5 * (value + 0.7) ** 2, rtol=1e-5, atol=1e-6)


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


# The rows of what follows take in a selection, or else the columns of what comes before it.
@pytest.mark.parametrize("between", [nn.Identity(), nn.Tanh()])
@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("index", [torch.tensor([4, 0, 0]), torch.arange(5).repeat(4)])
def test_selections_of_outputs(value, index, between):
    module = ofcv.CollectiveVariable(
        PairDistances(all_pairs(5), 5),
        nn.Sequential(Selection(value, index), between, nn.Linear(len(index), 2).double()),
    )
    assert_right(module, True, "cyclic pairs")
