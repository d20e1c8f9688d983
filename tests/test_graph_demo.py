"""The demonstration of graph variables in OpenMM, with few frames of a smaller box."""

import numpy as np
import pytest
import torch

pytest.importorskip("openmm", reason="OpenMM is not installed")
pytest.importorskip("vesin", reason="vesin is not installed")
import typer
from typer.testing import CliRunner

import ofcv_export as ofcv
from export_scripts import graph_demo, ion_network, salt_water
from export_scripts.ion_network import CUTOFF, ELEMENTS, SmallSchNet, graphs_of, values_of, variable
from export_scripts.salt_water import IONS, Frames, SaltWater


@pytest.fixture(scope="module")
def water():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(salt_water, "STEPS_PER_FRAME", 20)
        return SaltWater.solvated(150, 10, 1)


def seeded_variable(water):
    torch.manual_seed(0)
    return variable(SmallSchNet().double(), water)


def frames_at(positions, box):
    nothing = np.zeros(len(positions))
    return Frames(positions, np.array([box] * len(positions)), nothing, nothing, nothing)


def test_the_script_runs_and_its_errors_are_small(water, monkeypatch, tmp_path):
    def exported(learned, distance, folder):
        files = folder / "restraint.pt", folder / "distance.pt"
        for bias, path in zip((learned, distance), files, strict=True):
            ofcv.export(bias, path)
        return files

    for module in (graph_demo, salt_water):
        monkeypatch.setattr(module, "STEPS_PER_FRAME", 20)
    monkeypatch.setattr(SaltWater, "solvated", lambda *_: water)
    monkeypatch.setattr(graph_demo, "export_all", exported)
    # In 2 ps of a box that was at rest a moment before nothing settles.
    monkeypatch.setattr(graph_demo, "require_sane", lambda *_: None)
    app = typer.Typer()
    app.command()(graph_demo.main)

    result = CliRunner().invoke(
        app, ["--output", str(tmp_path), "--n-frames", "10", "--length", "2"]
    )

    assert result.exit_code == 0, result.output
    assert (tmp_path / "graph.png").stat().st_size > 10_000


def test_a_network_trained_on_many_graphs_at_once_gives_each_its_value(water):
    random = np.random.default_rng(0)
    positions, box = water.place
    several = positions + 0.02 * random.standard_normal((4, *positions.shape))
    cv = seeded_variable(water)
    graphs = graphs_of(frames_at(several, box), water)

    inputs, graph_of_node = ion_network.joined(graphs)
    with torch.no_grad():
        of_nodes = cv.network.of_nodes(*inputs)

    found = torch.zeros(4, dtype=torch.float64).index_add(0, graph_of_node, of_nodes)
    np.testing.assert_allclose(found.numpy(), values_of(cv, graphs), rtol=1e-12)


def test_values_are_continuous_where_an_oxygen_comes_near(water):
    positions, box = water.place
    cv, positions = seeded_variable(water), positions - positions[IONS[0]]
    oxygen = water.oxygens[3]
    # Through the cutoff of Na+, beyond that of Cl-.
    outwards = positions[IONS[0]] - positions[IONS[1]]
    outwards /= np.linalg.norm(outwards)
    moved = np.array([positions, positions])
    moved[:, oxygen] = outwards * CUTOFF * np.array([[1 - 1e-6], [1 + 1e-6]])
    graphs = graphs_of(frames_at(moved, box), water)

    inside, outside = values_of(cv, graphs)

    assert len(graphs[0][0]) == len(graphs[1][0]) + 1
    assert abs(inside - outside) < 1e-12


def test_all_elements_are_told_apart(water):
    (graph,) = graphs_of(frames_at(water.place[0][None], water.place[1]), water)
    (one_hot, *_), _ = ion_network.joined([graph])
    assert one_hot.sum(1).eq(1).all()
    assert one_hot[:2].argmax(1).tolist() == [ELEMENTS.index("Na"), ELEMENTS.index("Cl")]


@pytest.mark.parametrize("error", [2e-5, np.nan])
def test_a_large_error_is_one(error):
    graph_demo.require_small({"virial": 9e-6})
    with pytest.raises(ValueError, match=r"^virial: expected an error of at most 1e-05, got "):
        graph_demo.require_small({"forces": 0.0, "virial": error})


@pytest.mark.parametrize(
    ("bias", "temperature", "message"),
    [
        (9.0, 300.0, r"^C\+\+: expected a mean bias below 7\.5 kJ/mol, got 9\.0"),
        (1.0, 340.0, r"^C\+\+: expected a temperature of 300 K, got 340 K"),
        (1.0, np.nan, r"^C\+\+: expected a temperature of 300 K, got nan K"),
    ],
)
def test_a_run_that_leaves_its_restraint_or_temperature_is_an_error(bias, temperature, message):
    graph_demo.require_sane("C++", np.array([120.0, 1.0]), np.array([400.0, 300.0]))
    with pytest.raises(ValueError, match=message):
        graph_demo.require_sane("C++", np.array([120.0, bias]), np.array([400.0, temperature]))
