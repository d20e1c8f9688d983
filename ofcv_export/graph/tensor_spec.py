"""Names, dtypes and shapes of what goes into an artifact and comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ofcv_export.base.arrays import is_tensor, to_array
from ofcv_export.base.elements import require_known_elements
from ofcv_export.base.validation import require_choice, require_in_range

if TYPE_CHECKING:
    import torch


# What symbolic sizes count.
COUNTED = {"batch": "frames", "n": "coefficients", "n_nodes": "nodes", "n_edges": "edges"}
# The symbolic size that may be 0: a graph of atoms need not have edges.
MAY_BE_NONE = "n_edges"
# Sizes of outputs that are the largest entry of an input plus one, by the name of that input.
TOLD_BY_LARGEST = {"batch": "n_molecules"}


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, dtype and shape of one input or output of an artifact.

    Parameters
    ----------
    name : str
        Name of the tensor, the same in every format.
    dtype : str
        ``float32``, ``float64`` or ``int64``; in contracts ``int32`` and ``bool`` too.
    shape : tuple of int or str
        Sizes; a string is a symbolic size such as ``batch``.
    low : int, optional
    high : int or str, optional
        Half-open range of an integer input; a string is a symbolic size.
    choices : tuple of int, optional
        The only values of an integer input.
    example : tuple of float, optional
        Values, in row-major order, with which the input is tested where not any will do.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: int | None = None
    high: int | str | None = None
    example: tuple[float, ...] | None = None
    choices: tuple[int, ...] | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch names it."""
        import torch

        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def is_integer(self) -> bool:
        """Whether the tensor holds integers: indices, atomic numbers, flags."""
        return self.dtype in ("int32", "int64", "bool")

    def index_range(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Return the half-open range of an index, with values for the symbolic sizes.

        Raises
        ------
        ValueError
            If an integer input has none.
        """
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: expected a range of indices, got none")
        return self.low, self.high if isinstance(self.high, int) else sizes[self.high]

    def with_size(self, symbol: str, size: int) -> TensorSpec:
        """Return the same spec with the symbolic size `symbol` fixed to `size`."""
        shape = tuple(size if entry == symbol else entry for entry in self.shape)
        high = size if self.high == symbol else self.high
        return msgspec.structs.replace(self, shape=shape, high=high)


def require_allowed(spec: TensorSpec, values: Any, sizes: Mapping[str, int]) -> None:
    """Raise unless integers are in their range, or among their choices.

    Parameters
    ----------
    spec : TensorSpec
        Of an integer input.
    values : torch.Tensor or numpy.ndarray
        Of its shape.
    sizes : mapping
        Values of the symbolic sizes.

    Raises
    ------
    IndexError
        For an integer out of range.
    ValueError
        For one that is no choice.
    """
    if spec.choices is None:
        require_in_range(spec.name, values, *spec.index_range(sizes))
        return
    array = to_array(values) if is_tensor(values) else values
    if spec.name == "elements":
        require_known_elements(array, spec.choices)
    else:
        require_choice(spec.name, array, spec.choices)


def sized(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a tensor with values for its symbolic sizes."""
    return tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)


def symbols(specs: Sequence[TensorSpec]) -> list[str]:
    """Return the symbolic sizes of some tensors, in order, each once."""
    return list(
        dict.fromkeys(size for spec in specs for size in spec.shape if isinstance(size, str))
    )


def free_sizes(inputs: Sequence[TensorSpec]) -> list[str]:
    """Return the sizes that only a call tells: the symbolic ones, and those that entries tell."""
    told = [TOLD_BY_LARGEST[spec.name] for spec in inputs if spec.name in TOLD_BY_LARGEST]
    return [*symbols(inputs), *told]


def frame_specs(dtype: str, n_atoms: int, periodic: bool) -> list[TensorSpec]:
    """Return what describes frames: positions, and a box where it is periodic."""
    positions = TensorSpec("positions", dtype, ("batch", n_atoms, 3))
    return [positions, TensorSpec("box", dtype, (3, 3))] if periodic else [positions]
