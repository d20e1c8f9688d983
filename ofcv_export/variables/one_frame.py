"""The graph of a collective variable for one frame at a time, as an MD engine calls it.

It gives what the general graph gives, in a form that is fast for a single frame: one of those of
`ofcv_export.variables.pair_forms` for distances without a box, and ``one frame`` for everything
else: the general graph with its batch fixed at 1. In all of them, what depends on no input is
computed at export, and for compiled code products with a vector are written as sums (see
`ofcv_export.graph.matrix_vector`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import fx

from ofcv_export.graph.derivatives import Outputs, values_and_derivatives
from ofcv_export.graph.editing import with_shapes
from ofcv_export.graph.folding import fold_selection
from ofcv_export.graph.matrix_vector import as_vectors
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tracing import traced
from ofcv_export.variables.pair_forms import pair_form

if TYPE_CHECKING:
    from ofcv_export.graph.details import Form
    from ofcv_export.graph.export_graph import ExportGraph
    from ofcv_export.variables.variable import Variable


def one_frame(
    variable: Variable, device: str, compiled: bool
) -> tuple[Callable[..., Outputs], Form]:
    """Return values and derivatives of one frame as a function, and the name of its form.

    Parameters
    ----------
    variable : Variable
        A collective variable or a bias.
    device : str
        Where it will run.
    compiled : bool
        Whether Inductor compiles it.

    Returns
    -------
    callable, str
        Maps positions (1, n_atoms, 3), a box when periodic, and parameters; and ``cyclic pairs``,
        ``gathered pairs`` or ``one frame``.
    """
    form = pair_form(variable, device, compiled)
    if form is not None:
        return form, form.name
    function = values_and_derivatives(
        variable, variable.n_outputs, variable.dtype, variable.periodic
    )
    return function, "one frame"


def for_one_frame(
    function: Callable[..., Outputs], compiled: bool, graph: ExportGraph
) -> fx.GraphModule:
    """Return the graph of a function from `one_frame`.

    Parameters
    ----------
    function : callable
        The function.
    compiled : bool
        Whether Inductor compiles the graph; otherwise it runs operator by operator.
    graph : ExportGraph
        Its description, with all sizes fixed.
    """
    graph_module = traced(function, graph.inputs, "network")
    with_shapes(graph_module, probe(graph.inputs, {}))
    fold_selection(graph_module)
    if compiled:
        as_vectors(graph_module, along_rows=graph.device != "cpu")
    return graph_module
