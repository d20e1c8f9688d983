"""Chain rules over sparse derivatives, and rescalings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

import ofcv_export as ofcv
from ofcv_export.descriptors import SparsityPattern
from tests.hunt import formulas
from tests.hunt.case import Case


@dataclass(frozen=True)
class ChainRule:
    """Choices of which a chain rule is made; a frozen set-up has distances, and frames to read."""

    frozen: bool
    n_atoms: int
    n_descriptors: int
    n_frozen: int
    n_rows: int
    n_outputs: int | None
    form: str
    dtype: str
    seed: int


def chain_rules() -> st.SearchStrategy[ChainRule]:
    """Return chain rules of 2 to 30 atoms."""
    return st.builds(
        ChainRule,
        frozen=st.booleans(),
        n_atoms=st.integers(2, 30),
        n_descriptors=st.integers(1, 40),
        n_frozen=st.integers(1, 9),
        n_rows=st.sampled_from([1, 2, 7, 64]),
        n_outputs=st.sampled_from([None, 1, 2, 3]),
        form=st.sampled_from(["scatter", "gather"]),
        dtype=st.sampled_from(["float32", "float64"]),
        seed=st.integers(0, 2**31 - 1),
    )


def chain_rule_case(chosen: ChainRule) -> Case:
    """Return the case that the choices describe."""
    generator = torch.Generator().manual_seed(chosen.seed)
    dtype = getattr(torch, chosen.dtype)
    options = {"n_outputs": chosen.n_outputs}
    shape = (chosen.n_rows, chosen.n_descriptors, *([chosen.n_outputs] if chosen.n_outputs else []))
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    pairs = torch.stack(
        [torch.randperm(chosen.n_atoms, generator=generator)[:2] for _ in range(shape[1])]
    )
    if not chosen.frozen:
        pattern = SparsityPattern(
            torch.arange(shape[1]).repeat_interleave(2), pairs.flatten(), shape[1], chosen.n_atoms
        )
        values = torch.randn(len(x), pattern.nnz, generator=generator, dtype=torch.float64)
        rows = pattern.descriptor_index, pattern.atom_index

        def summed(x: Tensor, values: Tensor) -> tuple[Tensor, ...]:
            return (_summed(x, values.reshape(len(x), -1, 3), *rows, chosen.n_atoms),)

        inputs = {"output_wrt_descriptors": x, "descriptors_wrt_positions": values.to(dtype)}
        return Case(ofcv.SparseChainRule(pattern, dtype), inputs, summed, options)
    frames = torch.randn(
        chosen.n_frozen, chosen.n_atoms, 3, generator=generator, dtype=torch.float64
    )
    frames = frames.to(dtype)
    smart = ofcv.SmartDerivatives(force_all_atoms=True)
    smart.setup({"data": frames}, lambda r: _distances(r, pairs), chosen.n_atoms)
    leaf = frames.double().requires_grad_()
    dense = formulas.slopes(_distances(leaf, pairs), [leaf])[0].movedim(0, 1)
    ref_idx = torch.randint(chosen.n_frozen, (len(x),), generator=generator)

    def judge(x: Tensor, ref_idx: Tensor) -> tuple[Tensor, ...]:
        letters = "bd,bdak->bak" if x.dim() == 2 else "bdo,bdak->bako"
        return (torch.einsum(letters, x, dense[ref_idx.long()]),)

    inputs = {"output_wrt_descriptors": x, "ref_idx": ref_idx}
    return Case(smart, inputs, judge, options | {"form": chosen.form})


def _distances(r: Tensor, pairs: Tensor) -> Tensor:
    return (r[:, pairs[:, 1]] - r[:, pairs[:, 0]]).norm(dim=2)


def _summed(x: Tensor, values: Tensor, descriptor: Tensor, atom: Tensor, n_atoms: int) -> Tensor:
    """Return the sums block by block."""
    rows = x.unsqueeze(2) if x.dim() == 2 else x
    out = torch.zeros(len(x), n_atoms, 3, rows.shape[2], dtype=torch.float64)
    for block, (d, a) in enumerate(zip(descriptor.tolist(), atom.tolist(), strict=True)):
        out[:, a] += values[:, block, :, None] * rows[:, d, None, :]
    return out.squeeze(3) if x.dim() == 2 else out


@dataclass(frozen=True)
class Rescaling:
    """Choices of which a rescaling is made."""

    n_basis: int
    n_coeffs: int
    gradient: bool
    decades: int
    dtype: str
    seed: int


def rescalings() -> st.SearchStrategy[Rescaling]:
    """Return rescalings of up to 1000 coefficients over many orders of magnitude."""
    return st.builds(
        Rescaling,
        n_basis=st.integers(1, 50),
        n_coeffs=st.sampled_from([1, 2, 33, 1000]),
        gradient=st.booleans(),
        decades=st.integers(0, 6),
        dtype=st.sampled_from(["float32", "float64"]),
        seed=st.integers(0, 2**31 - 1),
    )


def rescaling_case(chosen: Rescaling) -> Case:
    """Return the case that the choices describe: eq. (4) of M-OFDFT, and lambda (c - b)."""
    generator = torch.Generator().manual_seed(chosen.seed)
    dtype = getattr(torch, chosen.dtype)
    draw = torch.rand(3, chosen.n_basis, generator=generator, dtype=torch.float64)
    biases, stds, grads = (draw * 10.0 ** (chosen.decades * (draw.flip(0) - 0.5))).to(dtype)
    module = ofcv.DimensionWiseRescaling(biases, stds, grads)
    values = torch.randn(2, chosen.n_coeffs, generator=generator, dtype=torch.float64).to(dtype)
    index = torch.randint(chosen.n_basis, (chosen.n_coeffs,), generator=generator)
    limited = torch.minimum(grads.double() / 0.05, 50 / stds.double())
    scale = torch.where(grads.double() > 0.05, limited, torch.ones(()).double())

    def judge(coeffs: Tensor, index: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
        rows = index.long()
        scaled = scale[rows] * (coeffs - biases.double()[rows])
        return scaled, *(gradient / (scale[rows] + 1e-8) for gradient in gradients)

    inputs = {"coeffs": values[0], "basis_function_ind": index}
    if chosen.gradient:
        inputs["gradient"] = values[1]
    return Case(module, inputs, judge, {"gradient": chosen.gradient})
