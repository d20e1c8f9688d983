import copy
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import ofcv_export as ofcv
from ofcv_export.descriptors import Contacts, MultipleDescriptors
from ofcv_export.descriptors.boundaries import OrthorhombicBox, RuntimeBox, TriclinicBox
from ofcv_export.descriptors.distances import PairDistances, all_pairs
from ofcv_export.engines.engine_bias import EngineBias

ATOMS = [3, 5, 1, 0]
KJ_PER_KCAL = 4.184
BOX = np.array([[2.0, 0.0, 0.0], [0.5, 2.1, 0.0], [-0.4, 0.3, 1.9]])


def restraint(box=None, length_unit="nm", energy_unit="kJ/mol", elements=None):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ).double()
    distances = PairDistances(all_pairs(4), 4, box=box)
    cv = ofcv.CollectiveVariable(distances, network, ATOMS, length_unit, elements)
    return ofcv.HarmonicRestraint(cv, 0.2, 50.0, energy_unit)


@pytest.fixture
def exported(tmp_path):
    def export(name="bias.pt", bias=None, **options):
        path = tmp_path / name
        ofcv.export(restraint(**options) if bias is None else bias, path)
        return path

    return export


def engine(path, periodic=False, n_atoms=6, **options):
    units = {"length_unit": "nm", "energy_unit": "kJ/mol"}
    return EngineBias(path, n_atoms=n_atoms, periodic=periodic, **(units | options))


def positions(seed=0):
    return 0.3 * np.random.default_rng(seed).standard_normal((4, 3))


@pytest.mark.parametrize("suffix", ["pt", "onnx"])
def test_energy_and_forces_are_those_of_the_module(exported, suffix):
    bias = engine(exported(f"bias.{suffix}"))
    energy, derivatives = restraint().values_and_derivatives(torch.tensor(positions())[None])
    found = bias.evaluate(positions())
    assert found.energy == pytest.approx(energy.item(), rel=1e-12)
    np.testing.assert_allclose(found.forces, -derivatives[0, 0], rtol=1e-11, atol=1e-11)
    assert bias.atoms.tolist() == ATOMS
    assert bias.time_unit is None


@pytest.mark.parametrize("unit", ["A", "bohr"])
def test_an_engine_in_other_units(exported, unit):
    size = {"A": 0.1, "bohr": 0.0529177210903}[unit]
    path = exported()
    in_nm = engine(path).evaluate(positions())
    other = engine(path, length_unit=unit, energy_unit="kcal/mol")
    found = other.evaluate(positions() / size)
    assert found.energy * KJ_PER_KCAL == pytest.approx(in_nm.energy, rel=1e-12)
    np.testing.assert_allclose(found.forces * KJ_PER_KCAL / size, in_nm.forces, rtol=1e-10)
    np.testing.assert_allclose(
        found.strain_derivative * KJ_PER_KCAL, in_nm.strain_derivative, rtol=1e-10
    )


def test_an_artifact_in_other_units(exported):
    """A CV of distances in Angstrom and an energy in eV, in an engine with nm and kJ/mol."""
    path = exported(length_unit="A", energy_unit="eV")
    energy, derivatives = restraint(length_unit="A").values_and_derivatives(
        torch.tensor(10 * positions())[None]
    )
    found = engine(path).evaluate(positions())
    assert found.energy == pytest.approx(96.48533212331002 * energy.item(), rel=1e-12)
    expected = -964.8533212331002 * derivatives[0, 0].numpy()
    np.testing.assert_allclose(found.forces, expected, rtol=1e-10)


@pytest.mark.parametrize("shape", ["orthorhombic", "triclinic"])
def test_strain_derivative_is_a_central_difference(exported, shape):
    bias = engine(exported(box=RuntimeBox(shape)), periodic=True)
    box = BOX if shape == "triclinic" else np.diag(np.diag(BOX))
    x, step = positions() * 3, 1e-6
    found = bias.evaluate(x, box).strain_derivative
    for a in range(3):
        for b in range(3):
            if shape == "orthorhombic" and a != b:
                continue  # such a strain makes the box oblique
            strain = np.zeros((3, 3))
            strain[a, b] = step
            ends = [
                bias.evaluate(x @ (np.eye(3) + sign * strain), box @ (np.eye(3) + sign * strain))
                for sign in (1, -1)
            ]
            difference = (ends[0].energy - ends[1].energy) / (2 * step)
            assert found[a, b] == pytest.approx(difference, rel=1e-6, abs=1e-7 * abs(found).max())


def test_a_molecule_cut_by_the_box_is_made_whole(exported):
    bias = engine(exported(), periodic=True)
    images = np.array([[0, 0, 0], [1, -2, 0], [0, 3, -1], [-4, 0, 2]]) @ BOX
    whole = bias.evaluate(positions())
    cut = bias.evaluate(positions() + images, BOX)
    np.testing.assert_allclose(cut.forces, whole.forces, rtol=1e-9)
    np.testing.assert_allclose(cut.strain_derivative, whole.strain_derivative, rtol=1e-9)
    assert bias.evaluate(positions() + images).energy != pytest.approx(whole.energy)


def test_a_step_of_more_than_half_a_box_is_a_cut(exported):
    bias, box = engine(exported(), periodic=True), np.diag([2.0, 2.1, 1.9])
    whole = np.array([[0.1, 0.2, 0.0], [-0.6, 0.3, 0.1], [-0.5, 0.4, 0.9], [0.3, 0.1, 0.8]])
    cut = whole + np.array([[0], [1], [1], [0]]) * box[0]
    # No step is as long as the shortest lattice vector.
    assert np.linalg.norm(np.diff(cut, axis=0), axis=1).max() < 1.9
    np.testing.assert_allclose(
        bias.evaluate(cut, box).forces, bias.evaluate(whole).forces, rtol=1e-9
    )
    assert bias.evaluate(cut).energy != pytest.approx(bias.evaluate(whole).energy)


@pytest.mark.parametrize(
    "frozen",
    [
        OrthorhombicBox(torch.tensor([2.0, 2.1, 1.9]), periodic=True),
        TriclinicBox(torch.tensor(BOX)),
    ],
    ids=["orthorhombic", "triclinic"],
)
def test_a_frozen_box_must_be_the_engines(exported, frozen):
    vectors = np.diag([2.0, 2.1, 1.9]) if isinstance(frozen, OrthorhombicBox) else BOX
    path = exported(box=frozen)
    bias = engine(path, periodic=True)
    assert bias.evaluate(positions(), vectors * (1 + 1e-6)).strain_derivative is None
    with pytest.raises(ValueError, match=r"^box: expected the artifact's own \[\["):
        bias.evaluate(positions(), vectors * 1.01)
    with pytest.raises(ValueError, match=r"^box: expected shape \(3, 3\), got none"):
        bias.evaluate(positions())
    with pytest.raises(ValueError, match="^box: expected a periodic system"):
        engine(path)


def test_parameters(exported):
    bias = engine(exported(), parameters={"centre": 0.7})
    assert {name: value.tolist() for name, value in bias.parameters.items()} == {
        "centre": [0.7],
        "force_constant": [50.0],
    }
    before = bias.evaluate(positions()).energy
    bias.set_parameter("force_constant", 100.0)
    assert bias.evaluate(positions()).energy == pytest.approx(2 * before, rel=1e-12)
    with pytest.raises(ValueError, match="^parameters: expected centre, force_constant, got kappa"):
        bias.set_parameter("kappa", 1.0)
    with pytest.raises(ValueError, match=r"^centre: expected shape \(1,\), got \(2,\)"):
        bias.set_parameter("centre", [1.0, 2.0])
    with pytest.raises(ValueError, match="^centre: expected finite values"):
        bias.set_parameter("centre", np.inf)


def test_a_moving_restraint_knows_its_unit_of_time(exported):
    cv = ofcv.CollectiveVariable(PairDistances(all_pairs(4), 4), torch.nn.Linear(6, 1), ATOMS)
    bias = engine(exported(bias=ofcv.MovingRestraint(cv, [0.0, 1.0], [0.0, 1.0], [1.0, 1.0])))
    assert bias.time_unit == "ps"
    assert bias.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_atoms": 5}, "^atoms: expected indices below the system's 5 atoms, got 5$"),
        ({"length_unit": "pm"}, "^length_unit: expected nm, A, angstrom, bohr, got pm$"),
        ({"energy_unit": "kT"}, "^energy_unit: expected kJ/mol"),
        ({"elements": list("CHNOOC")}, r"^atoms: expected C as atom 3 \(zero-based\), got O$"),
    ],
)
def test_a_system_that_does_not_fit(exported, options, message):
    with pytest.raises(ValueError, match=message):
        engine(exported(elements=["C", "C", "H", "C"]), **options)


def test_elements_that_fit(exported):
    engine(exported(elements=["C", "C", "H", "O"]), elements=list("OHNCOC"))


def test_files_that_are_no_bias(exported):
    cv = ofcv.CollectiveVariable(PairDistances(all_pairs(4), 4), torch.nn.Linear(6, 1), ATOMS)
    with pytest.raises(ValueError, match="^model: expected a bias, whose values are in kJ/mol"):
        engine(exported(bias=cv))
    scaled = RuntimeBox("orthorhombic", scaled=True)
    with pytest.raises(ValueError, match="model: expected an artifact that takes positions"):
        engine(exported(box=scaled), periodic=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((5, 3)),), r"positions: expected shape \(4, 3\), got \(5, 3\)"),
        ((np.full((4, 3), np.nan),), "positions: expected finite values"),
        ((positions(), np.zeros((3, 3))), "box: expected positive lengths along x, y and z"),
        ((positions(), BOX), "box: expected positive lengths along x, y and z"),
        ((positions(),), r"box: expected shape \(3, 3\), got none"),
    ],
)
def test_calls_that_do_not_fit(exported, arguments, message):
    bias = engine(exported(box=RuntimeBox("orthorhombic")), periodic=True)
    with pytest.raises(ValueError, match=message):
        bias.evaluate(*arguments)


@pytest.mark.parametrize(("threads", "during"), [(None, 1), (2, 2), (0, 3)])
def test_threads_during_a_call_and_after_it(exported, monkeypatch, threads, during):
    """An engine owns the cores: one thread unless told otherwise, and nothing is left behind."""
    bias = engine(exported(), **({} if threads is None else {"threads": threads}))
    run, seen = bias._artifact.run, []
    monkeypatch.setattr(
        bias._artifact, "run", lambda x: (seen.append(torch.get_num_threads()), run(x))[1]
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        bias.evaluate(positions())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [during]


def test_a_negative_number_of_threads(exported):
    with pytest.raises(ValueError, match=r"^threads: expected 0 or more, got -1$"):
        engine(exported(), threads=-1)


def test_a_fixed_box_counts_whatever_describes_the_descriptors(tmp_path):
    """A switching function of the user's own has no description; its box is a fact all the same."""
    box = OrthorhombicBox(torch.tensor([3.0, 3.0, 3.0]), periodic=True)
    contacts = Contacts(torch.tensor([[0, 1]]), 2, lambda r: torch.exp(-r), box)
    cv = ofcv.CollectiveVariable(contacts, torch.nn.Identity(), elements=["O", "H"])
    ofcv.export(ofcv.Bias(cv), tmp_path / "bias.pt")
    assert ofcv.read_metadata(tmp_path / "bias.pt").details.descriptors is None
    with pytest.raises(ValueError, match="^box: expected the artifact's own"):
        engine(tmp_path / "bias.pt", periodic=True).evaluate(np.zeros((2, 3)), 5.0 * np.eye(3))
    scaled = OrthorhombicBox(torch.tensor([3.0, 3.0, 3.0]), periodic=True, scaled=True)
    contacts = Contacts(torch.tensor([[0, 1]]), 2, lambda r: torch.exp(-r), scaled)
    ofcv.export(
        ofcv.Bias(ofcv.CollectiveVariable(contacts, torch.nn.Identity())), tmp_path / "scaled.pt"
    )
    with pytest.raises(ValueError, match="got one that takes fractions of a box"):
        engine(tmp_path / "scaled.pt", periodic=True)


def test_a_lattice_translation_changes_nothing_where_only_a_part_takes_the_box(tmp_path):
    """One descriptor takes nearest images, the other wants a whole molecule."""
    torch.manual_seed(0)
    parts = [
        PairDistances(torch.tensor([[0, 1], [1, 2]]), 3, RuntimeBox()),
        PairDistances(torch.tensor([[0, 2], [0, 1]]), 3),
    ]
    network = torch.nn.Sequential(torch.nn.Linear(4, 1)).double()
    cv = ofcv.CollectiveVariable(MultipleDescriptors(parts), network)
    ofcv.export(ofcv.Bias(cv), tmp_path / "bias.pt")
    bias = engine(tmp_path / "bias.pt", periodic=True)
    places = 0.3 * positions()[:3]
    expected = bias.evaluate(places, BOX)
    images = np.array([[0, 0, 0], [1, -2, 0], [0, 3, -1]]) @ BOX
    found = bias.evaluate(places + images, BOX)
    assert found.energy == pytest.approx(expected.energy, rel=1e-12)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=1e-9, atol=1e-12)


def test_the_origin_is_of_no_matter_in_float32(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    cv = ofcv.CollectiveVariable(PairDistances(all_pairs(4), 4), network)
    ofcv.export(ofcv.Bias(cv), tmp_path / "bias.pt")
    bias = engine(tmp_path / "bias.pt")
    expected = bias.evaluate(positions())
    for distance in (300.0, 3000.0):
        found = bias.evaluate(positions() + distance)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(
            found.strain_derivative, expected.strain_derivative, rtol=2e-6, atol=1e-6
        )


def test_calls_from_several_threads_have_their_own_box_and_parameters(exported):
    bias = engine(exported(box=RuntimeBox("orthorhombic")), periodic=True)
    jobs = [(np.eye(3) * (1.5 + 0.1 * k), {"centre": 0.1 * k}) for k in range(8)]
    expected = [bias.evaluate(positions(), box, given).energy for box, given in jobs]
    assert len(set(expected)) == len(jobs)

    def call(number):
        box, given = jobs[number % len(jobs)]
        return bias.evaluate(positions(), box, given).energy == expected[number % len(jobs)]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(400)))


def test_another_call_in_the_middle_of_one_changes_nothing(exported, monkeypatch):
    """As another thread's, where LibTorch has released the interpreter's lock."""
    bias = engine(exported(box=RuntimeBox("orthorhombic")), periodic=True)
    calls = [(np.eye(3) * 1.5, {"centre": 0.1}), (np.eye(3) * 1.9, {"centre": 0.9})]
    expected = [bias.evaluate(positions(), *call) for call in calls]
    run, between = bias._artifact.run, []

    def interrupted(inputs):
        outputs = run(inputs)
        monkeypatch.setattr(bias._artifact, "run", run)
        between.append(bias.evaluate(positions(), *calls[1]))
        return outputs

    monkeypatch.setattr(bias._artifact, "run", interrupted)
    for found, alone in zip(
        [bias.evaluate(positions(), *calls[0]), *between], expected, strict=True
    ):
        assert found.energy == alone.energy
        assert np.array_equal(found.forces, alone.forces)
        assert np.array_equal(found.strain_derivative, alone.strain_derivative)


@pytest.mark.parametrize("copied", [lambda bias: pickle.loads(pickle.dumps(bias)), copy.deepcopy])
def test_a_copy_is_the_same_bias(exported, copied, tmp_path, monkeypatch):
    monkeypatch.chdir(exported().parent)
    bias = engine("bias.pt")
    bias.set_parameter("centre", 0.7)
    monkeypatch.chdir("/")
    assert copied(bias).evaluate(positions()).energy == bias.evaluate(positions()).energy


def test_a_copy_of_a_file_that_was_replaced_is_refused(exported):
    bias = engine(exported())
    pickled = pickle.dumps(bias)
    shutil.copy(exported("other.pt", length_unit="A"), bias._artifact.path)
    with pytest.raises(
        ValueError, match=f"^path: expected the file with SHA-256 {bias.digest}, got"
    ):
        pickle.loads(pickled)
