"""Models of PyTorch Geometric: what they give when their neighbour search finds the same edges."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.artifacts.atom_graphs import edges_within
from ofcv_export.integrations.pytorch_geometric import graph_network
from tests import graph_networks as networks

pytest.importorskip("torch_geometric", reason="PyTorch Geometric has the models of these tests")

from torch_geometric.nn import DimeNetPlusPlus, SchNet, ViSNet

CUTOFF = 3.0
SMALL = {"hidden_channels": 8, "num_filters": 6, "num_interactions": 2, "num_gaussians": 6}
SMALL |= {"cutoff": CUTOFF}
FEW = {"hidden_channels": 8, "num_heads": 2, "num_layers": 2, "num_rbf": 6, "cutoff": CUTOFF}
MODELS = {
    "SchNet": lambda: SchNet(**SMALL),
    "SchNet, mean": lambda: SchNet(**SMALL, readout="mean", mean=0.3, std=2.0),
    "SchNet with single atoms": lambda: SchNet(**SMALL, atomref=torch.randn(100, 1)),
    "SchNet, dipole": lambda: SchNet(**SMALL, dipole=True),
    "ViSNet": lambda: ViSNet(**FEW),
    "ViSNet of vertices": lambda: ViSNet(**FEW, lmax=2, vertex=True, mean=0.3, std=2.0),
    "ViSNet, normalised": lambda: ViSNet(
        **FEW, lmax=2, vecnorm_type="max_min", trainable_vecnorm=True, reduce_op="mean"
    ),
    "ViSNet with forces": lambda: ViSNet(**FEW, derivative=True),
}


def model_of(name):
    torch.manual_seed(3)
    model = MODELS[name]().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return model.eval()


def variable(model, cutoff=CUTOFF):
    return ofcv.GraphCollectiveVariable(graph_network(model), cutoff, ["C", "O"])


class Search(nn.Module):
    """In place of the model's own search: the edges of a graph."""

    def __init__(self, graph, box, loops):
        super().__init__()
        self.graph, self.box, self.loops = graph, box, loops

    def forward(self, positions, batch):
        edge_index = self.graph["edge_index"]
        vectors = positions[edge_index[0]] - positions[edge_index[1]]
        vectors = vectors - self.graph["cell_shifts"] @ self.box
        lengths = vectors.pow(2).sum(1).sqrt()
        if not self.loops:
            return edge_index, lengths
        own = torch.arange(len(positions))
        edge_index = torch.cat([edge_index, torch.stack([own, own])], 1)
        return (
            edge_index,
            torch.cat([lengths, torch.zeros(len(own), dtype=lengths.dtype)]),
            torch.cat([vectors, torch.zeros_like(positions)]),
        )


def eager(model, graph):
    """Return the model's own value and its derivatives by autograd."""
    model = copy.deepcopy(model)
    positions = graph["positions"].clone().requires_grad_()
    box = graph["box"].clone().requires_grad_()
    if isinstance(model, SchNet):
        model.interaction_graph = Search(graph, box, loops=False)
    else:
        model.representation_model.distance = Search(graph, box, loops=True)
    value = model(graph["elements"], positions, torch.zeros_like(graph["elements"]))
    value = value[0] if isinstance(value, tuple) else value
    slopes = torch.autograd.grad(value.sum(), [positions, box], materialize_grads=True)
    return value[0].detach(), slopes[0][None], slopes[1][None]


def close(found, wanted, rtol=1e-11):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(other.abs().max()))


@pytest.mark.parametrize("name", list(MODELS))
def test_values_and_derivatives_are_the_models(name):
    model = model_of(name)
    cv = variable(model)
    module = cv.export_graph().module
    for n_nodes, periodic in ((9, True), (12, False), (2, False)):
        graph = networks.random_graph(cv, n_nodes, periodic, side=4.0, seed=n_nodes)
        assert graph["edge_index"].shape[1]
        wanted = eager(model, graph)
        assert wanted[1].any()
        assert bool(wanted[2].any()) == periodic
        close(cv.values_and_derivatives(**graph), wanted)
        close(module(*graph.values()), wanted)
    alone = networks.without_edges(graph)
    wanted = eager(model, alone)
    close(cv.values_and_derivatives(**alone), wanted)
    close(module(*alone.values()), wanted)


def test_directions_are_the_models():
    """No value tells them from their opposites; vectors of atoms do."""
    model = model_of("ViSNet")
    cv = variable(model)
    graph = networks.random_graph(cv, 7, periodic=True, side=4.0)
    asked = copy.deepcopy(model).representation_model
    asked.distance = Search(graph, graph["box"], loops=True)
    batch = torch.zeros_like(graph["elements"])
    wanted = asked(graph["elements"], graph["positions"], batch)
    senders, receivers = graph["edge_index"]
    vectors = graph["positions"][receivers] - graph["positions"][senders]
    vectors = vectors + graph["cell_shifts"] @ graph["box"]
    edges = (graph["edge_index"], vectors.norm(dim=1), vectors)
    network = graph_network(model)
    found = network.edges.during(
        network.model.representation_model, edges, graph["elements"], graph["positions"], batch
    )
    assert wanted[1].abs().max() > 1e-3
    close(found, wanted)


@pytest.mark.parametrize("name", ["SchNet", "ViSNet", "ViSNet of vertices"])
def test_two_cells_have_twice_the_value_of_one_whose_atoms_see_their_images(name):
    model = model_of(name)
    if isinstance(model, ViSNet):
        model.mean.zero_()
    cv = variable(model)
    box = np.array([[2.5, 0.0, 0.0], [0.3, 4.0, 0.0], [-0.2, 0.5, 4.5]])
    places = np.random.default_rng(2).random((3, 3)) @ box
    elements = torch.tensor([6, 8, 6])

    def found(places, box, elements):
        edges, shifts = edges_within(places, box, CUTOFF)
        numbers = (torch.from_numpy(array) for array in (places, edges, shifts, box))
        positions, edge_index, cell_shifts, lattice = numbers
        result = cv.values_and_derivatives(positions, elements, edge_index, cell_shifts, lattice)
        return edge_index, result

    edge_index, (value, derivatives, _) = found(places, box, elements)
    assert (edge_index[0] == edge_index[1]).any()
    doubled = np.concatenate([places, places + box[0]])
    _, (twice, more, _) = found(doubled, box * [[2], [1], [1]], elements.repeat(2))
    close([twice, more], [2 * value, derivatives.repeat(1, 2, 1)], rtol=1e-10)


@pytest.mark.parametrize("name", ["SchNet", "ViSNet"])
def test_a_file_gives_the_models_values(tmp_path, name):
    model = model_of(name)
    cv = variable(model)
    suffixes = [".pt", ".onnx"] if name == "SchNet" else [".pt"]
    for suffix in suffixes:
        path = tmp_path / f"cv{suffix}"
        assert ofcv.export(cv, path).passed
        artifact = ofcv.load(path)
        for n_nodes, periodic in ((9, True), (12, False)):
            graph = networks.random_graph(cv, n_nodes, periodic, side=4.0)
            found = [torch.as_tensor(entry) for entry in artifact(**graph)]
            close(found, eager(model, graph), rtol=1e-10)


@pytest.mark.parametrize("name", ["SchNet", "ViSNet, normalised", "ViSNet with forces"])
def test_the_model_stays_as_it_is(name):
    model = model_of(name).train()
    state = copy.deepcopy(model.state_dict())
    parts = [type(part) for part in model.modules()]
    graph_network(model)
    assert model.training
    assert [type(part) for part in model.modules()] == parts
    assert not any("max_min_norm" in vars(part) for part in model.modules())
    if name == "ViSNet with forces":
        assert model.derivative
    close(model.state_dict().values(), state.values(), rtol=0)


def test_copies_and_casts():
    cv = variable(model_of("ViSNet, normalised"))
    graph = networks.random_graph(cv, 6, periodic=True)
    wanted = cv.values_and_derivatives(**graph)
    for copied in (copy.deepcopy(cv), pickle.loads(pickle.dumps(cv))):
        close(copied.values_and_derivatives(**graph), wanted, rtol=0)
    single = copy.deepcopy(cv).float()
    cast = {
        name: value.float() if value.is_floating_point() else value for name, value in graph.items()
    }
    found = [entry.double() for entry in single.values_and_derivatives(**cast)]
    close(found, wanted, rtol=1e-4)


class Doubled(SchNet):
    def forward(self, z, pos, batch=None):
        return 2 * super().forward(z, pos, batch)


class Named(SchNet):
    """A subclass that evaluates as SchNet does."""


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (nn.Linear(1, 1), TypeError, "model: expected SchNet or ViSNet .*, got Linear"),
        (3, TypeError, "model: expected SchNet or ViSNet of PyTorch Geometric, got int"),
        (
            lambda: DimeNetPlusPlus(8, 1, 1, 4, 4, 4, 2, 2),
            TypeError,
            "model: expected SchNet or ViSNet .*, got DimeNetPlusPlus",
        ),
        (
            lambda: Doubled(**SMALL),
            ValueError,
            "model: expected the evaluation of SchNet, got Doubled with its own",
        ),
    ],
)
def test_other_models_are_refused(model, kind, message):
    made = model() if callable(model) and not isinstance(model, nn.Module) else model
    with pytest.raises(kind, match=f"^{message}$"):
        graph_network(made)


def test_a_subclass_with_the_models_evaluation_is_one():
    assert variable(Named(**SMALL)).n_outputs == 1


def test_elements_that_a_model_does_not_know_are_refused():
    message = "network: expected one that takes a graph of float32, got: index out of range"
    with pytest.raises(ValueError, match=message):
        ofcv.GraphCollectiveVariable(graph_network(ViSNet(**FEW, max_z=8)), CUTOFF, ["C", "O"])
