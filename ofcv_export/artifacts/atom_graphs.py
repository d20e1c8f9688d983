"""Graphs of atoms with which a graph collective variable is verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofcv_export.artifacts.graph_frames import Inputs
from ofcv_export.artifacts.replays import (
    PROBE,
    Calls,
    Replay,
    doubled,
    row_scales,
    run,
    sizes_up_to,
)
from ofcv_export.base.elements import atomic_numbers
from ofcv_export.base.units import length_factor
from ofcv_export.graph.details import GraphVariableDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.probe import probe, probe_sizes
from ofcv_export.graph.tensor_spec import TensorSpec

FRAMES = "frames"
STYLES = ("cluster", "periodic", "sparse", "no edges", "one element")
# Errors of sums over neighbours and nodes that grow with the size show here.
MANY = 300
# In Angstrom: atoms of a liquid have about this volume each, and come no closer than this.
_VOLUME, _CLOSEST = 10.0, 0.9
# Attempts to place an atom where no other is.
_ATTEMPTS = 100

Array = NDArray[np.float64]


class GraphReplays(Calls):
    """All calls with which a graph collective variable is compared with its judge.

    Parameters
    ----------
    graph : ExportGraph
        What was exported.
    exact : torch.nn.Module
        The judge, in float64.
    frames : sequence of mapping
        Inputs of a user's own frames, by their names.
    """

    def __init__(
        self, graph: ExportGraph, exact: torch.nn.Module, frames: Sequence[Inputs] = ()
    ) -> None:
        self.graph = graph
        self.exact = exact
        assert isinstance(graph.details, GraphVariableDetails)
        self._details = graph.details
        self._frames = [self._tensors(inputs) for inputs in frames]
        self._most_nodes = graph.largest.get("n_nodes", MANY)
        self._most_edges = graph.largest.get("n_edges")
        self._angstrom = length_factor("A", to=str(graph.length_unit))
        self._scales = self._typical_outputs()
        self._derivative_scales = {}

    def __iter__(self) -> Iterator[Replay]:
        """Yield the calls, the largest last."""
        sizes = probe_sizes(self.graph.inputs)
        yield Replay(PROBE, sizes["n_nodes"], probe(self.graph.inputs, sizes))
        for size in sizes_up_to(self._most_nodes):
            for style in STYLES:
                yield Replay(style, size, self._inputs(style, size, size))
        for inputs in self._frames:
            yield Replay(FRAMES, len(inputs[0]), inputs)
        most = min(MANY, self._most_nodes)
        yield Replay(STYLES[0], most, self._inputs(STYLES[0], most, 0))

    def _inputs(self, style: str, n_nodes: int, seed: int) -> list[Tensor]:
        """Return the inputs of a random graph."""
        generator = np.random.default_rng([seed, STYLES.index(style)])
        details = self._details
        n_system = n_nodes if details.environment is None else -(-n_nodes // 3)
        numbers = atomic_numbers(details.known_elements)
        chosen = generator.choice(numbers[-1:] if style == "one element" else numbers, n_nodes)
        spread = {"sparse": 30.0, "no edges": 1e6}.get(style, 1.0)
        side = (n_nodes * _VOLUME * spread) ** (1 / 3) * self._angstrom
        box = np.zeros((3, 3))
        # In a lattice of one atom all vectors cancel, where networks of vectors are not smooth.
        if style in ("periodic", "one element") and n_nodes > 1:
            box = _box(side, generator)
        places = _places(n_nodes, side, box, _CLOSEST * self._angstrom, generator)
        edges, shifts = edges_within(places, box, details.cutoff)
        if style == "no edges":
            edges, shifts = edges[:, :0], shifts[:0]
        n_short = len(shifts)
        if details.long_range_cutoff is not None and style != "no edges":
            longer = edges_within(places[:n_system], box, details.long_range_cutoff)
            edges = np.concatenate([edges, longer[0]], axis=1)
            shifts = np.concatenate([shifts, longer[1]])
        edges, shifts = edges[:, : self._most_edges], shifts[: self._most_edges]
        return self._tensors({
            "positions": places,
            "elements": chosen,
            "edge_index": edges,
            "cell_shifts": shifts,
            "box": box,
            "system_mask": np.arange(n_nodes) < n_system,
            "long_range_mask": np.arange(len(shifts)) >= n_short,
        })  # fmt: skip

    def _tensors(self, named: Inputs) -> list[Tensor]:
        """Return inputs in order, parameters with their default values among them."""
        return [
            self._parameter(spec) if spec.name not in named else _tensor(named[spec.name], spec)
            for spec in self.graph.inputs
        ]

    def _parameter(self, spec: TensorSpec) -> Tensor:
        """Return the default value of a bias's parameter."""
        return torch.tensor(self._details.parameters[spec.name], dtype=spec.torch_dtype)

    def _typical_outputs(self) -> list[dict[str, float]]:
        """Return for each output its typical size with each style of graphs."""
        names = [spec.name for spec in self.graph.outputs]
        scales: list[dict[str, float]] = [{} for _ in names]
        styles = [*STYLES, *([FRAMES] if self._frames else [])]
        for style in styles:
            calls = self._small_calls(style)
            outputs = [run(self.exact, doubled(inputs)) for inputs in calls]
            for place in range(len(names)):
                scales[place][style] = float(
                    max(row_scales(entry[place]).max() for entry in outputs)
                )
        # Derivatives with respect to the box are those of the edges that it cuts, if there are any.
        for style in styles:
            slopes = [scales[names.index(name)] for name in ("derivatives", "box_derivatives")]
            slopes[1][style] = max(slope[style] for slope in slopes)
        return scales

    def _small_calls(self, style: str) -> list[list[Tensor]]:
        """Return calls that tell how large outputs usually are."""
        if style == FRAMES:
            return self._frames
        sizes = enumerate(sizes_up_to(self._most_nodes))
        return [self._inputs(style, n_nodes, seed) for seed, n_nodes in sizes]


def edges_within(places: Array, box: Array, cutoff: float) -> tuple[NDArray[np.int64], Array]:
    """Return edges (2, n_edges) and lattice vectors crossed (n_edges, 3), by trying all images.

    Parameters
    ----------
    places : numpy.ndarray
        Positions, shape (n_nodes, 3).
    box : numpy.ndarray
        Lattice vectors as rows, shape (3, 3); zeros without periodicity.
    cutoff : float
        Length of the longest edge.
    """
    found: list[NDArray[np.int64]] = []
    for shift in product(*(range(-n, n + 1) for n in _reach(places, box, cutoff))):
        vectors = places[None] - places[:, None] + np.array(shift) @ box
        near = np.square(vectors).sum(2) <= cutoff**2
        if not any(shift):
            np.fill_diagonal(near, False)
        pairs = np.argwhere(near)
        found.append(np.concatenate([pairs, np.tile(shift, (len(pairs), 1))], axis=1))
    edges = np.concatenate(found)
    return edges[:, :2].T.copy(), edges[:, 2:].astype(np.float64)


def _reach(places: Array, box: Array, cutoff: float) -> Sequence[int]:
    """Return how many lattice vectors lie between atoms that are near each other."""
    if not box.any():
        return (0, 0, 0)
    inverse = np.linalg.inv(box)
    spread = np.ptp(places @ inverse, axis=0)
    return [int(n) for n in np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + spread)]


def _box(side: float, generator: np.random.Generator) -> Array:
    """Return lattice vectors of about a length, some oblique."""
    box = np.diag(side * generator.uniform(0.9, 1.2, 3))
    box[1, 0], box[2, 0], box[2, 1] = side * generator.uniform(-0.3, 0.3, 3)
    return box


def _places(
    n_nodes: int, side: float, box: Array, closest: float, generator: np.random.Generator
) -> Array:
    """Return random places in a cube or a box, no two too close if there is room."""
    lattice = box if box.any() else side * np.eye(3)
    places = np.empty((n_nodes, 3))
    for node in range(n_nodes):
        for _ in range(_ATTEMPTS):
            places[node] = generator.random(3) @ lattice
            fractions = (places[:node] - places[node]) @ np.linalg.inv(lattice)
            if box.any():
                fractions -= np.round(fractions)
            if np.square(fractions @ lattice).sum(1).min(initial=np.inf) > closest**2:
                break
    return places


def _tensor(values: NDArray[np.generic], spec: TensorSpec) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(spec.torch_dtype)
