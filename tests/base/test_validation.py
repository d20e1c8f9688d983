import warnings

import numpy as np
import pytest
import torch

import ofcv_export as ofcv
from ofcv_export.base import validation
from ofcv_export.base.arrays import as_tensor
from ofcv_export.density.local_frames import local_frames
from ofcv_export.descriptors import PairDistances


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (
            lambda: validation.require_shape("x", torch.zeros(2, 3), ("batch", 4)),
            ValueError,
            "x: expected shape (batch, 4), got (2, 3)",
        ),
        (
            lambda: validation.require_shape("x", torch.zeros(2), ("batch", 4)),
            ValueError,
            "x: expected shape (batch, 4), got (2,)",
        ),
        (
            lambda: validation.require_floating("x", torch.zeros(2, dtype=torch.float16)),
            TypeError,
            "x: expected dtype float32 or float64, got float16",
        ),
        (
            lambda: validation.require_integer("i", torch.zeros(2)),
            TypeError,
            "i: expected dtype int64 or int32, got float32",
        ),
        (
            lambda: validation.require_finite("x", torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])),
            ValueError,
            "x: expected finite values, got nan at index (1, 0)",
        ),
        (
            lambda: validation.require_finite("x", torch.tensor([0.0, float("-inf")])),
            ValueError,
            "x: expected finite values, got -inf at index (1,)",
        ),
        (
            lambda: validation.require_in_range("i", torch.tensor([0, 4, -1]), 0, 4),
            IndexError,
            "i: expected indices in [0, 4), got 4 at position 1",
        ),
        (
            lambda: validation.require_positive("n", 0),
            ValueError,
            "n: expected a positive integer, got 0",
        ),
        (
            lambda: validation.require_positive("n", True),
            ValueError,
            "n: expected a positive integer, got True",
        ),
        (
            lambda: validation.to_float_tensor("x", np.arange(3)),
            TypeError,
            "x: expected floating-point values, got dtype int64",
        ),
        (
            lambda: validation.require_tensor("x", [1.0]),
            TypeError,
            "x: expected a torch tensor, got list",
        ),
    ],
)
def test_every_message_names_the_argument_what_was_expected_and_what_came(check, error, message):
    with pytest.raises(error) as raised:
        check()
    assert str(raised.value) == message


def test_good_values_pass():
    validation.require_finite("x", torch.tensor([3.4e38, -3.4e38]))
    validation.require_finite("x", torch.empty(0))
    validation.require_in_range("i", torch.tensor([0, 3]), 0, 4)
    validation.require_in_range("i", torch.empty(0, dtype=torch.int64), 0, 0)
    validation.require_shape("x", torch.zeros(2, 3), ("batch", 3))


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.zeros(2), torch.float64),
        (np.zeros(2, dtype=np.float32), torch.float32),
        (np.float64(0.1), torch.float64),
        ([np.zeros(2), np.zeros(2)], torch.float64),
        (torch.zeros(2).double(), torch.float64),
        ([0.1, 0.2], None),
        (0.1, None),
    ],
)
def test_what_has_a_dtype_keeps_it(value, dtype, default, float64_default):
    torch.set_default_dtype(default)
    found = validation.to_float_tensor("x", value)
    like = validation.to_float_tensor("x", value, torch.float64)
    torch.set_default_dtype(torch.float64)
    assert found.dtype == (dtype or default)
    assert like.dtype == (dtype or torch.float64)


@pytest.mark.parametrize("value", [np.zeros(2, np.float16), np.zeros(2, np.longdouble)])
def test_other_precisions_are_refused(value):
    with pytest.raises(
        TypeError, match="x: expected dtype float32 or float64, got (float16|float1|longd)"
    ):
        validation.to_float_tensor("x", value)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("abc", "(str|dtype <U3)"),
        (None, "(NoneType|dtype object)"),
        ([[0, 1], [2]], "list"),
        (["a"], "(list|dtype <U1)"),
        (np.array([None]), "dtype object"),
    ],
)
def test_what_holds_no_numbers_is_refused_in_one_line(value, got):
    """Wherever an array is taken."""
    frame = torch.zeros(1, 2, 3)
    cv = ofcv.CollectiveVariable(PairDistances([[0, 1]], 2), torch.nn.Linear(1, 1))
    for name, call in {
        "x": lambda: as_tensor("x", value),
        "coeff_biases": lambda: ofcv.DimensionWiseRescaling(value, [1.0], [1.0]),
        "pairs": lambda: PairDistances(value, 3),
        "descriptor_index": lambda: ofcv.SparsityPattern(value, [0], 1, 2),
        "positions": lambda: local_frames(value, [8, 1]),
        "atomic_numbers": lambda: local_frames(frame[0], value),
        "masses": lambda: ofcv.KolmogorovBias(cv, beta=1.0, masses=value),
    }.items():
        if name == "masses" and value is None:
            continue
        with pytest.raises(TypeError, match=rf"^{name}: expected [^\n]*, got {got}$"):
            call()


def test_any_layout_of_an_array_can_be_given(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3.0))
    for array in (
        np.arange(3.0)[::-1][::-1],
        np.arange(2.0, -1, -1)[::-1],
        np.arange(3, dtype=">f8"),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert as_tensor("x", array).tolist() == [0, 1, 2]


ORDERS = {
    "swapped": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "backwards": lambda array: array[::-1].copy()[::-1],
}


@pytest.mark.parametrize("order", list(ORDERS))
def test_arrays_in_any_order_of_memory_are_arguments(tmp_path, order):
    """Wherever an array is taken."""
    turned = ORDERS[order]
    pairs, xyz = np.array([[0, 1], [1, 2]]), np.arange(27.0).reshape(3, 3, 3) ** 0.5
    distances = PairDistances(turned(pairs), 3)
    assert distances.pairs.tolist() == pairs.tolist()
    pattern = ofcv.SparsityPattern(turned(np.array([0, 0, 1])), turned(np.arange(3)), 2, 3)
    assert pattern.atom_index.tolist() == [0, 1, 2]
    assert torch.equal(
        local_frames(turned(xyz[1]), turned(np.array([8, 1, 1]))),
        local_frames(xyz[1], [8, 1, 1]),
    )
    cv = ofcv.CollectiveVariable(distances, torch.nn.Linear(2, 1).double())
    masses = np.array([1.0, 2.0, 3.0])
    bias, other = (ofcv.KolmogorovBias(cv, 0.4, masses=m) for m in (turned(masses), masses))
    positions = torch.from_numpy(xyz)
    assert torch.equal(bias(positions), other(positions))
    assert ofcv.HarmonicRestraint(cv, turned(np.ones(1)), 2.0).centre.item() == 1.0
    smart = ofcv.SmartDerivatives()
    smart.setup({"data": positions}, distances, 3)
    smart.save(tmp_path / "cv.npz")
    arrays = dict(np.load(tmp_path / "cv.npz"))
    known = {
        name: a if a.dtype.kind == "U" or not a.ndim else turned(a) for name, a in arrays.items()
    }
    np.savez(tmp_path / "turned.npz", **known)
    again = ofcv.SmartDerivatives.load(tmp_path / "turned.npz")
    assert torch.equal(again.blocks(), smart.blocks())
