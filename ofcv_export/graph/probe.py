"""Inputs that any language can make again: what graphs are traced and files are tried with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ofcv_export.graph.tensor_spec import TensorSpec, sized, symbols

_BOX = (3.0, 3.5, 4.0)
# Of a graph of atoms, such that no edge begins where it ends; of anything else two.
_SIZES = {"n_nodes": 3, "n_edges": 7}


def probe_sizes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Return the symbolic sizes with which files are tried."""
    return {symbol: _SIZES.get(symbol, 2) for symbol in symbols(specs)}


def probe(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> list[Tensor]:
    """Return inputs of given sizes.

    Entry k of a floating-point input, counted in row-major order, is sin(k + 1), rounded to the
    input's dtype; of an index with the range [low, high) it is low + (7919 k mod (high - low)), of
    one with n choices the one at place 7919 k mod n. A box is the diagonal matrix of 3, 3.5 and 4.

    Parameters
    ----------
    specs : sequence of TensorSpec
        What an artifact takes.
    sizes : mapping
        Value of every symbolic size.
    """
    return [_entries(spec, sizes) for spec in specs]


def _entries(spec: TensorSpec, sizes: Mapping[str, int]) -> Tensor:
    shape = sized(spec, sizes)
    k = torch.arange(math.prod(shape))
    if spec.example is not None:
        values = torch.tensor(spec.example, dtype=spec.torch_dtype)
    elif spec.choices is not None:
        values = torch.tensor(spec.choices)[7919 * k % len(spec.choices)]
    elif spec.is_integer:
        low, high = spec.index_range(sizes)
        values = low + (7919 * k) % (high - low)
    elif spec.name == "box":
        values = torch.diag(torch.tensor(_BOX)).to(spec.torch_dtype)
    else:
        values = torch.sin((k + 1).double()).to(spec.torch_dtype)
    return values.reshape(shape)
