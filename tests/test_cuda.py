"""CUDA: the same bits twice, the CPU's numbers, and single frames as one CUDA graph.

What needs a device is skipped where there is none. Settings, errors and the benchmark's program are
tested without one.
"""

import contextlib
import gc
import weakref

import msgspec
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ofcv_export as ofcv
from benchmarks import cuda as benchmark
from ofcv_export.artifacts.cuda_graph import CapturedRunner, require_capturable
from ofcv_export.artifacts.samples import sample
from ofcv_export.base.fixed_order import fixed_order
from ofcv_export.descriptors.angles import Angles
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.formats.example import examples
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.jacobian.chain_rule import take
from ofcv_export.runtimes import aotinductor
from ofcv_export.runtimes.archive import checked_records
from tests.builders.systems import all_pairs, by_autograd, frames, plain_distances
from tests.formats.test_onnxruntime_versions import KINDS

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA: no device")
REPETITIONS = 20
# Every atom of a star pulls at the one in the middle, and that one's sum is where order shows.
STAR = torch.stack([torch.zeros(199, dtype=torch.int64), torch.arange(1, 200)], dim=1)
CHAIN = torch.arange(60).unsqueeze(1) + torch.arange(3)


def star_cv():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(len(STAR), 16), nn.Tanh(), nn.Linear(16, 2))
    return ofcv.CollectiveVariable(PairDistances(STAR, 200), network)


def frozen(descriptors, n_frames=50, kernel="auto"):
    smart = ofcv.SmartDerivatives(kernel=kernel)
    n_atoms = descriptors.n_atoms
    smart.setup({"data": frames(n_frames, n_atoms, torch.float32)}, descriptors, n_atoms)
    return smart


def rescaling():
    generator = torch.Generator().manual_seed(0)
    return ofcv.DimensionWiseRescaling(*(torch.rand(9, generator=generator) for _ in range(3)))


class SumOfSquares(nn.Module):
    """An energy for every molecule, summed with index_add."""

    def forward(self, scaled_coeffs, basis_function_ind, batch, n_molecules):
        return scaled_coeffs.new_zeros(n_molecules).index_add(0, batch, scaled_coeffs**2)


# The chain rule in each of its forms: one vector per pair, gathered and scattered.
SYSTEMS = {
    "pairs": all_pairs(30),
    "few pairs": all_pairs(10),
    "star": PairDistances(STAR[:19], 20),
    "angles": Angles(CHAIN, 62),
}
# Modules and the options of their export, for files with and without scatter-adds.
MODULES = {
    "smart derivatives": lambda: (frozen(SYSTEMS["star"]), {}),
    "gathered": lambda: (frozen(SYSTEMS["few pairs"]), {"form": "gather"}),
    "sparse chain rule": lambda: (frozen(SYSTEMS["star"]).sparse_chain_rule(), {}),
    "rescaling": lambda: (rescaling(), {"gradient": True}),
    "collective variable": lambda: (star_cv(), {}),
}


def inputs_of(metadata, size=64):
    symbols = {entry for spec in metadata.inputs for entry in spec.shape if isinstance(entry, str)}
    return sample(metadata.inputs, dict.fromkeys(symbols, size), "normal", 0)


def forward_and_backward(smart, x, index, gradient):
    leaf = x.clone().requires_grad_()
    out = smart(leaf, index)
    return out.detach(), torch.autograd.grad(out, leaf, gradient)[0]


# Without a device.


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_fixed_order_lasts_as_long_as_its_context():
    before = settings()
    with fixed_order("cuda:1"):
        assert settings() == (True, True, False)
        with fixed_order("cuda"):
            assert settings() == (True, True, False)
        assert settings() == (True, True, False)
    assert settings() == before
    with pytest.raises(KeyError), fixed_order(torch.device("cuda")):
        raise KeyError
    assert settings() == before


@pytest.mark.parametrize(("device", "atomics"), [("cpu", False), ("cuda", True)])
def test_fixed_order_leaves_the_cpu_and_atomics_alone(device, atomics):
    before = settings()
    with fixed_order(device, atomics):
        assert settings() == before


def test_fixed_order_leaves_a_stricter_setting_alone():
    torch.use_deterministic_algorithms(True)
    try:
        strict = settings()
        assert strict[:2] == (True, False)
        with fixed_order("cuda"):
            assert settings() == strict
        assert settings() == strict
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_cuda_graph_wants_a_cuda_device(path):
    with pytest.raises(ValueError, match="cuda_graph: expected a CUDA device, got cpu"):
        ofcv.load(path, cuda_graph=True)


def test_a_cuda_graph_wants_fixed_shapes_and_a_file_for_libtorch(path):
    metadata = ofcv.read_metadata(path)
    message = {
        "onnx": "cuda_graph: expected a .pt or .pt2 file, got format onnx",
    }.get(
        metadata.format,
        r"cuda_graph: expected fixed shapes \(exported with batch=1\), "
        r"got output_wrt_descriptors of shape \(batch, 10\)",
    )
    with pytest.raises(ValueError, match=message):
        require_capturable(metadata, "cuda")


def test_fixed_shapes_can_be_recorded(path):
    metadata = ofcv.read_metadata(path)
    inputs = tuple(spec.with_size("batch", 1) for spec in metadata.inputs)
    fixed = msgspec.structs.replace(metadata, inputs=inputs, format="aotinductor")
    require_capturable(fixed, "cuda:1")


class Recording(TorchDispatchMode):
    """A CUDA graph on the CPU: operators, and the memory that each of them reads and writes."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        self.operators.append((operator, args, kwargs or {}, out))
        return out

    def replay(self):
        for operator, args, kwargs, out in self.operators:
            read = {address(entry) for entry in tree_leaves((args, kwargs))}
            fresh = operator(*args, **kwargs)
            for memory, value in zip(tree_leaves(out), tree_leaves(fresh), strict=True):
                # A view lies in the memory of its input, where the new numbers are already.
                if address(value) not in read:
                    memory.copy_(value)


def address(entry):
    """Return where a tensor lies in memory, None for anything else."""
    return entry.untyped_storage().data_ptr() if isinstance(entry, torch.Tensor) else None


@pytest.fixture
def stand_in(monkeypatch):
    """Let torch.cuda record on the CPU, where streams do nothing."""
    stream = type("Stream", (), {"wait_stream": lambda self, other: None})

    @contextlib.contextmanager
    def nothing(*_):
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    monkeypatch.setattr(torch.cuda, "graph", lambda recording: recording)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, nothing)


SPECS = [TensorSpec("positions", "float32", (1, 4, 3)), TensorSpec("ref_idx", "int64", (1,), 0, 9)]


def recorded_sum():
    return CapturedRunner(lambda inputs: (inputs[0].sum() + inputs[1],), SPECS, "cpu")


def test_a_recording_gives_the_numbers_of_every_call(stand_in):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    graph = ofcv.CollectiveVariable(all_pairs(5), network).export_graph().with_size("batch", 1)
    runner = CapturedRunner(lambda inputs: graph.module(*inputs), graph.inputs, "cpu")
    for positions in frames(4, 5).unsqueeze(1):
        given = positions.clone()
        expected = by_autograd(lambda r: network(plain_distances(r)), positions)
        for found, right in zip(runner([given]), expected, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
        assert torch.equal(given, positions)


def test_a_recording_keeps_what_it_runs(stand_in):
    class Run:
        def __call__(self, inputs):
            return (inputs[0].sum() + inputs[1],)

    run = Run()
    alive = weakref.ref(run)
    runner = CapturedRunner(run, SPECS, "cpu")
    del run
    gc.collect()
    assert alive() is not None
    del runner
    gc.collect()
    assert alive() is None


def test_what_is_written_into_a_recording_needs_no_copy(stand_in):
    runner, index = recorded_sum(), torch.tensor([5])
    runner([torch.ones(1, 4, 3), index])
    runner.inputs[0].fill_(3)
    (out,) = runner(runner.inputs)
    assert out.item() == 41


def test_the_next_call_overwrites_the_outputs_of_a_recording(stand_in):
    runner, index = recorded_sum(), torch.tensor([5])
    (first,) = runner([torch.ones(1, 4, 3), index])
    assert first.item() == 17
    (second,) = runner([2 * torch.ones(1, 4, 3), index])
    assert first.item() == second.item() == 29


@pytest.mark.parametrize(
    ("positions", "index", "message"),
    [
        (torch.zeros(2, 4, 3), torch.zeros(1), r"positions: expected shape \(1, 4, 3\) as in the"),
        (torch.zeros(4, 3), torch.zeros(1), r"CUDA graph, got \(4, 3\)"),
        (torch.zeros(1, 4, 3), torch.zeros(()), r"ref_idx: expected shape \(1,\) .* got \(\)"),
    ],
)
def test_other_shapes_than_the_recorded_ones_are_refused(stand_in, positions, index, message):
    with pytest.raises(ValueError, match=message):
        recorded_sum()([positions, index])


def test_what_cannot_be_recorded_is_named(stand_in, monkeypatch):
    @contextlib.contextmanager
    def fails(*_):
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setattr(torch.cuda, "graph", fails)
    message = "a CUDA graph can record, got one that it cannot: operation not permitted when stre"
    with pytest.raises(ValueError, match=message) as raised:
        recorded_sum()
    assert "\n" not in str(raised.value)


def test_the_benchmark_without_a_device_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    benchmark.main("cuda")
    assert capsys.readouterr().out == "No CUDA device: nothing was measured.\n"


def test_the_benchmark_runs_dry(capsys):
    clock = benchmark.Clock(torch.device("cpu"), n_rounds=2, seconds=0.001)
    assert "Dry run" in benchmark.described(clock.device)
    benchmark.print_batches(clock, [3], [2], speed=1e9)
    benchmark.print_orders(clock, batch=2)
    printed = capsys.readouterr().out
    assert "SmartDerivatives, all pair distances" in printed
    assert printed.count("forward") >= 6


class OnCuda(torch.Tensor):
    """A tensor on the CPU that says it is on CUDA."""

    is_cuda = True


def test_frozen_values_on_cuda_are_exported_in_the_gather_form():
    smart = frozen(SYSTEMS["few pairs"])
    assert smart.export_graph().details.form == "scatter"
    smart.values = smart.values.as_subclass(OnCuda)
    assert smart.export_graph().details.form == "gather"
    assert smart.export_graph(form="scatter").details.form == "scatter"


@pytest.mark.parametrize(
    ("kind", "atomics", "backward"),
    [
        (OnCuda, False, "IndexBackward0"),
        (OnCuda, True, "IndexSelectBackward0"),
        (torch.Tensor, False, "IndexSelectBackward0"),
    ],
)
def test_backward_passes_on_cuda_do_without_index_select(kind, atomics, backward):
    index = torch.tensor([1, 1, 0])
    x = torch.randn(4, 2, requires_grad=True)
    with fixed_order("cuda", atomics):
        taken = take(x.as_subclass(kind), index)
    node = taken.grad_fn
    while node.name() == "AliasBackward0":  # of the stand-in
        node = node.next_functions[0][0]
    assert node.name() == backward
    assert torch.equal(taken, x[:, index])


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_files_that_run_anywhere_are_made_for_no_device(tmp_path, suffix):
    message = "device: expected cpu for a .* file, which runs on any device, got 'cuda'"
    with pytest.raises(ValueError, match=message):
        ofcv.export(rescaling(), tmp_path / f"a{suffix}", device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA: there is a device")
def test_nothing_is_compiled_for_a_device_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="device: expected cpu here, got 'cuda'"):
        ofcv.export(rescaling(), tmp_path / "a.pt2", device="cuda")


def test_the_runner_for_cuda_gives_what_that_for_the_cpu_gives(path):
    if path.suffix != ".pt2":
        pytest.skip("only for packages")
    content = checked_records(path, path.read_bytes(), "a package")
    inputs = inputs_of(ofcv.read_metadata(path), size=3)
    (found,) = aotinductor._load_package(content, "cpu").run(inputs)
    assert torch.equal(found, ofcv.load(path)(*inputs))


@pytest.mark.parametrize(("n_atoms", "batch"), [(4, 4099), (10_000, 521), (10**7, 3)])
def test_code_for_a_gpu_is_made_for_large_batches(n_atoms, batch):
    spec = TensorSpec("positions", "float32", ("batch", n_atoms, 3))
    box = TensorSpec("box", "float32", ("batch", 3, 3))
    assert [len(made) for made in examples([spec, box])] == [3, 3]
    assert [len(made) for made in examples([spec, box], "cuda")] == [batch, batch]
    (one,) = examples([spec.with_size("batch", 1)], "cuda")
    assert one.shape == (1, n_atoms, 3)


# With a device.


@needs_cuda
@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_smart_derivatives_give_the_same_bits_twice(name, kernel):
    smart = frozen(SYSTEMS[name], kernel=kernel).to("cuda")
    torch.manual_seed(0)
    index = torch.randint(50, (256,), device="cuda")
    x = torch.randn(256, SYSTEMS[name].n_descriptors, device="cuda")
    gradient = torch.randn(256, SYSTEMS[name].n_atoms, 3, device="cuda")
    first = forward_and_backward(smart, x, index, gradient)
    for _ in range(REPETITIONS):
        again = forward_and_backward(smart, x, index, gradient)
        assert all(map(torch.equal, first, again))
    on_cpu = forward_and_backward(frozen(SYSTEMS[name]), x.cpu(), index.cpu(), gradient.cpu())
    for found, expected in zip(first, on_cpu, strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_atomics_give_the_same_numbers(name):
    smart = frozen(SYSTEMS[name], kernel="torch").to("cuda")
    x = torch.randn(50, SYSTEMS[name].n_descriptors, device="cuda")
    gradient = torch.randn(50, SYSTEMS[name].n_atoms, 3, device="cuda")
    index = torch.arange(50, device="cuda")
    fixed = forward_and_backward(smart, x, index, gradient)
    smart.atomics = True
    for found, expected in zip(forward_and_backward(smart, x, index, gradient), fixed, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_cuda
def test_derivatives_by_autograd_give_the_same_bits_twice():
    cv = star_cv().to("cuda")
    positions = frames(16, 200, torch.float32).cuda()
    first = cv.values_and_derivatives(positions)
    for _ in range(REPETITIONS):
        assert all(map(torch.equal, first, cv.values_and_derivatives(positions)))


@needs_cuda
@pytest.mark.parametrize("name", list(MODULES))
def test_pt_files_give_the_same_bits_twice(tmp_path, name):
    module, options = MODULES[name]()
    same_bits_and_numbers(tmp_path / "a.pt", module, options)


@needs_cuda
@pytest.mark.parametrize("name", list(MODULES))
def test_pt2_files_give_the_same_bits_twice(tmp_path, name):
    module, options = MODULES[name]()
    same_bits_and_numbers(tmp_path / "a.pt2", module, {**options, "device": "cuda"})


@needs_cuda
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_energies_give_the_same_bits_twice(tmp_path, suffix):
    functional = ofcv.EnergyFunctional(SumOfSquares(), rescaling())
    options = {"device": "cuda"} if suffix == ".pt2" else {}
    same_bits_and_numbers(tmp_path / f"a{suffix}", functional, options)


@needs_cuda
def test_gathered_onnx_files_give_the_same_bits_twice(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime: built without CUDA")
    module, options = MODULES["gathered"]()
    same_bits_and_numbers(tmp_path / "a.onnx", module, options)


TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-11}


@needs_cuda
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
def test_files_of_every_kind_are_right(tmp_path, record_property, kind, dtype, suffix):
    make, options = KINDS[kind]
    torch.manual_seed(0)
    compiled = {"device": "cuda"} if suffix == ".pt2" else {}
    report = same_bits_and_numbers(
        tmp_path / f"a{suffix}", make().to(dtype), {**options, **compiled}, TOLERANCES[dtype]
    )
    # Kept in the results of a run on a device.
    record_property("max_rel_error", report.max_rel_error)


def same_bits_and_numbers(path, module, options, tolerance=TOLERANCES[torch.float32]):
    report = ofcv.export(module, path, **options)
    assert "cuda" in {entry.device for entry in report.comparisons}
    artifact = ofcv.load(path, device="cuda")
    inputs = inputs_of(artifact.metadata)
    first = artifact.run(inputs)
    for _ in range(REPETITIONS):
        assert all(map(torch.equal, first, artifact.run(inputs)))
    judged = {k: v for k, v in options.items() if k not in ("device", "batch")}
    graph = module.export_graph(**judged)
    with torch.no_grad():
        expected = graph.in_float64()(*(t.double() if t.is_floating_point() else t for t in inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for found, exact in zip(first, expected, strict=True):
        scale = max(float(exact.abs().max()), 1.0)
        error = (found.cpu().double() - exact).abs().max() / scale
        assert float(error) <= tolerance
    return report


@needs_cuda
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.parametrize("pairs", [STAR[:19], torch.triu_indices(20, 20, 1).T], ids=["star", "all"])
def test_a_cuda_graph_gives_what_the_calls_give(tmp_path, suffix, pairs):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(len(pairs), 16), nn.Tanh(), nn.Linear(16, 1))
    cv = ofcv.CollectiveVariable(PairDistances(pairs, 20), network)
    path = tmp_path / f"cv{suffix}"
    ofcv.export(cv, path, batch=1, **({"device": "cuda"} if suffix == ".pt2" else {}))
    plain = ofcv.load(path, device="cuda")
    captured = ofcv.load(path, device="cuda", cuda_graph=True)
    results = []
    for positions in frames(5, 20, torch.float32).unsqueeze(1):
        expected = plain(positions)
        results.append(captured(positions))
        for _ in range(REPETITIONS):
            assert all(map(torch.equal, captured(positions.cuda()), results[-1]))
        for found, right in zip(results[-1], expected, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    # Later calls have left the results of earlier ones as they were.
    values = torch.cat([values for values, _ in results]).flatten()
    assert len(values.unique()) == 5


@needs_cuda
def test_a_frame_that_does_not_exist_is_refused():
    x, index = torch.ones(2, 45, device="cuda"), torch.tensor([0, 50], device="cuda")
    with pytest.raises(IndexError, match="ref_idx: expected indices in .0, 50., got 50"):
        frozen(SYSTEMS["few pairs"], kernel="torch").cuda()(x, index)
    smart = frozen(SYSTEMS["few pairs"], kernel="triton").cuda()
    out = smart(x, index)
    torch.cuda.synchronize()
    assert torch.isfinite(out[0]).all()
    assert torch.isnan(out[1]).all()
    with pytest.raises(IndexError, match="got others in an earlier call"):
        smart(x, torch.zeros_like(index))


@needs_cuda
@pytest.mark.parametrize("batch", [None, 1])
def test_a_variable_on_the_device_is_exported_from_there(tmp_path, batch):
    cv = star_cv().cuda()
    assert ofcv.export(cv, tmp_path / "cv.pt", batch=batch).passed
    assert next(cv.parameters()).is_cuda


@needs_cuda
def test_frozen_values_move_to_the_cpu():
    smart, x = frozen(SYSTEMS["few pairs"]), torch.ones(50, 45)
    expected = smart(x)
    smart.cuda()
    smart.move_to_cpu()
    assert smart.values.is_cpu
    assert torch.equal(smart(x), expected)


@needs_cuda
def test_a_free_batch_cannot_be_recorded(tmp_path):
    ofcv.export(frozen(SYSTEMS["few pairs"]), tmp_path / "cv.pt")
    with pytest.raises(ValueError, match="cuda_graph: expected fixed shapes"):
        ofcv.load(tmp_path / "cv.pt", device="cuda", cuda_graph=True)
