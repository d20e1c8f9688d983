"""Evaluating d(descriptors)/d(positions) on a fixed sparsity pattern, frame batch by frame batch.

Two ways lead to the values. A descriptor with analytic derivatives gives them directly. For any
other function the Jacobian is compressed: descriptors that share no atom get one colour, and one
backward pass gives the derivatives of a whole colour.

Either way every batch is proved: the stored Jacobian times a random vector must equal one plain
backward pass with that vector. Where it does not, a dependence was missing; the pattern is widened
by the dependence seen in the frames that failed, and the evaluation starts over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from rich.progress import track
from torch import Tensor

from ofcv_export.descriptors.descriptor import Descriptor, compressed_jacobian
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.jacobian.opposite_pairs import has_pairs

DescriptorFunction = Callable[[Tensor], Tensor]

_PROOF_SEED = 1
# Largest accepted difference relative to the frame's largest sum of |terms|: rounding of a backward
# pass in the positions' dtype, or of two formulas in float64 close to a singular geometry.
_COMPRESSED_ROUNDING = 2048
_ANALYTIC_TOLERANCE = 1e-8
_FAILED_FRAMES_LOOKED_AT = 16


class PatternTooNarrowError(Exception):
    """The proof failed: some descriptor depends on an atom that the pattern does not have."""

    def __init__(self, pattern: SparsityPattern) -> None:
        super().__init__("the sparsity pattern misses a dependence")
        self.wider_pattern = pattern


class SparseJacobian:
    """Values of the Jacobian on a pattern, by the analytic or the compressed way.

    Parameters
    ----------
    function : callable
        Maps positions (batch, n_atoms, 3) to descriptors (batch, n_descriptors), frame by frame.
        A `Descriptor` takes the analytic way.
    pattern : SparsityPattern
        Structure of the derivatives.
    """

    def __init__(self, function: DescriptorFunction, pattern: SparsityPattern) -> None:
        self.function = function
        self.pattern = pattern
        self.analytic = function if isinstance(function, Descriptor) else None
        self.antisymmetric = (
            self.analytic is not None and self.analytic.antisymmetric and has_pairs(pattern)
        )
        self._generator = torch.Generator().manual_seed(_PROOF_SEED)

    def evaluate(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors and derivatives of a batch, proved.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (batch, n_atoms, 3).

        Returns
        -------
        descriptors : torch.Tensor
            Shape (batch, n_descriptors).
        blocks : torch.Tensor
            Derivatives in block order, shape (batch, n_blocks, 3).

        Raises
        ------
        ValueError
            If a derivative is not finite, or the proof fails although the pattern is complete.
        PatternTooNarrowError
            If the pattern misses a dependence; the error carries a wider one.
        """
        dtype = positions.dtype
        # An analytic descriptor is evaluated in float64: the frozen values are then as good as
        # their dtype allows, and the proof as sharp as it can be.
        positions = positions.to(torch.float64 if self.analytic else dtype)
        positions = positions.detach().requires_grad_()
        with torch.enable_grad():
            descriptors = self.function(positions)
        if self.analytic is None:
            blocks = compressed_jacobian(descriptors, positions, self.pattern)
        else:
            _, blocks = self.analytic.jacobian(positions.detach())
        self._require_finite(blocks)
        self._prove(descriptors, positions, blocks)
        return descriptors.detach().to(dtype), blocks.to(dtype)

    def _require_finite(self, blocks: Tensor) -> None:
        if bool(torch.isfinite(blocks).all()):
            return
        frame, block, _ = torch.nonzero(~torch.isfinite(blocks))[0].tolist()
        raise ValueError(
            f"descriptor_function: expected finite derivatives, got {blocks[frame, block].tolist()}"
            f" for descriptor {int(self.pattern.descriptor_index[block])} with respect to atom "
            f"{int(self.pattern.atom_index[block])} in frame {frame} of its batch"
        )

    def _prove(self, descriptors: Tensor, positions: Tensor, blocks: Tensor) -> None:
        """Compare J^T v with one plain backward pass, for random v."""
        v = torch.randn(descriptors.shape, generator=self._generator, dtype=torch.float64)
        v = v.to(descriptors)
        expected = _backward(descriptors, positions, v).double()
        terms = blocks.double() * v.double()[
            :, self.pattern.descriptor_index.to(v.device)
        ].unsqueeze(2)
        atoms = self.pattern.atom_index.to(v.device)
        found = torch.zeros_like(expected).index_add_(1, atoms, terms)
        size = torch.zeros_like(expected).index_add_(1, atoms, terms.abs_()).amax(dim=(1, 2))
        error = (found - expected).abs().amax(dim=(1, 2))
        scale = torch.maximum(size, expected.abs().amax(dim=(1, 2)))
        # A function may compute in another dtype than that of the positions.
        eps = max(torch.finfo(tensor.dtype).eps for tensor in (descriptors, positions))
        rounding = _COMPRESSED_ROUNDING * eps
        tolerance = _ANALYTIC_TOLERANCE if self.analytic else rounding
        failed = torch.nonzero(~(error <= tolerance * scale)).flatten()
        if len(failed) == 0:
            return
        wider = self._widened(positions[failed[:_FAILED_FRAMES_LOOKED_AT]])
        if wider.n_blocks > self.pattern.n_blocks:
            raise PatternTooNarrowError(wider)
        frame = int(failed[0])
        raise ValueError(
            "descriptor_function: expected descriptors that depend on nothing but their own frame, "
            f"got derivatives that differ by {float(error[frame] / scale[frame]):.1e} (relative) "
            f"from a plain backward pass in frame {frame} of its batch"
        )

    def _widened(self, positions: Tensor) -> SparsityPattern:
        """Add the dependence that one backward pass per descriptor sees in some frames."""
        positions = positions.detach().requires_grad_()
        with torch.enable_grad():
            descriptors = self.function(positions)
        dependence = self.pattern.dependence()
        for index in range(descriptors.shape[1]):
            one = torch.zeros_like(descriptors)
            one[:, index] = 1
            gradient = _backward(descriptors, positions, one)
            dependence[index] |= (gradient != 0).any(dim=2).any(dim=0).cpu()
        return SparsityPattern.from_dependence(dependence)


def evaluate_all(
    jacobian: SparseJacobian, positions: Tensor, batch_size: int, show_progress: bool
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield rows, descriptors and blocks of batch after batch."""
    starts = range(0, len(positions), batch_size)
    for start in track(starts, "Derivatives of descriptors", disable=not show_progress):
        rows = slice(start, min(start + batch_size, len(positions)))
        yield rows, *jacobian.evaluate(positions[rows])


def _backward(descriptors: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
    """Return d(sum of weights * descriptors)/d(positions), zeros where nothing depends."""
    (gradient,) = torch.autograd.grad(
        descriptors,
        positions,
        weights,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return gradient
