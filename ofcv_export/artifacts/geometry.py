"""Positions and boxes that a collective variable is verified with.

They follow the unit of length, the boxes, and the variable itself: clusters of atoms from tightly
packed to far apart, the places between them where the values change, geometries that have the
descriptors a network was trained on, where its normalisation tells them, and a user's own frames.
A switching function or a network that saturates at most distances, so that nothing could be seen
there, is then tried where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofcv_export.artifacts.frames import Frames, n_atoms_in
from ofcv_export.base.units import LENGTHS, length_factor
from ofcv_export.graph.details import ContractDetails, GraphVariableDetails, variable_of
from ofcv_export.graph.export_graph import ExportGraph, Normalisation
from ofcv_export.graph.float64 import InFloat64

# Length of a bond in nm.
_BOND = 0.15
# Standard deviation of each component, in units of bond * n_atoms^(1/3), of a cluster whose
# neighbours are a bond apart.
_SPREAD = 0.55
# Clusters as large as a molecule, smaller and larger ones; in each, frames differ by up to sqrt(2).
SIZES = {"compact": 0.5, "molecule": 1.0, "wide": 3.0, "far apart": 10.0}
TRANSITION, TRAINED, FRAMES, DISPLACED = "transition", "trained", "frames", "displaced frames"
# Displacements of a user's frames, in bonds.
_DISPLACEMENT = 0.2
# Halvings of the way between two frames; in float32 there is nothing left of it.
_BISECTIONS = 26
# A value that changes by so much of the whole change within the last of them jumps.
_JUMP = 0.1
_FITTING_STEPS = 60
# Lengths of boxes, in standard deviations of the positions in them.
_BOX = (4.0, 8.0)
# Standard deviation of positions in a fixed box, in its shortest length.
_OF_BOX = 0.3


@dataclass(frozen=True)
class Drawn:
    """Frames that share a box.

    Parameters
    ----------
    positions : torch.Tensor
        Shape (n_frames, n_atoms, 3), float64, as the input ``positions`` has them: in the graph's
        unit, or as fractions of a box.
    box : torch.Tensor or None
        Lattice vectors as rows, shape (3, 3), float64, where a box is an input.
    """

    positions: Tensor
    box: Tensor | None


Evaluate = Callable[[Drawn], Tensor]


class Geometry:
    """Draws frames for the input ``positions`` of a graph.

    Parameters
    ----------
    graph : ExportGraph
        A collective variable, a bias, or one of them behind a contract.
    evaluate : callable
        Gives the float64 values (n_frames, n_values) of frames, from which places where the values
        change are found.
    frames : Frames, optional
        A user's own.
    """

    def __init__(
        self, graph: ExportGraph, evaluate: Evaluate, frames: Frames | None = None
    ) -> None:
        self.evaluate = evaluate
        self.frames = frames
        self.normalisation = _of_positions(graph)
        variable = variable_of(graph.details)
        assert variable is not None
        self.box = variable.box
        self.n_atoms = n_atoms_in(graph.inputs, graph.details)
        boxes = [spec for spec in graph.inputs if spec.name == "box"]
        self.takes_box = bool(boxes) or self.box.run_time is not None
        example = boxes[0].example if boxes else None
        # The only box that a file takes.
        self.only_box = None if example is None else _lattice(example)
        # A unit that is not known may be any; nm is ours.
        unit = graph.length_unit if graph.length_unit in LENGTHS else "nm"
        self.bond = _BOND * length_factor("nm", str(unit))
        self.spread = _SPREAD * self.bond * self.n_atoms ** (1 / 3)
        self.fixed = [_lattice(box) for box in self.box.fixed]
        self.sizes = dict(SIZES)
        if self.fixed and not self.box.fractions:
            # Large enough for periodic images to be the nearest ones.
            shortest = min(float(box.norm(dim=1).min()) for box in self.fixed)
            self.sizes["far apart"] = max(SIZES["far apart"], _OF_BOX * shortest / self.spread)

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds of frames that can be drawn."""
        kinds = [*SIZES, TRANSITION]
        if self.normalisation is not None:
            kinds.append(TRAINED)
        if self.frames is not None:
            kinds += [FRAMES, DISPLACED]
        return kinds

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def draw(self, kind: str, n_frames: int, seed: int) -> Drawn:
        """Return frames of one kind, the same for the same seed.

        Parameters
        ----------
        kind : str
            One of `kinds`.
        n_frames : int
            Number of frames.
        seed : int
            Seed of the random numbers.
        """
        generator = np.random.default_rng(seed)
        if kind == TRANSITION:
            return self._transition(n_frames, generator)
        if kind == TRAINED:
            return self._trained(n_frames, generator)
        if kind in SIZES:
            size = self.sizes[kind] * 2.0 ** generator.uniform(-0.5, 0.5, n_frames)
            return self._cluster(size, generator)
        return self._from_frames(n_frames, kind == DISPLACED, generator)

    def _cluster(self, size: np.ndarray, generator: np.random.Generator) -> Drawn:
        """Return normally distributed atoms, frame by frame of another size."""
        x = generator.standard_normal((len(size), self.n_atoms, 3))
        positions = torch.from_numpy(self.spread * size[:, None, None] * x)
        box = self._box_around(self.spread * float(np.median(size)), generator)
        return self._as_input(positions, box)

    def _as_input(self, positions: Tensor, box: Tensor | None) -> Drawn:
        """Return positions in real units as the input has them."""
        if self.box.fractions:
            lattice = self._lattice_in(box)
            if lattice is None:
                lattice = torch.eye(3, dtype=torch.float64) * 4 * positions.std()
            positions = positions @ torch.linalg.inv(lattice)
        return Drawn(positions, box)

    def _lattice_in(self, box: Tensor | None) -> Tensor | None:
        """Return the box of a call, or the fixed one, that fractions are of."""
        return box if box is not None else next(iter(self.fixed), None)

    def _box_around(self, spread: float, generator: np.random.Generator) -> Tensor | None:
        """Return the box of a call, if it has one, a few times as large as what is in it."""
        if not self.takes_box or self.only_box is not None:
            return self.only_box
        box = np.diag(generator.uniform(*_BOX, 3))
        if self.box.run_time != "orthorhombic":
            box[1, 0], box[2, 0], box[2, 1] = generator.uniform(-_BOX[0] / 2, _BOX[0] / 2, 3)
        return torch.from_numpy(spread * box)

    def _transition(self, n_frames: int, generator: np.random.Generator) -> Drawn:
        """Return frames where some value is halfway between those of two other frames.

        A value that saturates differently in both has to change somewhere on the way. Where it
        jumps, as an angle does from one periodic image to the next, rounding decides on which side
        a frame is, and the first frame is taken instead.
        """
        low, high = (np.log2(end(self.sizes.values())) for end in (min, max))
        drawn = self._cluster(2.0 ** generator.uniform(low, high, 2 * n_frames), generator)
        first, second = drawn.positions[:n_frames], drawn.positions[n_frames:]
        start = self.evaluate(Drawn(first, drawn.box))
        end = self.evaluate(Drawn(second, drawn.box))
        column = torch.arange(n_frames).unsqueeze(1) % start.shape[1]
        start, end = start.gather(1, column), end.gather(1, column)
        halfway = (start + end) / 2
        below = first.new_zeros(n_frames, 1, 1)
        above = torch.ones_like(below)
        for _ in range(_BISECTIONS):
            middle = (below + above) / 2
            positions = first + middle * (second - first)
            values = self.evaluate(Drawn(positions, drawn.box)).gather(1, column)
            is_before = ((values < halfway) == (start < halfway)).unsqueeze(2)
            below = torch.where(is_before, middle, below)
            above = torch.where(is_before, above, middle)
        before, after = (
            self.evaluate(Drawn(first + side * (second - first), drawn.box))
            for side in (below, above)
        )
        jumps = (after - before).abs().amax(1) > _JUMP * (end - start).abs().amax(1)
        way = torch.where(jumps[:, None, None], below.new_zeros(()), (below + above) / 2)
        return Drawn(first + way * (second - first), drawn.box)

    def _trained(self, n_frames: int, generator: np.random.Generator) -> Drawn:
        """Return frames whose descriptors are about those that a network was trained on."""
        assert self.normalisation is not None
        drawn = self._cluster(2.0 ** generator.uniform(-0.5, 0.5, n_frames), generator)
        noise = torch.from_numpy(
            generator.standard_normal((n_frames, len(self.normalisation.mean)))
        )
        positions = _fitted(self.normalisation, drawn, noise)
        return Drawn(positions, drawn.box)

    def _from_frames(self, n_frames: int, displaced: bool, generator: np.random.Generator) -> Drawn:
        """Return a user's frames, evenly spread over all, with the box of one of them."""
        assert self.frames is not None
        rows = np.linspace(0, len(self.frames.positions) - 1, n_frames)
        rows = np.rint(rows + generator.uniform(-0.5, 0.5, n_frames))
        index = torch.from_numpy(rows.clip(0, len(self.frames.positions) - 1).astype(np.int64))
        positions = self.frames.positions[index]
        box = None if self.frames.boxes is None else self.frames.boxes[index[0]]
        if displaced:
            length = _DISPLACEMENT * self.bond
            if self.box.fractions:
                lattice = self._lattice_in(box)
                length /= 1.0 if lattice is None else float(lattice.norm(dim=1).max())
            x = generator.standard_normal(tuple(positions.shape))
            positions = positions + length * torch.from_numpy(x)
        return Drawn(positions, box)


def _fitted(normalisation: Normalisation, drawn: Drawn, noise: Tensor) -> Tensor:
    """Return positions (n_frames, n_atoms, 3) whose descriptors are close to chosen ones.

    Least squares from what was drawn, frame by frame on its own; where the descriptors allow no
    better, or the search leads nowhere, the frame stays what it was.

    Parameters
    ----------
    normalisation : Normalisation
        Descriptors, their mean and their range.
    drawn : Drawn
        Where to start.
    noise : torch.Tensor
        Differences from the mean in ranges, shape (n_frames, n_descriptors).
    """
    descriptors = InFloat64(normalisation.descriptors)
    start = drawn.positions
    leaf = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([leaf], max_iter=_FITTING_STEPS, line_search_fn="strong_wolfe")

    def misfit(positions: Tensor) -> Tensor:
        found = (descriptors(positions, drawn.box) - normalisation.mean) / normalisation.range
        return (found - noise).square().mean(1)

    def closure() -> Tensor:
        optimiser.zero_grad()
        with torch.enable_grad():
            loss = misfit(leaf).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        better = misfit(leaf) < misfit(start)
    return torch.where(better[:, None, None], leaf.detach(), start)


def has_geometry(graph: ExportGraph) -> bool:
    """Return whether the inputs of a graph come from positions of a number of atoms."""
    if isinstance(graph.details, GraphVariableDetails):
        return False
    return graph.descriptors is not None or any(spec.name == "positions" for spec in graph.inputs)


def _of_positions(graph: ExportGraph) -> Normalisation | None:
    """Return the normalisation of positions in the graph's own order and unit, if it has one."""
    is_potential = isinstance(graph.details, ContractDetails) and graph.descriptors is None
    return None if is_potential else graph.normalisation


def _lattice(vectors: Sequence[Any]) -> Tensor:
    return torch.tensor(vectors, dtype=torch.float64).reshape(3, 3)
