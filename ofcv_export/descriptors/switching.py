"""Switching functions: 1 at short distance, 0 at long distance, and smooth in between.

Their parameters are float64 tensors in the graph: torch's ONNX exporter rounds Python numbers to
float32, also in a float64 graph.
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ofcv_export.base.validation import require_positive_number
from ofcv_export.descriptors.described import Described

SwitchingFunction = Callable[[Tensor], Tensor]

# Powers of distances beyond this are 0 or 1 in all digits, and would overflow in float32.
_LARGEST_POWER = 1e30


class Smooth(Described):
    r"""A smooth function s(r).

    With `dmax`, shifted and stretched to :math:`(s(r) - s(d)) / (1 - s(d))`, which is 0 at
    :math:`r = d` and negative beyond. The formulas are those of mlcolvar's ``SwitchingFunctions``.

    Parameters
    ----------
    cutoff : float
        The distance :math:`r_0`, in the unit of the positions.
    prefactor_cutoff : float
        Factor p of the cutoff.
    dmax : float, optional
        The distance d.
    """

    at_dmax: Tensor
    scaled_cutoff: Tensor

    def __init__(self, cutoff: float, prefactor_cutoff: float, dmax: float | None) -> None:
        super().__init__()
        self.cutoff = require_positive_number("cutoff", cutoff)
        self.prefactor_cutoff = require_positive_number("prefactor_cutoff", prefactor_cutoff)
        self.dmax = None if dmax is None else require_positive_number("dmax", dmax)
        scaled_cutoff = _number(prefactor_cutoff * cutoff)
        self.register_buffer("scaled_cutoff", scaled_cutoff, persistent=False)

    def _register_at_dmax(self) -> None:
        """Evaluate the function at `dmax`, once it has all its constants."""
        at_dmax = _number(0.0) if self.dmax is None else self.function(_number(self.dmax))
        self.register_buffer("at_dmax", at_dmax, persistent=False)

    @abstractmethod
    def function(self, distances: Tensor) -> Tensor:
        """Return s(r) as it is without `dmax`, elementwise."""

    def forward(self, distances: Tensor) -> Tensor:
        """Return s(r), elementwise."""
        s = self.function(distances)
        if self.dmax is not None:
            at_dmax = self.at_dmax.to(s)
            s = (s - at_dmax) / (1.0 - at_dmax)
        return s


class Fermi(Smooth):
    r"""Fermi function :math:`s(r) = 1 / (1 + \exp((r - p r_0) / q))`.

    Parameters
    ----------
    cutoff, prefactor_cutoff, dmax : float
        The distance :math:`r_0`, its factor p, and where s(r) becomes 0, see `Smooth`.
    q : float
        Width, in the unit of the positions.
    """

    type_name = "fermi"
    facts = ("cutoff", "q", "prefactor_cutoff", "dmax")
    width: Tensor

    def __init__(
        self,
        cutoff: float,
        q: float = 0.01,
        prefactor_cutoff: float = 1.0,
        dmax: float | None = None,
    ) -> None:
        super().__init__(cutoff, prefactor_cutoff, dmax)
        self.q = require_positive_number("q", q)
        self.register_buffer("width", _number(q), persistent=False)
        self._register_at_dmax()

    def function(self, distances: Tensor) -> Tensor:
        """Return s(r) as it is without `dmax`, elementwise."""
        from_middle = self.scaled_cutoff.to(distances) - distances
        return torch.sigmoid(from_middle / self.width.to(distances))


class Rational(Smooth):
    r"""Rational function :math:`s(r) = (1 - x^n + \epsilon) / (1 - x^m + 2 \epsilon)`.

    Here :math:`x = r / (p r_0)`. For :math:`\epsilon = 0` the removable singularity at x = 1 is
    removed: with g = gcd(n, m) the quotient is that of two geometric sums in :math:`x^g`, smooth
    everywhere and :math:`n / m` at x = 1. Any other :math:`\epsilon` gives the formula of
    mlcolvar's ``SwitchingFunctions`` as it stands, which has a pole close to
    :math:`x = (1 + 2 \epsilon)^{1/m}`; at the pole itself the answer is 0, with derivative 0.

    Parameters
    ----------
    cutoff, prefactor_cutoff, dmax : float
        The distance :math:`r_0`, its factor p, and where s(r) becomes 0, see `Smooth`.
    n, m : int
        Exponents, at least 1 and different.
    eps : float
        The number :math:`\epsilon`.
    """

    type_name = "rational"
    facts = ("cutoff", "n", "m", "eps", "prefactor_cutoff", "dmax")
    largest: Tensor
    epsilon: Tensor

    def __init__(
        self,
        cutoff: float,
        n: int = 6,
        m: int = 12,
        eps: float = 0.0,
        prefactor_cutoff: float = 1.0,
        dmax: float | None = None,
    ) -> None:
        super().__init__(cutoff, prefactor_cutoff, dmax)
        if not (isinstance(n, int) and isinstance(m, int) and n >= 1 and m >= 1 and n != m):
            raise ValueError(f"n, m: expected two different positive integers, got {n!r}, {m!r}")
        if not (math.isfinite(eps) and eps >= 0):
            raise ValueError(f"eps: expected a number of at least 0, got {eps!r}")
        self.n = n
        self.m = m
        self.eps = float(eps)
        self.divisor = math.gcd(n, m)
        self.is_limit = self.eps == 0.0
        largest = _LARGEST_POWER ** (1.0 / max(n, m))
        self.register_buffer("largest", _number(largest), persistent=False)
        self.register_buffer("epsilon", _number(eps), persistent=False)
        self._register_at_dmax()

    def function(self, distances: Tensor) -> Tensor:
        """Return s(r) as it is without `dmax`, elementwise."""
        x = distances / self.scaled_cutoff.to(distances)
        x = torch.minimum(x, self.largest.to(distances))
        if self.is_limit:
            y = torch.pow(x, self.divisor)
            above = _geometric_sum(y, self.n // self.divisor)
            return above / _geometric_sum(y, self.m // self.divisor)
        epsilon = self.epsilon.to(distances)
        above = 1.0 - torch.pow(x, self.n) + epsilon
        below = 1.0 - torch.pow(x, self.m) + 2.0 * epsilon
        pole = below == 0
        return (above / below.masked_fill(pole, 1.0)).masked_fill(pole, 0.0)


class Step(Described):
    """1 below the cutoff and 0 from the cutoff on; derivative 0.

    Parameters
    ----------
    cutoff : float
        The distance, in the unit of the positions.
    """

    type_name = "step"
    facts = ("cutoff",)
    threshold: Tensor

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = require_positive_number("cutoff", cutoff)
        self.register_buffer("threshold", _number(cutoff), persistent=False)

    def forward(self, distances: Tensor) -> Tensor:
        """Return s(r), elementwise."""
        # The second term keeps the result on the graph, where its derivative is 0.
        return (distances < self.threshold.to(distances)).to(distances) + 0.0 * distances


class CustomSwitching(Described):
    """A switching function of the user's own.

    Parameters
    ----------
    function : callable
        s(r), elementwise on a vector of distances and differentiable by autograd.
    """

    def __init__(self, function: SwitchingFunction) -> None:
        super().__init__()
        self.function = function

    def forward(self, distances: Tensor) -> Tensor:
        """Return s(r), elementwise."""
        return self.function(distances.flatten()).reshape(distances.shape)


def switching_module(function: SwitchingFunction) -> Described:
    """Return one of the modules of this file as it is, and any other callable wrapped as one."""
    return function if isinstance(function, Described) else CustomSwitching(function)


def value_and_slope(function: SwitchingFunction, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Return an elementwise function of the distances and its derivative, same shapes.

    A function that does not depend on the distances, such as a step, has the slope 0.
    """
    with torch.enable_grad():
        leaf = distances.detach().requires_grad_()
        values = function(leaf)
        if not values.requires_grad:
            return values, torch.zeros_like(values)
        (slopes,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
    return values.detach(), torch.zeros_like(values) if slopes is None else slopes


def _geometric_sum(y: Tensor, n_terms: int) -> Tensor:
    """Return 1 + y + ... + y^(n_terms - 1)."""
    total = torch.ones_like(y)
    for _ in range(n_terms - 1):
        total = total * y + 1.0
    return total


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
