"""Graphs against mlcolvar's, against all images of all pairs, and reused against fresh searches."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ofcv_export.neighbours import Neighbourhood, pair_search

REFERENCE = Path(__file__).parents[1] / "reference" / "graph_cvs"
BOXES = {
    "open": None,
    "orthorhombic": np.diag([7.0, 9.0, 5.5]),
    "triclinic": np.array([[7.0, 0.0, 0.0], [3.2, 8.0, 0.0], [-2.9, 3.8, 6.0]]),
    "left-handed": np.array([[1.0, 7.0, 0.5], [8.0, -1.0, 0.3], [0.7, 2.0, 6.5]]),
    "very oblique": np.array([[6.0, 0.0, 0.0], [9.0, 6.0, 0.0], [-7.0, 8.0, 7.0]]),
}


def edges_of(graph):
    """Return the edges as a list of (sender, receiver, shift, mark), by atoms."""
    sender, receiver = graph.nodes[graph.edge_index]
    columns = (sender, receiver, *graph.cell_shifts.T, graph.long_range_mask)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def edges_of_all_images(settings, positions, box):
    """Return the set of edges, from every image of every pair."""
    system = settings["system"]
    reach = max(settings["cutoff"] + settings["buffer"], settings["long_range_cutoff"] or 0.0)
    lattice = np.zeros((3, 3)) if box is None else box
    shifts = np.zeros((1, 3))
    if box is not None:
        fractions = positions @ np.linalg.inv(box)
        planes = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
        most = np.ceil(reach / planes + np.ptp(fractions, axis=0)).astype(int)
        shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in most))))

    def images(i, j, radius):
        distances = np.linalg.norm(positions[j] - positions[i] + shifts @ lattice, axis=1)
        chosen = shifts[distances <= radius].astype(int).tolist()
        return [shift for shift in chosen if i != j or any(shift)]

    candidates = [
        atom
        for atom in settings["environment"]
        if any(images(i, atom, settings["cutoff"] + settings["buffer"]) for i in system)
    ]
    members = [(settings["cutoff"], 0, [*system, *candidates])]
    if settings["long_range_cutoff"] is not None:
        members.append((settings["long_range_cutoff"], 1, settings["subsystem"]))
    return {
        (i, j, *shift, mark)
        for radius, mark, atoms in members
        for i, j in itertools.product(atoms, repeat=2)
        for shift in images(i, j, radius)
    }


def require_graph(graph, edges, system):
    """Raise unless a graph has these edges and the nodes that belong to them, in order."""
    found = edges_of(graph)
    assert len(found) == len(set(found))
    assert set(found) == edges
    around = sorted({sender for sender, *_ in edges} - set(system))
    assert graph.nodes.tolist() == [*system, *around]
    assert graph.system_mask.tolist() == [1] * len(system) + [0] * len(around)
    order = [
        (mark, *graph.edge_index[:, k], *shift)
        for k, (*_, mark) in enumerate(found)
        for shift in [graph.cell_shifts[k].tolist()]
    ]
    assert order == sorted(order)
    for array in vars(graph).values():
        assert array.dtype == np.int64
    assert graph.edge_index.shape == (2, len(edges))
    assert graph.cell_shifts.shape == (len(edges), 3)


def require_same(graph, other):
    for name, array in vars(graph).items():
        np.testing.assert_array_equal(array, vars(other)[name], err_msg=name)


def settings_of(data):
    """Return the arguments of a search for the graphs of a reference file."""
    numbers = data["all_atomic_numbers"]
    is_nacl = 11 in numbers
    system = np.flatnonzero(np.isin(numbers, [11, 17]) if is_nacl else numbers != 1)
    long_range = float(data["long_range_cutoff"])
    return {
        "cutoff": float(data["cutoff"]),
        "n_atoms": len(numbers),
        "system": system.tolist(),
        "environment": np.flatnonzero(numbers == 8).tolist() if is_nacl else None,
        "buffer": float(data["buffer"]),
        "long_range_cutoff": long_range if long_range > 0 else None,
        "subsystem": system.tolist() if long_range > 0 else None,
    }


@pytest.mark.parametrize("skin", [0.0, 1.0])
@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.npz")), ids=lambda path: path.stem)
def test_graphs_are_those_of_mlcolvar(path, skin):
    data = np.load(path)
    settings = settings_of(data)
    search = Neighbourhood(**settings, skin=skin)
    for f in range(4):
        positions, box = data[f"all_positions_{f}"], data[f"box_{f}"]
        graph = search.find(positions, box if box.any() else None)
        # Their nodes have another order, and are known by where they are, to float32.
        distances = np.linalg.norm(data[f"positions_{f}"][:, None] - positions, axis=2)
        assert distances.min(axis=1).max() < 1e-5
        atoms = distances.argmin(axis=1)
        sender, receiver = atoms[data[f"edge_index_{f}"]].tolist()
        shifts = data[f"unit_shifts_{f}"].astype(int).tolist()
        marks = data[f"edge_masks_lr_{f}"][:, 0].astype(int).tolist()
        edges = {
            (i, j, *shift, mark)
            for i, j, shift, mark in zip(sender, receiver, shifts, marks, strict=True)
        }
        assert sorted(atoms) == sorted(graph.nodes)
        is_system = data[f"system_masks_{f}"][:, 0]
        require_graph(graph, edges, sorted(atoms[is_system].tolist()))


def random_settings(random, longest):
    """Return the arguments of a search in which system, environment and others are mixed."""
    n_atoms = int(random.integers(1, 10))
    atoms = random.permutation(n_atoms)
    n_system = int(random.integers(1, n_atoms + 1))
    system, rest = atoms[:n_system], atoms[n_system:]
    environment = rest[: random.integers(0, rest.size + 1)]
    cutoff = random.uniform(0.1, 1.0) * longest
    is_long = random.random() < 0.5
    return {
        "cutoff": cutoff,
        "n_atoms": n_atoms,
        "system": system.tolist(),
        "environment": environment.tolist(),
        "buffer": random.choice([0.0, 0.3 * longest]),
        "long_range_cutoff": random.uniform(1.01, 1.5) * cutoff if is_long else None,
        "subsystem": system[: random.integers(1, n_system + 1)].tolist() if is_long else None,
    }


@pytest.mark.parametrize("way", ["chosen", "direct", "vesin"])
@pytest.mark.parametrize("name", BOXES)
def test_graphs_have_all_images_within_reach(name, way, monkeypatch):
    if way == "direct":
        monkeypatch.setattr(pair_search, "_suits_vesin", lambda *_: False)
    if way == "vesin":
        monkeypatch.setattr(pair_search, "_MOST_PASSES", 0)
    random, box = np.random.default_rng(0), BOXES[name]
    for _ in range(15):
        # Cutoffs of up to 1.5 lengths of the box.
        settings = random_settings(random, 9.0)
        positions = random.uniform(-20.0, 20.0, (settings["n_atoms"], 3))
        if box is None:
            positions /= 3.0
        given = positions.copy()
        graph = Neighbourhood(**settings).find(positions, box)
        np.testing.assert_array_equal(positions, given)
        edges = edges_of_all_images(settings, positions, box)
        require_graph(graph, edges, settings["system"])


@pytest.mark.parametrize("name", BOXES)
def test_a_reused_search_gives_the_graph_of_a_fresh_one(name):
    random, box = np.random.default_rng(1), BOXES[name]
    for _ in range(4):
        settings = random_settings(random, 5.0)
        search = Neighbourhood(**settings, skin=1.0)
        positions = random.uniform(-8.0, 8.0, (settings["n_atoms"], 3))
        n_frames, present = 60, box
        for _ in range(n_frames):
            positions = positions + random.normal(0.0, 0.05, positions.shape)
            if box is not None:
                # The box breathes and shears, and space with it.
                strain = np.eye(3) + random.normal(0.0, 0.003, (3, 3))
                positions, present = positions @ strain, present @ strain
            graph = search.find(positions, present)
            require_same(graph, Neighbourhood(**settings).find(positions, present))
        assert 1 < search.rebuilds < n_frames / 2


@pytest.mark.parametrize(
    "settings",
    [
        {"cutoff": 2.0},
        {"cutoff": 0.5, "environment": [1], "buffer": 1.5},
        {"cutoff": 0.5, "long_range_cutoff": 2.0, "subsystem": [0, 1]},
    ],
    ids=["cutoff", "buffer", "long range"],
)
def test_a_search_is_reused_as_long_as_it_holds_and_no_longer(settings):
    # The largest radius is 2, searched to 3.
    box = np.diag([10.0, 10.0, 10.0])
    positions = np.array([[1.0, 1.0, 1.0], [3.95, 1.0, 1.0]])

    def rebuilds(moved, changed):
        search = Neighbourhood(**settings, n_atoms=2, skin=1.0)
        search.find(positions, box)
        search.find(moved, changed)
        return search.rebuilds

    step = np.array([[0.4999, 0.0, 0.0], [-0.4999, 0.0, 0.0]])
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert rebuilds(positions + step, box) == 1
    assert rebuilds(positions + 1.001 * step, box) == 2
    # (1 - sigma) (radius + skin) <= skin
    assert rebuilds(positions * 0.6667, box * 0.6667) == 1
    assert rebuilds(positions * 0.6666, box * 0.6666) == 2
    assert rebuilds(positions * 3.0, box * 3.0) == 1
    assert rebuilds(positions * 3.0 + 1.001 * step, box * 3.0) == 2
    assert rebuilds(positions @ turn, box @ turn) == 1
    # The box alone: the atoms move against it.
    assert rebuilds(positions, box * 1.1) == 1
    assert rebuilds(positions, box * 1.2) == 2
    assert rebuilds(positions, None) == 2
    assert rebuilds(positions + box[[2, 0]] * [[0.0], [1.0]], box) == 2


def test_without_a_skin_every_call_searches():
    search = Neighbourhood(2.0, n_atoms=1)
    for _ in range(3):
        search.find([[0.0, 0.0, 0.0]])
    assert search.rebuilds == 3


def test_environment_atoms_become_candidates_while_a_search_is_reused():
    search = Neighbourhood(2.0, n_atoms=3, system=[0], environment=[1, 2], buffer=1.0, skin=1.0)
    line = np.array([[0.0], [2.9], [3.3]]) * [1.0, 0.0, 0.0]
    assert search.find(line).nodes.tolist() == [0]
    line[2, 0] = 2.95
    assert search.find(line).edge_index.tolist() == [[1, 2], [2, 1]]
    assert search.rebuilds == 1


def test_callers_may_change_their_arrays():
    random, box = np.random.default_rng(2), np.diag([8.0, 8.0, 8.0])
    positions = random.uniform(0.0, 8.0, (6, 3))
    search = Neighbourhood(2.0, n_atoms=6, skin=0.5)
    for change in range(6):
        search.find(positions, box)
        if change % 2:
            positions += random.normal(0.0, 0.5, (6, 3))
        else:
            box *= 0.8
        require_same(
            search.find(positions, box), Neighbourhood(2.0, n_atoms=6).find(positions, box)
        )
    box[2] = box[1]
    with pytest.raises(ValueError, match="box: expected linearly independent vectors"):
        search.find(positions, box)


def test_pairs_exactly_at_the_cutoff_are_edges_in_both_directions():
    # A simple cubic lattice of 0.1 with sums that round.
    grid = np.array(list(itertools.product(range(3), repeat=3))) * 0.1
    graph = Neighbourhood(0.1, n_atoms=27).find(grid + 7.7, np.eye(3) * 0.3)
    found = edges_of(graph)
    assert {(j, i, -a, -b, -c, m) for i, j, a, b, c, m in found} == set(found)
    exact = Neighbourhood(2.0, n_atoms=2).find([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert exact.edge_index.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("n_atoms", [2, 300])
@pytest.mark.parametrize("box", [None, np.diag([1e6, 1e6, 1.0])], ids=["open", "flat box"])
def test_atoms_may_be_very_far_apart(box, n_atoms):
    # vesin 0.6 divides by zero here, which ends the process.
    positions = np.zeros((n_atoms, 3))
    positions[-1] = [1e6 / 2, 1e6 / 2, 0.0] if box is not None else [1e200, 0.0, 0.0]
    graph = Neighbourhood(0.5, n_atoms=n_atoms).find(positions, box)
    together = n_atoms - 1
    assert graph.edge_index.shape == (2, together * (together - 1))


def test_a_graph_without_edges_has_the_system_alone():
    graph = Neighbourhood(1.0, n_atoms=4, system=[2, 0], environment=[3], buffer=9.0).find(
        np.arange(12.0).reshape(4, 3)
    )
    require_graph(graph, set(), [2, 0])


def test_the_system_is_by_default_what_is_not_the_environment():
    search = Neighbourhood(1.5, n_atoms=3, environment=(atom for atom in [1]))
    graph = search.find([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert graph.nodes.tolist() == [0, 2, 1]


GOOD = {"cutoff": 2.0, "n_atoms": 5, "system": [0, 1], "environment": [3, 4]}
REFUSED = [
    ({"cutoff": 0.0}, "cutoff: expected a positive number, got 0.0"),
    ({"cutoff": "far"}, "cutoff: expected a number, got str"),
    ({"n_atoms": 0}, "n_atoms: expected a positive integer, got 0"),
    ({"buffer": -1.0}, "buffer: expected a finite number of at least 0, got -1.0"),
    ({"skin": np.inf}, "skin: expected a finite number of at least 0, got inf"),
    ({"skin": "thin"}, "skin: expected a number, got str"),
    (
        {"environment": None, "buffer": 1.0},
        "buffer: expected 0 without an environment, got 1.0",
    ),
    ({"system": [0, 5]}, "system: expected indices in [0, 5), got 5 at position 1"),
    ({"environment": [-1]}, "environment: expected indices in [0, 5), got -1 at position 0"),
    ({"system": [1, 0, 1]}, "system: expected distinct indices, got 1 more than once"),
    ({"system": [0.5]}, "system: expected integers, got dtype float64"),
    ({"system": [True]}, "system: expected integers, got dtype bool"),
    ({"system": [[0, 1]]}, "system: expected shape (n,), got (1, 2)"),
    ({"system": []}, "system: expected at least one atom, got none"),
    ({"environment": [4, 1]}, "environment: expected atoms that are not in system, got 1"),
    (
        {"long_range_cutoff": 3.0, "subsystem": [0, 3]},
        "subsystem: expected atoms of system, got 3",
    ),
    (
        {"long_range_cutoff": 3.0, "subsystem": []},
        "subsystem: expected at least one atom, got none",
    ),
    (
        {"long_range_cutoff": 3.0},
        "subsystem: expected atoms for long_range_cutoff, got none",
    ),
    ({"subsystem": [0]}, "long_range_cutoff: expected one for subsystem, got none"),
    (
        {"long_range_cutoff": 2.0, "subsystem": [0]},
        "long_range_cutoff: expected more than the cutoff of 2.0, got 2.0",
    ),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED)
def test_settings_that_make_no_sense_are_refused(changed, message):
    with pytest.raises((ValueError, TypeError, IndexError), match=f"^{re.escape(message)}$"):
        Neighbourhood(**{**GOOD, **changed})


X = np.arange(15.0).reshape(5, 3)
REFUSED_FRAMES = [
    (X[:4], None, "positions: expected shape (5, 3), got (4, 3)"),
    (
        np.where(X == 7.0, np.nan, X),
        None,
        "positions: expected finite values, got nan at index (2, 1)",
    ),
    (X * 1j, None, "positions: expected real numbers, got dtype complex128"),
    ("here", None, "positions: expected an array of numbers, got str"),
    (X, np.eye(2), "box: expected shape (3, 3), got (2, 2)"),
    (X, np.diag([1.0, np.inf, 1.0]), "box: expected finite values, got inf at index (1, 1)"),
    (
        X,
        np.zeros((3, 3)),
        "box: expected linearly independent vectors, got "
        "[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]",
    ),
    (
        X,
        np.diag([9.0, 9.0, 0.19]),
        "box: expected one whose planes are at least 0.2 apart for radii of up to 2, got 0.19",
    ),
    (
        X * 1e12,
        np.diag([9.0, 9.0, 9.0]),
        "positions: expected atoms within 1000000000 lattice vectors of the origin, "
        "got atom 0 beyond",
    ),
]


@pytest.mark.parametrize(("positions", "box", "message"), REFUSED_FRAMES)
def test_bad_frames_are_refused_and_leave_the_search_as_it_was(positions, box, message):
    search = Neighbourhood(**GOOD, skin=0.0)
    fresh = search.find(X, np.eye(3) * 9.0)
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        search.find(positions, box)
    require_same(search.find(X, np.eye(3) * 9.0), fresh)


def test_a_missing_vesin_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "vesin", None)
    message = (
        "vesin: expected vesin for a neighbourhood, got none installed "
        "(pip install 'ofcv-export[graphs]')"
    )
    with pytest.raises(ImportError, match=re.escape(message)):
        Neighbourhood(**GOOD).find(X)
