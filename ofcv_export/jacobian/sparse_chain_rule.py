"""The chain rule for an engine that supplies its own derivatives of the descriptors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ofcv_export.base.modes import full_precision
from ofcv_export.base.validation import (
    dtype_name,
    require_floats,
    require_positive,
    require_tensor,
)
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.graph.details import Pattern, SparseChainRuleDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced
from ofcv_export.jacobian.chain_rule import ScatterChainRule
from ofcv_export.jacobian.judges import SummedBlocks


class SparseChainRule(nn.Module):
    """d(out)/d(desc) and d(desc)/d(pos) -> d(out)/d(pos) on a fixed sparsity pattern.

    Parameters
    ----------
    pattern : SparsityPattern
        Structure of d(desc)/d(pos); an engine gives its values in this order of blocks.
    dtype : torch.dtype
        float32 or float64.
    descriptors : dict, optional
        Specification of the descriptors, where they are known, for an artifact's metadata.

    Examples
    --------
    >>> pattern = SparsityPattern([0, 0], [0, 1], n_descriptors=1, n_atoms=2)
    >>> rule = SparseChainRule(pattern, dtype=torch.float64)
    >>> x, derivatives = torch.ones(5, 1).double(), torch.randn(5, 6).double()
    >>> rule(x, derivatives).shape
    torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        pattern: SparsityPattern,
        dtype: torch.dtype = torch.float32,
        descriptors: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {dtype_name(dtype)}")
        self.pattern = pattern
        self.dtype = dtype
        self.descriptors = descriptors
        self.chain_rule = ScatterChainRule(pattern)

    def forward(self, output_wrt_descriptors: Tensor, descriptors_wrt_positions: Tensor) -> Tensor:
        """Return d(out)/d(pos).

        Parameters
        ----------
        output_wrt_descriptors : torch.Tensor
            Shape (batch, n_descriptors) or (batch, n_descriptors, n_outputs).
        descriptors_wrt_positions : torch.Tensor
            Shape (batch, nnz), three components for each block of the pattern in turn.

        Returns
        -------
        torch.Tensor
            Shape (batch, n_atoms, 3) or (batch, n_atoms, 3, n_outputs).
        """
        x, values = output_wrt_descriptors, descriptors_wrt_positions
        require_tensor("output_wrt_descriptors", x)
        sizes = ("batch", self.pattern.n_descriptors) + ("n_outputs",) * (x.dim() == 3)
        require_floats("output_wrt_descriptors", x, sizes, self.dtype)
        shape = (len(x), self.pattern.nnz)
        require_floats("descriptors_wrt_positions", values, shape, self.dtype)
        with full_precision(x.device):
            out: Tensor = self.chain_rule(x, values)
        return out

    def export_graph(self, n_outputs: int | None = None) -> ExportGraph:
        """Return the graph; `n_outputs` is None for a single output without its own dimension."""
        pattern = self.pattern
        x, out = chain_rule_specs(pattern, self.dtype, n_outputs)
        details = SparseChainRuleDetails(
            n_atoms=pattern.n_atoms,
            n_descriptors=pattern.n_descriptors,
            nnz=pattern.nnz,
            pattern=Pattern(
                descriptor_index=tuple(pattern.descriptor_index.tolist()),
                atom_index=tuple(pattern.atom_index.tolist()),
            ),
            descriptors=self.descriptors,
        )
        return ExportGraph(
            details,
            (x, TensorSpec("descriptors_wrt_positions", x.dtype, ("batch", pattern.nnz))),
            (out,),
            build=lambda graph: traced(self.chain_rule, graph.inputs),
            exact=SummedBlocks(pattern),
            pattern_digest=pattern.digest(),
        )

    def __prepare_scriptable__(self) -> ScatterChainRule:
        """Return what ``torch.jit.script`` takes for this module, see `SmartDerivatives.core`."""
        return self.chain_rule


def chain_rule_specs(
    pattern: SparsityPattern, dtype: torch.dtype, n_outputs: int | None
) -> tuple[TensorSpec, TensorSpec]:
    """Return the specs of d(out)/d(desc) and d(out)/d(pos)."""
    if n_outputs is not None:
        require_positive("n_outputs", n_outputs)
    outputs = () if n_outputs is None else (n_outputs,)
    name = dtype_name(dtype)
    return (
        TensorSpec("output_wrt_descriptors", name, ("batch", pattern.n_descriptors, *outputs)),
        TensorSpec("output_wrt_positions", name, ("batch", pattern.n_atoms, 3, *outputs)),
    )
