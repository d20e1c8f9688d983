"""A preprocessing that nobody knows, taken as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from ofcv_export.base.validation import first_line
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.integrations.plain_modules import plain_copy

# Number of frames that a trace is tested with.
_TESTED_FRAMES = 2


class CapturedDescriptor(Descriptor):
    """Any module that maps positions to descriptors, with the derivatives of autograd.

    Every descriptor counts as a function of every atom, and of its place: no engine moves the
    molecule to the origin first, so that at 10^4 nm from it float32 positions are 0.001 nm apart.

    Parameters
    ----------
    module : torch.nn.Module
        Maps positions, flattened to (batch, 3 n_atoms) as mlcolvar stores them or as
        (batch, n_atoms, 3), to descriptors (batch, n_descriptors), with operations that
        torch.export can see.
    n_atoms : int
        Number of atoms in a frame.
    name : str
        What an error calls the module.

    Raises
    ------
    ValueError
        If the module takes other inputs, or cannot be traced.
    """

    def __init__(self, module: nn.Module, n_atoms: int, name: str = "preprocessing") -> None:
        kind = type(module).__name__
        try:
            module = plain_copy(module)
            flat, n_descriptors = _layout(module, n_atoms)
        except Exception as error:  # a stranger's module may raise anything
            raise ValueError(
                f"{name}: expected a module that maps positions of {n_atoms} atoms to "
                f"(batch, n_descriptors), got {kind}: {first_line(error)}"
            ) from error
        super().__init__(n_atoms, n_descriptors, takes_box=False)
        self.module = module
        self.flat = flat
        try:
            _require_traceable(self, _dtype(module))
        except Exception as error:  # so does the tracer
            raise ValueError(
                f"{name}: expected a module whose operations torch.export can see, with any "
                f"number of frames, got {kind}: {first_line(error)}"
            ) from error

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the module's values, shape (batch, n_descriptors)."""
        if box is not None:
            raise ValueError("box: expected none (the preprocessing takes none), got a tensor")
        values: Tensor = self.module(positions.flatten(1) if self.flat else positions)
        return values

    def pattern(self) -> SparsityPattern:
        """Return the full pattern."""
        everything = torch.ones(self.n_descriptors, self.n_atoms, dtype=torch.bool)
        return SparsityPattern.from_dependence(everything)


def _layout(module: nn.Module, n_atoms: int) -> tuple[bool, int]:
    """Return whether a module takes flattened positions, and the number of its values."""
    reasons: list[str] = []
    for flat in (True, False):
        try:
            with torch.no_grad():
                positions = _example(_traced_frames(n_atoms), n_atoms, _dtype(module))
                values = module(positions.flatten(1) if flat else positions)
        except Exception as error:
            reasons.append(first_line(error))
            continue
        if isinstance(values, Tensor):
            if values.dim() == 2 and len(values) == len(positions):
                return flat, values.shape[1]
            reasons.append(f"values of shape {tuple(values.shape)}")
        else:
            reasons.append(f"a {type(values).__name__}")
    raise ValueError(reasons[0])


def _require_traceable(descriptor: CapturedDescriptor, dtype: torch.dtype) -> None:
    """Raise unless the traced operations give the descriptors of another number of frames."""
    trace = make_fx(descriptor, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    n_atoms = descriptor.n_atoms
    traced = trace(_example(_traced_frames(n_atoms), n_atoms, dtype))
    positions = _example(_TESTED_FRAMES, n_atoms, dtype)
    with torch.no_grad():
        torch.testing.assert_close(traced(positions), descriptor(positions), equal_nan=True)


def _traced_frames(n_atoms: int) -> int:
    """Return a number of frames unlike 3, n_atoms and 3 n_atoms.

    The tracer takes sizes of an input that are equal for one and the same size.
    """
    return 7 if n_atoms == 5 else 5


def _example(n_frames: int, n_atoms: int, dtype: torch.dtype) -> Tensor:
    shape = (n_frames, n_atoms, 3)
    return torch.sin(torch.arange(1.0, torch.Size(shape).numel() + 1)).reshape(shape).to(dtype)


def _dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of a module's weights, the default one for a module without."""
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()
