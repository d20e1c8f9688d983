"""Positions in, values and derivatives out, in every format, against autograd and differences."""

import copy

import onnx
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.descriptors.switching import Fermi
from ofcv_export.graph.tensor_spec import TensorSpec
from tests.builders.systems import all_pairs, by_autograd, frames, plain_distances

N_ATOMS = 5
SUFFIXES = [".pt", ".onnx"]


def network(n_outputs=2, dtype=torch.float64, activation=nn.Tanh, n_descriptors=10):
    torch.manual_seed(0)
    layers = [nn.Linear(n_descriptors, 8), activation(), nn.Linear(8, n_outputs)]
    return nn.Sequential(*layers).to(dtype)


def cv(n_outputs=2, dtype=torch.float64, activation=nn.Tanh):
    return ofcv.CollectiveVariable(all_pairs(N_ATOMS), network(n_outputs, dtype, activation))


def assert_file_is(path, network):
    """Compare a file with the user's own network of plain distances, by autograd in float64."""
    artifact, exact = ofcv.load(path), copy.deepcopy(network).double().eval()
    dtype = artifact.metadata.inputs[0].torch_dtype
    positions = frames(4, N_ATOMS, dtype, seed=8)
    expected = by_autograd(lambda r: exact(plain_distances(r)), positions)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for found, judge in zip(artifact(positions), expected, strict=True):
        assert (found - judge).abs().max() <= tolerance * judge.abs().max()


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_equals_autograd_and_central_differences(tmp_path, suffix, dtype, batch):
    path = tmp_path / f"cv{suffix}"
    report = ofcv.export(cv(dtype=dtype), path, batch=batch)
    assert report.passed
    assert ofcv.verify(path).passed
    assert ofcv.verify(path, reference=cv(dtype=dtype)).passed
    artifact = ofcv.load(path)
    exact = cv()
    # The float32 network, in float64.
    exact.network.load_state_dict(network(dtype=dtype).double().state_dict())
    for size in (1,) if batch else (1, 5):
        positions = frames(size, N_ATOMS, dtype, seed=size)
        values, derivatives = artifact(positions)
        expected = exact.values_and_derivatives(positions.double())
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        for found, judge in zip((values, derivatives), expected, strict=True):
            assert (found - judge).abs().max() <= tolerance * judge.abs().max()
        step, atom, dim = 1e-5, 3, 1
        shift = torch.zeros(size, N_ATOMS, 3, dtype=torch.float64)
        shift[:, atom, dim] = step
        with torch.no_grad():
            change = exact(positions.double() + shift) - exact(positions.double() - shift)
        torch.testing.assert_close(
            derivatives[:, :, atom, dim].double(), change / (2 * step), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_shapes_atoms_and_unit(tmp_path, suffix):
    made = ofcv.CollectiveVariable(
        all_pairs(N_ATOMS), network(3), atoms=[8, 1, 4, 0, 2], length_unit="A"
    )
    ofcv.export(made, tmp_path / f"cv{suffix}")
    metadata = ofcv.read_metadata(tmp_path / f"cv{suffix}")
    assert metadata.kind == "collective_variable"
    assert metadata.inputs == (TensorSpec("positions", "float64", ("batch", N_ATOMS, 3)),)
    assert metadata.outputs == (
        TensorSpec("values", "float64", ("batch", 3)),
        TensorSpec("derivatives", "float64", ("batch", 3, N_ATOMS, 3)),
    )
    assert metadata.atoms == [8, 1, 4, 0, 2]
    assert metadata.length_unit == "A"
    assert metadata.details.descriptors["type"] == "pairwise_distances"
    assert not metadata.periodic


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU, nn.ELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.LeakyReLU, nn.Hardtanh, nn.Softsign],
)
def test_any_activation(tmp_path, activation):
    made = cv(1, torch.float32, activation)
    assert ofcv.export(made, tmp_path / "cv.pt").passed
    assert_file_is(tmp_path / "cv.pt", made.network)
    # In float64 the numbers of an activation, such as a slope of 0.01, must not be rounded.
    made = cv(1, torch.float64, activation)
    assert ofcv.export(made, tmp_path / "cv.onnx").passed
    assert_file_is(tmp_path / "cv.onnx", made.network)


def test_operators_that_onnx_lacks_are_named(tmp_path):
    eigenvalues = AdjacencyEigenvalues(4, Fermi(1.0, q=0.3))
    made = ofcv.CollectiveVariable(eigenvalues, nn.Linear(4, 1).double())
    assert ofcv.export(made, tmp_path / "cv.pt").passed
    with pytest.raises(ValueError, match="module: expected operators that ONNX has, got aten._lin"):
        ofcv.export(made, tmp_path / "cv.onnx")
    assert not (tmp_path / "cv.onnx").exists()


class FixesItsBatch(nn.Module):
    """Turns the batch into a number while it is traced."""

    def forward(self, descriptors):
        return descriptors.sum(1, keepdim=True) + torch.ones(int(descriptors.shape[0]), 1).double()


def test_a_network_that_fixes_its_batch_is_refused():
    made = ofcv.CollectiveVariable(all_pairs(N_ATOMS), FixesItsBatch())
    with pytest.raises(ValueError, match="network: expected one that takes any number of frames"):
        made.export_graph().module  # noqa: B018 (made when it is asked for)


class SquaredDisplacement(Descriptor):
    """The squared distance of all atoms from places of their own."""

    def __init__(self, n_atoms):
        super().__init__(n_atoms, 1, takes_box=False)
        self.register_buffer("places", frames(1, n_atoms, seed=3)[0])

    def forward(self, positions, box=None):
        return (positions - self.places).square().sum((1, 2)).unsqueeze(1)

    def specification(self):
        return None

    def pattern(self):
        return SparsityPattern.from_dependence(torch.ones(1, self.n_atoms, dtype=torch.bool))


@pytest.mark.parametrize("n_atoms", [5, 7])
def test_a_batch_as_large_as_the_number_of_atoms_is_no_special_case(n_atoms):
    descriptor = SquaredDisplacement(n_atoms)
    network = nn.Linear(1, 1).double()
    nn.init.ones_(network.weight)
    nn.init.zeros_(network.bias)
    graph = ofcv.CollectiveVariable(descriptor, network).export_graph().module
    for size in (1, 4, n_atoms):
        positions = frames(size, n_atoms)
        displacements = positions - descriptor.places
        values, derivatives = graph(positions)
        torch.testing.assert_close(values[:, 0], displacements.square().sum((1, 2)))
        torch.testing.assert_close(derivatives[:, 0], 2 * displacements)


class Branching(nn.Module):
    """Layers that no list of known ones would have."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 6)
        self.norm = nn.LayerNorm(6)
        self.batch_norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(12, 1, bias=False)

    def forward(self, descriptors):
        hidden = self.norm(torch.sin(self.first(descriptors)))
        gated = self.batch_norm(hidden) * torch.softmax(hidden, dim=1)
        return self.last(torch.cat([hidden, gated], dim=1)).square() + descriptors[:, :1]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_network(tmp_path, suffix):
    torch.manual_seed(1)
    made = ofcv.CollectiveVariable(all_pairs(N_ATOMS), Branching())
    assert not made.network.training
    assert ofcv.export(made, tmp_path / f"cv{suffix}").passed
    assert_file_is(tmp_path / f"cv{suffix}", made.network)


def test_graph_holds_plain_operators_and_no_autograd():
    graph = cv().export_graph().module
    operators = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert all(isinstance(operator, torch._ops.OpOverload) for operator in operators)
    sizes = [node for node in graph.graph.nodes if node.target is torch.ops.aten.sym_size.int]
    assert {node.args[1] for node in sizes} == {0}, "only the batch is free"
    for output in graph(frames(4, N_ATOMS).requires_grad_()):
        assert output.shape[0] == 4


def test_onnx_graph_is_in_the_default_domain(tmp_path):
    ofcv.export(cv(), tmp_path / "cv.onnx")
    model = onnx.load(tmp_path / "cv.onnx")
    assert {node.domain for node in model.graph.node} <= {""}
    assert not model.functions


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_batch_norm_in_training_mode_is_evaluated(tmp_path, suffix):
    trained = nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 1)).double()
    trained.train()
    trained(torch.randn(20, 10).double())
    made = ofcv.CollectiveVariable(all_pairs(N_ATOMS), copy.deepcopy(trained))
    assert ofcv.export(made, tmp_path / f"cv{suffix}").passed
    assert_file_is(tmp_path / f"cv{suffix}", trained)


class Branches(nn.Module):
    def forward(self, descriptors):
        return descriptors[:, :1] if bool(descriptors.sum() > 0) else -descriptors[:, :1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ofcv.CollectiveVariable(nn.Identity(), network()), TypeError,
         "descriptors: expected a Descriptor, got Identity"),
        (lambda: ofcv.CollectiveVariable(all_pairs(5), network(n_descriptors=9)), ValueError,
         r"network: expected one that takes \(batch, 10\) descriptors of float64, got"),
        (lambda: ofcv.CollectiveVariable(all_pairs(5), network(), atoms=[0, 1]), ValueError,
         r"atoms: expected 5 distinct zero-based indices, got \[0, 1\]"),
        (lambda: ofcv.CollectiveVariable(all_pairs(5), network(), atoms=[0, 1, 2, 3, -4]),
         ValueError, "atoms: expected 5 distinct zero-based indices"),
        (lambda: ofcv.CollectiveVariable(
            all_pairs(5), nn.Sequential(nn.Linear(10, 2), nn.Linear(2, 1).double())), TypeError,
         "network: expected one floating dtype, got float32, float64"),
        (lambda: ofcv.CollectiveVariable(all_pairs(5), nn.Flatten(0)), ValueError,
         r"network: expected shape \(3, n_outputs\), got \(30,\)"),
        (lambda: ofcv.CollectiveVariable(all_pairs(5), Branches()).export_graph().module,
         ValueError, "network: expected operations that torch.export can see, got"),
    ],
)  # fmt: skip
def test_bad_parts_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("positions", "box", "error", "message"),
    [
        (frames(2, 4), None, ValueError, r"positions: expected shape \(batch, 5, 3\)"),
        (frames(2, 5, torch.float32), None, TypeError, "positions: expected dtype float64"),
        (frames(2, 5) * float("nan"), None, ValueError, "positions: expected finite values"),
        (frames(2, 5), torch.eye(3), ValueError, "box: expected none .not periodic., got one"),
    ],
)  # fmt: skip
def test_bad_positions_are_refused(positions, box, error, message):
    with pytest.raises(error, match=message):
        cv().values_and_derivatives(positions, box)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bad_input_to_the_file_is_refused(tmp_path, suffix):
    ofcv.export(cv(), tmp_path / f"cv{suffix}")
    artifact = ofcv.load(tmp_path / f"cv{suffix}")
    with pytest.raises(ValueError, match=r"positions: expected shape \(batch, 5, 3\), got \(2, 4"):
        artifact(frames(2, 4))
    with pytest.raises(ValueError, match="positions: expected finite values, got nan"):
        artifact(frames(2, 5) * float("nan"))
    with pytest.raises(TypeError, match="inputs: expected positions, got 2 by position"):
        artifact(frames(2, 5), torch.eye(3))


def test_coincident_atoms_have_finite_derivatives(tmp_path):
    for suffix in SUFFIXES:
        ofcv.export(cv(), tmp_path / f"cv{suffix}")
        positions = frames(2, 5)
        positions[:, 1] = positions[:, 0]
        for output in ofcv.load(tmp_path / f"cv{suffix}")(positions):
            assert torch.isfinite(output).all()


def test_boundaries_are_open_unless_a_box_is_given():
    made = ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 4], [3, 1]]), 5), nn.Identity())
    assert not made.periodic
    positions = 1e3 * frames(3, 5, torch.float32)
    torch.testing.assert_close(
        made(positions), plain_distances(positions, torch.tensor([[0, 4], [3, 1]]))
    )


class Pooled(nn.Module):
    """A layer applied to every descriptor, (batch, pairs, channels), and a mean over them."""

    def __init__(self, between=None):
        super().__init__()
        self.first, self.between, self.last = nn.Linear(1, 8), between, nn.Linear(8, 1)

    def forward(self, descriptors):
        hidden = torch.tanh(self.first(descriptors.unsqueeze(2)))
        if isinstance(self.between, nn.MultiheadAttention):
            hidden, _ = self.between(hidden, hidden, hidden)
        elif self.between is not None:
            hidden = self.between(hidden)
        return self.last(hidden.mean(1))


class Halved(nn.Module):
    """A network that converts what it is given."""

    def __init__(self):
        super().__init__()
        self.inner = network(1).float()

    def forward(self, descriptors):
        return self.inner(descriptors.float()).float()


def exported_program(module):
    batch = {0: torch.export.Dim("batch")}
    example = torch.randn(4, 10, dtype=torch.float64)
    return torch.export.export(module.eval(), (example,), dynamic_shapes=(batch,))


NETWORKS = {
    "DeepSets": Pooled,
    "attention": lambda: Pooled(nn.MultiheadAttention(8, 2, batch_first=True)),
    "Transformer": lambda: Pooled(
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            2,
            enable_nested_tensor=False,
        )
    ),
    "converting": Halved,
    "compiled": lambda: torch.compile(network(1)),
    "compiled inside": lambda: nn.Sequential(torch.compile(network(1)), nn.Linear(1, 1).double()),
    "exported": lambda: exported_program(network(1)),
    "exported module": lambda: exported_program(network(1)).module(),
    "traced": lambda: torch.jit.trace(network(1), torch.randn(3, 10, dtype=torch.float64)),
    "scripted": lambda: torch.jit.script(network(1)),
}


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_any_make(tmp_path, name, suffix, batch):
    torch.manual_seed(0)
    given = NETWORKS[name]()
    path = tmp_path / f"cv{suffix}"
    made = ofcv.CollectiveVariable(all_pairs(N_ATOMS), given)
    assert ofcv.export(made, path, batch=batch).passed
    positions = frames(1, N_ATOMS, made.dtype)
    judge = made.network if name == "converting" else copy.deepcopy(made.network).double()
    leaf = positions.to(made.dtype if name == "converting" else torch.float64).requires_grad_()
    values = judge(plain_distances(leaf))
    (derivatives,) = torch.autograd.grad(values.sum(), leaf)
    found = ofcv.load(path)(positions)
    tolerance = 1e-5 if made.dtype == torch.float32 else 1e-12
    for ours, exact in zip(found, (values, derivatives), strict=True):
        torch.testing.assert_close(
            ours.double().reshape(exact.shape), exact.detach().double(),
            rtol=tolerance, atol=tolerance,
        )  # fmt: skip


def test_the_callers_network_stays_as_it_is():
    given = nn.Sequential(nn.Linear(10, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    given.train()
    made = ofcv.CollectiveVariable(all_pairs(N_ATOMS), given)
    assert all(part.training for part in given.modules())
    assert not any(part.training for part in made.network.modules())
    with torch.no_grad():
        given[0].weight.zero_()
    assert made.network[0].weight.abs().max() > 0, "later training does not reach into the variable"


@pytest.mark.parametrize(
    ("given", "got"), [(torch.sin, "builtin_function_or_method"), (len, "builtin"), (None, "None")]
)
def test_a_network_that_is_no_module_is_refused(given, got):
    with pytest.raises(TypeError, match=f"^network: expected a torch.nn.Module, got {got}"):
        ofcv.CollectiveVariable(all_pairs(N_ATOMS), given)


class Empty(nn.Module):
    def forward(self, descriptors):
        raise RuntimeError


def test_an_error_without_a_message_is_named():
    with pytest.raises(ValueError, match="^network: expected one that takes .* got: RuntimeError$"):
        ofcv.CollectiveVariable(all_pairs(N_ATOMS), Empty())


class Centred(nn.Module):
    def forward(self, descriptors):
        return (descriptors - descriptors.mean(0))[:, :1]


class Noisy(nn.Module):
    def forward(self, descriptors):
        return descriptors[:, :1] + torch.rand(1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Centred(), "values that depend on nothing but their own frame"),
        (Noisy(), "the same values in every call"),
    ],
)
def test_a_network_that_mixes_frames_or_is_random_is_refused(given, message):
    with pytest.raises(ValueError, match=f"^network: expected {message}, got"):
        ofcv.CollectiveVariable(all_pairs(N_ATOMS), given)


def test_autocast_changes_no_number():
    made, positions = cv(dtype=torch.float32), frames(3, N_ATOMS, torch.float32)
    expected = made.values_and_derivatives(positions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, made.values_and_derivatives(positions), expected))


def test_derivatives_in_inference_mode_are_the_same():
    positions, centre = frames(3, N_ATOMS), torch.tensor([0.3, 0.4]).double()
    bias = ofcv.HarmonicRestraint(cv(), 0.0, 2.0)
    expected = bias.values_and_derivatives(positions, centre=centre)
    with torch.inference_mode():
        made = ofcv.HarmonicRestraint(cv(), 0.0, 2.0)
        found = made.values_and_derivatives(positions.clone(), centre=centre.clone())
    for outputs in (found, made.values_and_derivatives(positions, centre=centre)):
        assert all(map(torch.equal, outputs, expected))


class Scattered(nn.Module):
    """Sums that autocast would make of two dtypes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        sums = x.new_zeros(len(x), 2)
        return sums.index_add(1, torch.tensor([0, 1, 0, 1]), self.linear(x))


def test_a_network_is_tried_without_the_callers_autocast():
    pairs = torch.combinations(torch.arange(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cv = ofcv.CollectiveVariable(PairDistances(pairs, 4), Scattered())
    assert cv.n_outputs == 2
