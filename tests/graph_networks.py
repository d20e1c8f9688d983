"""SchNet and PaiNN with the parameters of mlcolvar 2.0, and graphs with reference values.

SchNet is that of Schütt et al., J. Chem. Phys. 148, 241722 (2018), PaiNN that of Schütt, Unke and
Gastegger, ICML 2021. Both expand distances in Gaussians and read out atoms by two layers. Names of
parameters are mlcolvar's, so that its weights can be loaded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import ofcv_export as ofcv
from ofcv_export.artifacts.atom_graphs import edges_within
from ofcv_export.base.elements import SYMBOLS

FOLDER = Path(__file__).parent / "reference" / "graph_cvs"
N_FRAMES = 4
# What a state dict does not tell of a network.
SETTINGS: dict[str, dict[str, Any]] = {
    "alanine_schnet": {},
    "alanine_schnet_attention": {"attention": True, "mean": False, "after_pooling": False},
    "alanine_painn": {},
    "nacl_schnet": {},
    "nacl_long_range_schnet": {},
    "nacl_painn": {},
}
ALL = sorted([*SETTINGS, "alanine_gvp"])


def shifted_softplus(x: Tensor) -> Tensor:
    """Return ln(0.5 e^x + 0.5)."""
    return functional.softplus(x) - math.log(2)


class ShiftedSoftplus(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return shifted_softplus(x)


def two_layers(n_in: int, n_hidden: int, n_out: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_hidden), activation, nn.Linear(n_hidden, n_out))


def gaussians(lengths: Tensor, n_bases: int, cutoff: float) -> Tensor:
    """Return exp(-(d - mu)^2 / (2 delta^2)) with n_bases centres mu, delta apart up to a cutoff."""
    centres = torch.linspace(0, cutoff, n_bases, dtype=lengths.dtype)
    width = cutoff / (n_bases - 1)
    return torch.exp(-0.5 * ((lengths[:, None] - centres) / width) ** 2)


def fading(lengths: Tensor, cutoff: float) -> Tensor:
    """Return (cos(pi d / cutoff) + 1) / 2."""
    return 0.5 * torch.cos(math.pi * lengths / cutoff) + 0.5


def long_range_fading(lengths: Tensor, cutoff: float, long_range_cutoff: float) -> Tensor:
    """Return a weight that grows up to the short cutoff and fades out at the long one."""
    rising = torch.where(lengths < cutoff, 1 - fading(lengths, cutoff), 1.0)
    return rising * fading(lengths, long_range_cutoff)


def summed(messages: Tensor, receivers: Tensor, n_nodes: int) -> Tensor:
    return messages.new_zeros(n_nodes, *messages.shape[1:]).index_add(0, receivers, messages)


def averaged(messages: Tensor, receivers: Tensor, n_nodes: int) -> Tensor:
    counts = summed(torch.ones_like(messages[:, :1]), receivers, n_nodes)
    return summed(messages, receivers, n_nodes) / counts.clamp(min=1)


class Readout(nn.Module):
    """What SchNet and PaiNN have in common: cutoffs, embedding of elements, pooling, read-out."""

    def __init__(
        self,
        activation: nn.Module,
        n_elements: int,
        n_channels: int,
        n_outputs: int,
        cutoff: float,
        long_range_cutoff: float | None,
        mean: bool,
        after_pooling: bool,
    ) -> None:
        super().__init__()
        self.cutoff, self.long_range_cutoff = cutoff, long_range_cutoff
        self.mean, self.after_pooling = mean, after_pooling
        self.W_v = nn.Linear(n_elements, n_channels, bias=False)
        self.W_out = two_layers(n_channels, n_channels // 2, n_outputs, activation)

    def read_out(self, features: Tensor, system_mask: Tensor) -> Tensor:
        """Return values (n_outputs,) of features (n_nodes, n_channels)."""
        each = features if self.after_pooling else self.W_out(features)
        weights = system_mask[:, None].to(each.dtype)
        pooled = (each * weights).sum(0)
        if self.mean:
            pooled = pooled / weights.sum()
        return self.W_out(pooled) if self.after_pooling else pooled


class Convolution(nn.Module):
    """A filter of distances, times features of neighbours."""

    def __init__(self, n_channels: int, n_filters: int, attention: bool) -> None:
        super().__init__()
        self.lin1 = nn.Linear(n_channels, n_filters, bias=False)
        self.lin2 = nn.Linear(n_filters, n_channels)
        self.gate = (
            two_layers(n_filters, n_filters // 2, 1, ShiftedSoftplus()) if attention else None
        )

    def forward(self, features: Tensor, filters: Tensor, edge_index: Tensor) -> Tensor:
        senders, receivers = edge_index
        messages = self.lin1(features)[senders] * filters
        if self.gate is None:
            return self.lin2(averaged(messages, receivers, features.shape[0]))
        scores = self.gate(messages)[:, 0]
        largest = scores.detach().new_zeros(features.shape[0])
        largest = largest.scatter_reduce(0, receivers, scores.detach(), "amax")
        weights = torch.exp(scores - largest[receivers])
        weights = weights / summed(weights, receivers, features.shape[0])[receivers]
        return self.lin2(summed(weights[:, None] * messages, receivers, features.shape[0]))


class Interaction(nn.Module):
    def __init__(
        self, n_channels: int, n_bases: int, n_filters: int, attention: bool, long_range: bool
    ) -> None:
        super().__init__()
        self.mlp = two_layers(n_bases, n_filters, n_filters, ShiftedSoftplus())
        if long_range:
            self.mlp_lr = two_layers(n_bases, n_filters, n_filters, ShiftedSoftplus())
        self.conv = Convolution(n_channels, n_filters, attention)
        self.lin = nn.Linear(n_channels, n_channels)


class SchNet(Readout):
    """Continuous-filter convolutions."""

    def __init__(
        self,
        n_elements: int,
        n_outputs: int,
        cutoff: float,
        long_range_cutoff: float | None = None,
        n_bases: int = 8,
        n_layers: int = 2,
        n_filters: int = 8,
        n_channels: int = 8,
        attention: bool = False,
        mean: bool = True,
        after_pooling: bool = True,
    ) -> None:
        super().__init__(
            ShiftedSoftplus(),
            n_elements,
            n_channels,
            n_outputs,
            cutoff,
            long_range_cutoff,
            mean,
            after_pooling,
        )
        self.n_bases = n_bases
        self.layers = nn.ModuleList(
            Interaction(n_channels, n_bases, n_filters, attention, long_range_cutoff is not None)
            for _ in range(n_layers)
        )

    def forward(
        self,
        node_attrs: Tensor,
        edge_index: Tensor,
        edge_lengths: Tensor,
        system_mask: Tensor,
        long_range_mask: Tensor | None = None,
    ) -> Tensor:
        features = self.W_v(node_attrs)
        for layer in self.layers:
            filters = self._filters(layer, edge_lengths, long_range_mask)
            change = layer.conv(features, filters, edge_index)
            features = features + layer.lin(shifted_softplus(change))
        return self.read_out(features, system_mask)

    def _filters(self, layer: nn.Module, lengths: Tensor, is_long: Tensor | None) -> Tensor:
        short = layer.mlp(gaussians(lengths, self.n_bases, self.cutoff))
        short = short * fading(lengths, self.cutoff)[:, None]
        if self.long_range_cutoff is None or is_long is None:
            return short
        long = layer.mlp_lr(gaussians(lengths, self.n_bases, self.long_range_cutoff))
        weights = long_range_fading(lengths, self.cutoff, self.long_range_cutoff)
        return torch.where(is_long[:, None], long * weights[:, None], short)


class Message(nn.Module):
    """Eq. 7 and 8 of PaiNN."""

    def __init__(self, n_channels: int, n_bases: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(n_channels, n_channels)
        self.lin2 = nn.Linear(n_channels, 3 * n_channels)
        self.lin_rbf = nn.Linear(n_bases, 3 * n_channels)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        edge_index: Tensor,
        expanded: Tensor,
        weights: Tensor,
        directions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        senders, receivers = edge_index
        filters = self.lin_rbf(expanded) * weights[:, None]
        phi = self.lin2(functional.silu(self.lin1(scalars)))[senders] * filters
        of_vectors, of_scalars, of_directions = phi.chunk(3, 1)
        turned = vectors[senders] * of_vectors[:, :, None]
        turned = turned + of_directions[:, :, None] * directions[:, None]
        n_nodes = scalars.shape[0]
        return summed(of_scalars, receivers, n_nodes), summed(turned, receivers, n_nodes)


class Update(nn.Module):
    """Eq. 9 and 10 of PaiNN."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(2 * n_channels, n_channels)
        self.lin2 = nn.Linear(n_channels, 3 * n_channels)
        self.linu = nn.Linear(n_channels, n_channels, bias=False)
        self.linv = nn.Linear(n_channels, n_channels, bias=False)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.einsum("ij,njk->nik", self.linu.weight, vectors)
        v = torch.einsum("ij,njk->nik", self.linv.weight, vectors)
        lengths = torch.linalg.vector_norm(v, dim=2)
        hidden = functional.silu(self.lin1(torch.cat([scalars, lengths], 1)))
        of_vectors, of_products, of_scalars = self.lin2(hidden).chunk(3, 1)
        return of_products * (u * v).sum(2) + of_scalars, of_vectors[:, :, None] * vectors


class PaiNN(Readout):
    """Messages of scalars and vectors; mlcolvar updates vectors as they are, and not as U v."""

    def __init__(
        self,
        n_elements: int,
        n_outputs: int,
        cutoff: float,
        n_bases: int = 6,
        n_layers: int = 2,
        n_channels: int = 16,
    ) -> None:
        super().__init__(nn.SiLU(), n_elements, n_channels, n_outputs, cutoff, None, True, True)
        self.n_bases = n_bases
        self.layers_message = nn.ModuleList(Message(n_channels, n_bases) for _ in range(n_layers))
        self.layers_update = nn.ModuleList(Update(n_channels) for _ in range(n_layers))

    def forward(
        self, node_attrs: Tensor, edge_index: Tensor, edge_vectors: Tensor, system_mask: Tensor
    ) -> Tensor:
        lengths = torch.linalg.vector_norm(edge_vectors, dim=1)
        directions = edge_vectors / lengths[:, None]
        expanded = gaussians(lengths, self.n_bases, self.cutoff)
        weights = fading(lengths, self.cutoff)
        scalars = self.W_v(node_attrs)
        vectors = scalars[:, :, None] * directions.new_zeros(3)
        for message, update in zip(self.layers_message, self.layers_update, strict=True):
            s, v = message(scalars, vectors, edge_index, expanded, weights, directions)
            scalars, vectors = update(scalars + s, vectors + v)
            # mlcolvar adds messages to updates, the paper what they were added to.
            scalars, vectors = scalars + s, vectors + v
        return self.read_out(scalars, system_mask)


def largest(suffix: str) -> dict[str, int]:
    """Return the largest graph of the reference frames where a format has to know it."""
    return {"n_nodes": 69, "n_edges": 428} if suffix in (".c", ".so") else {}


def reference(name: str) -> dict[str, Any]:
    """Return the arrays of a file of reference values."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _state(arrays: dict[str, Any], wanted: list[str]) -> dict[str, Tensor]:
    """Return the weights that a network has, under its names."""
    prefix = "state|"
    given = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
    return {
        name: torch.from_numpy(given[name.replace("conv.gate.", "conv.aggr_module.gate_nn.")])
        for name in wanted
    }


def network(name: str, arrays: dict[str, Any] | None = None) -> nn.Module:
    """Return the network of a file of reference values, in float64."""
    arrays = arrays or reference(name)
    long_range = float(arrays["long_range_cutoff"])
    known = (len(arrays["atomic_numbers"]), len(arrays["values_0"]), float(arrays["cutoff"]))
    made: nn.Module
    if "painn" in name:
        made = PaiNN(*known)
    else:
        sizes = {"n_bases": 6, "n_filters": 6, "n_channels": 6} if "attention" in name else {}
        made = SchNet(*known, long_range if long_range > 0 else None, **sizes, **SETTINGS[name])
    made = made.double()
    wanted = [key for key, _ in made.named_parameters()]
    made.load_state_dict(_state(arrays, wanted))
    return made.eval()


def variable(
    name: str, arrays: dict[str, Any] | None = None, net: nn.Module | None = None
) -> ofcv.GraphCollectiveVariable:
    """Return the collective variable of a file of reference values.

    Its atoms are those of the engine: alanine dipeptide's heavy ones, or NaCl and the oxygens.
    """
    arrays = arrays or reference(name)
    numbers = arrays["all_atomic_numbers"]
    long_range = float(arrays["long_range_cutoff"])
    groups: dict[str, Any] = {"system": np.flatnonzero(numbers > 1).tolist()}
    if "nacl" in name:
        ions = np.flatnonzero(np.isin(numbers, (11, 17))).tolist()
        groups = {"system": ions, "environment": np.flatnonzero(numbers == 8).tolist()}
    if long_range > 0:
        groups |= {"long_range_cutoff": long_range, "subsystem": groups["system"]}
    return ofcv.GraphCollectiveVariable(
        net or network(name, arrays),
        float(arrays["cutoff"]),
        [SYMBOLS[number] for number in arrays["atomic_numbers"]],
        buffer=float(arrays["buffer"]),
        **groups,
    )


def graph(
    cv: ofcv.GraphCollectiveVariable, arrays: dict[str, Any], frame: int
) -> dict[str, Tensor]:
    """Return the graph of a frame as a collective variable takes it, by names."""

    def of_frame(name: str) -> Tensor:
        return torch.from_numpy(arrays[f"{name}_{frame}"])

    numbers = torch.from_numpy(arrays["atomic_numbers"])
    every = {
        "positions": of_frame("positions"),
        "elements": numbers[of_frame("node_attrs").argmax(1)],
        "edge_index": of_frame("edge_index"),
        "cell_shifts": of_frame("unit_shifts"),
        "box": of_frame("cell"),
        "system_mask": of_frame("system_masks")[:, 0].long(),
        "long_range_mask": of_frame("edge_masks_lr")[:, 0].long(),
    }
    return {spec.name: every[spec.name].to(spec.torch_dtype) for spec in cv.inputs()}


def expected(arrays: dict[str, Any], frame: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return values and derivatives of a frame."""
    names = ("values", "derivatives", "cell_derivatives")
    first, second, third = (torch.from_numpy(arrays[f"{name}_{frame}"]) for name in names)
    return first, second, third


def random_graph(
    cv: ofcv.GraphCollectiveVariable,
    n_nodes: int,
    periodic: bool = False,
    seed: int = 0,
    side: float = 6.0,
) -> dict[str, Tensor]:
    """Return a graph of atoms at random in a box, with all edges within the cutoff."""
    generator = np.random.default_rng(seed)
    box = np.diag([side, side + 1.0, side + 2.0]) + np.tri(3, k=-1) * 0.7 if periodic else np.eye(3)
    places = generator.random((n_nodes, 3)) @ (box if periodic else side * box)
    box = box if periodic else 0 * box
    edges, shifts = edges_within(places, box, cv.cutoff)
    n_short = len(shifts)
    if cv.long_range_cutoff is not None:
        longer = edges_within(places, box, cv.long_range_cutoff)
        edges, shifts = np.concatenate([edges, longer[0]], 1), np.concatenate([shifts, longer[1]])
    every = {
        "positions": places,
        "elements": generator.choice(cv.atomic_numbers, n_nodes),
        "edge_index": edges,
        "cell_shifts": shifts,
        "box": box,
        "system_mask": np.arange(n_nodes) < max(1, n_nodes // 2),
        "long_range_mask": np.arange(len(shifts)) >= n_short,
    }
    return {
        spec.name: torch.from_numpy(every[spec.name]).to(spec.torch_dtype) for spec in cv.inputs()
    }


def without_edges(graph: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the nodes of a graph without its edges."""
    none = {"edge_index": graph["edge_index"][:, :0], "cell_shifts": graph["cell_shifts"][:0]}
    if "long_range_mask" in graph:
        none["long_range_mask"] = graph["long_range_mask"][:0]
    return graph | none


def one_node(graph: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the first node of a graph, alone and of the system."""
    alone = {
        name: values[:1] if name in ("positions", "elements", "system_mask") else values
        for name, values in without_edges(graph).items()
    }
    if "system_mask" in alone:
        alone["system_mask"] = torch.ones_like(alone["system_mask"])
    return alone
