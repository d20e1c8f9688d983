"""Whether a function of frames gives values, every frame on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ofcv_export.base.modes import full_precision
from ofcv_export.base.validation import require_floating, require_shape, require_tensor

FrameFunction = Callable[[Tensor], Any]

_FRAMES = 5


@torch.no_grad()
def require_own_frames(
    name: str, function: FrameFunction, positions: Tensor, values: str = "descriptors"
) -> None:
    """Raise unless a function maps each of a few frames to the same values in any company.

    They are evaluated together, again, one by one, and in the opposite order.

    Parameters
    ----------
    name : str
        What an error calls the function.
    function : callable
        Maps positions (batch, n_atoms, 3) to values (batch, n_values).
    positions : torch.Tensor
        Frames, shape (n_frames, n_atoms, 3).
    values : str
        What an error calls the values.

    Raises
    ------
    TypeError
        If the function does not return a floating tensor.
    ValueError
        If its shape is another one, it is random, or it depends on other frames or their number.
    """
    rows = torch.linspace(0, len(positions) - 1, min(_FRAMES, len(positions))).long()
    frames = positions[rows.to(positions.device)]
    if len(frames) == 1:
        frames = frames.repeat(2, 1, 1)

    def evaluated(frames: Tensor) -> Tensor:
        found = function(frames)
        require_tensor(name, found)
        require_floating(name, found)
        require_shape(name, found, (len(frames), f"n_{values}"))
        return torch.as_tensor(found).detach()

    with full_precision(frames.device):
        together = evaluated(frames)
        again = evaluated(frames)
        alone = [evaluated(frame) for frame in frames.split(1)]
        backwards = evaluated(frames.flip(0)).flip(0)
    _require_same(name, together, again, f"the same {values} in every call")
    own = f"{values} that depend on nothing but their own frame"
    _require_same(name, together, torch.cat(alone), own)
    _require_same(name, together, backwards, own)


def _require_same(name: str, expected: Tensor, found: Tensor, what: str) -> None:
    """Raise ValueError unless two evaluations agree to half of their digits."""
    same = torch.isclose(expected, found, rtol=0.0, atol=0.0, equal_nan=True)
    size = torch.nan_to_num(expected.abs().amax(dim=1, keepdim=True), posinf=0.0)
    difference = (expected - found).abs()
    tolerance = torch.finfo(expected.dtype).eps ** 0.5 * size
    wrong = torch.nonzero(~(same | (difference <= tolerance)))
    if len(wrong):
        frame, index = wrong[0].tolist()
        first, second = float(expected[frame, index]), float(found[frame, index])
        raise ValueError(
            f"{name}: expected {what}, got {first:.6g} and {second:.6g} at index {index}"
        )
