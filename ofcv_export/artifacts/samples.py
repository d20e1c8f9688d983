"""Inputs with which an artifact is tested: random and adversarial ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ofcv_export.graph.tensor_spec import TensorSpec, sized

# Spread of positions in each component: distances are then those within a small molecule in nm.
_SPREAD = 0.5
STYLES = ("normal", "tiny", "huge", "wide range", "zeros", "repeated")


def sample(
    specs: Sequence[TensorSpec],
    sizes: Mapping[str, int],
    style: str,
    seed: int,
    box_shape: str = "triclinic",
) -> list[Tensor]:
    """Return random or adversarial inputs.

    Parameters
    ----------
    specs : sequence of TensorSpec
        What an artifact takes.
    sizes : mapping
        Value of every symbolic size.
    style : str
        One of ``STYLES``: ordinary numbers; of size 1e-6 or 1e6; over twelve decades; all zero;
        or every index the same (the last one).
    seed : int
        Seed of the random numbers.
    box_shape : {"triclinic", "orthorhombic"}
        Of an input of the name ``box``.
    """
    generator = np.random.default_rng(seed)
    return [
        _box(box_shape, generator).to(spec.torch_dtype)
        if spec.name == "box" and spec.example is None
        else sample_one(spec, sizes, style, generator)
        for spec in specs
    ]


def sample_one(
    spec: TensorSpec, sizes: Mapping[str, int], style: str, generator: np.random.Generator
) -> Tensor:
    """Return one random or adversarial input, see `sample`."""
    shape = sized(spec, sizes)
    if spec.example is not None:
        return torch.tensor(spec.example, dtype=spec.torch_dtype).reshape(shape)
    if spec.is_integer:
        low, high = spec.index_range(sizes)
        if spec.high in spec.shape:
            return _molecules(shape[0], style, generator)
        if style == "repeated":
            return torch.full(shape, high - 1)
        return torch.from_numpy(generator.integers(low, high, shape))
    values = generator.standard_normal(shape)
    if spec.name == "positions":
        return torch.from_numpy(_SPREAD * values).to(spec.torch_dtype)
    if style == "wide range":
        values *= 10.0 ** generator.uniform(-6, 6, shape)
    scale = {"tiny": 1e-6, "huge": 1e6, "zeros": 0.0}.get(style, 1.0)
    return torch.from_numpy(values * scale).to(spec.torch_dtype)


def _molecules(n: int, style: str, generator: np.random.Generator) -> Tensor:
    """Return the molecule of each of n coefficients, counted from 0, none without coefficients."""
    starts = generator.random(n) < (0.0 if style == "repeated" else 0.3)
    starts[0] = False
    molecules = np.cumsum(starts)
    if style == "wide range":
        generator.shuffle(molecules)
    return torch.from_numpy(molecules)


def _box(shape: str, generator: np.random.Generator) -> Tensor:
    """Return lattice vectors as rows, of lengths about the spread of the positions."""
    box = np.diag(generator.uniform(2.0, 4.0, 3))
    if shape == "triclinic":
        box[1, 0], box[2, 0], box[2, 1] = generator.uniform(-1.0, 1.0, 3)
    return torch.from_numpy(box)
