"""The network of a collective variable alone, for engines that compute the descriptors.

PLUMED's PYTORCH_MODEL and Colvars' torchANN call ``forward`` with descriptors (1, n_in), take
values (1, n_out) and differentiate each of them. The former freezes the module and optimises it for
inference, the latter may turn all its tensors into float64, the integer ones among them.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ofcv_export.base.validation import dtype_name, first_line
from ofcv_export.graph.details import ContractDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.scriptable import follow_input, scriptable
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import IN_MEMORY, freeze
from ofcv_export.variables.collective_variable import CollectiveVariable

aten = torch.ops.aten

# The derivative that TorchScript's executor has for these takes their numbers in float32.
_WRITTEN_OUT = [aten.leaky_relu]


class NetworkAlone(nn.Module):
    """A network that takes and returns the engine's dtype.

    Parameters
    ----------
    network : torch.nn.Module
        Maps descriptors (1, n_in) to values (1, n_out).
    n_in : int
        Number of descriptors.
    dtype : torch.dtype
        The network's dtype.
    """

    precision: Tensor

    def __init__(self, network: nn.Module, n_in: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.n_in = n_in
        # Its dtype is that of the network, also after a later `to` of the whole module.
        self.register_buffer("precision", torch.zeros(1, dtype=dtype))

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return values (1, n_out) of descriptors (1, n_in).

        Raises
        ------
        ValueError
            For another shape.
        """
        if descriptors.dim() != 2 or descriptors.shape[0] != 1 or descriptors.shape[1] != self.n_in:
            raise ValueError(
                f"descriptors: expected shape (1, {self.n_in}), got {descriptors.shape}"
            )
        values: Tensor = self.network(descriptors.to(self.precision.dtype))
        return values.to(descriptors.dtype)


def plumed_pytorch(cv: CollectiveVariable) -> ExportGraph:
    """Return the graph that PLUMED's PYTORCH_MODEL calls, see `network_graph`."""
    return network_graph("plumed-pytorch", cv)


def colvars_torchann(cv: CollectiveVariable) -> ExportGraph:
    """Return the graph that Colvars' torchANN calls, see `network_graph`."""
    return network_graph("colvars-torchann", cv)


def network_graph(contract: str, cv: CollectiveVariable) -> ExportGraph:
    """Return the graph of a collective variable's network, its normalisation included.

    Parameters
    ----------
    contract : str
        Name of the contract.
    cv : CollectiveVariable
        The collective variable; its descriptors are left to the engine, in the unit of length of
        the collective variable.

    Raises
    ------
    TypeError
        If the module is a bias, whose energy is no part of its network.
    ValueError
        If the network has operations that cannot be traced.
    """
    if not isinstance(cv, CollectiveVariable):
        raise TypeError(f"module: expected a CollectiveVariable, got {type(cv).__name__}")
    name, n_in = dtype_name(cv.dtype), cv.descriptors.n_descriptors
    return ExportGraph(
        ContractDetails(contract=contract, variable=cv.details()),
        (TensorSpec("descriptors", name, (1, n_in)),),
        (TensorSpec("values", name, (1, cv.n_outputs)),),
        build=lambda _: NetworkAlone(
            scriptable(_traced(cv.network, n_in, cv.dtype)), n_in, cv.dtype
        ),
        exact=NetworkAlone(cv.network, n_in, cv.dtype),
        atoms=cv.atoms,
        elements=cv.elements,
        length_unit=cv.length_unit,
        freeze=False,
        differentiable=True,
        descriptors=cv.descriptors,
        normalisation=cv.normalisation,
    )


def _traced(network: nn.Module, n_in: int, dtype: torch.dtype) -> fx.GraphModule:
    """Return a network as operators that autograd can differentiate in any dtype."""
    example = torch.sin(torch.arange(1.0, n_in + 1)).to(dtype).unsqueeze(0)
    table: Any = get_decompositions(_WRITTEN_OUT) | IN_MEMORY
    try:
        with torch.no_grad():
            traced: fx.GraphModule = make_fx(network, table)(example)
    except Exception as error:
        raise ValueError(
            f"network: expected operations that can be traced, got {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    freeze(traced)
    follow_input(traced, "dtype", lambda given: given == dtype)
    _keep_integers(traced)
    traced.recompile()
    return traced.eval()


def _keep_integers(traced: fx.GraphModule) -> None:
    """Turn indices and masks back into what they were, as an engine may have made them float."""
    graph = traced.graph
    buffers: dict[str, Any] = dict(traced.named_buffers())
    for node in list(graph.nodes):
        if node.op != "get_attr" or buffers[str(node.target)].is_floating_point():
            continue
        with graph.inserting_after(node):
            kept = graph.call_function(aten.to, (node, buffers[str(node.target)].dtype))
        node.replace_all_uses_with(kept, delete_user_cb=lambda user, kept=kept: user is not kept)
