"""Boxes and the nearest image, against brute force over images and finite differences."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofcv_export.descriptors.boundaries import (
    OrthorhombicBox,
    RuntimeBox,
    TriclinicBox,
    open_boundaries,
    require_box,
)
from ofcv_export.descriptors.box_check import BoxCheck
from ofcv_export.descriptors.distances import PairDistances
from ofcv_export.descriptors.lattice import LatticeReduction, reduced_lattice

F64 = torch.float64


def octahedron(d):
    """Return a truncated octahedron as GROMACS writes it."""
    b = [d / 3, d * math.sqrt(8) / 3, 0]
    c = [-d / 3, d * math.sqrt(2) / 3, d * math.sqrt(6) / 3]
    return torch.tensor([[d, 0, 0], b, c], dtype=F64)


def dodecahedron(d):
    """Return a rhombic dodecahedron with a square xy plane as GROMACS writes it."""
    return torch.tensor([[d, 0, 0], [0, d, 0], [d / 2, d / 2, d * math.sqrt(2) / 2]], dtype=F64)


ENGINE_BOXES = {
    "octahedron of 2 nm": octahedron(2.0),
    "octahedron of 2.5 nm": octahedron(2.5),
    "octahedron of 3 nm": octahedron(3.0),
    "dodecahedron": dodecahedron(2.3),
    "reduced as LAMMPS wants it": torch.tensor([[3.0, 0, 0], [1.5, 2, 0], [-1.5, 1, 4]]).double(),
    "long": torch.tensor([[1.0, 0, 0], [0.5, 1.1, 0], [0.5, 0.5, 9.0]], dtype=F64),
    "left-handed, off the axes": torch.tensor(
        [[0.2, 1.9, 0.3], [2.0, 0.1, 0.4], [0.3, 0.5, 2.2]], dtype=F64
    ),
    "cube": 2.0 * torch.eye(3, dtype=F64),
}


def images(box, reach=3):
    """Return all lattice vectors with coefficients up to `reach`."""
    steps = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=3)), dtype=F64)
    return steps @ box


def brute_force(vectors, box, reach=3):
    """Return the shortest image among those around the box in which a vector lies."""
    home = vectors - torch.round(vectors @ torch.linalg.inv(box)) @ box
    return (home[:, None] + images(box, reach)).norm(dim=2).amin(1)


def some_vectors(box, n=300, spread=4.0):
    generator = torch.Generator().manual_seed(1)
    return ((torch.rand(n, 3, generator=generator, dtype=F64) - 0.5) * spread) @ box


@pytest.mark.parametrize("name", ENGINE_BOXES)
@pytest.mark.parametrize("scaled", [False, True])
def test_nearest_image_in_boxes_of_engines(name, scaled):
    box = ENGINE_BOXES[name]
    vectors = some_vectors(box)
    expected = brute_force(vectors, box)
    end = vectors @ torch.linalg.inv(box) if scaled else vectors
    start = torch.zeros_like(end)
    fixed = TriclinicBox(box, scaled=scaled).displacement(start, end)
    torch.testing.assert_close(fixed.norm(dim=1), expected, rtol=1e-12, atol=1e-12)
    at_run_time = RuntimeBox(scaled=scaled).displacement(start, end, box)
    torch.testing.assert_close(at_run_time.norm(dim=1), expected, rtol=1e-12, atol=1e-12)
    # What is returned is an image of the vector: it differs by whole lattice vectors.
    for found in (fixed, at_run_time):
        n = (vectors - found) @ torch.linalg.inv(box)
        torch.testing.assert_close(n, n.round(), rtol=0, atol=1e-10)
    single = RuntimeBox(scaled=scaled).displacement(start.float(), end.float(), box.float())
    torch.testing.assert_close(single.norm(dim=1).double(), expected, rtol=1e-5, atol=1e-5)


def test_rounding_alone_is_wrong_in_an_octahedron():
    box = octahedron(3.0)
    vectors = some_vectors(box, 2000)
    rounded = vectors - torch.round(vectors @ torch.linalg.inv(box)) @ box
    assert (rounded.norm(dim=1) - brute_force(vectors, box)).max() > 0.5


entries = st.floats(-1.0, 1.0, allow_nan=False)
shears = st.lists(st.tuples(st.permutations(range(3)), st.integers(-4, 4)), min_size=0, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(entries, min_size=9, max_size=9),
    st.lists(st.floats(0.3, 4.0), min_size=3, max_size=3),
    shears,
)
def test_nearest_image_in_random_skewed_boxes(offsets, lengths, changes):
    base = 0.3 * torch.tensor(offsets, dtype=F64).reshape(3, 3) + torch.eye(3, dtype=F64)
    base = torch.tensor(lengths, dtype=F64)[:, None] * base
    if torch.linalg.det(base).abs() < 0.05 * torch.tensor(lengths).prod():
        return
    box = base.clone()
    for (i, j, _), size in changes:
        box[i] += size * box[j]
    vectors = some_vectors(base, 40)
    expected = brute_force(vectors, reduced_lattice(base))
    reach = brute_force(vectors, base, reach=5)
    torch.testing.assert_close(expected, reach)
    zero = torch.zeros_like(vectors)
    for found in (
        TriclinicBox(box).displacement(zero, vectors),
        RuntimeBox().displacement(zero, vectors, box),
    ):
        torch.testing.assert_close(found.norm(dim=1), expected, rtol=1e-9, atol=1e-9)


def test_reduction_keeps_the_lattice_and_ends_with_shortest_vectors():
    box = octahedron(2.0)
    skewed = torch.tensor([[1, 0, 0], [7, 1, 0], [-12, 9, 1]], dtype=F64) @ box
    reduced = LatticeReduction()(skewed)
    coefficients = reduced @ torch.linalg.inv(skewed)
    torch.testing.assert_close(coefficients, coefficients.round(), rtol=0, atol=1e-9)
    assert torch.linalg.det(coefficients).abs().item() == pytest.approx(1.0)
    lengths = reduced.norm(dim=1).sort().values
    shortest = images(box).norm(dim=1).sort().values
    torch.testing.assert_close(lengths, shortest[[1, 3, 5]])


LENGTHS = torch.tensor([2.0, 3.0, 2.5], dtype=F64)
RUNTIME = {
    "triclinic": (RuntimeBox(), octahedron(2.2)),
    "triclinic, scaled": (RuntimeBox(scaled=True), octahedron(2.2)),
    "orthorhombic": (RuntimeBox("orthorhombic"), torch.diag(LENGTHS)),
    "orthorhombic, scaled": (
        RuntimeBox("orthorhombic", scaled=True),
        torch.diag(LENGTHS),
    ),
}


@pytest.mark.parametrize("name", RUNTIME)
def test_virial_against_finite_differences(name):
    boundaries, box = RUNTIME[name]
    pairs = torch.tensor([[0, 1], [1, 2], [0, 3], [2, 3]])
    distances = PairDistances(pairs, 4, boundaries)
    generator = torch.Generator().manual_seed(2)
    positions = torch.rand(3, 4, 3, generator=generator, dtype=F64) * 2 - 0.5
    if not boundaries.scaled:
        positions = positions @ box
    weights = torch.tensor([1.0, -0.5, 2.0, 0.7], dtype=F64)

    def energy(positions, box):
        return (distances(positions, box) ** 2 @ weights).sum()

    x, h = positions.clone().requires_grad_(), box.clone().requires_grad_()
    by_positions, by_box = torch.autograd.grad(energy(x, h), (x, h))
    step = 1e-6
    # An orthorhombic boundary rounds by the lengths alone, also while off-diagonals are displaced.
    for i, j in itertools.product(range(3), range(3)):
        shift = torch.zeros(3, 3, dtype=F64)
        shift[i, j] = step
        alone = (energy(positions, box + shift) - energy(positions, box - shift)) / (2 * step)
        torch.testing.assert_close(alone, by_box[i, j], rtol=1e-6, atol=1e-6)

        if boundaries.scaled:
            continue
        up, down = torch.eye(3, dtype=F64) + shift, torch.eye(3, dtype=F64) - shift
        strained = energy(positions @ up, box @ up) - energy(positions @ down, box @ down)
        virial = (positions.flatten(0, 1).T @ by_positions.flatten(0, 1) + box.T @ by_box)[i, j]
        torch.testing.assert_close(strained / (2 * step), virial, rtol=1e-6, atol=1e-6)


def test_box_of_another_kind_is_refused():
    pairs = torch.tensor([[0, 1]])
    x, box = torch.zeros(1, 2, 3), torch.eye(3)
    for boundaries in (open_boundaries(), TriclinicBox(box), OrthorhombicBox(torch.ones(3), True)):
        with pytest.raises(ValueError, match="box: expected none .*, got a tensor"):
            PairDistances(pairs, 2, boundaries)(x, box)
    with pytest.raises(ValueError, match=r"box: expected shape \(3, 3\), got none"):
        PairDistances(pairs, 2, RuntimeBox())(x)
    with pytest.raises(ValueError, match='shape: expected "triclinic" or "orthorhombic"'):
        RuntimeBox("x")


SINGULAR = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]])


@pytest.mark.parametrize(
    ("box", "error", "message"),
    [
        ([[1.0]], TypeError, "box: expected a torch tensor, got list"),
        (torch.eye(3, dtype=torch.int64), TypeError, "box: expected dtype float32 or float64"),
        (torch.ones(3), ValueError, r"box: expected shape \(3, 3\), got \(3,\)"),
        (torch.eye(3) * float("nan"), ValueError, "box: expected finite values, got nan"),
        (torch.eye(3) / 0, ValueError, "box: expected finite values, got inf"),
        (torch.zeros(3, 3), ValueError, "box: expected linearly independent vectors, got"),
        (SINGULAR, ValueError, "box: expected linearly independent vectors, got"),
        (
            torch.tensor([[1.0, 0, 0], [12345.0, 1, 0], [0.3, 54321.0, 1]]).double() * 1e-3,
            ValueError,
            "box: expected linearly independent vectors, got",
        ),
        (
            torch.tensor([[1.0, 0, 0], [12345.0, 1, 0], [0, 0, 1.0]]),
            ValueError,
            "box: expected less oblique lattice vectors, got",
        ),
    ],
)
def test_bad_boxes_are_refused_in_one_line(box, error, message):
    with pytest.raises(error, match=message) as caught:
        require_box(box)
    assert "\n" not in str(caught.value)


def test_good_boxes_pass():
    for box in ENGINE_BOXES.values():
        require_box(box)
        require_box(box.float() * 10)
    require_box(torch.diag(torch.tensor([1.0, 2.0, 3.0])), orthorhombic=True)
    for box in (octahedron(2.0), -torch.eye(3)):
        with pytest.raises(ValueError, match="box: expected positive lengths along x, y and z"):
            require_box(box, orthorhombic=True)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (None, "box: expected three edge lengths, got none"),
        (torch.tensor([1.0, 2.0]), r"box: expected shape \(3,\), got \(2,\)"),
        (torch.tensor([1.0, 0.0, 2.0]), "box: expected positive edge lengths"),
        (torch.tensor([1.0, float("nan"), 2.0]), "box: expected finite values"),
    ],
)
def test_bad_lengths_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        OrthorhombicBox(lengths, periodic=True)


@pytest.mark.parametrize("name", RUNTIME)
def test_a_copy_of_the_box_for_each_frame_gives_derivatives_for_each_frame(name):
    boundaries, box = RUNTIME[name]
    generator = torch.Generator().manual_seed(5)
    start = torch.zeros(3, 2, 4, 3, dtype=F64)
    end = torch.rand(3, 2, 4, 3, generator=generator, dtype=F64) * 5
    copies = box.expand(3, 3, 3).clone().requires_grad_()
    found = boundaries.displacement(start, end, copies)
    torch.testing.assert_close(found, boundaries.displacement(start, end, box))
    (slopes,) = torch.autograd.grad((found**2).sum(), copies)
    for frame in range(3):
        h = box.clone().requires_grad_()
        alone = boundaries.displacement(start[frame], end[frame], h)
        (expected,) = torch.autograd.grad((alone**2).sum(), h)
        torch.testing.assert_close(slopes[frame], expected)


@pytest.mark.parametrize("off", [1e-17, -1e-9])
def test_rounding_errors_off_the_axes_are_none(off):
    box = torch.diag(torch.tensor([2.0, 2.1, 1.9], dtype=F64))
    box[2, 1] = off
    require_box(box, orthorhombic=True)
    assert BoxCheck(True, None)(box) == ""
    pair = PairDistances(torch.tensor([[0, 1]]), 2, RuntimeBox("orthorhombic"))
    positions = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 1.9, -0.2]]], dtype=F64)
    expected = torch.tensor([[0.3, -0.2, -0.2]], dtype=F64).norm()
    torch.testing.assert_close(pair(positions, box).squeeze(), expected, rtol=1e-8, atol=0)
    with pytest.raises(ValueError, match="box: expected positive lengths along x, y and z"):
        require_box(
            box.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(1e-4).double()), True
        )


@pytest.mark.parametrize("convert", [torch.Tensor.tolist, torch.Tensor.numpy, lambda x: x])
def test_boxes_may_be_given_as_lists_arrays_or_tensors(convert):
    lengths = torch.tensor([0.1, 2.3, 1.7], dtype=F64)
    assert torch.equal(OrthorhombicBox(convert(lengths), periodic=True).lengths, lengths)
    vectors = torch.diag(lengths)
    assert torch.equal(TriclinicBox(convert(vectors)).vectors, vectors)


@pytest.mark.parametrize("box", ["3 nm", [1.0, "2", 3.0], None])
def test_what_is_no_box_is_refused_in_words(box):
    with pytest.raises((TypeError, ValueError), match="^box: expected "):
        OrthorhombicBox(box, periodic=True)
