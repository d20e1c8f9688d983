"""A network over a graph of atoms, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.base.elements import SYMBOLS

Zeros = Callable[[Tensor], Tensor]
_Graph = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class GraphNetwork(nn.Module):
    r"""A user's network with what it asks for, of the tensors that an engine has.

    A network says what it takes by the names of its arguments:

    ================== ==================== ========================================================
    name               shape
    ================== ==================== ========================================================
    positions          (n_nodes, 3)
    elements           (n_nodes,) int64     atomic numbers
    node_attrs         (n_nodes, n_elements) one-hot elements, in the order of `elements`
    edge_index         (2, n_edges) int64   sender and receiver of each edge
    edge_vectors       (n_edges, 3)         :math:`x_{receiver} - x_{sender} + shift`
    edge_lengths       (n_edges,)           their lengths
    shifts             (n_edges, 3)         ``cell_shifts @ box``
    cell_shifts        (n_edges, 3)         lattice vectors crossed
    box                (3, 3)               lattice vectors as rows, zeros without periodicity
    batch              (n_nodes,) int64     zeros: there is one graph
    system_mask        (n_nodes,) bool      which nodes are of the system
    long_range_mask    (n_edges,) bool      which edges are long-range ones
    ================== ==================== ========================================================

    One with a single argument ``data`` gets a dictionary in the names and shapes of mlcolvar 2.0:
    those above that it knows, ``unit_shifts``, ``cell``, ``system_masks`` (n_nodes, 1),
    ``n_system`` (1, 1) and, with long-range edges, ``edge_masks_lr`` (n_edges, 1).

    Parameters
    ----------
    network : torch.nn.Module
        Returns values of shape (n_outputs,) or (1, n_outputs).
    atomic_numbers : sequence of int
        Elements that it knows, in the order of ``node_attrs``.
    long_range : bool
        Whether there are long-range edges.

    Raises
    ------
    ValueError
        If the network asks for what is not in the graph.
    """

    element_places: Tensor
    one_hot: Tensor

    def __init__(
        self,
        network: nn.Module,
        atomic_numbers: Sequence[int],
        long_range: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.network = network
        self.long_range = long_range
        # Unknown elements are out of range, which every runtime refuses.
        places = torch.full((len(SYMBOLS),), len(atomic_numbers))
        places[list(atomic_numbers)] = torch.arange(len(atomic_numbers))
        self.register_buffer("element_places", places)
        self.register_buffer("one_hot", torch.eye(len(atomic_numbers), dtype=dtype))
        self.names = _asked_for(network, self._described(*_nothing(dtype), zeros=torch.zeros_like))

    def forward(
        self,
        positions: Tensor,
        elements: Tensor,
        edge_index: Tensor,
        cell_shifts: Tensor,
        box: Tensor,
        system_mask: Tensor,
        long_range_mask: Tensor,
        zeros: Zeros = torch.zeros_like,
    ) -> Tensor:
        """Return the values (n_outputs,) of a graph.

        Parameters
        ----------
        positions, elements, edge_index, cell_shifts, box
            See `GraphCollectiveVariable.values_and_derivatives`.
        system_mask, long_range_mask : torch.Tensor
            Of bool.
        zeros : callable
            Makes zeros of a tensor's shape.
        """
        described = self._described(
            positions, elements, edge_index, cell_shifts, box, system_mask, long_range_mask, zeros
        )
        if self.names is None:
            values = self.network(_in_mlcolvars_words(described, self.long_range))
        else:
            values = self.network(**{name: described[name] for name in self.names})
        return _one_row(values)

    def _described(
        self,
        positions: Tensor,
        elements: Tensor,
        edge_index: Tensor,
        cell_shifts: Tensor,
        box: Tensor,
        system_mask: Tensor,
        long_range_mask: Tensor,
        zeros: Zeros,
    ) -> dict[str, Tensor]:
        """Return everything that a network may ask for."""
        shifts = cell_shifts @ box
        vectors = positions[edge_index[1]] - positions[edge_index[0]] + shifts
        described = {
            "positions": positions,
            "elements": elements,
            "node_attrs": self.one_hot[self.element_places[elements]],
            "edge_index": edge_index,
            "edge_vectors": vectors,
            "edge_lengths": torch.linalg.vector_norm(vectors, dim=1),
            "shifts": shifts,
            "cell_shifts": cell_shifts,
            "box": box,
            "batch": zeros(elements),
            "system_mask": system_mask,
        }
        return described | ({"long_range_mask": long_range_mask} if self.long_range else {})


def _asked_for(network: nn.Module, known: Mapping[str, Tensor]) -> list[str] | None:
    """Return the names of a network's arguments that are known; None for ``data`` alone."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    arguments = [
        entry
        for entry in inspect.signature(network.forward).parameters.values()
        if entry.kind not in kinds
    ]
    needed = [entry.name for entry in arguments if entry.default is inspect.Parameter.empty]
    if needed == ["data"]:
        return None
    for name in needed:
        if name not in known:
            raise ValueError(
                f"network: expected arguments among {', '.join(known)}, or data alone, got {name}"
            )
    return [entry.name for entry in arguments if entry.name in known]


def _in_mlcolvars_words(described: Mapping[str, Tensor], long_range: bool) -> dict[str, Any]:
    """Return a graph as mlcolvar 2.0 hands it to its networks."""
    mask = described["system_mask"].unsqueeze(1)
    words = {
        name: described[name]
        for name in ("positions", "edge_index", "shifts", "node_attrs", "batch")
    }
    words |= {
        "unit_shifts": described["cell_shifts"],
        "cell": described["box"],
        "system_masks": mask,
        "n_system": mask.to(described["positions"].dtype).sum().reshape(1, 1),
    }
    if long_range:
        words["edge_masks_lr"] = described["long_range_mask"].unsqueeze(1)
    return words


def _one_row(values: Any) -> Tensor:
    """Return the values of one graph, shape (n_outputs,)."""
    if not isinstance(values, Tensor):
        raise TypeError(f"network: expected a tensor of values, got {type(values).__name__}")
    shape = tuple(values.shape)
    if values.dim() == 2 and shape[0] == 1:
        return values[0]
    if values.dim() != 1:
        raise ValueError(f"network: expected values of shape (1, n_outputs), got {shape}")
    return values


def _nothing(dtype: torch.dtype) -> _Graph:
    """Return the tensors of a graph without nodes."""
    numbers, indices = torch.empty(0, 3, dtype=dtype), torch.empty(0, dtype=torch.int64)
    box, none = torch.zeros(3, 3, dtype=dtype), torch.empty(0, dtype=torch.bool)
    return numbers, indices, indices.expand(2, 0), numbers, box, none, none
