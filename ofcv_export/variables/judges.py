"""What the graphs of variables must equal: the user's own network and descriptors, and formulas.

Nothing here is exported, and nothing that is exported is used here: a fault in an energy, in how it
is composed of a network, or in a gradient inside it, is seen only by a reference that does not have
it. Numbers stay in float64, whatever the dtype of the variable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofcv_export.graph.attention import plain_attention


class ValuesOf(nn.Module):
    """A network of descriptors.

    Parameters
    ----------
    descriptors, network : torch.nn.Module
        The user's own.
    """

    def __init__(self, descriptors: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.descriptors = descriptors
        self.network = network

    def forward(self, positions: Tensor, box: Tensor | None, *parameters: Tensor) -> Tensor:
        """Return the values (batch, n_outputs) of positions (batch, n_atoms, 3)."""
        values: Tensor = self.network(self.descriptors(positions, box))
        return values


class HarmonicEnergy(ValuesOf):
    """Half the force constant times the squared distance from the centre, summed over values.

    Parameters
    ----------
    descriptors, network : torch.nn.Module
        The user's own.
    periods : sequence of float or None
        Period of each value: the distance is that along the circle.
    """

    def __init__(
        self, descriptors: nn.Module, network: nn.Module, periods: Sequence[float | None]
    ) -> None:
        super().__init__(descriptors, network)
        self.periods = list(periods)

    def forward(self, positions: Tensor, box: Tensor | None, *parameters: Tensor) -> Tensor:
        """Return the energy (batch, 1); parameters are centre and force constant."""
        centre, force_constant = parameters
        values = super().forward(positions, box)
        return spring(values, centre.to(values), force_constant.to(values), self.periods)


class MovingEnergy(ValuesOf):
    """A harmonic energy whose centre and force constant are linear between times.

    Parameters
    ----------
    descriptors, network : torch.nn.Module
        The user's own.
    periods : sequence of float or None
        Period of each value.
    times : torch.Tensor
        Shape (n_times,), increasing.
    centres, force_constants : torch.Tensor
        Shape (n_times, n_outputs).
    """

    def __init__(
        self,
        descriptors: nn.Module,
        network: nn.Module,
        periods: Sequence[float | None],
        times: Tensor,
        centres: Tensor,
        force_constants: Tensor,
    ) -> None:
        super().__init__(descriptors, network)
        self.periods = list(periods)
        self.times = times.tolist()
        self.centres, self.force_constants = centres.tolist(), force_constants.tolist()

    def forward(self, positions: Tensor, box: Tensor | None, *parameters: Tensor) -> Tensor:
        """Return the energy (batch, 1); the parameter is the time (1,)."""
        (time,) = parameters
        values = super().forward(positions, box)
        centre, force_constant = (
            values.new_tensor(self._at(float(time), knots))
            for knots in (self.centres, self.force_constants)
        )
        return spring(values, centre, force_constant, self.periods)

    def _at(self, time: float, knots: Sequence[Sequence[float]]) -> list[float]:
        """Return values (n_outputs,) at a time, constant outside the given times."""
        if time <= self.times[0]:
            return list(knots[0])
        intervals = zip(self.times, self.times[1:], knots, knots[1:], strict=False)
        for start, end, before, after in intervals:
            if time <= end:
                share = (time - start) / (end - start)
                pairs = zip(before, after, strict=True)
                return [(1 - share) * first + share * last for first, last in pairs]
        return list(knots[-1])


class KolmogorovEnergy(ValuesOf):
    """Minus lambda / beta times log(|grad q|^2 + epsilon) - log(epsilon).

    Parameters
    ----------
    descriptors, network : torch.nn.Module
        The user's own.
    factor : float
        lambda / beta.
    epsilon : float
        The number in the logarithm.
    over : {"positions", "descriptors"}
        What the gradient is with respect to.
    masses : sequence of float, optional
        Masses of the atoms, by default 1.
    """

    def __init__(
        self,
        descriptors: nn.Module,
        network: nn.Module,
        factor: float,
        epsilon: float,
        over: str,
        masses: Sequence[float] | None,
    ) -> None:
        super().__init__(descriptors, network)
        self.factor = factor
        self.epsilon = epsilon
        self.over = over
        self.masses = masses

    def forward(self, positions: Tensor, box: Tensor | None, *parameters: Tensor) -> Tensor:
        """Return the energy (batch, 1)."""
        with torch.enable_grad(), plain_attention():
            if not positions.requires_grad:
                positions = positions.detach().requires_grad_()
            descriptors = self.descriptors(positions, box)
            wrt = positions if self.over == "positions" else descriptors
            (slope,) = torch.autograd.grad(
                self.network(descriptors).sum(),
                wrt,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        squares = slope.pow(2)
        if self.masses is not None:
            squares = squares / squares.new_tensor(self.masses).reshape(1, -1, 1)
        # The difference of two logarithms as one, where the gradient is far smaller than epsilon.
        total = squares.flatten(1).sum(1, keepdim=True) / self.epsilon
        return -self.factor * torch.log1p(total)


def spring(
    values: Tensor, centre: Tensor, force_constant: Tensor, periods: Sequence[float | None]
) -> Tensor:
    """Return the energies (batch, 1) of springs on values (batch, n_outputs)."""
    distances = [
        value - place if period is None else _on_a_circle(value, float(place), period)
        for value, place, period in zip(values.unbind(1), centre, periods, strict=True)
    ]
    squares = torch.stack(distances, dim=1) ** 2
    return torch.einsum("bk,k->b", squares, force_constant / 2).unsqueeze(1)


def _on_a_circle(value: Tensor, place: float, period: float) -> Tensor:
    """Return the distance from the nearest image of a place, an angle on a circle."""
    angle = (value - math.remainder(place, period)) * (2 * math.pi / period)
    return torch.atan2(torch.sin(angle), torch.cos(angle)) * (period / (2 * math.pi))
