"""The same numbers in whatever memory a caller has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _strided(x: Tensor) -> Tensor:
    wide = torch.empty(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def _column_major(x: Tensor) -> Tensor:
    return x.T.contiguous().T if x.dim() == 2 else x.transpose(0, -1).contiguous().transpose(0, -1)


def _read_only(x: Tensor) -> Any:
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "tensor with a gradient": lambda x: x.clone().requires_grad_(x.is_floating_point()),
    "every second of a tensor": _strided,
    "column-major tensor": _column_major,
    "negated view": lambda x: torch.conj(torch.complex(x, -x)).imag if x.is_floating_point() else x,
    "array": lambda x: x.numpy(),
    "reversed array": lambda x: np.ascontiguousarray(x.numpy()[::-1])[::-1],
    "big-endian array": lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
    "column-major array": lambda x: np.asfortranarray(x.numpy()),
    "read-only array": _read_only,
}
