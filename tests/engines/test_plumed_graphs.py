"""Biases of graphs of atoms in PLUMED, against a formula over all images and the Python engine."""

import numpy as np
import pytest

import ofcv_export as ofcv
from ofcv_export.engines.graph_bias import load_bias
from ofcv_export.engines.plumed import ofcv_input
from tests.builders.graph_biases import (
    BOXES,
    CENTRE,
    ENVIRONMENT,
    FORCE_CONSTANT,
    SYMBOLS,
    SYSTEM,
    coordination,
    energy,
    positions,
    sizes,
)
from tests.builders.plumed_driver import failure, needs_plumed, values_and_derivatives

GRAPH_ELEMENTS = [SYMBOLS[atom] for atom in (*SYSTEM, *ENVIRONMENT)]


def graph_restraint(path, atom_elements=None):
    """Export the restraint of a graph's coordination number."""
    cv = coordination()
    cv.elements = atom_elements
    ofcv.export(ofcv.HarmonicRestraint(cv, CENTRE, FORCE_CONSTANT), path, **sizes(path.suffix))


@pytest.mark.parametrize("suffix", [".pt", ".so"])
@pytest.mark.parametrize("box", BOXES)
@needs_plumed
def test_a_bias_of_a_graph_of_atoms(library, tmp_path, box, suffix):
    path = tmp_path / f"graph{suffix}"
    graph_restraint(path)
    lattice = BOXES[box]
    frames = np.array([positions(seed) for seed in range(3)]) / 10
    text = ofcv_input(path, library=library, elements=GRAPH_ELEMENTS)

    values, derivatives, by_box = values_and_derivatives(
        tmp_path, text, frames, ["cv.node-0"], None if lattice is None else lattice / 10
    )

    engine = load_bias(
        path,
        length_unit="nm",
        energy_unit="kJ/mol",
        n_atoms=len(SYMBOLS),
        elements=SYMBOLS,
        periodic=True,
    )
    for number, frame in enumerate(frames):
        assert values[number, 0] == pytest.approx(energy(10 * frame, lattice), rel=1e-9)
        judge = engine.evaluate(frame[engine.atoms], None if lattice is None else lattice / 10)
        np.testing.assert_allclose(derivatives[number, 0], -judge.forces, atol=1e-8)
        if lattice is not None:  # without one PLUMED hands over no box derivatives
            np.testing.assert_allclose(by_box[number, 0], -judge.strain_derivative, atol=1e-8)


@needs_plumed
def test_a_graphs_atoms_may_be_others_than_the_files(library, tmp_path):
    graph_restraint(tmp_path / "graph.pt", GRAPH_ELEMENTS)
    frame = positions(1)
    turned = frame[::-1]
    last = len(SYMBOLS)
    text = (
        f"LOAD FILE={library}\n"
        f"cv: OFCV MODEL={tmp_path / 'graph.pt'} SYSTEM={last},{last - 1} "
        f"ENVIRONMENT={','.join(str(last - atom) for atom in ENVIRONMENT)} "
        f"ELEMENTS=Na,Cl,O*{len(ENVIRONMENT)}\n"
    )

    values, _, _ = values_and_derivatives(tmp_path, text, turned[None] / 10, ["cv.node-0"])

    assert values[0, 0] == pytest.approx(energy(frame, None), rel=1e-9)


@needs_plumed
def test_elements_of_a_graph_that_do_not_fit_are_refused(library, tmp_path):
    graph_restraint(tmp_path / "graph.pt")
    frames = positions()[None] / 10
    start = f"LOAD FILE={library}\ncv: OFCV MODEL={tmp_path / 'graph.pt'}"

    for words, message in (
        ("", "elements: expected chemical symbols of the atoms, got none"),
        (" ELEMENTS=Na,K,O*20", "elements: expected O, Na, Cl, got K as atom 1 (zero-based)"),
        (" ELEMENTS=Na,Cl", "elements: expected 22 chemical symbols, got 2"),
        (" ELEMENTS=Na,Cl,O*x", "ELEMENTS: expected symbols, or symbol*number, got 'O*x'"),
    ):
        assert message in failure(tmp_path, f"{start}{words}\n", frames)


def test_input_of_a_graph_says_what_is_missing(tmp_path):
    graph_restraint(tmp_path / "graph.pt")

    with pytest.raises(
        ValueError, match=r"elements: expected chemical symbols of the atoms, got n"
    ):
        ofcv_input(tmp_path / "graph.pt")
    text = ofcv_input(tmp_path / "graph.pt", elements=GRAPH_ELEMENTS)
    assert f"ELEMENTS=Na,Cl,O*{len(ENVIRONMENT)}\n" in text
    assert "BIASVALUE ARG=cv.node-0" in text
