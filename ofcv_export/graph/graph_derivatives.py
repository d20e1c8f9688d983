"""Values and derivatives of a function of a graph of atoms.

Twice, as in `ofcv_export.graph.derivatives`: by autograd, and as a function whose reverse pass is
traced together with the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Outputs = tuple[Tensor, ...]
# Places of what values are differentiated with respect to: positions and box.
_POSITIONS, _BOX = 0, 4


class GraphValuesAndDerivatives(nn.Module):
    """Values and derivatives by autograd: what the written-out graph must equal.

    Parameters
    ----------
    function : torch.nn.Module
        Maps positions (n_nodes, 3), elements, edge_index, cell_shifts, box (3, 3) and further
        tensors to values (n_outputs,).
    n_outputs : int
        Number of values.
    """

    def __init__(self, function: nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.function = function
        self.n_outputs = n_outputs

    def forward(self, *inputs: Tensor) -> Outputs:
        """Return values (n_outputs,) and derivatives with respect to positions and box.

        Of shapes (n_outputs, n_nodes, 3) and (n_outputs, 3, 3).
        """
        # Copies are ordinary tensors, also of what was made in inference mode.
        given = [entry.detach().clone() for entry in inputs]
        return _differentiated(self.function, given, self.n_outputs)


def graph_values_and_derivatives(
    function: Callable[..., Tensor], n_outputs: int
) -> Callable[..., Outputs]:
    """Return a function that gives values and derivatives, to be traced into one graph.

    Parameters
    ----------
    function : callable
        As in `GraphValuesAndDerivatives`.
    n_outputs : int
        Number of values.
    """

    def by_reverse_mode(*inputs: Tensor) -> Outputs:
        return _differentiated(function, [entry.detach() for entry in inputs], n_outputs)

    return by_reverse_mode


def _differentiated(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], n_outputs: int
) -> Outputs:
    leaves = [inputs[place].requires_grad_() for place in (_POSITIONS, _BOX)]
    with torch.enable_grad():
        values = function(*inputs)
        gradients = [
            torch.autograd.grad(values[k], leaves, retain_graph=True, materialize_grads=True)
            if values.requires_grad
            else [torch.zeros_like(leaf) for leaf in leaves]
            for k in range(n_outputs)
        ]
    stacked = [torch.stack(entries) for entries in zip(*gradients, strict=True)]
    return (values.detach(), *stacked)
