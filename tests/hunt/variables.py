"""Collective variables and restraints of every make."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import ofcv_export as ofcv
from ofcv_export.descriptors import (
    Angles,
    Boundaries,
    Contacts,
    CoordinationNumbers,
    Descriptor,
    Fermi,
    InverseDistances,
    MultipleDescriptors,
    OrthorhombicBox,
    PairDistances,
    RuntimeBox,
    Torsions,
    TriclinicBox,
)
from tests.hunt import formulas
from tests.hunt.case import Case
from tests.hunt.formulas import Displacement

LATTICE = torch.tensor([[4.1, 0.0, 0.0], [0.6, 4.4, 0.0], [-0.5, 0.7, 3.9]], dtype=torch.float64)
BOXES = ("open", "orthorhombic", "triclinic", "run time", "run time, orthorhombic")
DESCRIPTORS = ("distances", "inverse distances", "contacts", "angles", "torsions", "coordination",
               "several")  # fmt: skip
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh, "silu": nn.SiLU, "softplus": nn.Softplus, "gelu": nn.GELU, "elu": nn.ELU,
    "celu": lambda: nn.CELU(0.3), "selu": nn.SELU, "sigmoid": nn.Sigmoid, "mish": nn.Mish,
    "tanh-gelu": lambda: nn.GELU("tanh"), "shrink": nn.Tanhshrink, "log": nn.LogSigmoid,
}  # fmt: skip
NETWORKS = ("layers", "normalised", "one value at a time", "attention", "identity")


@dataclass(frozen=True)
class Variable:
    """Choices of which a collective variable, or a restraint of one, is made."""

    n_atoms: int
    descriptors: str
    box: str
    network: str
    activation: str
    n_outputs: int
    restrained: bool
    dtype: str
    n_frames: int
    seed: int


def variables() -> st.SearchStrategy[Variable]:
    """Return collective variables of 4 to 6 atoms."""
    return st.builds(
        Variable,
        n_atoms=st.integers(4, 6),
        descriptors=st.sampled_from(DESCRIPTORS),
        box=st.sampled_from(BOXES),
        network=st.sampled_from(NETWORKS),
        activation=st.sampled_from(sorted(ACTIVATIONS)),
        n_outputs=st.integers(1, 3),
        restrained=st.booleans(),
        dtype=st.sampled_from(["float32", "float64"]),
        n_frames=st.sampled_from([1, 2, 5, 33]),
        seed=st.integers(0, 2**31 - 1),
    )


class OneByOne(nn.Module):
    """A sum over descriptors of what a network makes of each: layers on (batch, n, channels)."""

    def __init__(self, activation: nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(1, 6), activation, nn.Linear(6, n_outputs))

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return values (batch, n_outputs)."""
        return self.inner(descriptors.unsqueeze(2)).sum(1)


class Attentive(nn.Module):
    """Descriptors that look at each other."""

    def __init__(self, activation: nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.lift = nn.Linear(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Sequential(activation, nn.Linear(4, n_outputs))

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return values (batch, n_outputs)."""
        tokens = self.lift(descriptors.unsqueeze(2))
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.out(mixed).mean(1)


def case_of(chosen: Variable) -> Case:
    """Return the case that the choices describe."""
    generator = torch.Generator().manual_seed(chosen.seed)
    dtype = getattr(torch, chosen.dtype)
    boundaries = _boundaries(chosen.box)
    descriptors, plain = _descriptors(chosen, boundaries)
    network = _network(chosen, descriptors.n_descriptors).to(dtype)
    cv = ofcv.CollectiveVariable(descriptors, network, length_unit="nm").to(dtype)
    exact = copy.deepcopy(network).double().eval()
    positions = _positions(chosen, generator).to(dtype)
    inputs = {"positions": positions}
    given_box = chosen.box.startswith("run time")
    if given_box:
        inputs["box"] = _lattice(chosen.box).to(dtype)
    periods = _periods(chosen, cv.n_outputs)

    def energy(descriptors: Tensor, *parameters: Tensor) -> Tensor:
        values = exact(descriptors)
        if not parameters:
            return values
        centre, force_constant = parameters
        steps = [
            d - torch.round((d / period).detach()) * period if period else d
            for d, period in zip((values - centre).unbind(1), periods, strict=True)
        ]
        return (torch.stack(steps, 1).pow(2) * force_constant).sum(1, keepdim=True) / 2

    def judge(positions: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        box = _fixed(chosen.box)
        parameters = others[1:] if given_box else others
        outputs = []
        # One by one, since all frames have one box, and each its own derivative of it.
        for frame in positions:
            leaves = [frame.clone().requires_grad_()]
            lattice = box
            if given_box:
                lattice = others[0].clone().requires_grad_()
                leaves.append(lattice)
            descriptors = plain(leaves[0].unsqueeze(0), formulas.displacement(lattice))
            values = energy(descriptors, *parameters)
            outputs.append([values.detach()[0], *formulas.slopes(values, leaves)])
        return tuple(torch.stack(entries) for entries in zip(*outputs, strict=True))

    module: nn.Module = cv
    if chosen.restrained:
        draw = torch.rand(2, cv.n_outputs, generator=generator, dtype=torch.float64)
        module = ofcv.HarmonicRestraint(cv, draw[0], 1 + draw[1])
        other = torch.rand(2, cv.n_outputs, generator=generator, dtype=torch.float64)
        inputs |= {
            "centre": (4 * other[0] - 2).to(dtype),
            "force_constant": (3 * other[1]).to(dtype),
        }
    return Case(module, inputs, judge)


def _boundaries(name: str) -> Boundaries | None:
    if name == "orthorhombic":
        return OrthorhombicBox(LATTICE.diagonal().clone(), periodic=True)
    if name == "triclinic":
        return TriclinicBox(LATTICE)
    if name == "run time":
        return RuntimeBox()
    return RuntimeBox("orthorhombic") if name == "run time, orthorhombic" else None


def _lattice(name: str) -> Tensor:
    return torch.diag(LATTICE.diagonal()) if "orthorhombic" in name else LATTICE


def _fixed(name: str) -> Tensor | None:
    return None if name == "open" else _lattice(name)


def _positions(chosen: Variable, generator: torch.Generator) -> Tensor:
    """Return atoms along a screw, where angles and torsions are far from 0 and pi, and moved."""
    k = torch.arange(chosen.n_atoms, dtype=torch.float64)
    screw = torch.stack([0.7 * torch.cos(1.9 * k), 0.7 * torch.sin(1.9 * k), 0.45 * k], dim=1)
    noise = torch.rand(chosen.n_frames, chosen.n_atoms, 3, generator=generator, dtype=torch.float64)
    return screw + 0.2 * noise


def _descriptors(
    chosen: Variable, box: Boundaries | None
) -> tuple[Descriptor, Callable[[Tensor, Displacement], Tensor]]:
    """Return descriptors and their formula."""
    n = chosen.n_atoms
    pairs = torch.combinations(torch.arange(n))[:: 1 + chosen.seed % 2]
    triples = torch.stack([torch.arange(n - 2) + k for k in range(3)], dim=1)
    chains = torch.stack([torch.arange(n - 3) + k for k in range(4)], dim=1)
    some, others = torch.arange(0, n, 2), torch.arange(1, n)
    name = chosen.descriptors
    if name == "distances":
        return PairDistances(pairs, n, box), lambda r, v: formulas.distances(r, pairs, v)
    if name == "inverse distances":
        return InverseDistances(pairs, n, box), lambda r, v: 1 / formulas.distances(r, pairs, v)
    if name == "contacts":
        return (
            Contacts(pairs, n, Fermi(1.1, q=0.2), box),
            lambda r, v: formulas.fermi(formulas.distances(r, pairs, v), 1.1, 0.2),
        )
    if name == "angles":
        return Angles(triples, n, box=box), lambda r, v: formulas.angles(r, triples, v)
    if name == "torsions":
        return Torsions(chains, n, box=box), lambda r, v: formulas.torsions(r, chains, v)
    if name == "coordination":
        return (
            CoordinationNumbers(some, others, n, Fermi(1.0, q=0.3), None, box),
            lambda r, v: _coordination(r, some, others, v),
        )
    parts = [Torsions(chains, n, ("sin",), box), PairDistances(pairs, n, box)]
    return MultipleDescriptors(parts), lambda r, v: torch.cat(
        [torch.sin(formulas.torsions(r, chains, v)), formulas.distances(r, pairs, v)], dim=1
    )


def _coordination(r: Tensor, some: Tensor, others: Tensor, vector: Displacement) -> Tensor:
    rows = []
    for a in some.tolist():
        pairs = torch.tensor([[a, b] for b in others.tolist() if b != a])
        rows.append(formulas.fermi(formulas.distances(r, pairs, vector), 1.0, 0.3).sum(1))
    return torch.stack(rows, dim=1)


def _network(chosen: Variable, n_descriptors: int) -> nn.Module:
    if chosen.network == "identity":
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.seed)
        activation = ACTIVATIONS[chosen.activation]()
        if chosen.network == "one value at a time":
            return OneByOne(activation, chosen.n_outputs)
        if chosen.network == "attention":
            return Attentive(activation, chosen.n_outputs)
        norm = [nn.LayerNorm(7), nn.Dropout(0.2)] if chosen.network == "normalised" else []
        first, last = nn.Linear(n_descriptors, 7), nn.Linear(7, chosen.n_outputs)
        return nn.Sequential(first, activation, *norm, last)


def _periods(chosen: Variable, n_outputs: int) -> list[float | None]:
    is_angle = chosen.network == "identity" and chosen.descriptors == "torsions"
    return [2 * math.pi if is_angle else None] * n_outputs
