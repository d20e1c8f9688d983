"""Every descriptor in every kind of box: values, derivatives, graphs, properties, singularities."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofcv_export import CollectiveVariable, SmartDerivatives, export
from ofcv_export.descriptors.adjacency import AdjacencyEigenvalues
from ofcv_export.descriptors.alignment import AlignedPositions
from ofcv_export.descriptors.angles import Angles
from ofcv_export.descriptors.boundaries import (
    OrthorhombicBox,
    RuntimeBox,
    TriclinicBox,
    open_boundaries,
)
from ofcv_export.descriptors.contacts import Contacts
from ofcv_export.descriptors.coordination import CoordinationNumbers
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.descriptors.histogram import ContinuousHistogram
from ofcv_export.descriptors.inverse_distances import InverseDistances
from ofcv_export.descriptors.multiple import MultipleDescriptors
from ofcv_export.descriptors.rmsd import RMSD
from ofcv_export.descriptors.switching import Fermi, Rational, Step
from ofcv_export.descriptors.torsions import Torsions
from tests.builders.systems import dense_jacobian

F64 = torch.float64
N_ATOMS = 6
LENGTHS = torch.tensor([2.0, 3.0, 2.5], dtype=F64)
SKEWED = torch.tensor([[2.2, 0, 0], [0.9, 2.3, 0], [-0.7, 1.0, 2.0]], dtype=F64)

# Name: boundaries, and the box to give at run time.
BOXES = {
    "open": (open_boundaries(), None),
    "orthorhombic": (OrthorhombicBox(LENGTHS, periodic=True), None),
    "orthorhombic, scaled": (OrthorhombicBox(LENGTHS, periodic=True, scaled=True), None),
    "triclinic": (TriclinicBox(SKEWED), None),
    "triclinic, scaled": (TriclinicBox(SKEWED, scaled=True), None),
    "run time": (RuntimeBox(), SKEWED),
    "run time, scaled": (RuntimeBox(scaled=True), SKEWED),
    "run time, orthorhombic": (RuntimeBox("orthorhombic"), torch.diag(LENGTHS)),
}
PAIRS = torch.tensor([[0, 1], [2, 5], [4, 3]])
GROUP_A, GROUP_B = torch.tensor([1, 4]), torch.tensor([0, 2, 4, 5])
TRIPLES = torch.tensor([[0, 1, 2], [5, 3, 1]])
CHAINS = torch.tensor([[0, 2, 3, 5], [4, 1, 0, 3]])
MODES = ("angle", "sin", "cos")
CHOSEN = torch.tensor([5, 0, 3, 2])
WEIGHTS = torch.tensor([12.0, 1.0, 16.0, 14.0], dtype=F64)
REFERENCE = torch.tensor(
    [[0.1, 0.5, -0.2], [0.7, -0.3, 0.1], [-0.4, 0.2, 0.6], [0.0, -0.6, -0.5]], dtype=F64
)

MAKERS = {
    "distances": lambda box: PairDistances(PAIRS, N_ATOMS, box),
    "inverse distances": lambda box: InverseDistances(PAIRS, N_ATOMS, box),
    "contacts": lambda box: Contacts(PAIRS, N_ATOMS, Rational(0.9, dmax=3.0), box),
    "angles": lambda box: Angles(TRIPLES, N_ATOMS, MODES, box),
    "torsions": lambda box: Torsions(CHAINS, N_ATOMS, MODES, box),
    "coordination": lambda box: CoordinationNumbers(
        GROUP_A, GROUP_B, N_ATOMS, Fermi(0.9, q=0.3), None, box
    ),
    "coordination to dmax": lambda box: CoordinationNumbers(
        GROUP_A, GROUP_B, N_ATOMS, Rational(0.9, dmax=1.6), 1.6, box
    ),
    "discontinuous coordination": lambda box: CoordinationNumbers(
        GROUP_A, GROUP_B, N_ATOMS, Step(1.0), None, box
    ),
    "adjacency": lambda box: AdjacencyEigenvalues(N_ATOMS, Fermi(0.9, q=0.3), box),
    "histogram": lambda box: ContinuousHistogram(
        PairDistances(PAIRS, N_ATOMS, box), 0.1, 1.7, 5, 0.8
    ),
    "aligned positions": lambda box: AlignedPositions(REFERENCE, N_ATOMS, CHOSEN, WEIGHTS, box),
    "rmsd": lambda box: RMSD(REFERENCE, N_ATOMS, CHOSEN, WEIGHTS, box),
    "multiple": lambda box: MultipleDescriptors(
        [Torsions(CHAINS, N_ATOMS, ("cos",), box), PairDistances(PAIRS, N_ATOMS)]
    ),
}

every_descriptor = pytest.mark.parametrize("name", MAKERS)
every_box = pytest.mark.parametrize("box", BOXES)


def made(name, box):
    boundaries, given = BOXES[box]
    descriptor = MAKERS[name](boundaries)
    return descriptor, given if descriptor.takes_box else None


def positions_in(box, n_frames=4, seed=3):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randn(n_frames, N_ATOMS, 3, generator=generator, dtype=F64)
    return positions * 0.4 if BOXES[box][0].scaled else positions


class Formulas:
    """The same descriptors in NumPy, with brute force over the images of a box."""

    def __init__(self, box):
        boundaries, given = BOXES[box]
        self.scaled = boundaries.scaled
        if box == "open":
            self.cell = None
        elif given is not None:
            self.cell = given.numpy()
        elif isinstance(boundaries, TriclinicBox):
            self.cell = SKEWED.numpy()
        else:
            self.cell = np.diag(LENGTHS.numpy())

    def vector(self, start, end):
        v = end - start
        if self.cell is None:
            return v
        v = v @ self.cell if self.scaled else v
        v = v - np.round(v @ np.linalg.inv(self.cell)) @ self.cell
        steps = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), axis=-1).reshape(-1, 3)
        images = v + steps @ self.cell
        return images[np.argmin((images**2).sum(1))]

    def distance(self, r, i, j):
        return np.linalg.norm(self.vector(r[i], r[j]))

    def distances(self, r):
        return [self.distance(r, i, j) for i, j in PAIRS.tolist()]

    def inverse_distances(self, r):
        return [1 / d for d in self.distances(r)]

    def rational(self, d, dmax):
        s = (1 - (d / 0.9) ** 6) / (1 - (d / 0.9) ** 12)
        at_dmax = (1 - (dmax / 0.9) ** 6) / (1 - (dmax / 0.9) ** 12)
        return (s - at_dmax) / (1 - at_dmax)

    def fermi(self, d):
        return 1 / (1 + np.exp((d - 0.9) / 0.3))

    def contacts(self, r):
        return [self.rational(d, 3.0) for d in self.distances(r)]

    def angles(self, r):
        out = []
        for a, b, c in TRIPLES.tolist():
            u, v = self.vector(r[b], r[a]), self.vector(r[b], r[c])
            t = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
            out += [t, np.sin(t), np.cos(t)]
        return out

    def torsion(self, r, chain):
        ab, bc, cd = (self.vector(r[i], r[j]) for i, j in itertools.pairwise(chain))
        axis = bc / np.linalg.norm(bc)
        u, w = -ab + (ab @ axis) * axis, cd - (cd @ axis) * axis
        return math.atan2(np.cross(axis, u) @ w, u @ w)

    def torsions(self, r):
        found = [self.torsion(r, chain) for chain in CHAINS.tolist()]
        return [value for t in found for value in (t, np.sin(t), np.cos(t))]

    def coordinations(self, r, s):
        return [
            sum(s(self.distance(r, a, b)) for b in GROUP_B.tolist() if b != a)
            for a in GROUP_A.tolist()
        ]

    def coordination(self, r):
        return self.coordinations(r, self.fermi)

    def coordination_to_dmax(self, r):
        return self.coordinations(r, lambda d: self.rational(d, 1.6) if d <= 1.6 else 0.0)

    def discontinuous_coordination(self, r):
        return self.coordinations(r, lambda d: float(d < 1.0))

    def adjacency(self, r):
        matrix = np.zeros((N_ATOMS, N_ATOMS))
        for i in range(N_ATOMS):
            for j in range(i):
                matrix[i, j] = matrix[j, i] = self.fermi(self.distance(r, i, j))
        return np.linalg.eigvalsh(matrix)

    def histogram(self, r):
        centres = np.linspace(0.1, 1.7, 5)
        x = np.array(self.distances(r))[:, None]
        return np.exp(-0.5 * ((x - centres) / (0.8 * 0.4)) ** 2).sum(0)

    def superposed(self, r):
        """Kabsch's solution by a singular value decomposition."""
        first = int(CHOSEN[0])
        x = np.stack([self.vector(r[first], r[i]) for i in CHOSEN.tolist()])
        w = WEIGHTS.numpy()[:, None] / WEIGHTS.sum().item()
        y = REFERENCE.numpy()
        centroid = (w * y).sum(0)
        x, y = x - (w * x).sum(0), y - centroid
        u, _, vt = np.linalg.svd((w * y).T @ x)
        u[:, 2] *= np.sign(np.linalg.det(u @ vt))
        return x @ (u @ vt).T, y, w, centroid

    def aligned_positions(self, r):
        x, _, _, centroid = self.superposed(r)
        return (x + centroid).ravel()

    def rmsd(self, r):
        x, y, w, _ = self.superposed(r)
        return [np.sqrt((w * (x - y) ** 2).sum())]

    def multiple(self, r):
        cosines = [np.cos(self.torsion(r, chain)) for chain in CHAINS.tolist()]
        return cosines + [np.linalg.norm(r[j] - r[i]) for i, j in PAIRS.tolist()]


def dense(descriptor, blocks):
    pattern = descriptor.pattern()
    out = blocks.new_zeros(len(blocks), pattern.n_descriptors, pattern.n_atoms, 3)
    out[:, pattern.descriptor_index, pattern.atom_index] = blocks
    return out


def central_differences(function, at, step=1e-6):
    """Return d(function)/d(at) for every component of `at`, the last dimensions of the result."""
    slopes = []
    for index in range(at.numel()):
        shift = torch.zeros_like(at).flatten()
        shift[index] = step
        slopes.append(
            (function(at + shift.view_as(at)) - function(at - shift.view_as(at))) / (2 * step)
        )
    return torch.stack(slopes, dim=-1).unflatten(-1, at.shape)


@every_box
@every_descriptor
def test_values_equal_numpys(name, box):
    descriptor, given = made(name, box)
    positions = positions_in(box)
    formula = getattr(Formulas(box), name.replace(" ", "_"))
    expected = torch.from_numpy(np.stack([formula(r) for r in positions.numpy()]))
    values = descriptor(positions, given)
    assert values.shape == (4, descriptor.n_descriptors)
    torch.testing.assert_close(values, expected, rtol=1e-11, atol=1e-11)


@every_box
@every_descriptor
def test_derivatives_equal_autograd_and_central_differences(name, box):
    descriptor, given = made(name, box)
    positions = positions_in(box)
    values, blocks = descriptor.jacobian(positions, given)
    torch.testing.assert_close(values, descriptor(positions, given), rtol=1e-12, atol=1e-12)
    found = dense(descriptor, blocks)
    by_autograd = dense_jacobian(lambda r: descriptor(r, given), positions)
    torch.testing.assert_close(found, by_autograd, rtol=1e-10, atol=1e-10)
    for frame in range(2):
        slopes = central_differences(lambda r: descriptor(r[None], given)[0], positions[frame])
        torch.testing.assert_close(found[frame], slopes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("box", ["run time", "run time, scaled", "run time, orthorhombic"])
@every_descriptor
def test_box_derivatives_equal_central_differences(name, box):
    descriptor, given = made(name, box)
    positions = positions_in(box, n_frames=1)
    found = torch.autograd.functional.jacobian(lambda h: descriptor(positions, h)[0], given)
    slopes = central_differences(lambda h: descriptor(positions, h)[0], given)
    torch.testing.assert_close(found, slopes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MAKERS if "coordination to" not in name])
def test_second_derivatives(name):
    descriptor, given = made(name, "run time")
    positions = positions_in("run time", n_frames=1).requires_grad_()
    box = given.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(descriptor, (positions, box), atol=1e-4, rtol=1e-4)


@every_box
@every_descriptor
def test_script_and_float32(name, box):
    descriptor, given = made(name, box)
    positions = positions_in(box)
    scripted = torch.jit.script(descriptor)
    torch.testing.assert_close(
        scripted(positions, given), descriptor(positions, given), rtol=1e-13, atol=1e-13
    )
    single = descriptor(positions.float(), None if given is None else given.float())
    assert single.dtype == torch.float32
    exact = descriptor(positions.float().double(), given)
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("box", ["open", "triclinic, scaled", "run time"])
@every_descriptor
def test_export_with_a_dynamic_batch(name, box):
    descriptor, given = made(name, box)
    inputs = (positions_in(box, 3), given)
    shapes = ({0: torch.export.Dim("batch")}, None)
    program = torch.export.export(descriptor, inputs, dynamic_shapes=shapes)
    others = positions_in(box, 7, seed=8)
    torch.testing.assert_close(
        program.module()(others, given), descriptor(others, given), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("name", [name for name in MAKERS if "discontinuous" not in name])
def test_smart_derivatives_accepts_every_descriptor(name):
    descriptor, _ = made(name, "triclinic")
    positions = positions_in("triclinic")
    smart = SmartDerivatives(force_all_atoms=True)
    dataset = smart.setup({"data": positions}, descriptor, N_ATOMS)
    x = torch.randn(4, descriptor.n_descriptors, dtype=F64)
    expected = torch.einsum("bd,bdax->bax", x, dense_jacobian(descriptor, positions))
    torch.testing.assert_close(smart(x, dataset["ref_idx"]), expected, rtol=1e-8, atol=1e-8)


seeds = st.integers(0, 2**31 - 1)


def random_rotation(seed):
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=F64))
    return q * torch.linalg.det(q)


@pytest.mark.parametrize("box", ["open", "orthorhombic", "triclinic", "run time, scaled"])
@every_descriptor
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_invariances(name, box, seed):
    descriptor, given = made(name, box)
    positions = positions_in(box, 3, seed)
    values = descriptor(positions, given)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(3, generator=generator)
    torch.testing.assert_close(descriptor(positions[order], given), values[order])

    shift = torch.randn(3, 1, 3, generator=generator, dtype=F64)
    torch.testing.assert_close(descriptor(positions + shift, given), values, rtol=1e-6, atol=1e-6)
    if box == "open":
        turned = positions @ random_rotation(seed).T
        torch.testing.assert_close(descriptor(turned, given), values, rtol=1e-6, atol=1e-6)
    elif name != "multiple":
        n = torch.randint(-2, 3, positions.shape, generator=generator).double()
        cell = torch.from_numpy(Formulas(box).cell)
        moved = positions + (n if BOXES[box][0].scaled else n @ cell)
        torch.testing.assert_close(descriptor(moved, given), values, rtol=1e-6, atol=1e-6)


def first_and_second_derivatives(descriptor, positions, given=None):
    x = positions.clone().requires_grad_()
    values = descriptor(x, given)
    weights = torch.arange(1.0, values.shape[1] + 1, dtype=x.dtype)
    (first,) = torch.autograd.grad((values @ weights).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * first).sum() + first.sum(), x)
    return values, first, second


FLAT = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [3, 0, 0]])
NOT_TWICE = ("adjacency",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_descriptor
def test_coincident_and_collinear_atoms_give_finite_answers(name, dtype):
    for box in ("open", "orthorhombic", "run time"):
        descriptor, given = made(name, box)
        for frame in (FLAT, torch.zeros(N_ATOMS, 3), FLAT * 0.3):
            positions = frame.to(dtype)[None]
            x = positions.clone().requires_grad_()
            values, first, second = (
                first_and_second_derivatives(descriptor, x, given)
                if name not in NOT_TWICE
                else (descriptor(x, given), *torch.autograd.grad(descriptor(x, given).sum(), x), x)
            )
            for tensor in (values, first, second, *descriptor.jacobian(positions, given)):
                assert torch.isfinite(tensor).all()


def test_documented_answers_at_singular_geometries():
    frame = FLAT.double()[None]
    pair = torch.tensor([[0, 1]])
    for descriptor in (PairDistances(pair, N_ATOMS), InverseDistances(pair, N_ATOMS)):
        values, first, second = first_and_second_derivatives(descriptor, frame)
        assert not torch.cat([values.flatten(), first.flatten(), second.flatten()]).any()
        assert not descriptor.jacobian(frame)[1].any()
    torsion = Torsions(torch.tensor([[1, 2, 3, 4]]), N_ATOMS, MODES)
    values, first, second = first_and_second_derivatives(torsion, frame)
    assert values.tolist() == [[0.0, 0.0, 1.0]]
    assert not torch.cat([first, second]).any()
    assert not torsion.jacobian(frame)[1].any()
    angle = Angles(torch.tensor([[1, 2, 3]]), N_ATOMS)
    values, first, _ = first_and_second_derivatives(angle, frame)
    assert values.item() == pytest.approx(math.pi)
    assert not first.any()
    rmsd = RMSD(REFERENCE, 4)
    values, _, _ = first_and_second_derivatives(rmsd, REFERENCE[None])
    assert values.item() < 1e-15


def test_mirror_image_is_not_superposed():
    mirrored = REFERENCE * torch.tensor([1.0, 1.0, -1.0])
    assert RMSD(REFERENCE, 4)(mirrored[None]).item() > 0.1


def test_nearly_collinear_structures_are_superposed():
    rod = torch.tensor([[0.0, 0, 0], [1, 0.002, 0], [2, 0, 0.003], [3, -0.001, 0]], dtype=F64)
    turned = (rod @ random_rotation(4).T + 1.0)[None]
    aligned = AlignedPositions(rod, 4)(turned).reshape(4, 3)
    torch.testing.assert_close(aligned, rod, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: PairDistances(torch.tensor([[0, 6]]), 6),
            IndexError,
            r"pairs: expected indices in \[0, 6\), got 6",
        ),
        (
            lambda: PairDistances(torch.tensor([[1, 1]]), 6),
            ValueError,
            r"pairs: expected distinct atoms, got \[1, 1\]",
        ),
        (
            lambda: PairDistances(torch.tensor([0, 1]), 6),
            ValueError,
            r"pairs: expected shape \(n, 2\), got \(2,\)",
        ),
        (
            lambda: PairDistances(torch.zeros(0, 2).long(), 6),
            ValueError,
            "pairs: expected at least one atom, got none",
        ),
        (
            lambda: PairDistances(torch.tensor([[0.0, 1.0]]), 6),
            TypeError,
            "pairs: expected dtype int64 or int32",
        ),
        (lambda: Torsions(CHAINS, 6, ("tan",)), ValueError, "modes: expected some of"),
        (
            lambda: CoordinationNumbers(torch.tensor([1]), torch.tensor([1]), 6, Fermi(1.0)),
            ValueError,
            "group_b: expected an atom other",
        ),
        (
            lambda: RMSD(torch.arange(9.0).reshape(3, 3), 3),
            ValueError,
            "reference: expected at least three atoms that are not on a line",
        ),
        (
            lambda: RMSD(REFERENCE, 4, weights=torch.tensor([1.0, 1, 0, 1])),
            ValueError,
            "weights: expected positive numbers",
        ),
        (
            lambda: RMSD(REFERENCE, 5),
            ValueError,
            r"reference: expected shape \(5, 3\), got \(4, 3\)",
        ),
        (
            lambda: ContinuousHistogram(PairDistances(PAIRS, 6), 2.0, 1.0, 5),
            ValueError,
            "minimum, maximum: expected two ascending",
        ),
        (
            lambda: MultipleDescriptors([]),
            ValueError,
            "descriptors: expected at least one descriptor, got none",
        ),
        (
            lambda: MultipleDescriptors([PairDistances(PAIRS, 6), PairDistances(PAIRS, 7)]),
            ValueError,
            r"same number of atoms in all, got \[6, 7\]",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_all_pairs_are_in_mlcolvars_order():
    assert all_pairs(3).tolist() == [[0, 1], [0, 2], [1, 2]]


BENT = torch.tensor([[-0.116, 0, 0], [0, 0.02, 0], [0.116, 0, 0]], dtype=F64)
LINE = torch.tensor([-0.116, 0.0, 0.116], dtype=F64)
AXES = torch.eye(3, dtype=F64)


def kabsch(x, y):
    """Return the least root-mean-square deviation from the singular values of the correlation."""
    x, y = x - x.mean(0), y - y.mean(0)
    u, sizes, v = torch.linalg.svd(y.T @ x)
    handedness = torch.sign(torch.linalg.det(u) * torch.linalg.det(v))
    most = sizes[0] + sizes[1] + handedness * sizes[2]
    return ((x.square().sum() + y.square().sum() - 2 * most) / len(x)).sqrt()


@pytest.mark.parametrize(
    ("reference", "positions"),
    [
        *((BENT, LINE[:, None] * axis) for axis in AXES),
        (BENT, LINE[:, None] * torch.nn.functional.normalize(AXES.sum(0), dim=0)),
        (BENT, torch.zeros(3, 3, dtype=F64)),
        (REFERENCE - REFERENCE.mean(0), -(REFERENCE - REFERENCE.mean(0))),
        # Its mirror image fits a square pyramid turned by any angle equally well.
        (torch.cat([AXES[:2], -AXES[:2], 0.5 * AXES[2:]]),
         torch.cat([AXES[:2], -AXES[:2], -0.5 * AXES[2:]])),
    ],
)  # fmt: skip
def test_rmsd_is_the_minimum_without_a_torque_where_several_rotations_are_best(
    reference, positions
):
    x = (positions + 0.3).requires_grad_()
    value = RMSD(reference, len(reference))(x[None])[0, 0]
    (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == pytest.approx(kabsch(positions, reference).item(), rel=1e-7)
    torque = torch.linalg.cross(positions - positions.mean(0), gradient).sum(0)
    torch.testing.assert_close(torque, torch.zeros(3, dtype=F64), rtol=0, atol=1e-7)
    torch.testing.assert_close(gradient.sum(0), torch.zeros(3, dtype=F64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("cutoff", [None, 1.5])
def test_an_atom_of_both_groups_has_no_distance_from_itself(cutoff):
    group = torch.arange(4)
    coordination = CoordinationNumbers(group, group, 4, lambda r: 1 / r, cutoff=cutoff)
    x = torch.randn(2, 4, 3, dtype=F64, requires_grad=True)
    values = coordination(x)
    expected = torch.zeros(2, 4, dtype=F64)
    for a, b in itertools.permutations(range(4), 2):
        r = (x[:, a] - x[:, b]).norm(dim=1)
        expected[:, a] = expected[:, a] + torch.where(r <= (cutoff or r.max()), 1 / r, 0)
    torch.testing.assert_close(values, expected)
    (found,), (judge,) = (torch.autograd.grad(v.sum(), x) for v in (values, expected))
    torch.testing.assert_close(found, judge)
    blocks = coordination.jacobian(x.detach())[1]
    dense = torch.zeros(2, 4, 4, 3, dtype=F64)
    pattern = coordination.pattern()
    dense[:, pattern.descriptor_index, pattern.atom_index] = blocks
    torch.testing.assert_close(dense, dense_jacobian(coordination, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [RMSD, AlignedPositions])
def test_superpositions_run_in_onnx(tmp_path, make, dtype):
    descriptor = make(REFERENCE, 4)
    cv = CollectiveVariable(descriptor, torch.nn.Linear(descriptor.n_descriptors, 1).to(dtype))
    report = export(cv, tmp_path / "cv.onnx")
    assert report.passed
    assert report.tolerance < 1e-4


@every_box
@every_descriptor
def test_no_frames(name, box):
    descriptor, given = made(name, box)
    n, positions = descriptor.n_descriptors, positions_in(box)[:0]
    variable = CollectiveVariable(descriptor, torch.nn.Linear(n, 2).to(F64))
    found = variable.values_and_derivatives(positions, given)
    shapes = [(0, 2), (0, 2, N_ATOMS, 3), (0, 2, 3, 3)]
    assert [output.shape for output in found] == shapes[: len(found)]
    assert len(found) == 2 + (given is not None)
    if given is None:
        values, blocks = descriptor.jacobian(positions)
        assert (len(values), len(blocks)) == (0, 0)


class Lifted(PairDistances):
    """Distances, and with each the height of an atom: not the same anywhere."""

    def forward(self, positions, box=None):
        return super().forward(positions, box) + positions[:, :1, 2]


class Degrees(Torsions):
    def forward(self, positions, box=None):
        return torch.rad2deg(super().forward(positions, box))


class Halved(MultipleDescriptors):
    def forward(self, positions, box=None):
        return super().forward(positions, box) / 2


def test_a_subclass_is_not_described_as_its_base():
    for made in (
        Lifted(PAIRS, N_ATOMS),
        Degrees(CHAINS, N_ATOMS),
        Halved([Torsions(CHAINS, N_ATOMS)]),
        MultipleDescriptors([Lifted(PAIRS, N_ATOMS), PairDistances(PAIRS, N_ATOMS)]),
    ):
        assert made.specification() is None
        assert made.periods() == [None] * made.n_descriptors
