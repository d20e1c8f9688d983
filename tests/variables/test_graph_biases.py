"""Biases of graph collective variables: formulas, differences, and files."""

import math

import numpy as np
import pytest
import torch

import ofcv_export as ofcv
from tests import graph_networks as networks

MASSES = [15.999, 22.99, 35.45]


@pytest.fixture(scope="module")
def cv():
    return networks.variable("nacl_schnet")


@pytest.fixture(scope="module")
def graph(cv):
    return networks.random_graph(cv, 8, periodic=True)


def biases(cv):
    """Return each kind of bias, and the energy that it should give values and a gradient."""
    by_number = dict(zip(cv.atomic_numbers, MASSES, strict=True))

    def kolmogorov(value, gradient, elements):
        masses = torch.tensor([by_number[number] for number in elements.tolist()])
        squared = float((gradient.square().sum(1) / masses.double()).sum())
        return -2.0 / 0.4 * (math.log(squared + 1e-3) - math.log(1e-3))

    return {
        "value": (ofcv.Bias(cv, "eV"), lambda value, *_: value),
        "harmonic": (
            ofcv.HarmonicRestraint(cv, 0.1, 50.0),
            lambda value, *_: 25.0 * (value - 0.1) ** 2,
        ),
        "moving": (
            ofcv.MovingRestraint(cv, [0.0, 2.0], [0.1, 0.3], [40.0, 60.0]),
            lambda value, *_: 20.0 * (value - 0.1) ** 2,
        ),
        "kolmogorov": (ofcv.KolmogorovBias(cv, 0.4, 2.0, 1e-3, masses=MASSES), kolmogorov),
    }


KINDS = ("value", "harmonic", "moving", "kolmogorov")


@pytest.mark.parametrize("kind", KINDS)
def test_energies_are_those_of_the_formula(cv, graph, kind):
    bias, formula = biases(cv)[kind]
    values, derivatives, _ = cv.values_and_derivatives(**graph)

    energy, *_ = bias.values_and_derivatives(**graph)

    expected = formula(float(values[0]), derivatives[0], graph["elements"])
    assert float(energy[0]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_differences_of_the_energy(cv, graph, kind):
    bias, _ = biases(cv)[kind]
    _, derivatives, box_derivatives = bias.values_and_derivatives(**graph)

    def difference(name, place, step=1e-4):
        moved = [{**graph, name: graph[name].clone()} for _ in range(2)]
        for sign, entry in zip((1, -1), moved, strict=True):
            entry[name][place] += sign * step
        up, down = (float(bias.values_and_derivatives(**entry)[0][0]) for entry in moved)
        return (up - down) / (2 * step)

    for name, found in (("positions", derivatives[0]), ("box", box_derivatives[0])):
        expected = [
            [difference(name, (row, column)) for column in range(3)] for row in range(len(found))
        ]
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6 * scale)
        assert scale > 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_same(cv, graph, kind, tmp_path):
    bias, _ = biases(cv)[kind]

    report = ofcv.export(bias, tmp_path / "bias.pt")

    given = graph | bias.default_parameters()
    found = ofcv.load(report.path)(**given)
    for one, other in zip(found, bias.values_and_derivatives(**graph), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
    assert report.metadata.output_units["values"] == bias.energy_unit
    assert report.metadata.details.bias == bias.specification()


def test_parameters_are_inputs(cv, graph):
    restraint = ofcv.HarmonicRestraint(cv, 0.1, 50.0)
    values, *_ = cv.values_and_derivatives(**graph)

    energy, *_ = restraint.values_and_derivatives(
        **graph, centre=torch.tensor([0.4], dtype=torch.float64)
    )

    assert float(energy[0]) == pytest.approx(25 * (float(values[0]) - 0.4) ** 2)
    with pytest.raises(TypeError, match=r"inputs: expected positions, elements, .*, got .*speed"):
        restraint.values_and_derivatives(**graph, speed=torch.zeros(1))


def test_other_atoms_share_the_weights(cv):
    restraint = ofcv.HarmonicRestraint(cv, 0.1, 50.0)
    atoms = [atom + 3 for atom in cv.atoms]

    moved = restraint.with_atoms(atoms)

    assert moved.export_graph().atoms == atoms
    assert restraint.export_graph().atoms == cv.atoms


def test_what_does_not_go_with_a_graph_is_refused(cv):
    with pytest.raises(ValueError, match=r"over: expected positions for a graph of atoms, got des"):
        ofcv.KolmogorovBias(cv, 0.4, over="descriptors")
    with pytest.raises(ValueError, match=r"masses: expected shape \(3,\), got \(2,\)"):
        ofcv.KolmogorovBias(cv, 0.4, masses=[1.0, 2.0])
