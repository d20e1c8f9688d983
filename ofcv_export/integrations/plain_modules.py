"""Copies of trained modules that hold tensors and operations, and nothing of a training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_MLCOLVAR = "mlcolvar.core."


class Sigmoid(nn.Module):
    """1 / (1 + exp(-p x)), mlcolvar's ``Custom_Sigmoid`` without its overflow.

    As written in mlcolvar the derivative is NaN where the exponential is infinite, below
    x = -88.7 / p in float32. Here the exponential stops growing there, and the derivative is 0.
    (``torch.sigmoid`` would lose the digits of the derivative where the value is close to 1, which
    a Kolmogorov bias takes the logarithm of.)

    Parameters
    ----------
    p : float
        Steepness.
    """

    p: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.register_buffer("p", _constant(p))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sigmoid, elementwise."""
        largest = math.floor(math.log(torch.finfo(x.dtype).max))
        return 1 / (1 + torch.exp(torch.clamp(-self.p * x, max=largest)))


class ShiftedSoftplus(nn.Module):
    """softplus(x) - softplus(0), mlcolvar's ``Shifted_Softplus`` with the shift as a constant.

    Parameters
    ----------
    softplus : torch.nn.Softplus
        The function to shift.
    """

    def __init__(self, softplus: nn.Softplus) -> None:
        super().__init__()
        self.softplus = nn.Softplus(softplus.beta, softplus.threshold)
        # mlcolvar 1.3 computes it in every call, in the default dtype and rounded to it, and 2.0
        # keeps it as a buffer.
        self.shift = float(getattr(softplus, "sp0", self.softplus(torch.zeros(1))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the shifted softplus, elementwise."""
        shifted: Tensor = self.softplus(x) - self.shift
        return shifted


class LeakyReLU(nn.Module):
    """x where it is positive, a fraction of it elsewhere.

    Parameters
    ----------
    negative_slope : float
        The fraction.
    """

    negative_slope: Tensor

    def __init__(self, negative_slope: float) -> None:
        super().__init__()
        self.register_buffer("negative_slope", _constant(negative_slope))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified values, elementwise."""
        return torch.where(x > 0, x, self.negative_slope * x)


class Concatenated(nn.Module):
    """The outputs of several modules of the same input, side by side.

    Parameters
    ----------
    modules : torch.nn.ModuleList
        Each maps (batch, n) to (batch, m).
    """

    def __init__(self, modules: nn.ModuleList) -> None:
        super().__init__()
        self.parts = modules

    def forward(self, x: Tensor) -> Tensor:
        """Return all outputs, concatenated along the second dimension."""
        return torch.cat([part(x) for part in self.parts], dim=1)


def _constant(value: float) -> Tensor:
    """Return a number as a tensor that is cast with its module; ONNX rounds others to float32."""
    return torch.tensor(value, dtype=torch.float64)


def plain_copy(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU, in evaluation mode, with no operation in place.

    mlcolvar's Lightning modules become the layers in them. Tensors that still hang on the graph of
    a training step, such as the eigenvectors of a DeepLDA, are detached.

    Parameters
    ----------
    module : torch.nn.Module
        A trained module; it stays as it is.

    Returns
    -------
    torch.nn.Module
        A copy that gives the values of ``module.eval()``.
    """
    copied = _copy(module).cpu().eval().requires_grad_(False)
    for part in copied.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # type: ignore[assignment]
    return copied


def _copy(module: nn.Module) -> nn.Module:
    build = _PLAIN.get(class_name(type(module)))
    if build is not None:
        return build(module)
    # deepcopy takes what it finds under an object's id for that object's copy.
    copies: dict[int, Any] = {id(child): _copy(child) for child in module.children()}
    for value in [*vars(module).values(), *module._buffers.values()]:
        if isinstance(value, Tensor):
            copies[id(value)] = value.detach().clone()
    return copy.deepcopy(module, copies)


def class_name(of: Any) -> str:
    """Return the name of a class or function with its module's."""
    return f"{of.__module__}.{of.__qualname__}"


# mlcolvar passes True as the factor of its ELU, which is 1; operators want a number.
_PLAIN: dict[str, Callable[[Any], nn.Module]] = {
    _MLCOLVAR + "nn.feedforward.FeedForward": lambda source: _copy(source.nn),
    _MLCOLVAR + "nn.utils.Custom_Sigmoid": lambda source: Sigmoid(source.p),
    _MLCOLVAR + "nn.utils.Shifted_Softplus": ShiftedSoftplus,
    "torch.nn.modules.activation.ELU": lambda source: nn.ELU(float(source.alpha)),
    "torch.nn.modules.activation.LeakyReLU": lambda source: LeakyReLU(source.negative_slope),
}
