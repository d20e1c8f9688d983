"""Harmonic restraints of collective variables: at rest, and moving in time."""

# No postponed annotations: torch.jit.script wants those of `forward` to be types.

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ofcv_export.graph.details import Description
from ofcv_export.variables.bias import AnyCollectiveVariable, Bias, numbers
from ofcv_export.variables.judges import HarmonicEnergy, MovingEnergy
from ofcv_export.variables.variable import Head

Numbers = float | Sequence[Any] | Tensor


class HarmonicRestraint(Bias):
    r"""Harmonic restraint of the collective variables s.

    .. math:: V = \sum_k \tfrac{1}{2} \kappa_k (s_k - c_k)^2

    where the difference is that to the nearest image if a collective variable has a period; half a
    period away the force changes its sign.

    Centre c and force constant :math:`\kappa` are inputs of the exported file, after positions and
    box, so that one file serves all windows of an umbrella sampling.

    Parameters
    ----------
    cv : CollectiveVariable or GraphCollectiveVariable
        The collective variables, n_outputs values.
    centre, force_constant : float or sequence of float
        Default values, one for each collective variable or one for all. The unit of the force
        constant is `energy_unit` over that of the collective variable squared.
    energy_unit : str
        Unit of the energy: kJ/mol, kcal/mol, eV or Hartree.

    Raises
    ------
    TypeError, ValueError
        If `cv` is no collective variable, or the numbers do not fit.

    Examples
    --------
    >>> import torch
    >>> import ofcv_export as ofcv
    >>> from ofcv_export.descriptors.distances import PairDistances
    >>> cv = ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 1]]), 2), torch.nn.Identity())
    >>> restraint = ofcv.HarmonicRestraint(cv, centre=1.0, force_constant=200.0)
    >>> restraint(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]]))
    tensor([[25.]])
    """

    centre: Tensor
    force_constant: Tensor

    def __init__(
        self,
        cv: AnyCollectiveVariable,
        centre: Numbers,
        force_constant: Numbers,
        energy_unit: str = "kJ/mol",
    ) -> None:
        super().__init__(cv, energy_unit)
        shape = (cv.n_outputs,)
        centres = numbers("centre", centre, shape)
        force_constants = numbers("force_constant", force_constant, shape)
        self._defaults = {
            "centre": centres.tolist(),
            "force_constant": force_constants.tolist(),
        }
        self.difference = Difference(cv.periods)
        self.register_buffer("centre", centres.to(cv.dtype), persistent=False)
        self.register_buffer("force_constant", force_constants.to(cv.dtype), persistent=False)

    def parameter_defaults(self) -> dict[str, list[float]]:
        """Return the default centre and force constant."""
        return self._defaults

    def specification(self) -> Description:
        """Return the JSON-able description of the energy, written to the metadata."""
        return {"type": "harmonic_restraint", "periods": self.cv.periods}

    def forward(
        self,
        positions: Tensor,
        box: Tensor | None = None,
        centre: Tensor | None = None,
        force_constant: Tensor | None = None,
    ) -> Tensor:
        """Return the energy (batch, 1) of positions (batch, n_atoms, 3).

        Parameters
        ----------
        positions, box : torch.Tensor
            See `values_and_derivatives`; nothing is checked.
        centre, force_constant : torch.Tensor
            Shape (n_outputs,), by default those of the constructor.
        """
        return self.energy(self.cv(positions, box), centre, force_constant)

    def energy(  # type: ignore[override]
        self, values: Tensor, centre: Tensor | None = None, force_constant: Tensor | None = None
    ) -> Tensor:
        """Return the energy (batch, 1) of values (batch, n_outputs)."""
        centre = self.centre if centre is None else centre
        force_constant = self.force_constant if force_constant is None else force_constant
        return harmonic(self.difference(values, centre), force_constant)

    def energy_judge(self, descriptors: nn.Module, network: nn.Module) -> nn.Module | None:
        """Return the energy by other formulas, see `Bias.energy_judge`."""
        if type(self) is not HarmonicRestraint:
            return None
        return HarmonicEnergy(descriptors, network, self.cv.periods)

    def head(self) -> Head:
        """Return what maps descriptors and parameters to the energy."""
        cv_head = self.cv.head()
        return lambda descriptors, *parameters: self.energy(cv_head(descriptors), *parameters)


class MovingRestraint(Bias):
    r"""Harmonic restraint whose centre and force constant change with time.

    Both are linear between the given times, and constant before the first and after the last, as
    in PLUMED's MOVINGRESTRAINT. The time is an input of the exported file, after positions and box,
    in float64 whatever the precision of the rest: late in a simulation a step is lost in float32.

    Of a collective variable with a period the difference to the centre is that to the nearest
    image; the centre itself moves from one given number to the next, so that from 3.0 to 3.3 (not
    to -3.0) it crosses pi.

    Parameters
    ----------
    cv : CollectiveVariable or GraphCollectiveVariable
        The collective variables, n_outputs values.
    times : sequence of float
        Increasing times in ps, shape (n_times,).
    centres, force_constants : sequence
        Values at those times, (n_times,) for one collective variable, (n_times, n_outputs) for
        more.
    energy_unit : str
        Unit of the energy: kJ/mol, kcal/mol, eV or Hartree.

    Raises
    ------
    TypeError, ValueError
        If `cv` is no collective variable, times do not increase, or the numbers do not fit.

    Examples
    --------
    >>> import torch
    >>> import ofcv_export as ofcv
    >>> from ofcv_export.descriptors.distances import PairDistances
    >>> cv = ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 1]]), 2), torch.nn.Identity())
    >>> pull = ofcv.MovingRestraint(cv, [0.0, 100.0], [1.0, 2.0], [200.0, 200.0])
    >>> positions = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]])
    >>> pull(positions, None, torch.tensor([100.0]))
    tensor([[25.]])
    """

    starts: Tensor
    durations: Tensor
    centres: Tensor
    force_constants: Tensor

    def __init__(
        self,
        cv: AnyCollectiveVariable,
        times: Sequence[float] | Tensor,
        centres: Sequence[Any] | Tensor,
        force_constants: Sequence[Any] | Tensor,
        energy_unit: str = "kJ/mol",
    ) -> None:
        super().__init__(cv, energy_unit)
        instants = numbers("times", times, ("n_times",))
        durations = instants.diff()
        if bool((durations <= 0).any()):
            raise ValueError(f"times: expected increasing numbers, got {instants.tolist()}")
        self._schedule = {
            "times": instants,
            "centres": _knots("centres", centres, len(instants), cv.n_outputs),
            "force_constants": _knots(
                "force_constants", force_constants, len(instants), cv.n_outputs
            ),
        }
        self.difference = Difference(cv.periods)
        self.register_buffer("starts", instants[:-1])
        self.register_buffer("durations", durations)
        self.register_buffer("centres", self._schedule["centres"].to(cv.dtype))
        self.register_buffer("force_constants", self._schedule["force_constants"].to(cv.dtype))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Convert dtype or device, as `torch.nn.Module` does, but leave times in float64."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        times = self._schedule["times"].to(self.starts.device)
        self.starts, self.durations = times[:-1], times.diff()
        return self

    def parameter_defaults(self) -> dict[str, list[float]]:
        """Return the first time, in ps."""
        return {"time": self._schedule["times"][:1].tolist()}

    def specification(self) -> Description:
        """Return the JSON-able description of the energy, written to the metadata."""
        schedule = {name: values.tolist() for name, values in self._schedule.items()}
        return {"type": "moving_restraint", **schedule, "periods": self.cv.periods}

    def time_unit(self) -> str:
        """Return the unit of the parameter ``time``."""
        return "ps"

    def forward(
        self, positions: Tensor, box: Tensor | None = None, time: Tensor | None = None
    ) -> Tensor:
        """Return the energy (batch, 1) of positions (batch, n_atoms, 3).

        Parameters
        ----------
        positions, box : torch.Tensor
            See `values_and_derivatives`; nothing is checked.
        time : torch.Tensor
            The time (1,) in ps, float64, by default the first.
        """
        return self.energy(self.cv(positions, box), time)

    def energy(self, values: Tensor, time: Tensor | None = None) -> Tensor:
        """Return the energy (batch, 1) of values (batch, n_outputs)."""
        centre, force_constant = self.at(self.starts[:1] if time is None else time)
        return harmonic(self.difference(values, centre), force_constant)

    def energy_judge(self, descriptors: nn.Module, network: nn.Module) -> nn.Module | None:
        """Return the energy by other formulas, see `Bias.energy_judge`."""
        if type(self) is not MovingRestraint:
            return None
        return MovingEnergy(descriptors, network, self.cv.periods, **self._schedule)

    def head(self) -> Head:
        """Return what maps descriptors and the time to the energy."""
        cv_head = self.cv.head()
        return lambda descriptors, *parameters: self.energy(cv_head(descriptors), *parameters)

    def at(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return centre and force constant, each (n_outputs,), at a time (1,) in ps."""
        # The finished part of each interval, from 0 before it to 1 after it.
        finished = ((time - self.starts) / self.durations).clamp(0, 1).unsqueeze(1)
        finished = finished.to(self.centres.dtype)
        return _between(self.centres, finished), _between(self.force_constants, finished)


def _between(knots: Tensor, finished: Tensor) -> Tensor:
    """Return values (n_outputs,) between knots (n_times, n_outputs)."""
    return knots[0] + (finished * (knots[1:] - knots[:-1])).sum(0)


class Difference(nn.Module):
    """Differences of values to a centre, to the nearest image of those that have a period.

    Parameters
    ----------
    periods : sequence of float or None
        Period of each value, None where it has none.
    """

    has_period: Tensor
    period: Tensor

    def __init__(self, periods: Sequence[float | None]) -> None:
        super().__init__()
        self.is_periodic = any(periods)
        has_period = [entry is not None for entry in periods]
        self._exact = torch.tensor([entry or 1.0 for entry in periods], dtype=torch.float64)
        self.register_buffer("has_period", torch.tensor(has_period), persistent=False)
        self.register_buffer("period", self._exact, persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Convert dtype or device, as `torch.nn.Module` does, but leave periods in float64."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.period = self._exact.to(self.has_period.device)
        return self

    def forward(self, values: Tensor, centre: Tensor) -> Tensor:
        """Return the differences (batch, n_outputs) of values (batch, n_outputs)."""
        if not self.is_periodic:
            return values - centre
        # In float64, so that a centre of many turns costs no digits.
        centre = centre.to(self.period.dtype)
        near = torch.where(self.has_period, torch.fmod(centre, self.period), centre)
        difference = values - near.to(values.dtype)
        period = self.period.to(values.dtype)
        turns = torch.round((difference / period).detach())
        return difference - torch.where(self.has_period, period * turns, 0.0)


def harmonic(difference: Tensor, force_constant: Tensor) -> Tensor:
    """Return the sum of harmonic energies (batch, 1) of differences (batch, n_outputs)."""
    return (0.5 * force_constant * difference.square()).sum(1, keepdim=True)


def _knots(name: str, values: Sequence[Any] | Tensor, n_times: int, n_outputs: int) -> Tensor:
    """Return values at the given times, shape (n_times, n_outputs)."""
    if np.ndim(values) == 1 and n_outputs == 1:
        return numbers(name, values, (n_times,)).unsqueeze(1)
    return numbers(name, values, (n_times, n_outputs))
