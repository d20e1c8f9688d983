"""Models of mlcolvar 2.0 whose network is one of graphs of atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ofcv_export.base.elements import SYMBOLS
from ofcv_export.integrations.plain_modules import class_name, plain_copy
from ofcv_export.variables.graph_collective_variable import GraphCollectiveVariable

_NETWORK = "mlcolvar.core.nn.graph.gnn.BaseGNN"


def is_graph_network(module: nn.Module) -> bool:
    """Return whether a module is a network of graphs of mlcolvar 2.0."""
    return _NETWORK in {class_name(base) for base in type(module).__mro__}


def graph_variable(
    parts: Sequence[nn.Module],
    atoms: Sequence[int] | None,
    elements: Sequence[str] | None,
    length_unit: str,
    groups: Mapping[str, Sequence[int] | None],
) -> GraphCollectiveVariable:
    """Return the collective variable of a model.

    Parameters
    ----------
    parts : sequence of torch.nn.Module
        The network, and what is made of its values, in order.
    atoms, length_unit
        See `GraphCollectiveVariable`.
    elements : sequence of str, optional
        Chemical symbols of the atoms of system and environment.
    groups : mapping
        ``system``, ``environment`` and ``subsystem``.
    """
    network: Any = parts[0]
    # Negative where the model has none.
    long_range_cutoff = float(network.long_range_cutoff)
    return GraphCollectiveVariable(
        _InOrder(parts),
        float(network.cutoff),
        [SYMBOLS[number] for number in network.atomic_numbers.tolist()],
        buffer=float(network.buffer),
        long_range_cutoff=long_range_cutoff if long_range_cutoff > 0 else None,
        atoms=atoms,
        length_unit=length_unit,
        atom_elements=elements,
        **groups,
    )


class _InOrder(nn.Module):
    """A network of graphs, and modules of its values (1, n) after it."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([plain_copy(part) for part in parts])

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        """Return the values (1, n_outputs) of a graph in mlcolvar's words."""
        network, *others = self.parts
        values: Tensor = network(data)
        for part in others:
            values = part(values)
        return values
