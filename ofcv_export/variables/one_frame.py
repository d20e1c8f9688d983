"""The graph of a collective variable for one frame at a time, as an MD engine calls it.

It gives what the general graph gives, in a form that is fast for a single frame: one of those of
`ofcv_export.variables.pair_forms` for distances without a box, and ``one frame`` for everything
else: the general graph with its batch fixed at 1. In all of them, what depends on no input is
computed at export, and for compiled code products with a vector are written as sums (see
`ofcv_export.graph.vector_form`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx, nn

from ofcv_export.graph.gradients import differentiated, traced
from ofcv_export.graph.vector_form import as_vectors, fold_constants, fold_selection, with_shapes
from ofcv_export.variables.pair_forms import pair_form


def single_frame(
    function: nn.Module,
    n_outputs: int,
    examples: Sequence[Tensor],
    periodic: bool,
    compiled: bool,
) -> tuple[fx.GraphModule, str]:
    """Return the graph of values and derivatives for one frame, and the name of its form.

    Parameters
    ----------
    function : CollectiveVariable
        Maps positions (1, n_atoms, 3), a box or None, and parameters to values (1, n_outputs).
    n_outputs : int
        Number of values.
    examples : sequence of torch.Tensor
        Positions of one frame, a box when periodic, and parameters.
    periodic : bool
        Whether a box is an input.
    compiled : bool
        Whether Inductor compiles the graph; otherwise it runs operator by operator.

    Returns
    -------
    torch.fx.GraphModule, str
        Plain aten operators, and ``cyclic pairs``, ``gathered pairs`` or ``one frame``.
    """
    dtype = examples[0].dtype
    form = pair_form(function, n_outputs, dtype)
    written_out = form or differentiated(function, n_outputs, dtype, periodic)
    graph_module = traced(written_out, examples, free=[])
    fold_constants(graph_module)
    with_shapes(graph_module, examples)
    fold_selection(graph_module)
    if compiled:
        as_vectors(graph_module)
    return graph_module, form.name if form else "one frame"
