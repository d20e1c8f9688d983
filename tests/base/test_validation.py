import numpy as np
import pytest
import torch

from ofcv_export.base import validation


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


def test_numpy_becomes_the_default_dtype():
    assert validation.to_float_tensor("x", np.zeros(2)).dtype == torch.get_default_dtype()
    assert validation.to_float_tensor("x", torch.zeros(2).double()).dtype == torch.float64
