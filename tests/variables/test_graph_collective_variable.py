"""Collective variables of graphs of atoms: numbers, free sizes, networks' questions, bad inputs."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from tests import graph_networks as networks

NAMES = list(networks.SETTINGS)
RTOL = 1e-12


def close(found, wanted, rtol=RTOL):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(other.abs().max()))


def small(network=None, elements=("C", "O"), cutoff=3.0, **options):
    """Return a variable with SchNet, or another network, in float64."""
    if network is None:
        torch.manual_seed(1)
        long_range = options.get("long_range_cutoff")
        network = networks.SchNet(len(elements), 2, cutoff, long_range, n_channels=4).double()
    return ofcv.GraphCollectiveVariable(network, cutoff, list(elements), **options)


EVERY_GROUP = {
    "system": [5, 3, 8],
    "environment": [9, 7],
    "buffer": 1.0,
    "long_range_cutoff": 5.0,
    "subsystem": [8, 5],
}


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """Return reference values, their variable and its traced graph."""
    arrays = networks.reference(request.param)
    cv = networks.variable(request.param, arrays)
    return arrays, cv, cv.export_graph().module


@pytest.mark.parametrize("frame", range(networks.N_FRAMES))
def test_reference_values(case, frame):
    arrays, cv, module = case
    graph = networks.graph(cv, arrays, frame)
    close(cv.values_and_derivatives(**graph), networks.expected(arrays, frame))
    close(module(*graph.values()), networks.expected(arrays, frame))


@pytest.mark.parametrize("periodic", [True, False], ids=["periodic", "open"])
@pytest.mark.parametrize("n_nodes", [2, 3, 12])
def test_graph_has_the_derivatives_of_other_numbers_of_nodes_and_edges(case, n_nodes, periodic):
    _, cv, module = case
    graph = networks.random_graph(cv, n_nodes, periodic, side=4.0)
    close(module(*graph.values()), cv.values_and_derivatives(**graph), rtol=1e-11)


def test_isolated_nodes_have_the_values_of_no_neighbours_and_no_derivatives(case):
    arrays, cv, module = case
    graph = networks.graph(cv, arrays, 0)
    for alone in (networks.without_edges(graph), networks.one_node(graph)):
        values, derivatives, box_derivatives = module(*alone.values())
        close([values], [cv(*alone.values()).detach()])
        assert values.isfinite().all()
        assert not derivatives.any()
        assert not box_derivatives.any()
        close(cv.values_and_derivatives(**alone), (values, derivatives, box_derivatives))
    # One node without neighbours is what SchNet and PaiNN make of its element alone.
    one = module(*networks.one_node(graph).values())[0]
    close([one], [by_element(cv, graph["elements"][:1])])


def by_element(cv, element):
    """Return what a network makes of an atom without neighbours; PaiNN has biases in updates."""
    net = cv.network
    x = net.W_v(torch.eye(len(cv.atomic_numbers)).double()[cv.atomic_numbers.index(int(element))])
    if isinstance(net, networks.PaiNN):
        for update in net.layers_update:
            hidden = update.lin1(torch.cat([x, torch.zeros_like(x)]))
            x = update.lin2(nn.functional.silu(hidden))[-len(x) :]
        return net.W_out(x).detach()
    for layer in net.layers:
        x = x + layer.lin(networks.shifted_softplus(layer.conv.lin2.bias))
    return net.W_out(x).detach()


@pytest.mark.parametrize("name", ["nacl_long_range_schnet", "nacl_painn"])
@pytest.mark.parametrize("periodic", [True, False], ids=["periodic", "open"])
def test_derivatives_are_those_of_central_differences(name, periodic):
    cv = networks.variable(name)
    graph = networks.random_graph(cv, 7, periodic, seed=3)
    values, derivatives, box_derivatives = cv.values_and_derivatives(**graph)
    slopes = {"positions": derivatives, "box": box_derivatives}
    for input_name, slope in slopes.items():
        if input_name == "box" and not periodic:
            assert not slope.any()
            continue
        place = list(graph).index(input_name)
        inputs = list(graph.values())
        for entry in np.ndindex(*graph[input_name].shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = inputs[place].clone()
                moved[entry] += step
                ends.append(cv(*inputs[:place], moved, *inputs[place + 1 :]).detach())
            difference = (ends[0] - ends[1]) / 2e-5
            torch.testing.assert_close(
                slope[(slice(None), *entry)], difference, rtol=1e-6, atol=1e-9
            )
    close([values], [cv(*graph.values()).detach()])


class SumOfVectors(nn.Module):
    def forward(self, edge_vectors, shifts):
        return (edge_vectors + 0 * shifts).sum(0)


def test_edges_point_from_sender_to_receiver():
    cv = small(SumOfVectors()).double()
    positions = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]).double()
    box = torch.tensor([[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.5, 0.3, 6.0]]).double()
    edge, crossed = torch.tensor([[0], [1]]), torch.tensor([[1.0, -1.0, 2.0]]).double()
    elements = torch.tensor([6, 8])
    values, derivatives, box_derivatives = cv.values_and_derivatives(
        positions, elements, edge, crossed, box
    )
    image = np.array([1.0, 2.0, 3.0]) + box.numpy()[0] - box.numpy()[1] + 2 * box.numpy()[2]
    close([values], [torch.from_numpy(image)])
    identity = torch.eye(3).double()
    close([derivatives], [torch.stack([-identity, identity], 1)])
    close([box_derivatives], [torch.einsum("s,kx->ksx", crossed[0], identity)])


def test_turning_and_moving_the_system_turns_the_derivatives():
    cv = networks.variable("nacl_painn")
    graph = networks.random_graph(cv, 9, periodic=True)
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3))))[0]
    moved = graph | {"positions": graph["positions"] @ turn + 3.7, "box": graph["box"] @ turn}
    values, derivatives, box_derivatives = cv.values_and_derivatives(**graph)
    close(
        cv.values_and_derivatives(**moved),
        (values, derivatives @ turn, box_derivatives @ turn),
        rtol=1e-10,
    )


class OfData(nn.Module):
    """A small network in mlcolvar's convention, which asks what `question` says."""

    def __init__(self, question="nothing"):
        super().__init__()
        self.question = question
        self.register_buffer("cutoff", torch.tensor(3.0, dtype=torch.float64))
        self.register_buffer("longer", torch.tensor(5.0, dtype=torch.float64))
        self.register_buffer("n_layers", torch.tensor(2))
        self.register_buffer("cutoffs", torch.tensor([3.0, 5.0], dtype=torch.float64))
        self.lin = nn.Linear(1, 3).double()
        self.far = nn.Linear(1, 3).double()
        self.out = nn.Linear(3, 2).double()

    def forward(self, data):
        senders, receivers = data["edge_index"]
        positions = data["positions"]
        lengths = (positions[receivers] - positions[senders] + data["shifts"]).norm(dim=1)[:, None]
        filters = torch.tanh(self.lin(lengths))
        is_long = data["edge_masks_lr"]
        n_graphs, factor = 1, 1.0
        question = self.question
        if question == "largest of batch":
            n_graphs = int(data["batch"].max()) + 1
        elif question == "largest of batch, viewed":
            n_graphs = torch.max(data["batch"].view(-1, 1).expand(-1, 3)).item() + 1
        elif question == "number of a buffer":
            factor = float(self.cutoff)
        elif question == "buffers compared":
            assert self.longer > self.cutoff
            factor = 2.0 if self.longer - self.cutoff > 1 else 3.0
        elif question == "integer of a buffer":
            for _ in range(int(self.n_layers)):
                filters = torch.tanh(filters)
        elif question == "item of a sum of buffers":
            factor = (self.cutoff + self.longer).item()
        elif question == "rows of a mask (n, 1)":
            chosen = is_long.nonzero()[:, 0]
            filters = filters.index_copy(0, chosen, self.far(lengths[chosen]))
        elif question == "rows of a mask (n,), in place":
            chosen = is_long[:, 0].nonzero().squeeze(1)
            filters = (1 * filters).index_copy_(0, chosen, self.far(lengths[chosen]))
        elif question == "rows of a mask, as a statement":
            chosen = is_long.nonzero()[:, 0]
            filters = 1 * filters
            filters.index_copy_(0, chosen, self.far(lengths[chosen]))
        elif question == "sum of the rows of a mask":
            factor = 1 + lengths[is_long[:, 0]].sum()
        elif question == "entry of a buffer":
            factor = float(self.cutoffs[1]) + float(1 - self.cutoffs[0])
        elif question == "rows of a mask, selected":
            chosen = torch.nonzero(is_long)[:, 0]
            changed = self.far(torch.index_select(lengths, 0, chosen))
            filters = torch.index_copy(filters, 0, chosen, changed)
        else:
            assert question == "nothing"
        nodes = data["node_attrs"][:, :1] * filters.new_zeros(3)
        nodes = nodes.index_add(0, receivers, filters * data["node_attrs"][senders, :1])
        nodes = torch.sin(nodes) * data["system_masks"] / data["n_system"]
        pooled = nodes.new_zeros(n_graphs, 3).index_add(0, data["batch"], nodes)
        return factor * self.out(pooled)


QUESTIONS = [
    "nothing",
    "largest of batch",
    "largest of batch, viewed",
    "number of a buffer",
    "buffers compared",
    "integer of a buffer",
    "item of a sum of buffers",
    "rows of a mask (n, 1)",
    "rows of a mask (n,), in place",
    "rows of a mask, selected",
    "rows of a mask, as a statement",
    "sum of the rows of a mask",
    "entry of a buffer",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_network_asks_of_constants_and_masks_is_answered_as_in_eager_mode(question):
    torch.manual_seed(0)
    network = OfData(question)
    cv = small(network, **EVERY_GROUP)
    module = cv.export_graph().module
    for n_nodes, seed in ((2, 0), (9, 1), (14, 2)):
        graph = networks.random_graph(cv, n_nodes, periodic=True, seed=seed)
        # As mlcolvar hands graphs over, by formulas of the test's own.
        data = in_mlcolvars_words(cv, graph)
        values = network(data)[0]
        slopes = [
            torch.autograd.grad(value, [data["positions"], data["cell"]], retain_graph=True)
            for value in values
        ]
        wanted = [values.detach(), *(torch.stack(entries) for entries in zip(*slopes, strict=True))]
        close(module(*graph.values()), wanted)
        close(cv.values_and_derivatives(**graph), wanted)


def in_mlcolvars_words(cv, graph):
    cell = graph["box"].clone().requires_grad_()
    one_hot = graph["elements"][:, None] == torch.tensor(cv.atomic_numbers)
    return {
        "positions": graph["positions"].clone().requires_grad_(),
        "cell": cell,
        "edge_index": graph["edge_index"],
        "unit_shifts": graph["cell_shifts"],
        "shifts": graph["cell_shifts"] @ cell,
        "node_attrs": one_hot.double(),
        "batch": torch.zeros_like(graph["elements"]),
        "system_masks": graph["system_mask"].bool()[:, None],
        "n_system": graph["system_mask"].sum().double().reshape(1, 1),
        "edge_masks_lr": graph["long_range_mask"].bool()[:, None],
    }


def test_a_selection_of_no_edge_leaves_all_as_they_are():
    torch.manual_seed(0)
    cv = small(OfData("rows of a mask (n, 1)"), **EVERY_GROUP)
    module = cv.export_graph().module
    graph = networks.random_graph(cv, 9, periodic=True)
    for mask in (torch.zeros_like, torch.ones_like):
        masked = graph | {"long_range_mask": mask(graph["long_range_mask"])}
        close(module(*masked.values()), cv.values_and_derivatives(**masked))
    alone = networks.without_edges(graph)
    close(module(*alone.values()), cv.values_and_derivatives(**alone))


class Asking(nn.Module):
    """Returns what a function makes of edge lengths and of a mask of edges."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, edge_lengths, edge_index, system_mask, node_attrs):
        return self.function(edge_lengths, edge_lengths > 2, node_attrs).reshape(1)


def _counted(d, mask, _):
    return d.sum() * mask.nonzero().shape[0]


def _summed(d, mask, _):
    return d[mask.nonzero()[:, 0]].sum()


def _written(d, mask, _):
    made = torch.zeros_like(d)
    made[mask.nonzero()[:, 0]] = 1.0
    return (made * d).sum()


def _added(d, mask, _):
    rows = mask.nonzero()[:, 0]
    return torch.zeros_like(d).index_add(0, rows, d[rows]).sum()


def _added_in_place(d, mask, _):
    made = d.new_zeros(1)
    made += d[mask.nonzero()[:, 0]].sum()
    return made.sum()


def _pairs(d, mask, _):
    return d.sum() * (mask[:, None] & mask[None]).nonzero().sum()


def _branch(d, mask, _):
    return d.sum() if d.sum() > 3 else d.prod()


def _number(d, mask, _):
    return d.sum() * float(d.max())


def _length(d, mask, nodes):
    return d.sum() / len(nodes)


REFUSED = {
    "counting a selection": (_counted, "network: .* of the places of a mask"),
    "summing selected rows": (_summed, "network: expected selected rows to be put back"),
    "writing to a selection": (_written, "network: .* of the places of a mask"),
    "adding to a selection": (_added, "network: .* of the places of a mask"),
    "adding selected rows": (_added_in_place, "network: expected selected rows to be put back"),
    "a mask of pairs": (_pairs, "network: .*expected a mask of rows"),
    "a branch": (_branch, "network: expected operations that torch.export can see"),
    "a number of an input": (_number, "network: expected operations that torch.export can see"),
    "len": (_length, "network: expected one that takes any number of nodes, got one that fixes"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_cannot_be_traced_is_refused_with_one_line(what):
    function, message = REFUSED[what]
    cv = small(Asking(function).double())
    with pytest.raises(ValueError, match=message) as error:
        cv.export_graph().module  # noqa: B018
    assert "\n" not in str(error.value)


class Returning(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, edge_lengths):
        return self.made(edge_lengths)


class WithVectors(nn.Module):
    def forward(self, edge_lengths, angles):
        return edge_lengths.sum().reshape(1)


class OfWrongKey(nn.Module):
    def forward(self, data):
        return data["charges"].sum().reshape(1)


class TooManyElements(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 1)

    def forward(self, elements):
        return self.embedding(elements).sum(0)


def _two_dtypes():
    return nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1).double()])


def _unfit():
    return networks.SchNet(5, 1, 3.0)


BAD = {
    "network": ({"network": 3}, TypeError, "network: expected a torch.nn.Module, got int"),
    "dtypes": ({"network": _two_dtypes()}, TypeError, "one floating dtype, got float32, float64"),
    "half": ({"network": nn.Linear(1, 1).half()}, TypeError, "network: expected .*, got float16"),
    "argument": ({"network": WithVectors()}, ValueError, "arguments among .*, got angles"),
    "key": ({"network": OfWrongKey()}, ValueError, "in the graph, got one for 'charges'"),
    "fit": ({"network": _unfit()}, ValueError, "takes a graph of float32, got: mat1 and mat2"),
    "element out of range": (
        {"network": TooManyElements()},
        ValueError,
        "takes a graph of float32, got: index out of range",
    ),
    "tuple": ({"network": Returning(lambda d: (d,))}, ValueError, "a tensor of values, got tuple"),
    "scalar": ({"network": Returning(torch.sum)}, ValueError, r"shape \(1, n_outputs\), got \(\)"),
    "rows": (
        {"network": Returning(lambda d: d.sum().expand(2, 1))},
        ValueError,
        r"shape \(1, n_outputs\), got \(2, 1\)",
    ),
    "no value": ({"network": Returning(lambda d: d[:0])}, ValueError, "network: expected .*value"),
    "integers": ({"network": Returning(lambda d: d.long())}, TypeError, "network: expected"),
    "cutoff": ({"cutoff": 0.0}, ValueError, "cutoff: expected a positive number, got 0.0"),
    "endless": ({"cutoff": float("inf")}, ValueError, "cutoff: expected a positive number"),
    "cutoff's type": ({"cutoff": "3"}, TypeError, "cutoff: expected a number, got str"),
    "unknown element": ({"elements": ["C", "Xy"]}, ValueError, "chemical symbols, got 'Xy'"),
    "no element": ({"elements": []}, ValueError, "elements: expected distinct symbols"),
    "element twice": ({"elements": ["C", "C"]}, ValueError, "elements: expected distinct symbols"),
    "unit": ({"length_unit": "mile"}, ValueError, "length_unit: expected"),
    "no system atom": ({"system": []}, ValueError, "system: expected at least one atom, got none"),
    "system twice": ({"system": [1, 1]}, ValueError, "system: expected distinct"),
    "system below zero": ({"system": [-1]}, ValueError, "system: expected distinct zero-based"),
    "system's type": ({"system": [0.5]}, TypeError, "system: expected integers, got 0.5"),
    "environment alone": ({"environment": [1]}, ValueError, "system: expected one with environ"),
    "shared": (
        {"system": [1, 2], "environment": [2]},
        ValueError,
        "environment: expected no atom of system, got 2",
    ),
    "buffer": ({"system": [1], "buffer": 1.0}, ValueError, "buffer: expected 0 without environ"),
    "buffer below zero": ({"buffer": -1.0}, ValueError, "buffer: expected a finite number"),
    "buffer's type": ({"buffer": "1"}, TypeError, "buffer: expected a number, got str"),
    "long range alone": (
        {"system": [1], "long_range_cutoff": 5.0},
        ValueError,
        "subsystem: expected one with long_range_cutoff, got none",
    ),
    "subsystem alone": (
        {"system": [1], "subsystem": [1]},
        ValueError,
        "long_range_cutoff: expected one with subsystem, got none",
    ),
    "short long range": (
        {"system": [1], "subsystem": [1], "long_range_cutoff": 3.0},
        ValueError,
        "long_range_cutoff: expected more than the cutoff 3.0, got 3.0",
    ),
    "subsystem outside": (
        {"system": [1], "subsystem": [2], "long_range_cutoff": 5.0},
        ValueError,
        "subsystem: expected atoms of system, got 2",
    ),
    "beyond atoms": (
        {"system": [2], "atoms": [7, 9]},
        ValueError,
        "system: expected indices below 2, got 2",
    ),
    "atoms twice": ({"atoms": [7, 7]}, ValueError, "atoms: expected distinct"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_arguments_are_refused(what):
    wrong, kind, message = BAD[what]
    made = Returning(lambda d: torch.exp(-d).sum().reshape(1))
    arguments = {"network": made, "cutoff": 3.0, "elements": ["C", "O"]} | wrong
    with pytest.raises(kind, match=message) as error:
        ofcv.GraphCollectiveVariable(**arguments)
    assert "\n" not in str(error.value)


def _with(name, change):
    return lambda graph: graph | {name: change(graph[name])}


def _set(place, value):
    def changed(tensor):
        made = tensor.clone()
        made[place] = value
        return made

    return changed


def _without(name):
    return lambda graph: {key: graph[key] for key in graph if key != name}


BAD_GRAPHS = {
    "positions' shape": (
        _with("positions", lambda x: x[:, :2]),
        ValueError,
        r"positions: expected shape \(n_nodes, 3\), got \(5, 2\)",
    ),
    "positions' dtype": (
        _with("positions", torch.Tensor.float),
        TypeError,
        "positions: expected .*float64",
    ),
    "array": (
        _with("positions", torch.Tensor.numpy),
        TypeError,
        "positions: expected a torch tensor",
    ),
    "number": (_with("positions", lambda x: x.sum()), ValueError, "positions: expected shape"),
    "list of edges": (
        _with("edge_index", torch.Tensor.tolist),
        TypeError,
        "edge_index: expected a torch tensor",
    ),
    "not finite": (
        _with("positions", _set((1, 2), torch.nan)),
        ValueError,
        "positions: expected finite values",
    ),
    "unknown element": (
        _with("elements", _set(2, 7)),
        ValueError,
        r"elements: expected C, O, got N as atom 2 \(zero-based\)",
    ),
    "no element": (_with("elements", _set(2, 0)), ValueError, "expected C, O, got 0 as atom 2"),
    "fewer elements": (_with("elements", lambda x: x[:4]), ValueError, "elements: expected shape"),
    "elements' dtype": (_with("elements", torch.Tensor.double), TypeError, "elements: expected"),
    "edge beyond": (
        _with("edge_index", _set((1, 0), 5)),
        IndexError,
        r"edge_index: expected indices in \[0, 5\), got 5",
    ),
    "edge below zero": (
        _with("edge_index", _set((0, 0), -1)),
        IndexError,
        r"edge_index: expected indices in \[0, 5\), got -1",
    ),
    "edges' shape": (
        _with("edge_index", torch.Tensor.t),
        ValueError,
        "edge_index: expected shape",
    ),
    "fewer shifts": (
        _with("cell_shifts", lambda x: x[1:]),
        ValueError,
        "cell_shifts: expected shape",
    ),
    "integer shifts": (_with("cell_shifts", torch.Tensor.long), TypeError, "cell_shifts: expected"),
    "box's shape": (_with("box", torch.diag), ValueError, r"box: expected shape \(3, 3\)"),
    "flat box": (
        _with("box", _set(2, 0.0)),
        ValueError,
        "box: expected linearly independent vectors",
    ),
    "no system mask": (_without("system_mask"), ValueError, "system_mask: expected 0 and 1, got"),
    "system mask": (
        _with("system_mask", _set(1, 2)),
        ValueError,
        "system_mask: expected 0 or 1, got 2 at position 1",
    ),
    "bool mask": (_with("system_mask", torch.Tensor.bool), TypeError, "system_mask: expected"),
    "no long-range mask": (
        _without("long_range_mask"),
        ValueError,
        "long_range_mask: expected 0 and 1, got none",
    ),
    "long-range mask": (
        _with("long_range_mask", _set(0, -1)),
        ValueError,
        "long_range_mask: expected 0 or 1, got -1 at position 0",
    ),
}


@pytest.mark.parametrize("what", list(BAD_GRAPHS))
def test_bad_graphs_are_refused(what):
    change, kind, message = BAD_GRAPHS[what]
    cv = small(**EVERY_GROUP)
    graph = change(networks.random_graph(cv, 5, periodic=True))
    with pytest.raises(kind, match=message) as error:
        cv.values_and_derivatives(**graph)
    assert "\n" not in str(error.value)


def test_masks_that_are_not_asked_for_are_refused():
    cv = small()
    graph = networks.random_graph(cv, 5)
    for name in ("system_mask", "long_range_mask"):
        with pytest.raises(ValueError, match=f"{name}: expected none, got one"):
            cv.values_and_derivatives(**graph, **{name: graph["elements"]})


def test_without_a_box_there_is_no_periodicity():
    cv = small()
    graph = networks.random_graph(cv, 5)
    close(cv.values_and_derivatives(**_without("box")(graph)), cv.values_and_derivatives(**graph))


def test_groups_count_the_atoms_that_are_given():
    cv = small(**EVERY_GROUP)
    assert cv.atoms == [5, 3, 8, 9, 7]
    engines = list(range(100, 120))
    renamed = small(**EVERY_GROUP, atoms=engines)
    assert renamed.atoms == [105, 103, 108, 109, 107]
    assert (renamed.system, renamed.environment) == ([105, 103, 108], [109, 107])
    assert renamed.subsystem == [108, 105]
    assert small(atoms=[7, 5]).atoms == [7, 5]
    assert small().atoms is None


def test_with_atoms_names_other_atoms_and_shares_the_weights():
    cv = small(**EVERY_GROUP)
    other = cv.with_atoms([1, 2, 3, 4, 0])
    assert (other.system, other.environment, other.subsystem) == ([1, 2, 3], [4, 0], [3, 1])
    assert (cv.system, cv.environment, cv.subsystem) == ([5, 3, 8], [9, 7], [8, 5])
    assert other.network is cv.network
    graph = networks.random_graph(cv, 5, periodic=True)
    close(other.values_and_derivatives(**graph), cv.values_and_derivatives(**graph))
    assert other.export_graph().atoms == [1, 2, 3, 4, 0]
    for atoms, message in (
        ([1, 2], "atoms: expected 5 distinct"),
        ([1, 2, 3, 4, 4], "atoms: expected 5 distinct"),
    ):
        with pytest.raises(ValueError, match=message):
            cv.with_atoms(atoms)
    with pytest.raises(ValueError, match="atoms: expected none for a variable of all atoms"):
        small().with_atoms([0])


def test_copies_give_the_same_bits():
    cv = small(**EVERY_GROUP)
    graph = networks.random_graph(cv, 6, periodic=True)
    wanted = cv.values_and_derivatives(**graph)
    for copied in (copy.deepcopy(cv), pickle.loads(pickle.dumps(cv))):
        assert copied.network is not cv.network
        close(copied.values_and_derivatives(**graph), wanted, rtol=0)
    again = small(**EVERY_GROUP)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(cv.state_dict())
    close(again.values_and_derivatives(**graph), wanted, rtol=0)


def test_cast_to_another_dtype():
    cv = small(**EVERY_GROUP)
    graph = networks.random_graph(cv, 6, periodic=True)
    wanted = cv.values_and_derivatives(**graph)
    single = copy.deepcopy(cv).float()
    assert single.dtype == torch.float32
    assert {spec.dtype for spec in single.inputs()} == {"float32", "int64"}
    cast = {
        name: value.float() if value.is_floating_point() else value for name, value in graph.items()
    }
    found = single.values_and_derivatives(**cast)
    assert all(entry.dtype == torch.float32 for entry in found)
    close([entry.double() for entry in found], wanted, rtol=1e-5)
    close(single.double().values_and_derivatives(**graph), wanted, rtol=1e-6)


def test_a_network_without_parameters_has_the_dtype_that_it_is_cast_to():
    cv = small(Returning(lambda d: torch.exp(-d).sum().reshape(1)))
    assert cv.dtype == torch.float32
    double = cv.double()
    graph = networks.random_graph(double, 5)
    values, derivatives, _ = double.values_and_derivatives(**graph)
    d = torch.pdist(graph["positions"])
    torch.testing.assert_close(
        values, 2 * torch.exp(-d[d <= 3.0]).sum().reshape(1), rtol=RTOL, atol=0
    )
    close(double.export_graph().module(*graph.values())[:2], (values, derivatives))


class CountsNodes(nn.Module):
    def forward(self, node_attrs):
        return node_attrs.sum(0)


def test_values_that_no_position_changes_have_no_derivatives():
    cv = small(CountsNodes()).double()
    graph = networks.random_graph(cv, 5)
    for values, derivatives, box_derivatives in (
        cv.values_and_derivatives(**graph),
        cv.export_graph().module(*graph.values()),
    ):
        assert values.sum() == 5
        assert derivatives.shape == (2, 5, 3)
        assert not derivatives.any()
        assert not box_derivatives.any()


def test_the_users_network_stays_as_it_is():
    torch.manual_seed(0)
    network = networks.SchNet(2, 1, 3.0, n_channels=4).double().train()
    state = copy.deepcopy(network.state_dict())
    cv = small(network)
    assert cv.network is not network
    graph = networks.random_graph(cv, 5)
    before = cv.values_and_derivatives(**graph)
    cv.export_graph().module  # noqa: B018
    assert network.training
    assert not cv.network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    close(network.state_dict().values(), state.values(), rtol=0)
    with torch.no_grad():
        network.W_v.weight.zero_()
    close(cv.values_and_derivatives(**graph), before, rtol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_values_and_derivatives_in_every_mode(mode):
    cv = small()
    graph = networks.random_graph(cv, 5)
    wanted = cv.values_and_derivatives(**graph)
    with mode():
        inside = {name: value.clone() for name, value in graph.items()}
        close(cv.values_and_derivatives(**inside), wanted, rtol=0)
    assert not any(entry.requires_grad for entry in wanted)


def test_details_tell_what_an_engine_needs():
    details = small(**EVERY_GROUP, length_unit="nm").details()
    assert (details.known_elements, details.n_outputs) == (("C", "O"), 2)
    assert (details.cutoff, details.buffer, details.long_range_cutoff) == (3.0, 1.0, 5.0)
    groups = (details.system, details.environment, details.subsystem)
    assert groups == ((5, 3, 8), (9, 7), (8, 5))
