"""Trained models of mlcolvar: imported, exported, and compared with mlcolvar's own autograd."""

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ofcv_export as ofcv
from ofcv_export.artifacts.geometry import Geometry
from ofcv_export.cli import app
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.integrations.captured_descriptor import CapturedDescriptor
from ofcv_export.integrations.plain_modules import Sigmoid, plain_copy
from tests.builders.systems import frames, plain_distances

pytest.importorskip("mlcolvar", reason="mlcolvar is the peer of these tests")

import lightning
from mlcolvar import cvs
from mlcolvar.core.nn.utils import Custom_Sigmoid
from mlcolvar.core.stats import PCA
from mlcolvar.core.transform import PairwiseDistances, SequentialTransform

from benchmarks.trained_models import (
    MODELS,
    N_ATOMS,
    autoencoder,
    committor,
    deep_lda,
    deep_tda,
    distances,
    fit,
    mixed,
    regression,
    sample,
)

# mlcolvar computes constants in float32, whatever the dtype of the model.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def quiet(caplog):
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        yield


def mlcolvar_float64(model, positions):
    """Return values and derivatives of mlcolvar's own evaluation; the model becomes float64."""
    model = model.double().eval()
    leaf = positions.double().requires_grad_()
    with torch.enable_grad():
        values = model(leaf)
    gradients = [
        torch.autograd.grad(values[:, k].sum(), leaf, retain_graph=True)[0]
        for k in range(values.shape[1])
    ]
    return values.detach(), torch.stack(gradients, dim=1)


def assert_equal(found, expected, dtype):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert ours.shape == theirs.shape
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert error < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("make", "dtype"),
    [(make, torch.float32) for make in MODELS] + [(make, torch.float64) for make in MODELS[:6]],
)
def test_torchscript_of_a_trained_model_is_mlcolvars_float64_autograd(make, dtype, tmp_path):
    model, _ = make()
    cv = ofcv.from_mlcolvar(model.to(dtype), atoms=[3, 1, 4, 7, 5], length_unit="A")
    assert cv.dtype == dtype
    ofcv.export(cv, tmp_path / "cv.pt")
    loaded = ofcv.load(tmp_path / "cv.pt")
    assert loaded.metadata.atoms == [3, 1, 4, 7, 5]
    assert loaded.metadata.length_unit == "A"
    positions = frames(5, N_ATOMS, dtype, seed=2)
    expected = mlcolvar_float64(model, positions)
    assert_equal(cv.values_and_derivatives(positions), expected, dtype)
    assert_equal(loaded(positions), expected, dtype)
    first = [tensor[:1] for tensor in expected]
    assert_equal(loaded(positions[:1]), first, dtype)


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_file_of_a_trained_model_for_one_frame(suffix, tmp_path):
    model, _ = deep_lda()
    path = tmp_path / f"cv{suffix}"
    ofcv.export(ofcv.from_mlcolvar(model), path, batch=1)
    positions = frames(1, N_ATOMS, torch.float32, seed=2)
    expected = mlcolvar_float64(model, positions)
    assert_equal(ofcv.load(path)(positions), expected, torch.float32)


@pytest.mark.parametrize(
    ("suffix", "make", "dtype"),
    [
        *((suffix, make, torch.float32) for make in MODELS[:6] for suffix in (".onnx", ".pt2")),
        (".onnx", committor, torch.float64),
    ],
)
def test_file_of_a_trained_model_is_mlcolvars_float64_autograd(suffix, make, dtype, tmp_path):
    model, _ = make()
    ofcv.export(ofcv.from_mlcolvar(model.to(dtype)), tmp_path / f"cv{suffix}")
    loaded = ofcv.load(tmp_path / f"cv{suffix}")
    positions = frames(5, N_ATOMS, dtype, seed=2)
    expected = mlcolvar_float64(model, positions)
    assert_equal(loaded(positions), expected, dtype)
    assert_equal(loaded(positions[:1]), [tensor[:1] for tensor in expected], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("make", MODELS)
def test_network_has_exactly_the_models_values_and_leaves_it_as_it_was(make, dtype):
    model, _ = make()
    model.to(dtype).train()
    cv = ofcv.from_mlcolvar(model)
    assert model.training
    assert any(parameter.requires_grad for parameter in model.parameters())
    descriptors = cv.descriptors(frames(6, N_ATOMS, dtype))
    expected = model.eval().forward_cv(descriptors)
    if model.postprocessing is not None:
        expected = model.postprocessing(expected)
    assert torch.equal(cv.network(descriptors), expected)
    assert not any(isinstance(part, lightning.LightningModule) for part in cv.modules())
    copy.deepcopy(cv)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "activation",
    ["relu", "elu", "tanh", "softplus", "shifted_softplus", "custom_sigmoid", "leaky_relu"],
)
def test_every_activation(activation, dtype):
    options = {"nn": {"activation": activation, "batchnorm": True, "dropout": 0.5}}
    model = cvs.RegressionCV([10, 16, 8, 2], options=options, preprocessing=distances()).to(dtype)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    cv = ofcv.from_mlcolvar(model)
    graph = cv.export_graph().module
    positions = frames(5, N_ATOMS, dtype)
    descriptors = cv.descriptors(positions)
    assert torch.equal(cv.network(descriptors), model.eval().forward_cv(descriptors))
    assert_equal(graph(positions), mlcolvar_float64(model, positions), dtype)


def test_every_activation_of_mlcolvar_is_in_the_test_above():
    from mlcolvar.core.nn.utils import get_activation

    with pytest.raises(ValueError, match="options: 'relu'") as error:
        get_activation("none of them")
    offered = str(error.value).partition("options: ")[2].rstrip(". ").replace("'", "").split(",")
    tested = test_every_activation.pytestmark[0].args[1]
    # The activation "linear" makes a network that fails in its first call.
    assert set(offered) - {"linear"} <= set(tested)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_sigmoid_stays_finite_where_mlcolvars_derivative_does_not(dtype):
    theirs, ours = Custom_Sigmoid(p=3), Sigmoid(3)
    x = torch.tensor([-1e4, -300.0, -10.0, 0.0, 10.0, 1e4], dtype=dtype, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-38)
    (gradient,) = torch.autograd.grad(ours(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(second).all()
    (broken,) = torch.autograd.grad(theirs(x).sum(), x)
    assert broken[0].isnan()
    torch.testing.assert_close(gradient[2:], broken[2:])


def test_box_with_different_edges_is_right_where_mlcolvar_is_not():
    cell = [2.0, 3.0, 4.0]
    model = cvs.RegressionCV([1, 4, 1], options={"norm_in": None}).double()
    model.preprocessing = PairwiseDistances(2, True, cell, slicing_pairs=[[0, 1]])
    cv = ofcv.from_mlcolvar(model)
    positions = torch.tensor([[[0.1, 0.1, 0.1], [1.9, 2.9, 0.2]]], dtype=torch.float64)
    expected = torch.tensor([[0.2, 0.2, 0.1]], dtype=torch.float64).norm(dim=1, keepdim=True)
    torch.testing.assert_close(cv.descriptors(positions), expected)
    assert (model.preprocessing(positions) - expected).abs() > 0.5


class InverseSquares(nn.Module):
    """A preprocessing of the user's own, of flattened positions."""

    def __init__(self, in_features=None):
        super().__init__()
        if in_features is not None:
            self.in_features = in_features
        self.scale = nn.Parameter(torch.full((N_ATOMS - 1,), 2.0))

    def forward(self, x):
        x = x.reshape(x.shape[0], -1, 3)
        squares = (x[:, 1:] - x[:, :1]).square().sum(2)
        return self.scale / (1 + squares)


class OfShapedPositions(InverseSquares):
    def forward(self, x):
        assert x.shape[1:] == (N_ATOMS, 3)
        return super().forward(x)


class OfSoManyFrames(InverseSquares):
    def forward(self, x):
        return super().forward(x) * torch.ones(len(x), 1)


class ThroughNumpy(InverseSquares):
    def forward(self, x):
        return torch.from_numpy(super().forward(x).detach().numpy())


@pytest.mark.parametrize("preprocessing", [InverseSquares, OfShapedPositions])
def test_unknown_preprocessing_is_captured(preprocessing, tmp_path):
    model = cvs.RegressionCV([4, 8, 1], options={"norm_in": None})
    model.preprocessing = preprocessing(3 * N_ATOMS)
    cv = ofcv.from_mlcolvar(model.double())
    assert isinstance(cv.descriptors, CapturedDescriptor)
    assert cv.descriptors.specification() is None
    ofcv.export(cv, tmp_path / "cv.pt")
    positions = frames(5, N_ATOMS)
    expected = mlcolvar_float64(model, positions)
    assert_equal(ofcv.load(tmp_path / "cv.pt")(positions), expected, torch.float64)
    values, blocks = cv.descriptors.jacobian(positions)
    jacobian = torch.autograd.functional.jacobian(cv.descriptors, positions)
    dense = torch.stack([jacobian[frame, :, frame] for frame in range(5)])
    torch.testing.assert_close(blocks.reshape(dense.shape), dense)
    torch.testing.assert_close(values, cv.descriptors(positions))


def test_atoms_tell_the_size_of_a_captured_preprocessing():
    model = cvs.RegressionCV([4, 8, 1], options={"norm_in": None})
    model.preprocessing = InverseSquares()
    with pytest.raises(ValueError, match=r"^atoms: expected .* InverseSquares takes, got none$"):
        ofcv.from_mlcolvar(model)
    assert ofcv.from_mlcolvar(model, atoms=range(N_ATOMS)).descriptors.n_atoms == N_ATOMS


def test_descriptors_replace_a_preprocessing_of_positions_and_precede_any_other():
    model = cvs.RegressionCV([3, 8, 1], options={"norm_in": None}).double()
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
    ours = PairDistances(pairs, 3)
    positions = frames(4, 3)
    with pytest.raises(ValueError, match=r"^model: expected a preprocessing .* give descriptors=$"):
        ofcv.from_mlcolvar(model)
    torch.testing.assert_close(
        ofcv.from_mlcolvar(model, descriptors=ours)(positions), model.forward_cv(ours(positions))
    )
    model.preprocessing = PairwiseDistances(4, False, [1.0] * 3, slicing_pairs=[[0, 3]] * 3)
    assert ofcv.from_mlcolvar(model, descriptors=ours).descriptors is ours
    pca = PCA(3)
    pca.compute(torch.rand(20, 3))
    model.preprocessing = pca.double()
    cv = ofcv.from_mlcolvar(model, descriptors=PairwiseDistances(3, False, [1.0] * 3))
    torch.testing.assert_close(cv(positions), model.eval()(ours(positions)))
    model.preprocessing = SequentialTransform(PairwiseDistances(3, False, [1.0] * 3), pca)
    cv = ofcv.from_mlcolvar(model)
    assert isinstance(cv.descriptors, PairDistances)
    torch.testing.assert_close(cv(positions), model(positions))


@pytest.mark.parametrize("make", MODELS)
def test_checkpoint_gives_the_values_of_its_model(make, tmp_path):
    model, trainer = make()
    model.postprocessing = None
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    state = torch.get_rng_state()
    cv = ofcv.from_mlcolvar(
        tmp_path / "model.ckpt",
        descriptors=model.preprocessing,
        model_class=cvs.AutoEncoderCV if make.__name__ == "multi_task" else type(model),
    )
    assert torch.equal(torch.get_rng_state(), state)
    positions = frames(5, N_ATOMS, torch.float32)
    assert torch.equal(cv(positions), ofcv.from_mlcolvar(model)(positions))


def test_checkpoint_keeps_its_dtype(tmp_path):
    _, trainer = deep_tda()
    trainer.strategy.model.double()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    cv = ofcv.from_mlcolvar(
        str(tmp_path / "model.ckpt"), descriptors=mixed(), model_class="DeepTDA"
    )
    assert cv.dtype == torch.float64


@pytest.fixture
def checkpoint_of_objects(tmp_path):
    """A checkpoint of a model whose preprocessing was given to its constructor."""
    model = cvs.AutoEncoderCV([10, 8, 2], preprocessing=distances())
    trainer = fit(model, {"data": sample(model.preprocessing)})
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    return model, tmp_path / "model.ckpt"


def test_checkpoint_that_needs_unpickling_is_refused_unless_allowed(checkpoint_of_objects):
    model, path = checkpoint_of_objects
    pattern = (
        r"^model: expected .* plain data, got mlcolvar\S*PairwiseDistances in .*files you trust$"
    )
    with pytest.raises(ValueError, match=pattern):
        ofcv.from_mlcolvar(path)
    cv = ofcv.from_mlcolvar(path, allow_unpickling=True, model_class=cvs.AutoEncoderCV)
    positions = frames(5, N_ATOMS, torch.float32)
    torch.testing.assert_close(cv(positions), model.eval()(positions))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_refused_checkpoint_runs_none_of_its_code(tmp_path):
    content = {"hyper_parameters": {"layers": [3, 1]}, "state_dict": {}}
    content["callbacks"] = Payload(tmp_path / "ran")
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"^model: expected a checkpoint of tensors.*got io\.open"):
        ofcv.from_mlcolvar(tmp_path / "evil.ckpt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"^model: expected a Lightning checkpoint"):
        ofcv.from_mlcolvar(tmp_path / "evil.pkl")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_does_not_tell_whose_evaluation_it_was(tmp_path):
    for model in (WithItsOwnForward([4, 8, 1]), cvs.RegressionCV([4, 8, 1])):
        path = tmp_path / "model.ckpt"
        fit(model, {"data": torch.rand(20, 4), "target": torch.rand(20, 1)}).save_checkpoint(path)
        given = {"descriptors": PairDistances(torch.tensor([[0, 1]] * 4), 2)}
        with pytest.raises(ValueError, match="^model_class: expected .* RegressionCV has these"):
            ofcv.from_mlcolvar(path, **given)
        if type(model) is cvs.RegressionCV:
            assert ofcv.from_mlcolvar(path, **given, model_class=type(model)).n_outputs == 1
        else:
            with pytest.raises(ValueError, match="^model: expected the evaluation of one of"):
                ofcv.from_mlcolvar(path, **given, model_class=type(model))
    for wrong, error in ((nn.Linear, TypeError), ("Linear", ValueError), (3, TypeError)):
        with pytest.raises(error, match="^model_class: expected"):
            ofcv.from_mlcolvar(path, **given, model_class=wrong)
    with pytest.raises(ValueError, match="^model_class: expected none for a model"):
        ofcv.from_mlcolvar(model, **given, model_class=type(model))


class WithItsOwnForward(cvs.RegressionCV):
    def forward_cv(self, x):
        return self.nn(x).square()


def trained_file(tmp_path, **changes):
    """Return a checkpoint with some entries changed."""
    _, trainer = regression()
    path = tmp_path / "changed.ckpt"
    trainer.save_checkpoint(path)
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    return path


def bad_input(case, tmp_path):
    """Return the arguments of a call that must fail."""
    model = cvs.RegressionCV([4, 8, 1], options={"norm_in": None})
    if case == "opaque":
        model.preprocessing = ThroughNumpy(3 * N_ATOMS)
    if case == "counts frames":
        model.preprocessing = OfSoManyFrames(3 * N_ATOMS)
    if case == "wrong input":
        model.preprocessing = nn.Linear(7, 4)
    if case == "wrong size":
        model.preprocessing = distances()
    if case == "damaged":
        (tmp_path / "x").write_bytes(b"not a checkpoint")
    files = {
        "missing": lambda: tmp_path / "missing.ckpt",
        "damaged": lambda: tmp_path / "x",
        "foreign": lambda: trained_file(tmp_path, state_dict=None),
        "unknown class": lambda: trained_file(tmp_path, hyper_parameters={"layers_": [3]}),
        "other weights": lambda: trained_file(tmp_path, hyper_parameters={"layers": [3, 2]}),
        "surplus": lambda: with_postprocessing(tmp_path),
    }
    if case in files:
        given = {"other weights": cvs.RegressionCV, "surplus": cvs.AutoEncoderCV}
        return (files[case](),), {"model_class": given.get(case)}
    if case == "own forward":
        return (WithItsOwnForward([4, 1]),), {}
    return ((nn.Linear(3, 1),) if case == "no model" else (3,) if case == "number" else (model,)), (
        {"descriptors": len} if case == "not descriptors" else {}
    )


def with_postprocessing(tmp_path):
    _, trainer = autoencoder()
    trainer.save_checkpoint(tmp_path / "post.ckpt")
    return tmp_path / "post.ckpt"


@pytest.mark.parametrize(
    ("case", "error", "words"),
    [
        ("opaque", ValueError, "preprocessing: expected a module whose operations .*ThroughNumpy"),
        ("counts frames", ValueError, "preprocessing: expected .* frames, got OfSoManyFrames: "),
        ("wrong input", ValueError, "preprocessing: expected a module that maps .*got Linear"),
        ("wrong size", ValueError, r"network: expected one that takes \(batch, 10\)"),
        ("missing", FileNotFoundError, "model: expected an existing file, got"),
        ("damaged", ValueError, "model: expected a Lightning checkpoint of an mlcolvar model"),
        ("foreign", ValueError, "model: expected a Lightning checkpoint .*no weights in it"),
        ("unknown class", ValueError, "model: expected .*has the hyper-parameters layers_"),
        ("other weights", ValueError, "model: expected .*no RegressionCV: .*size mismatch"),
        ("surplus", ValueError, "model: expected .*it adds postprocessing.mean, .*model itself"),
        ("own forward", ValueError, "model: expected .*got WithItsOwnForward with its own"),
        ("no model", TypeError, "model: expected a model of mlcolvar .*got Linear"),
        ("number", TypeError, "model: expected a model of mlcolvar .*got int"),
        ("not descriptors", TypeError, "descriptors: expected descriptors, got builtin"),
    ],
)
def test_bad_input_is_refused_in_one_line(case, error, words, tmp_path):
    arguments, options = bad_input(case, tmp_path)
    with pytest.raises(error, match="^" + words) as caught:
        ofcv.from_mlcolvar(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_copy_of_a_module_does_nothing_in_place():
    source = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Dropout(0.5))
    copied = plain_copy(source)
    assert not copied[1].inplace
    assert source[1].inplace
    assert not copied.training
    assert source.training


def test_models_are_imported_without_mlcolvar():
    code = (
        "import sys, torch, ofcv_export\n"
        "try: ofcv_export.from_mlcolvar(torch.nn.Linear(1, 1))\n"
        "except TypeError: pass\n"
        "sys.exit(any(name.startswith('mlcolvar') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_command_line_exports_a_checkpoint_and_verifies_it_at_frames(
    checkpoint_of_objects, tmp_path
):
    model, checkpoint = checkpoint_of_objects
    positions = frames(6, N_ATOMS, torch.float32)
    np.save(tmp_path / "frames.npy", positions.numpy())
    path, given = tmp_path / "cv.pt", ["--frames", str(tmp_path / "frames.npy")]
    allow = ["--allow-unpickling", "--model-class", "AutoEncoderCV"]

    def call(*arguments):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(entry) for entry in arguments])
        return result.exit_code, " ".join(result.output.split())

    options = ["--atoms", "3,1,4,7,5", "--length-unit", "A", *allow, *given]
    assert call("export", checkpoint, path, *options)[0] == 0
    metadata = ofcv.read_metadata(path)
    assert (metadata.atoms, metadata.length_unit) == ([3, 1, 4, 7, 5], "A")
    assert_equal(ofcv.load(path)(positions), mlcolvar_float64(model, positions), torch.float32)
    assert call("verify", path, "--reference", checkpoint, *allow, *given)[0] == 0
    code, output = call("verify", path, *given)
    assert (code, output) == (1, "error frames: expected a reference to compare with, got none")
    np.save(tmp_path / "frames.npy", positions[:, :4].numpy())
    code, output = call("verify", path, "--reference", checkpoint, *allow, *given)
    assert code == 1
    assert "frames: expected shape (n_frames, 5, 3), got (6, 4, 3)" in output


def steep_model(positions):
    """A DeepTDA of distances whose normalisation is that of some frames, and that saturates."""
    model = cvs.DeepTDA(2, 1, [-5.0, 5.0], [0.2, 0.2], [10, 16, 16, 1])
    model.preprocessing = distances()
    with torch.no_grad():
        found = model.preprocessing(positions)
        model.norm_in.set_custom(found.mean(0), found.std(0))
        for layer in (part for part in model.nn.modules() if isinstance(part, nn.Linear)):
            layer.weight *= 3
    return model


@pytest.mark.parametrize(("unit", "spacing"), [("nm", 0.4), ("A", 15.0)])
def test_a_model_is_verified_at_the_descriptors_of_its_normalisation(unit, spacing, tmp_path):
    structure = spacing * frames(1, N_ATOMS, torch.float32, seed=4)
    positions = structure + 0.05 * spacing * frames(200, N_ATOMS, torch.float32, seed=5)
    model = steep_model(positions)
    cv = ofcv.from_mlcolvar(model, length_unit=unit)
    path = tmp_path / "cv.pt"
    report = ofcv.export(cv, path)
    assert report.passed
    assert "trained" in {entry.inputs for entry in report.comparisons}
    graph = cv.export_graph()
    drawn = Geometry(graph, lambda drawn: graph.exact(drawn.positions)[0]).draw("trained", 50, 0)
    norm = model.norm_in
    z = (plain_distances(drawn.positions) - norm.mean.double()) / norm.range.double()
    assert z.abs().median() < 2
    assert_equal(
        ofcv.load(path)(positions[:5]), mlcolvar_float64(model, positions[:5]), torch.float32
    )


def test_export_of_a_model_tells_the_way(tmp_path):
    with pytest.raises(TypeError, match="got RegressionCV; ofcv_export.from_mlcolvar makes one"):
        ofcv.export(cvs.RegressionCV([4, 1]), tmp_path / "cv.pt")
