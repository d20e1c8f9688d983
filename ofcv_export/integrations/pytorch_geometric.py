"""Models of PyTorch Geometric as networks over graphs that an engine makes.

Objects are recognised by the names of their classes, without importing PyTorch Geometric.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.graph.evaluation import evaluation_copy
from ofcv_export.integrations.plain_modules import class_name

_MODELS = "torch_geometric.nn.models."
# Below it, ViSNet's normalisation takes lengths of vectors for this length.
_SHORTEST = 1e-12


def graph_network(model: nn.Module) -> nn.Module:
    """Turn a model of PyTorch Geometric into a network for a `GraphCollectiveVariable`.

    The model's own neighbour search, which PyTorch cannot trace and which knows no periodicity, is
    left out: the network takes edges that are given. The model stays as it is.

    Parameters
    ----------
    model : torch.nn.Module
        ``torch_geometric.nn.SchNet`` or ``ViSNet``, of positions in the collective variable's unit
        of length and of atomic numbers.

    Returns
    -------
    torch.nn.Module
        Its value, of shape (1, 1), in the model's dtype. Give the collective variable the model's
        ``cutoff``. Every edge counts, where the model keeps ``max_num_neighbors`` for an atom, and
        an atom is a neighbour of its own images. A dipole is that of the positions as they are.

    Raises
    ------
    TypeError
        If it is another model. DimeNet is none of these: it sums over pairs of edges that share an
        atom, whose number does not follow from the numbers of atoms and edges.
    ValueError
        If it is a subclass with an evaluation of its own.

    Examples
    --------
    >>> from torch_geometric.nn import SchNet
    >>> from ofcv_export import GraphCollectiveVariable
    >>> model = SchNet(hidden_channels=8, num_filters=8, num_interactions=2, cutoff=6.0)
    >>> cv = GraphCollectiveVariable(graph_network(model), model.cutoff, ["C", "O"])
    >>> cv.n_outputs
    1
    """
    names = {class_name(base) for base in type(model).__mro__}
    for name, network in _NETWORKS.items():
        if name not in names:
            continue
        if class_name(type(model).forward) != f"{name}.forward":
            raise ValueError(
                f"model: expected the evaluation of {name.rpartition('.')[2]}, "
                f"got {type(model).__name__} with its own"
            )
        made: nn.Module = network(evaluation_copy(model))
        return made
    raise TypeError(
        f"model: expected SchNet or ViSNet of PyTorch Geometric, got {type(model).__name__}"
    )


class GivenEdges(nn.Module):
    """In place of a model's neighbour search: hands over what it was given last."""

    given: tuple[Tensor, ...] | None = None

    def forward(self, *_: Tensor) -> tuple[Tensor, ...]:
        """Return edges, whatever the positions are."""
        assert self.given is not None
        return self.given

    def during(self, function: Any, edges: tuple[Tensor, ...], *args: Tensor) -> Any:
        """Return a function's result while edges are given."""
        self.given = edges
        try:
            return function(*args)
        finally:
            self.given = None


class SchNetOfGraph(nn.Module):
    """SchNet, whose interactions depend on lengths of edges alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.edges = GivenEdges()
        model.interaction_graph = self.edges
        self.model = model

    def forward(
        self,
        elements: Tensor,
        positions: Tensor,
        edge_index: Tensor,
        edge_lengths: Tensor,
        batch: Tensor,
    ) -> Tensor:
        """Return the value (1, 1) of a graph."""
        edges = (edge_index, edge_lengths)
        value: Tensor = self.edges.during(self.model, edges, elements, positions, batch)
        return value


class ViSNetOfGraph(nn.Module):
    """ViSNet, whose interactions depend on vectors of edges alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.edges = GivenEdges()
        model.derivative = False
        model.representation_model = ViSNetRepresentation(model.representation_model, self.edges)
        for part in model.modules():
            if class_name(type(part)) == _MODELS + "visnet.VecLayerNorm":
                part.max_min_norm = max_min_norm
        self.model = model

    def forward(
        self,
        elements: Tensor,
        positions: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        edge_lengths: Tensor,
        batch: Tensor,
    ) -> Tensor:
        """Return the value (1, 1) of a graph."""
        edges = (edge_index, edge_lengths, edge_vectors)
        value: Tensor = self.edges.during(self.model, edges, elements, positions, batch)[0]
        return value


class ViSNetRepresentation(nn.Module):
    """The representation of ViSNet's atoms.

    An atom sends messages to itself as well. The model knows them by both ends being the same atom,
    as they are of an edge to an atom's image too; here they come last.
    """

    def __init__(self, block: Any, edges: GivenEdges) -> None:
        super().__init__()
        self.block = block
        self.edges = edges

    def forward(self, elements: Tensor, positions: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """Return scalars (n_nodes, channels) and vectors (n_nodes, components, channels)."""
        block: Any = self.block
        edge_index, lengths, vectors = self.edges()
        n_nodes, n_edges = positions.shape[0], edge_index.shape[1]
        own = torch.arange(n_nodes, device=positions.device)
        everything = torch.cat([edge_index, torch.stack([own, own])], 1)
        distances = torch.cat([lengths, lengths.new_zeros(n_nodes)])
        # From the receiver to the sender.
        directions = torch.cat([-vectors / lengths[:, None], torch.zeros_like(positions)])
        harmonics = block.sphere(directions)
        expanded = block.distance_expansion(distances)
        scalars = self._among_neighbours(elements, edge_index, lengths, expanded[:n_edges])
        moments = scalars.new_zeros(n_nodes, harmonics.shape[1], scalars.shape[1])
        weights = block.edge_embedding(everything, expanded, scalars)
        for layer in block.vis_mp_layers:
            changes = layer(scalars, moments, everything, distances, weights, harmonics)
            scalars, moments = scalars + changes[0], moments + changes[1]
            weights = weights if changes[2] is None else weights + changes[2]
        return block.out_norm(scalars), block.vec_out_norm(moments)

    def _among_neighbours(
        self, elements: Tensor, edge_index: Tensor, lengths: Tensor, expanded: Tensor
    ) -> Tensor:
        """Return what an atom is by its element and by those of its neighbours."""
        block: Any = self.block
        near = block.neighbor_embedding
        filters = near.distance_proj(expanded) * near.cutoff(lengths)[:, None]
        gathered = near.propagate(edge_index, x=near.embedding(elements), W=filters)
        both = torch.cat([block.embedding(elements), gathered], 1)
        combined: Tensor = near.combine(both)
        return combined


def max_min_norm(vectors: Tensor) -> Tensor:
    r"""Return vectors whose lengths have been scaled to between 0 and 1 among the channels.

    .. math:: \frac{|v| - \min |v|}{\max |v| - \min |v|} \frac{v}{|v|}

    It is ViSNet's, but for a case of all vectors being zero, which gives zeros anyway.

    Parameters
    ----------
    vectors : torch.Tensor
        Shape (n_nodes, components, channels).
    """
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=_SHORTEST)
    longest, shortest = lengths.max(2, keepdim=True)[0], lengths.min(2, keepdim=True)[0]
    spread = longest - shortest
    scaled = (lengths - shortest) / torch.where(spread == 0, 1.0, spread)
    return scaled.relu() * vectors / lengths


_NETWORKS: dict[str, Any] = {
    _MODELS + "schnet.SchNet": SchNetOfGraph,
    _MODELS + "visnet.ViSNet": ViSNetOfGraph,
}
