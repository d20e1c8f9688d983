"""Every artifact in every format: written, replayed against float64, and refused when wrong."""

import json

import numpy as np
import onnx
import pytest
import torch

import ofcv_export as ofcv
from ofcv_export.descriptors.boundaries import OrthorhombicBox
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.formats import FORMATS
from ofcv_export.formats import onnx as onnx_format
from ofcv_export.graph.tensor_spec import TensorSpec
from tests.builders.formats import FREE_SIZES
from tests.builders.systems import (
    OPEN,
    all_pairs,
    by_autograd,
    dense_jacobian,
    frames,
    plain_distances,
    small_setup,
)

FORMS = ["scatter", "gather"]
# A .pt2 takes seconds to compile; see test_aotinductor.py.
SUFFIXES = [suffix for suffix in FREE_SIZES if suffix != ".pt2"]


def rescaling(dtype=torch.float32):
    basis = ofcv.BasisInfo([1, 6], ["2x0e+1x1o", "3x0e+2x1o"])
    generator = torch.Generator().manual_seed(0)
    draw = [torch.rand(basis.n_basis, generator=generator).to(dtype) for _ in range(3)]
    return ofcv.DimensionWiseRescaling(*draw), basis


def modules(dtype):
    scaled, basis = rescaling(dtype)
    smart = small_setup(dtype)
    molecule = scaled.for_molecule([6, 1, 1, 1, 1], basis)
    return {
        "smart derivatives": (smart, {}),
        "gathered": (smart, {"form": "gather"}),
        "several outputs": (smart, {"n_outputs": 3}),
        "sparse chain rule": (smart.sparse_chain_rule(), {}),
        "sparse chain rule, several outputs": (smart.sparse_chain_rule(), {"n_outputs": 2}),
        "coefficients": (scaled, {}),
        "coefficients and gradient": (scaled, {"gradient": True}),
        "molecule": (molecule, {}),
        "molecule and gradient": (molecule, {"gradient": True}),
    }


@pytest.mark.parametrize("name", list(modules(torch.float32)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_artifact_agrees_with_float64(tmp_path, suffix, dtype, name):
    module, options = modules(dtype)[name]
    path = tmp_path / f"artifact{suffix}"
    report = ofcv.export(module, path, **options)
    assert report.passed
    assert report.path == path
    assert ofcv.verify(path, reference=module).passed
    assert ofcv.verify(path).passed
    metadata = ofcv.read_metadata(path)
    assert metadata.parity.max_rel_error == report.max_rel_error
    assert {spec.dtype for spec in metadata.outputs} == {str(dtype).removeprefix("torch.")}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", FORMS)
def test_file_equals_autograd(tmp_path, suffix, form):
    """The judge here is autograd through the descriptors, not the module that was exported."""
    positions = frames(7, 5)
    ofcv.export(small_setup(torch.float64), tmp_path / f"cv{suffix}", form=form)
    artifact = ofcv.load(tmp_path / f"cv{suffix}")
    jacobian = dense_jacobian(all_pairs(5), positions)
    for index in (torch.tensor([3]), torch.tensor([6, 0, 6, 2])):
        x = torch.randn(len(index), 10, dtype=torch.float64)
        expected = torch.einsum("bd,bdax->bax", x, jacobian[index])
        torch.testing.assert_close(artifact(x, index), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scaled_coefficients_equal_the_formula(tmp_path, suffix):
    module, _ = rescaling(torch.float64)
    ofcv.export(module, tmp_path / f"r{suffix}", gradient=True)
    artifact = ofcv.load(tmp_path / f"r{suffix}")
    index = torch.tensor([0, 3, 3, 7, 1])
    coeffs, gradient = torch.randn(2, 5, dtype=torch.float64)
    scaled_coeffs, scaled_gradient = artifact(
        basis_function_ind=index, coeffs=coeffs, gradient=gradient
    )
    stds, grads, biases = (
        b[index] for b in (module.coeff_stds, module.max_grads, module.coeff_biases)
    )
    scale = torch.where(grads > 0.05, torch.minimum(grads / 0.05, 50 / stds), 1.0)
    torch.testing.assert_close(scaled_coeffs, scale * (coeffs - biases), rtol=1e-13, atol=0)
    torch.testing.assert_close(scaled_gradient, gradient / (scale + 1e-8), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_onnx_graph_scatters_in_the_default_domain(tmp_path, dtype):
    for name, (module, options) in modules(dtype).items():
        ofcv.export(module, tmp_path / "a.onnx", **options)
        model = onnx.load(tmp_path / "a.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= {""}
        assert [entry.domain for entry in model.opset_import] == [""]
        assert model.opset_import[0].version >= 18
        assert not model.functions
        scatters = [node for node in model.graph.node if node.op_type.startswith("Scatter")]
        if "chain rule" in name or name == "smart derivatives":
            assert len(scatters) == 1
            attributes = {attribute.name: attribute for attribute in scatters[0].attribute}
            assert attributes["reduction"].s == b"add"
        else:
            assert len(scatters) == (name == "several outputs")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_and_shapes_are_those_of_the_design(tmp_path, suffix):
    smart = small_setup()
    ofcv.export(smart, tmp_path / f"dynamic{suffix}", atoms=range(5), length_unit="nm")
    metadata = ofcv.read_metadata(tmp_path / f"dynamic{suffix}")
    assert metadata.inputs == (
        TensorSpec("output_wrt_descriptors", "float32", ("batch", 10)),
        TensorSpec("ref_idx", "int64", ("batch",), 0, 7),
    )
    assert metadata.outputs == (TensorSpec("output_wrt_positions", "float32", ("batch", 5, 3)),)
    assert metadata.atoms == [0, 1, 2, 3, 4]
    assert metadata.length_unit == "nm"
    assert metadata.sha256.pattern == smart.pattern.digest()
    ofcv.export(smart, tmp_path / f"fixed{suffix}", batch=1, n_outputs=2)
    metadata = ofcv.read_metadata(tmp_path / f"fixed{suffix}")
    assert metadata.inputs[0].shape == (1, 10, 2)
    assert metadata.outputs[0].shape == (1, 5, 3, 2)
    assert ofcv.verify(tmp_path / f"fixed{suffix}", reference=smart).passed
    with pytest.raises(ValueError, match="output_wrt_descriptors: expected shape .1, 10, 2."):
        ofcv.load(tmp_path / f"fixed{suffix}")(torch.zeros(2, 10, 2), torch.zeros(2).long())


def test_onnx_file_names_its_sizes_for_any_reader(tmp_path):
    ofcv.export(small_setup(), tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "output_wrt_descriptors": ["batch", 10],
        "ref_idx": ["batch"],
        "output_wrt_positions": ["batch", 5, 3],
    }


def test_onnx_file_holds_no_path_of_the_exporting_machine(tmp_path):
    ofcv.export(small_setup(), tmp_path / "a.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    assert b".py" not in content
    assert str(tmp_path).encode() not in content


def test_torchscript_runs_in_plain_libtorch_calls(tmp_path):
    ofcv.export(small_setup(), tmp_path / "a.pt")
    extra = {"ofcv.json": ""}
    module = torch.jit.load(tmp_path / "a.pt", _extra_files=extra)
    assert json.loads(extra["ofcv.json"])["details"]["kind"] == "smart_derivatives"
    assert not list(module.buffers()), "buffers are folded into constants"
    assert module(torch.zeros(2, 10), torch.tensor([0, 6])).shape == (2, 5, 3)
    with pytest.raises(RuntimeError, match="index out of range"):
        module(torch.zeros(1, 10), torch.tensor([-1]))


def test_onnx_runtime_refuses_negative_frames(tmp_path):
    import onnxruntime

    ofcv.export(small_setup(), tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for frame in (-1, 7):
        inputs = {
            "output_wrt_descriptors": np.zeros((1, 10), np.float32),
            "ref_idx": np.array([frame]),
        }
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(None, inputs)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_export_that_does_not_verify_leaves_the_old_file(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"cv{suffix}"
    ofcv.export(small_setup(), path)
    before = path.read_bytes()
    monkeypatch.setattr("ofcv_export.artifacts.verification.run_graph", wrong)
    with pytest.raises(ofcv.VerificationError, match="module: expected a file within 1e-05"):
        ofcv.export(small_setup(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def wrong(module, inputs):
    with torch.no_grad():
        return (1.001 * module(*(t.double() if t.is_floating_point() else t for t in inputs)),)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_interrupted_write_leaves_the_old_file(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"cv{suffix}"
    ofcv.export(small_setup(), path)
    before = path.read_bytes()
    file_format = FORMATS[suffix]

    def half_a_file(compiled, metadata, target):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(file_format, "write", half_a_file)
    with pytest.raises(OSError, match="no space left"):
        ofcv.export(small_setup(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("cv.txt",),
            ValueError,
            r"path: expected a file name ending in .pt or .onnx or .pt2 or .c or .cpp or .so, got",
        ),
        (("absent/cv.onnx",), FileNotFoundError, "path: expected an existing folder"),
        (("cv.onnx", 0), ValueError, "batch: expected a positive integer, got 0"),
    ],
)
def test_bad_targets_are_refused(tmp_path, arguments, error, message):
    path, *rest = arguments
    with pytest.raises(error, match=message):
        ofcv.export(small_setup(), tmp_path / path, *rest)
    assert not list(tmp_path.iterdir())


def test_bad_options_are_refused(tmp_path):
    path = tmp_path / "a.onnx"
    for given, got in ((torch.nn.Linear(1, 1), "Linear"), (abs, "builtin_function_or_method")):
        with pytest.raises(
            TypeError, match=f"^module: expected a module with an export_graph method, got {got}$"
        ):
            ofcv.export(given, path)
    with pytest.raises(ValueError, match='form: expected "scatter" or "gather", got \'sum\''):
        ofcv.export(small_setup(), path, form="sum")
    with pytest.raises(ValueError, match="n_outputs: expected a positive integer, got 0"):
        ofcv.export(small_setup(), path, n_outputs=0)
    with pytest.raises(ValueError, match="batch: expected None for a dimension_wise_rescaling"):
        ofcv.export(rescaling()[0], path, batch=1)
    with pytest.raises(
        ValueError, match=r"atoms: expected 5 distinct zero-based indices, got \[0\]"
    ):
        ofcv.export(small_setup(), path, atoms=[0])
    with pytest.raises(ValueError, match="output_units: expected names among output_wrt_positions"):
        ofcv.export(small_setup(), path, output_units={"energy": "kJ/mol"})
    with pytest.raises(TypeError, match="gradient: expected an option of SmartDerivatives"):
        ofcv.export(small_setup(), path, gradient=True)
    with pytest.raises(RuntimeError, match="setup: expected to be called first"):
        ofcv.export(ofcv.SmartDerivatives(), path)
    assert not list(tmp_path.iterdir())


def a_distance(n_atoms=2, **options):
    torch.manual_seed(0)
    network = torch.nn.Linear(1, 1).double()
    return ofcv.CollectiveVariable(
        PairDistances(torch.tensor([[0, 1]]), n_atoms, OPEN), network, **options
    )


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (small_setup, {"length_unit": "parsec"}, "length_unit: expected nm, A, .*, got parsec"),
        (small_setup, {"length_unit": "Å"}, "length_unit: expected nm, A, .*, got Å"),
        (small_setup, {"atoms": [0.9, 1.7, 2, 3, 4]}, "atoms: expected integers, got 0.9"),
        (a_distance, {"length_unit": "A"}, "length_unit: expected nm as in the module, got A"),
        (
            lambda: ofcv.Bias(a_distance()),
            {"output_units": {"values": "eV"}},
            "output_units: expected kJ/mol for values, got eV",
        ),
        (
            lambda: a_distance(length_unit="A"),
            {"output_units": {"values": "kJ/mol", "derivatives": "kJ/mol/nm"}},
            "output_units: expected kJ/mol/A for derivatives, got kJ/mol/nm",
        ),
        (
            small_setup,
            {"length_unit": "A", "output_units": {"output_wrt_positions": "kJ/mol/nm"}},
            "output_units: expected kJ/mol/A for output_wrt_positions, got kJ/mol/nm",
        ),
        (
            lambda: ofcv.Bias(a_distance()),
            {"contract": "gromacs-nnpot", "length_unit": "A"},
            "length_unit: expected nm as in the module, got A",
        ),
        (
            lambda: ofcv.Bias(a_distance()),
            {"contract": "openmm-torch"},
            "n_particles: expected a value, which openmm-torch needs, got none",
        ),
        (
            lambda: ofcv.Bias(a_distance()),
            {"contract": "gromacs-nnpot", "n_particles": 3},
            r"n_particles: expected an option of gromacs-nnpot \(inputs, group, energy_only\)",
        ),
    ],
)
def test_facts_that_contradict_the_module_are_refused(tmp_path, module, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ofcv.export(module(), tmp_path / "a.pt", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"atoms": [0.9, 1.7]}, "atoms: expected integers, got 0.9"),
        ({"atoms": [1, 1]}, r"atoms: expected 2 distinct zero-based indices, got \[1, 1\]"),
        ({"length_unit": "parsec"}, "length_unit: expected nm, A, angstrom, bohr, got parsec"),
        ({"length_unit": "Å"}, "length_unit: expected nm, A, angstrom, bohr, got Å"),
        ({"elements": ["C", "Q"]}, "elements: expected chemical symbols, got 'Q'"),
    ],
)
def test_facts_that_no_engine_knows_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        a_distance(**options)


def test_other_atoms_reach_the_graph_of_a_contract(tmp_path):
    """The energy is that of the atoms that were asked for, and forces act on them."""
    ofcv.export(
        ofcv.Bias(a_distance()),
        tmp_path / "bias.pt",
        contract="openmm-torch",
        n_particles=4,
        atoms=[3, 1],
    )
    positions = frames(1, 4)[0]
    energy, forces = torch.jit.load(tmp_path / "bias.pt")(positions)
    expected = a_distance()(positions[None, [3, 1]])
    assert ofcv.read_metadata(tmp_path / "bias.pt").atoms == [3, 1]
    assert (forces[[0, 2]] == 0).all()
    assert (forces[[1, 3]] != 0).all()
    torch.testing.assert_close(energy, expected.squeeze())


def test_frozen_data_that_are_not_finite_are_refused(tmp_path):
    smart = small_setup()
    smart.values[3, 2] = float("nan")
    with pytest.raises(ValueError, match=r"values: expected finite values, got nan at index \(3, "):
        ofcv.export(smart, tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_model_beyond_the_size_of_an_onnx_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "_LARGEST_MODEL", 1000)
    with pytest.raises(ValueError, match="module: expected at most 1000 bytes of frozen data"):
        ofcv.export(small_setup(), tmp_path / "a.onnx")


def test_large_star_of_distances_verifies(tmp_path):
    """Thousands of terms on one atom: rounding grows, and stays within the tolerance."""
    n_atoms = 2000
    star = torch.stack([torch.zeros(n_atoms - 1).long(), torch.arange(1, n_atoms)], dim=1)
    smart = ofcv.SmartDerivatives()
    smart.setup(
        {"data": frames(2, n_atoms, torch.float32)}, PairDistances(star, n_atoms, OPEN), n_atoms
    )
    for suffix in SUFFIXES:
        assert ofcv.export(smart, tmp_path / f"star{suffix}").passed


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exported_in_modes_that_a_caller_switched_on(tmp_path, suffix):
    """Inference mode, made in it too, anomaly detection and autocast: the same file."""
    pairs = torch.combinations(torch.arange(4))

    def variable():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        return ofcv.CollectiveVariable(PairDistances(pairs, 4), network)

    ofcv.export(variable(), tmp_path / f"plain{suffix}")
    positions = frames(3, 4, torch.float32)
    expected = ofcv.load(tmp_path / f"plain{suffix}")(positions)
    for mode in (
        torch.inference_mode(),
        torch.autograd.detect_anomaly(),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        with mode:
            cv = variable()
            ofcv.export(cv, tmp_path / f"mode{suffix}")
        ofcv.export(cv, tmp_path / f"after{suffix}")
        for name in ("mode", "after"):
            found = ofcv.load(tmp_path / f"{name}{suffix}")(positions)
            assert all(map(torch.equal, found, expected))
    artifact = ofcv.load(tmp_path / f"plain{suffix}")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, artifact(positions), expected))


def test_a_scripted_network_in_a_file_for_one_frame(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    pairs = torch.combinations(torch.arange(4))
    scripted = torch.jit.script(network)
    for made, name in ((network, "plain"), (scripted, "scripted")):
        ofcv.export(ofcv.CollectiveVariable(PairDistances(pairs, 4), made),
                    tmp_path / f"{name}.pt", batch=1)  # fmt: skip
    positions = frames(1, 4, torch.float32)
    found, expected = (
        ofcv.load(tmp_path / f"{name}.pt")(positions) for name in ("scripted", "plain")
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_refused_in_words(dtype):
    network = torch.nn.Linear(1, 1).to(dtype)
    with pytest.raises(
        TypeError, match="network: expected dtype float32 or float64, got .*float16"
    ):
        ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 1]]), 2), network)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (small_setup, "output_wrt_descriptors"),
        (lambda: rescaling()[0], "coeffs"),
        (lambda: modules(torch.float32)["molecule"][0], "coeffs"),
        (lambda: ofcv.Bias(a_distance()), "network"),
    ],
)
def test_what_was_turned_into_half_precision_is_refused_in_words(tmp_path, make, name):
    with pytest.raises(TypeError, match=f"^{name}: expected dtype float32 or float64, got float16"):
        ofcv.export(make().half(), tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_float64_is_float64_throughout(tmp_path, suffix):
    """From NumPy arrays and tensors, while the default dtype is float32."""
    assert torch.get_default_dtype() == torch.float32
    positions = frames(3, 4).numpy() + 1e-9
    pairs = torch.tensor([[0, 1], [1, 2], [2, 3]])
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    network.double()
    # Numbers that float32 has not.
    lengths = torch.tensor([3.1, 3.3, 3.7], dtype=torch.float64)
    box = OrthorhombicBox(lengths, periodic=True)
    cv = ofcv.CollectiveVariable(PairDistances(pairs, 4, box), network)
    centre, constant = np.array([0.1]), 0.7

    def values(r):
        vectors = r[:, pairs[:, 1]] - r[:, pairs[:, 0]]
        vectors = vectors - lengths * (vectors / lengths).round()
        return network(vectors.norm(dim=2))

    def energy(r):
        return 0.5 * constant * (values(r) - 0.1) ** 2

    for module, judge in (
        (cv, values),
        (ofcv.HarmonicRestraint(cv, centre, constant), energy),
        (ofcv.Bias(cv), values),
    ):
        expected = by_autograd(judge, torch.from_numpy(positions))
        ofcv.export(module, tmp_path / f"cv{suffix}")
        artifact = ofcv.load(tmp_path / f"cv{suffix}")
        parameters = [np.array(value) for value in module.parameter_defaults().values()]
        for found in (
            module.values_and_derivatives(torch.from_numpy(positions)),
            artifact(positions, *parameters),
            artifact(torch.from_numpy(positions), *parameters),
        ):
            for one, wanted in zip(map(torch.as_tensor, found), expected, strict=True):
                assert one.dtype == torch.float64
                torch.testing.assert_close(one.detach(), wanted, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_frozen_float64_is_float64_throughout(tmp_path, suffix, kernel):
    assert torch.get_default_dtype() == torch.float32
    positions = frames(7, 5)
    smart = ofcv.SmartDerivatives(kernel=kernel)
    smart.setup({"data": positions}, lambda r: plain_distances(r) ** 0.7, n_atoms=5)
    jacobian = dense_jacobian(lambda r: plain_distances(r) ** 0.7, positions)
    smart.save(tmp_path / "smart.npz")
    again = ofcv.SmartDerivatives.load(tmp_path / "smart.npz", kernel=kernel)
    x, index = np.random.default_rng(0).standard_normal((3, 10)), np.array([6, 0, 2])
    expected = torch.einsum("bd,bdax->bax", torch.from_numpy(x), jacobian[torch.from_numpy(index)])
    ofcv.export(smart, tmp_path / f"smart{suffix}")
    tensors = torch.from_numpy(x), torch.from_numpy(index)
    rule = smart.sparse_chain_rule()
    for found in (
        smart(*tensors),
        again(*tensors),
        rule(tensors[0], smart.blocks()[tensors[1]].flatten(1)),
        torch.as_tensor(ofcv.load(tmp_path / f"smart{suffix}")(x, index)),
    ):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=2e-14)


class Foreign(torch.nn.Module):
    """Exportable, by options of its own, though no variable."""

    def export_graph(self, **options):
        assert options == {"colour": "red"}
        return ofcv.CollectiveVariable(all_pairs(3), torch.nn.Linear(3, 1)).export_graph()


def test_any_module_with_a_graph_may_have_any_options(tmp_path):
    assert ofcv.export(Foreign(), tmp_path / "a.pt", colour="red").passed
    with pytest.raises(ValueError, match=r"^atoms: expected \[0, 1, 2\] as in the module, got"):
        ofcv.export(Foreign(), tmp_path / "b.pt", atoms=[9, 3, 5], colour="red")


def test_periods_may_be_an_array():
    made = ofcv.CollectiveVariable(
        all_pairs(3), torch.nn.Linear(3, 2), periods=np.array([3.0, 360.0])
    )
    assert made.periods == [3.0, 360.0]
