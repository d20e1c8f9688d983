"""Files of graph collective variables: numbers, free sizes, bad inputs, formats that cannot be."""

import copy
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ofcv_export as ofcv
from ofcv_export.cli import app
from ofcv_export.formats.c99 import C99
from tests import graph_networks as networks

NAME = "nacl_long_range_schnet"
RTOL = {"float32": 1e-5, "float64": 1e-12}
FILES = [
    (".pt", "float32"),
    (".onnx", "float32"),
    (".pt2", "float32"),
    (".pt", "float64"),
    (".onnx", "float64"),
    (".c", "float64"),
    (".so", "float32"),
]


@pytest.fixture(scope="module")
def arrays():
    return networks.reference(NAME)


@pytest.fixture(scope="module")
def variables(arrays):
    cv = networks.variable(NAME, arrays)
    return {"float64": cv, "float32": copy.deepcopy(cv).float()}


@pytest.fixture(scope="module", params=FILES, ids=" ".join)
def exported(request, variables, tmp_path_factory):
    suffix, dtype = request.param
    path = tmp_path_factory.mktemp("graph") / f"cv{suffix}"
    report = ofcv.export(variables[dtype], path, **networks.largest(suffix))
    assert report.passed
    return path, variables[dtype]


def close(found, wanted, rtol):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            torch.as_tensor(one).double(),
            other.double(),
            rtol=rtol,
            atol=rtol * float(other.abs().max()),
        )


def test_files_give_the_reference_values(exported, arrays):
    path, cv = exported
    artifact = ofcv.load(path)
    for frame in range(networks.N_FRAMES):
        graph = networks.graph(cv, arrays, frame)
        rtol = RTOL[artifact.metadata.inputs[0].dtype]
        close(artifact(**graph), networks.expected(arrays, frame), rtol)
        in_numpy = {name: value.numpy() for name, value in graph.items()}
        close(artifact(**in_numpy), networks.expected(arrays, frame), rtol)


def test_graphs_without_edges(exported, arrays, variables):
    path, cv = exported
    artifact = ofcv.load(path)
    judge = variables["float64"]
    for change in (networks.without_edges, networks.one_node):
        found = artifact(**change(networks.graph(cv, arrays, 0)))
        alone = change(networks.graph(judge, arrays, 0))
        rtol = RTOL[artifact.metadata.inputs[0].dtype]
        close(found[:1], [judge(*alone.values()).detach()], rtol)
        assert not any(np.asarray(entry).any() for entry in found[1:])


def test_a_file_is_verified_without_its_module(exported):
    path, _ = exported
    report = ofcv.verify(path)
    assert report.passed
    assert report.comparisons


def test_a_file_is_verified_against_its_module(exported):
    path, cv = exported
    if path.suffix in (".pt", ".c"):
        assert ofcv.verify(path, cv).passed


def _set(name, place, value):
    def changed(graph):
        made = graph[name].clone()
        made[place] = value
        return graph | {name: made}

    return changed


BAD_GRAPHS = {
    "element": (
        _set("elements", 1, 7),
        ValueError,
        r"^elements: expected O, Na, Cl, got N as atom 1 \(zero-based\)$",
    ),
    "edge": (_set("edge_index", (0, 0), 10_000), IndexError, r"^edge_index: expected indices in "),
    "edge below zero": (_set("edge_index", (0, 0), -1), IndexError, r"^edge_index: expected ind"),
    "system mask": (
        _set("system_mask", 1, 2),
        ValueError,
        "^system_mask: expected 0 or 1, got 2 at position 1$",
    ),
    "long-range mask": (
        _set("long_range_mask", 0, -1),
        ValueError,
        "^long_range_mask: expected 0 or 1, got -1 at position 0$",
    ),
    "fewer masks": (
        lambda graph: graph | {"long_range_mask": graph["long_range_mask"][1:]},
        ValueError,
        "^long_range_mask: expected n_edges = .* as in edge_index, got",
    ),
    "no node": (
        lambda graph: {
            name: value[..., :0] if value.dim() == 1 else value[:0] if name != "box" else value
            for name, value in graph.items()
        },
        ValueError,
        r"^positions: expected shape \(n_nodes, 3\), got \(0, 3\)$",
    ),
    "box": (_set("box", 2, 0.0), ValueError, "^box: expected linearly independent vectors"),
    "box's shape": (
        lambda graph: graph | {"box": torch.diagonal(graph["box"])},
        ValueError,
        r"^box: expected shape \(3, 3\), got \(3,\)$",
    ),
    "not finite": (
        _set("positions", (0, 0), torch.nan),
        ValueError,
        "^positions: expected finite values",
    ),
    "no mask": (
        lambda graph: {name: graph[name] for name in graph if name != "system_mask"},
        TypeError,
        "^inputs: expected positions, elements",
    ),
}


def test_bad_graphs_are_refused(exported, arrays):
    path, cv = exported
    artifact = ofcv.load(path)
    graph = networks.graph(cv, arrays, 0)
    for change, kind, message in BAD_GRAPHS.values():
        with pytest.raises(kind, match=message) as error:
            artifact(**change(graph))
        assert "\n" not in str(error.value)


def test_an_artifact_can_be_inspected(exported):
    path, _ = exported
    done = CliRunner().invoke(app, ["inspect", str(path)])
    assert done.exit_code == 0, done.output
    for text in ("graph_collective_variable", "n_nodes", "long_range_mask", "8, 11, 17", "0, 1"):
        assert text in done.output
    metadata = ofcv.read_metadata(path)
    assert metadata.details.known_elements == ("O", "Na", "Cl")
    assert metadata.atoms[:3] == [648, 649, 0]
    assert metadata.details.long_range_cutoff == 10.0


def test_the_command_line_runs_graphs_and_refuses_trajectories(exported, arrays, tmp_path):
    path, cv = exported
    inputs = []
    for name, values in networks.graph(cv, arrays, 0).items():
        np.save(tmp_path / f"{name}.npy", values.numpy())
        inputs += ["-i", f"{name}={tmp_path / name}.npy"]
    out = tmp_path / "values.npy"
    done = CliRunner().invoke(app, ["run", str(path), *inputs, "-o", f"values={out}"])
    assert done.exit_code == 0, done.output
    rtol = RTOL[str(np.load(out).dtype)]
    close([np.load(out)], networks.expected(arrays, 0)[:1], rtol)


REFUSED = {
    ".c": ({}, "n_nodes: expected the largest number of nodes for a .c file, got none"),
    ".so": (
        {"n_nodes": 64},
        "n_edges: expected the largest number of edges for a .so file, got none",
    ),
    ".cpp": (
        {"contract": "plumed"},
        "module: expected a collective_variable for PLUMED, got graph_collective_variable",
    ),
}


class NeverCalled(nn.Module):
    """Lets itself be tried, and fails when it is traced or run again."""

    calls = 0

    def forward(self, edge_lengths):
        NeverCalled.calls += 1
        return torch.exp(-edge_lengths).sum().reshape(1)


@pytest.mark.parametrize("suffix", list(REFUSED))
def test_what_c_source_needs_is_asked_for_before_work_is_done(tmp_path, suffix):
    options, message = REFUSED[suffix]
    cv = ofcv.GraphCollectiveVariable(NeverCalled(), 3.0, ["C"])
    before = NeverCalled.calls
    with pytest.raises(ValueError, match=f"^{message}") as error:
        ofcv.export(cv, tmp_path / f"cv{suffix}", **options)
    assert "\n" not in str(error.value)
    assert NeverCalled.calls == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "options", "kind", "message"),
    [
        (".cpp", {}, ValueError, "contract: expected plumed for a .cpp file, got none"),
        (".pt", {"contract": "openmm-torch"}, TypeError, "module: expected a CollectiveVariable,"),
        (".pt", {"batch": 2}, ValueError, "batch: expected None for a graph_collective_variable"),
        (
            ".pt",
            {"n_nodes": 64},
            ValueError,
            "n_nodes: expected none but for a .c, .cpp or .so fil",
        ),
        (".c", {"n_nodes": 0}, ValueError, "n_nodes: expected a positive integer, got 0"),
        (".c", {"n_nodes": 9, "n_edges": 6}, ValueError, "n_edges: expected 7 or more, got 6"),
        (".pt", {"atoms": [1]}, ValueError, "atoms: expected none for a graph_collective_variab"),
    ],
)
def test_what_graphs_do_not_have_is_refused(tmp_path, suffix, options, kind, message):
    cv = ofcv.GraphCollectiveVariable(NeverCalled(), 3.0, ["C"])
    with pytest.raises(kind, match=f"^{message}"):
        ofcv.export(cv, tmp_path / f"cv{suffix}", **options)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def source(variables, tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("c") / "cv.c"
    ofcv.export(variables["float32"], path, **networks.largest(".c"))
    return path


def test_the_largest_graph_changes_no_bit(source, variables, arrays, tmp_path):
    cv = variables["float32"]
    ofcv.export(cv, tmp_path / "larger.c", n_nodes=200, n_edges=9000)
    text = (tmp_path / "larger.c").read_text()
    assert "malloc" in text
    assert "malloc" not in source.read_text()
    exact, larger = ofcv.load(source), ofcv.load(tmp_path / "larger.c")
    sizes = set()
    for frame in range(networks.N_FRAMES):
        graph = networks.graph(cv, arrays, frame)
        sizes.add((len(graph["positions"]), graph["edge_index"].shape[1]))
        for one, other in zip(exact(**graph), larger(**graph), strict=True):
            assert np.array_equal(one, other)
    assert len(sizes) > 1
    assert tuple(networks.largest(".c").values()) in sizes


@pytest.mark.parametrize("name", ["n_nodes", "n_edges"])
def test_a_graph_that_is_too_large_is_refused(source, variables, name):
    sizes = networks.largest(".c") | {name: networks.largest(".c")[name] + 1}
    graph = networks.random_graph(variables["float32"], sizes["n_nodes"], seed=1)
    graph = {
        key: values[..., : sizes["n_edges"]] if key == "edge_index" else values
        for key, values in graph.items()
    } | {
        key: graph[key][: sizes["n_edges"]] for key in ("cell_shifts", "long_range_mask")
    }  # fmt: skip
    with pytest.raises(
        ValueError, match=rf"^{name}: expected [01] to {sizes[name] - 1}, got {sizes[name]}$"
    ):
        ofcv.load(source)(**graph)


def test_its_own_checks_name_what_is_wrong(source, variables, arrays):
    artifact = ofcv.load(source)
    graph = networks.graph(variables["float32"], arrays, 0)
    for name, wrong, message in (
        ("positions", np.nan, "positions: expected finite numbers, got NaN or infinity"),
        ("elements", 7, "elements: expected 8, 11, 17, got others"),
        ("edge_index", len(graph["positions"]), "edge_index: expected integers in [0, n_nodes"),
        ("edge_index", -1, "edge_index: expected integers in [0, n_nodes), got others"),
    ):
        given = {key: values.numpy().copy() for key, values in graph.items()}
        given[name].flat[1] = wrong
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            artifact.run(list(given.values()))


@pytest.mark.parametrize("command", ["cc -std=c99", "clang -std=c99", "c++ -x c++"])
def test_it_compiles_without_a_warning(source, tmp_path, command):
    compiler, *options = command.split()
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not here")
    strict = ["-pedantic", "-Wall", "-Wextra", "-Werror", "-c", "-o", "graph.o"]
    subprocess.run([compiler, *options, *strict, str(source)], cwd=tmp_path, check=True)


def test_every_compiler_gives_the_same_bits(source, variables, arrays):
    content = source.read_bytes()
    file_format = C99()
    metadata = file_format.metadata(content, source)
    runners = file_format.runners(content, source, metadata)
    graph = networks.graph(variables["float32"], arrays, 1)
    inputs = [values.numpy() for values in graph.values()]
    first, *others = (runner(inputs) for runner in runners.values())
    for found in others:
        assert all(map(np.array_equal, first, found))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_second_derivatives_in_c(tmp_path):
    cv = networks.variable("alanine_schnet")
    bias = ofcv.KolmogorovBias(cv, 0.4, 2.0, 1e-3, masses=[12.0, 14.0, 16.0])
    assert ofcv.export(bias, tmp_path / "bias.c", n_nodes=20, n_edges=400).passed
