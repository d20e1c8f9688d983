"""A small network over the graph of two ions and the oxygens near them, and its training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

import ofcv_export as ofcv
from export_scripts.salt_water import IONS, Frames, SaltWater
from ofcv_export.base.elements import atomic_numbers
from ofcv_export.neighbours import Neighbourhood

ELEMENTS = ("Na", "Cl", "O")
CUTOFF, LONG_RANGE_CUTOFF = 0.45, 1.0  # nm

# The inputs of the variable, in order.
Graph = list[Tensor]


class SmallSchNet(nn.Module):
    """Continuous-filter convolutions (Schuett et al., J. Chem. Phys. 148, 241722 (2018)).

    Filters end smoothly at the cutoff, so that values and forces are continuous. For the same
    reason messages go to ions alone: an oxygen that comes near brings all edges to other oxygens
    with it at once.

    Parameters
    ----------
    n_features, n_basis, n_blocks : int
        Features of a node, Gaussians of a length, convolutions.
    """

    def __init__(self, n_features: int = 16, n_basis: int = 16, n_blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Linear(len(ELEMENTS), n_features, bias=False)
        self.register_buffer("centres", torch.linspace(0.15, LONG_RANGE_CUTOFF, n_basis))
        self.filters, self.updates = nn.ModuleList(), nn.ModuleList()
        for _ in range(n_blocks):
            # One more number tells long-range edges from the others.
            self.filters.append(nn.Linear(n_basis + 1, n_features))
            layers = nn.Linear(n_features, n_features), nn.SiLU(), nn.Linear(n_features, n_features)
            self.updates.append(nn.Sequential(*layers))
        self.readout = nn.Linear(n_features, 1)

    def of_nodes(
        self,
        node_attrs: Tensor,
        edge_index: Tensor,
        edge_lengths: Tensor,
        system_mask: Tensor,
        long_range_mask: Tensor,
    ) -> Tensor:
        """Return each node's share in the value, shape (n_nodes,)."""
        sender, receiver = edge_index
        is_long = long_range_mask.to(edge_lengths.dtype)
        cutoff = CUTOFF + (LONG_RANGE_CUTOFF - CUTOFF) * is_long
        end = (1 - (edge_lengths / cutoff) ** 2) ** 3 * system_mask[receiver]
        width = self.centres[1] - self.centres[0]
        gaussians = torch.exp(-(((edge_lengths[:, None] - self.centres) / width) ** 2))
        described = torch.cat([gaussians, is_long[:, None]], dim=1)
        features = self.embedding(node_attrs)
        for weights, update in zip(self.filters, self.updates, strict=True):
            messages = features[sender] * weights(described) * end[:, None]
            received = torch.zeros_like(features).index_add(0, receiver, messages)
            features = features + update(received)
        return self.readout(features)[:, 0] * system_mask

    def forward(
        self,
        node_attrs: Tensor,
        edge_index: Tensor,
        edge_lengths: Tensor,
        system_mask: Tensor,
        long_range_mask: Tensor,
    ) -> Tensor:
        """Return the value, shape (1,)."""
        graph = node_attrs, edge_index, edge_lengths, system_mask, long_range_mask
        return self.of_nodes(*graph).sum().reshape(1)


class IonDistance(nn.Module):
    """The length of the long-range edge between the ions, which is there in both directions."""

    def forward(self, edge_lengths: Tensor, long_range_mask: Tensor) -> Tensor:
        """Return the distance, shape (1,)."""
        return 0.5 * (edge_lengths * long_range_mask).sum().reshape(1)


def variable(network: nn.Module, water: SaltWater) -> ofcv.GraphCollectiveVariable:
    """Return a float64 network over the graph of ions and oxygens as a collective variable."""
    return ofcv.GraphCollectiveVariable(
        network,
        CUTOFF,
        ELEMENTS,
        system=IONS,
        environment=water.oxygens,
        long_range_cutoff=LONG_RANGE_CUTOFF,
        subsystem=IONS,
        length_unit="nm",
        atom_elements=["Na", "Cl", *["O"] * len(water.oxygens)],
    ).double()


def graphs_of(frames: Frames, water: SaltWater) -> list[Graph]:
    """Return the graph of each frame: the inputs of the variable, in order."""
    search = Neighbourhood(
        CUTOFF,
        n_atoms=len(water.elements),
        system=IONS,
        environment=water.oxygens,
        long_range_cutoff=LONG_RANGE_CUTOFF,
        subsystem=IONS,
    )
    numbers = np.array([atom.element.atomic_number for atom in water.topology.atoms()])
    graphs = []
    for positions, box in zip(frames.positions, frames.boxes, strict=True):
        graph = search.find(positions, box)
        shifts, masks = graph.cell_shifts.astype(float), (graph.system_mask, graph.long_range_mask)
        arrays = positions[graph.nodes], numbers[graph.nodes], graph.edge_index, shifts, box, *masks
        graphs.append([torch.from_numpy(array) for array in arrays])
    return graphs


def joined(graphs: Sequence[Graph]) -> tuple[list[Tensor], Tensor]:
    """Return many graphs as one for `SmallSchNet.of_nodes`, and which graph each node is of."""
    parts, n_nodes = [], 0
    for positions, elements, edges, shifts, box, in_system, is_long in graphs:
        vectors = positions[edges[1]] - positions[edges[0]] + shifts @ box
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        one_hot = (elements[:, None] == torch.tensor(atomic_numbers(ELEMENTS))).double()
        parts.append((one_hot, edges + n_nodes, lengths, in_system != 0, is_long != 0))
        n_nodes += len(positions)
    numbers = torch.arange(len(graphs))
    nodes = torch.tensor([len(graph[0]) for graph in graphs])
    together = [
        torch.cat(tensors, dim=-1 if tensors[0].shape[0] == 2 else 0)
        for tensors in zip(*parts, strict=True)
    ]
    return together, numbers.repeat_interleave(nodes)


def train(
    graphs: Sequence[Graph], labels: Tensor, seed: int, n_epochs: int = 300
) -> tuple[SmallSchNet, float]:
    """Return a network trained to give the labels, and its accuracy on a held-out fifth.

    Parameters
    ----------
    graphs : sequence of graphs
        Of frames.
    labels : torch.Tensor
        -1 for bound ions and 1 for unbound ones, float64, shape (n_frames,).
    seed : int
        Of weights and of the held-out frames.
    n_epochs : int
        Steps of AdamW, on all training frames at once.
    """
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))
    held_out, training = order[: len(order) // 5], order[len(order) // 5 :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallSchNet().double()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)

    def values(chosen: Tensor) -> Tensor:
        (inputs, graph_of_node) = batches[len(chosen)]
        zeros = torch.zeros(len(chosen), dtype=torch.float64)
        return zeros.index_add(0, graph_of_node, network.of_nodes(*inputs))

    batches = {len(chosen): joined([graphs[i] for i in chosen]) for chosen in (held_out, training)}
    for _ in track(range(n_epochs), description=f"{'Training the network':<36}"):
        optimizer.zero_grad()
        loss = torch.mean((values(training) - labels[training]) ** 2)
        torch.autograd.backward(loss)
        optimizer.step()
    network.eval().requires_grad_(False)
    accuracy = (values(held_out).sign() == labels[held_out]).double().mean().item()
    return network, accuracy


def values_of(cv: ofcv.GraphCollectiveVariable, graphs: Sequence[Graph]) -> np.ndarray:
    """Return the variable of each graph, shape (n_frames,)."""
    with torch.no_grad():
        return np.array([cv(*graph).item() for graph in graphs])
