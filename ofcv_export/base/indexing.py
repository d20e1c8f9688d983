"""Looking entries up by indices that come with a call, in a graph that checks nothing else."""

# No postponed annotations: torch.jit.script compiles these functions where modules call them.

import torch
from torch import Tensor


def select(values: Tensor, index: Tensor) -> Tensor:
    """Return values[index] along the first axis.

    A negative index is refused like one beyond the end, by every runtime: some, ONNX Runtime among
    them, would count it from the end.

    Parameters
    ----------
    values : torch.Tensor
        Shape (n, ...).
    index : torch.Tensor of int64, shape (batch,)
        Entries, in [0, n).
    """
    return values.index_select(0, torch.where(index < 0, values.shape[0], index))
