"""The Kolmogorov bias of a committor, an energy with exact forces."""

# No postponed annotations: torch.jit.script wants those of `forward` to be types.

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ofcv_export.base.arrays import as_array, as_tensor
from ofcv_export.base.elements import SYMBOLS
from ofcv_export.base.validation import (
    dtype_name,
    require_finite,
    require_floats,
    require_positive_number,
)
from ofcv_export.graph.attention import plain_attention
from ofcv_export.graph.details import Description
from ofcv_export.graph.scriptable import scriptable
from ofcv_export.graph.tensor_spec import frame_specs
from ofcv_export.graph.tracing import traced
from ofcv_export.variables.bias import AnyCollectiveVariable, Bias, require_one_value
from ofcv_export.variables.collective_variable import CollectiveVariable
from ofcv_export.variables.graph_collective_variable import GraphCollectiveVariable
from ofcv_export.variables.judges import KolmogorovEnergy
from ofcv_export.variables.variable import Head

OVER = ("positions", "descriptors")


class KolmogorovBias(Bias):
    r"""Kolmogorov bias of a committor q.

    .. math:: V = -\frac{\lambda}{\beta} [\log(|\nabla q|^2 + \epsilon) - \log \epsilon]

    It is lowest where the committor changes fastest, and so holds a simulation in the transition
    region: P. Kang, E. Trizio and M. Parrinello, Nat. Comput. Sci. 4, 451 (2024).

    The gradient is the one with respect to positions, with masses
    :math:`|\nabla q|^2 = \sum_i |\partial q / \partial x_i|^2 / m_i`, or, as in mlcolvar's
    ``KolmogorovBias``, the one with respect to the descriptors. The bias is a function of positions
    either way: values are energies (batch, 1), and minus its derivatives are the forces.

    Parameters
    ----------
    cv : CollectiveVariable or GraphCollectiveVariable
        The committor, with one value.
    beta : float
        Inverse temperature 1 / (k_B T), in one over the energy unit of the bias.
    lambd : float
        Factor of the whole bias.
    epsilon : float
        Regularises the logarithm; the unit is that of the squared gradient.
    over : {"positions", "descriptors"}
        What the gradient is with respect to.
    masses : torch.Tensor or array_like, optional
        Masses of the committor's atoms, shape (n_atoms,), over positions only; of a graph those of
        its elements, in their order, shape (n_elements,). By default all 1.
    energy_unit : str
        Unit of the energy: kJ/mol, kcal/mol, eV or Hartree.

    Raises
    ------
    TypeError
        If `cv` is not a collective variable, or the masses are not floating-point numbers.
    ValueError
        If it has more than one value, a number is not positive, or the masses do not fit.

    Examples
    --------
    >>> import ofcv_export as ofcv
    >>> from ofcv_export.descriptors.distances import PairDistances
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Sigmoid())
    >>> q = ofcv.CollectiveVariable(PairDistances(torch.tensor([[0, 1]]), 2), network)
    >>> bias = ofcv.KolmogorovBias(q, beta=0.4, lambd=1.0, masses=[12.0, 1.0])
    >>> energy, derivatives = bias.values_and_derivatives(torch.randn(5, 2, 3))
    >>> energy.shape, derivatives.shape
    (torch.Size([5, 1]), torch.Size([5, 1, 2, 3]))
    """

    height: Tensor
    regularisation: Tensor
    inverse_masses_of_elements: Tensor

    def __init__(
        self,
        cv: AnyCollectiveVariable,
        beta: float,
        lambd: float = 1.0,
        epsilon: float = 1e-6,
        over: str = "positions",
        masses: object | None = None,
        energy_unit: str = "kJ/mol",
    ) -> None:
        if over not in OVER:
            raise ValueError(f"over: expected {' or '.join(OVER)}, got {over!r}")
        if masses is not None and over != "positions":
            raise ValueError("masses: expected none for a gradient over descriptors, got some")
        super().__init__(cv, energy_unit)
        require_one_value(cv)
        self.beta = require_positive_number("beta", beta)
        self.lambd = require_positive_number("lambd", lambd)
        self.epsilon = require_positive_number("epsilon", epsilon)
        self.over = over
        n_masses = (
            len(cv.known_elements)
            if isinstance(cv, GraphCollectiveVariable)
            else cv.descriptors.n_atoms
        )
        given = _masses(masses, n_masses)
        self.masses = None if given is None else given.tolist()
        inverse_masses = (torch.ones(n_masses) if given is None else 1 / given).to(cv.dtype)
        self.slope: Slope
        if isinstance(cv, GraphCollectiveVariable):
            if over != "positions":
                raise ValueError(f"over: expected positions for a graph of atoms, got {over}")
            self.register_buffer("inverse_masses_of_elements", _by_element(cv, inverse_masses))
        elif over == "descriptors":
            self.slope = DescriptorSlope(cv)
        else:
            self.slope = PositionSlope(cv, inverse_masses)
        # Tensors, because ONNX rounds plain numbers to float32.
        self.register_buffer("height", torch.tensor(self.lambd / self.beta, dtype=cv.dtype))
        self.register_buffer("regularisation", torch.tensor(self.epsilon, dtype=cv.dtype))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the bias (batch, 1) of positions (batch, n_atoms, 3); nothing is checked."""
        return self.energy(self.slope(positions, box))

    def energy(self, squared: Tensor) -> Tensor:
        """Return the bias (batch, 1) of squared gradients (batch, 1)."""
        # log((g + eps) / eps) keeps the digits where g is much smaller than eps.
        return -self.height * torch.log1p(squared / self.regularisation)

    def head(self) -> Head | None:
        """Return what maps descriptors to the bias; None for a gradient over positions."""
        if self.over == "positions":
            return None
        cv_head = self.cv.head()
        return lambda descriptors: self.energy(_squared_slope(cv_head, descriptors))

    def energy_on_graph(
        self,
        values_at: Callable[[Tensor], Tensor],
        positions: Tensor,
        elements: Tensor,
        parameters: Sequence[Tensor],
    ) -> Tensor:
        """Return the bias (1,) of a graph of atoms, see `Bias.energy_on_graph`."""
        gradient = gradient_by_autograd(values_at, positions)
        inverse_masses = self.inverse_masses_of_elements[elements]
        squared = (gradient.square().sum(1) * inverse_masses).sum()
        return self.energy(squared.reshape(1))

    def energy_judge(self, descriptors: nn.Module, network: nn.Module) -> nn.Module | None:
        """Return the energy by other formulas, see `Bias.energy_judge`; None on a graph."""
        if type(self) is not KolmogorovBias or self.on_graph:
            return None
        return KolmogorovEnergy(
            descriptors, network, self.lambd / self.beta, self.epsilon, self.over, self.masses
        )

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what ``torch.jit.script`` takes: the same with its inner gradient written out."""
        prepared = copy.copy(self)
        prepared._modules = {**self._modules, "slope": TracedSlope(self.slope)}
        return prepared

    def specification(self) -> Description:
        """Return the JSON-able description of the energy, written to the metadata."""
        return {
            "type": "kolmogorov",
            "beta": self.beta,
            "lambda": self.lambd,
            "epsilon": self.epsilon,
            "over": self.over,
            "masses": self.masses,
        }


GradientOf = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def gradient_by_autograd(function: Callable[[Tensor], Tensor], leaf: Tensor) -> Tensor:
    """Return the gradient of one value per frame, itself differentiable."""
    with torch.enable_grad(), plain_attention():
        leaf = leaf if leaf.requires_grad else leaf.detach().requires_grad_()
        values = function(leaf)
        (gradient,) = torch.autograd.grad(
            values, leaf, torch.ones_like(values), create_graph=True, materialize_grads=True
        )
    return gradient


class Slope(nn.Module, ABC):
    """Squared gradient of a collective variable of one value.

    Parameters
    ----------
    cv : CollectiveVariable
        The collective variable.
    """

    def __init__(self, cv: CollectiveVariable) -> None:
        super().__init__()
        self.cv = cv

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the squared gradients (batch, 1) at positions (batch, n_atoms, 3)."""
        if torch.compiler.is_compiling():
            raise ValueError(
                "module: expected one that differentiates nothing inside, got a KolmogorovBias; "
                "ofcv_export.export writes its gradient out"
            )
        return self.squared(positions, box)

    @abstractmethod
    def squared(
        self, positions: Tensor, box: Tensor | None, gradient_of: GradientOf = gradient_by_autograd
    ) -> Tensor:
        """Return the squared gradients by reverse mode."""


class DescriptorSlope(Slope):
    """Over the descriptors."""

    def squared(
        self, positions: Tensor, box: Tensor | None, gradient_of: GradientOf = gradient_by_autograd
    ) -> Tensor:
        """Return the squared gradients by reverse mode."""
        descriptors = self.cv.descriptors(positions, box)
        return _squared_slope(self.cv.head(), descriptors, gradient_of)


class PositionSlope(Slope):
    """Over positions, weighted with inverse masses.

    Parameters
    ----------
    cv : CollectiveVariable
        The collective variable.
    inverse_masses : torch.Tensor
        Shape (n_atoms,).
    """

    inverse_masses: Tensor

    def __init__(self, cv: CollectiveVariable, inverse_masses: Tensor) -> None:
        super().__init__(cv)
        self.register_buffer("inverse_masses", inverse_masses)

    def squared(
        self, positions: Tensor, box: Tensor | None, gradient_of: GradientOf = gradient_by_autograd
    ) -> Tensor:
        """Return the squared gradients by reverse mode."""
        gradient = gradient_of(lambda leaf: self.cv(leaf, box), positions)
        return (gradient.square().sum(2) * self.inverse_masses).sum(1, keepdim=True)


class TracedSlope(nn.Module):
    """A slope as plain operators, for TorchScript, which knows no `torch.func`.

    Parameters
    ----------
    slope : Slope
        The slope.
    """

    def __init__(self, slope: Slope) -> None:
        super().__init__()
        cv = slope.cv
        specs = frame_specs(dtype_name(cv.dtype), cv.descriptors.n_atoms, cv.periodic)

        def squared(positions: Tensor, *box: Tensor) -> Tensor:
            return slope.squared(positions, box[0] if box else None, _functional_gradient)

        graph = scriptable(traced(squared, specs, "network"))
        self.with_box = graph if cv.periodic else None
        self.without_box = None if cv.periodic else graph

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the squared gradients (batch, 1) at positions (batch, n_atoms, 3)."""
        if self.with_box is not None:
            assert box is not None, "box: expected shape (3, 3), got none"
            return self.with_box(positions, box)
        assert self.without_box is not None
        return self.without_box(positions)


def _squared_slope(
    head: Callable[[Tensor], Tensor],
    descriptors: Tensor,
    gradient_of: GradientOf = gradient_by_autograd,
) -> Tensor:
    return gradient_of(head, descriptors).square().sum(1, keepdim=True)


def _functional_gradient(function: Callable[[Tensor], Tensor], leaf: Tensor) -> Tensor:
    """Return the gradient of one value per frame, in a trace that can be differentiated again.

    Autograd writes down what it saves for later as detached.
    """
    with plain_attention():
        values, pullback = torch.func.vjp(function, leaf)  # type: ignore[misc]
        (gradient,) = pullback(torch.ones_like(values))
    return gradient


def _by_element(cv: GraphCollectiveVariable, inverse_masses: Tensor) -> Tensor:
    """Return 1 / mass by atomic number, shape (n,); 0 for what the network does not know."""
    by_number = torch.zeros(len(SYMBOLS), dtype=cv.dtype)
    by_number[cv.atomic_numbers] = inverse_masses
    return by_number


def _masses(masses: object | None, n_atoms: int) -> Tensor | None:
    """Return the masses in float64, checked."""
    if masses is None:
        return None
    # By way of numpy, so that a list of numbers keeps its digits.
    given = masses if isinstance(masses, Tensor) else as_array("masses", masses)
    values = as_tensor("masses", given)
    require_floats("masses", values, (n_atoms,))
    values = values.detach().cpu().double()
    require_finite("masses", values)
    if bool((values <= 0).any()):
        raise ValueError(f"masses: expected positive numbers, got {values.tolist()}")
    return values
