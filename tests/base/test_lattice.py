"""Boxes, reduction and nearest images in NumPy, against a search and against those of graphs."""

import itertools

import numpy as np
import pytest
import torch

from ofcv_export.base.lattice import nearest_images, reduced_lattice, require_box
from ofcv_export.descriptors import lattice as graphs

BOXES = {
    "diagonal": np.diag([2.0, 3.0, 4.0]),
    "oblique": np.array([[2.0, 0.0, 0.0], [0.9, 2.1, 0.0], [-0.8, 0.9, 2.2]]),
    "very oblique": np.array([[2.0, 0.0, 0.0], [17.0, 3.0, 0.0], [-31.0, 22.0, 4.0]]),
    "left-handed": np.array([[0.3, 2.0, 0.1], [2.5, 0.2, -0.7], [1.1, 0.9, 3.0]]),
}


@pytest.fixture(params=BOXES)
def box(request):
    return BOXES[request.param]


def test_a_reduced_basis_has_no_shorter_combination(box):
    reduced = reduced_lattice(box)
    combination = reduced @ np.linalg.inv(box)
    np.testing.assert_allclose(combination, np.rint(combination), atol=1e-9)
    assert abs(np.linalg.det(combination)) == pytest.approx(1.0)
    for row in range(3):
        others = [other for other in range(3) if other != row]
        for signs in itertools.product((-1, 0, 1), repeat=2):
            longer = reduced[row] + np.array(signs) @ reduced[others]
            assert longer @ longer >= (reduced[row] @ reduced[row]) * (1 - 1e-12)


def test_nearest_images_are_those_of_a_search_and_of_graphs(box):
    reduced = reduced_lattice(box)
    vectors = np.random.default_rng(0).uniform(-30.0, 30.0, (200, 3))
    found = nearest_images(vectors, reduced)
    counts = (found - vectors) @ np.linalg.inv(box)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    # All images within three cells of the one that is near.
    shifts = np.array(list(itertools.product(range(-3, 4), repeat=3))) @ reduced
    shortest = np.square(found[:, None] + shifts).sum(2).min(1)
    np.testing.assert_allclose(np.square(found).sum(1), shortest, rtol=1e-12)
    of_a_graph = graphs.NearestImage()(torch.from_numpy(vectors), torch.from_numpy(reduced))
    np.testing.assert_allclose(found, of_a_graph.numpy(), atol=1e-12)


def test_a_reduction_is_that_of_a_graph(box):
    of_a_graph = graphs.reduced_lattice(torch.from_numpy(box)).numpy()
    np.testing.assert_allclose(reduced_lattice(box), of_a_graph, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_lengths_that_have_no_square_are_refused_without_a_warning(scale):
    with pytest.raises(ValueError, match="box: expected linearly independent vectors, got "):
        require_box(scale * np.eye(3))
