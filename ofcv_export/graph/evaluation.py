"""A user's network as what evaluates it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.base.validation import dtype_name, require_floating_dtype


def evaluation_copy(network: Any) -> nn.Module:
    """Return a copy of a network in evaluation mode; the network stays as it is.

    Parameters
    ----------
    network : torch.nn.Module or torch.export.ExportedProgram
        Any module, also a scripted, traced or exported one; of one made by ``torch.compile``, what
        was compiled. An exported one stays in the mode in which it was exported. Tensors that hang
        on the graph of a training step are detached.

    Raises
    ------
    TypeError
        If it is no module.
    """
    if isinstance(network, torch.export.ExportedProgram):
        network = network.module()
    if not isinstance(network, nn.Module):
        raise TypeError(f"network: expected a torch.nn.Module, got {type(network).__name__}")
    if isinstance(network, torch.jit.ScriptModule):
        return copy.deepcopy(network).eval()
    # deepcopy takes what it finds under an object's id for that object's copy.
    copies: dict[int, Any] = {}
    for part in network.modules():
        for value in [*vars(part).values(), *part._buffers.values()]:
            if isinstance(value, Tensor) and not value.is_leaf:
                copies[id(value)] = value.detach().clone()
    copied = _uncompiled(copy.deepcopy(_uncompiled(network), copies))
    for part in copied.modules():
        for name, child in part.named_children():
            part._modules[name] = _uncompiled(child)
    try:
        return copied.eval()
    except NotImplementedError:  # of an exported module, whose mode is part of its operations
        return copied


def network_dtype(network: nn.Module, default: Tensor) -> torch.dtype:
    """Return the one floating dtype of a network's tensors, that of `default` if it has none.

    Raises
    ------
    TypeError
        If it has several, or one that is neither float32 nor float64.
    """
    tensors = [*network.parameters(), *network.buffers()]
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if len(dtypes) > 1:
        names = ", ".join(sorted(map(dtype_name, dtypes)))
        raise TypeError(f"network: expected one floating dtype, got {names}")
    dtype = dtypes.pop() if dtypes else default.dtype
    require_floating_dtype("network", dtype)
    return dtype


def _uncompiled(module: nn.Module) -> nn.Module:
    """Return what ``torch.compile`` compiled, the module itself if it did not."""
    original = getattr(module, "_orig_mod", module)
    assert isinstance(original, nn.Module)
    return original
