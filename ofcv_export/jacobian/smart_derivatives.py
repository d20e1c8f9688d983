"""Derivatives of a model's output with respect to positions, through a frozen sparse Jacobian."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofcv_export.base.arrays import as_tensor
from ofcv_export.base.files import atomic_path, read_npz, require_suffix
from ofcv_export.base.frame_check import require_own_frames
from ofcv_export.base.modes import full_precision, ordinary_modes, without_inference_tensors
from ofcv_export.base.validation import (
    require_finite,
    require_floating,
    require_floats,
    require_in_range,
    require_integers,
    require_positive,
    require_tensor,
)
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.recognise import recognise
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern
from ofcv_export.graph.details import SmartDerivativesDetails
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.graph.tracing import traced
from ofcv_export.jacobian.chain_rule import (
    ChainRule,
    FrozenDataset,
    exportable_chain_rule,
    suitable_chain_rule,
)
from ofcv_export.jacobian.frame_chain_rule import FrameChainRule
from ofcv_export.jacobian.judges import SummedBlocks
from ofcv_export.jacobian.opposite_pairs import blocks_of_pairs, pairs_of_blocks
from ofcv_export.jacobian.pattern_search import find_pattern
from ofcv_export.jacobian.sparse_chain_rule import SparseChainRule, chain_rule_specs
from ofcv_export.jacobian.sparse_jacobian import (
    DescriptorFunction,
    PatternTooNarrowError,
    SparseJacobian,
    evaluate_all,
)

# Batches of a set-up hold about this many numbers per array of positions, pairs or derivatives.
_NUMBERS_PER_BATCH = 1_000_000
# A progress bar appears when more numbers than this are to be frozen.
_LONG_SETUP = 20_000_000
_SAVED = ("descriptor_index", "atom_index", "sizes", "blocks", "descriptors")
# Version of saved set-ups: 2 holds one vector for each pair of opposite blocks.
_FULL, _PAIRS = 1, 2

KERNELS = ("auto", "torch", "numba", "triton")
# Devices of the packages that compile kernels.
_DEVICES = {"numba": "cpu", "triton": "cuda"}


class SmartDerivatives(nn.Module):
    """d(out)/d(descriptors) -> d(out)/d(positions) on a frozen dataset of frames.

    The Jacobian d(descriptors)/d(positions) of every frame is computed once, in `setup`, on one
    sparsity pattern for all frames; `forward` applies the chain rule with it. The same interface
    as ``mlcolvar.core.loss.SmartDerivatives`` (mlcolvar 1.3); to hand an object to mlcolvar's
    Committor or Generator use the class of the same name in `ofcv_export.integrations.mlcolvar`.

    Parameters
    ----------
    setup_device : str
        Device on which `setup` evaluates descriptors and derivatives.
    force_all_atoms : bool
        Whether atoms that no descriptor depends on are allowed; their derivatives are zero.
    kernel : {"auto", "torch", "numba", "triton"}
        What computes the chain rule: torch's operators, on any device; loops compiled with numba
        (the extra ``fast``), on the CPU only and several times faster there; or kernels compiled
        with Triton, on CUDA only and several times faster there. The first call in a process
        compiles them, or reads what an earlier process compiled. By default numba's on the CPU and
        Triton's on CUDA where they are installed, torch's elsewhere.
    atomics : bool
        Whether sums on CUDA, forward and backward, may use atomics: the last digits then differ
        from call to call. By default they have a fixed order, see `ofcv_export.base.fixed_order`.

    Raises
    ------
    ValueError
        For another kernel.
    ImportError
        Without numba for its kernel.

    Attributes
    ----------
    pattern : SparsityPattern
        Structure of the Jacobian, after `setup`.
    descriptors : dict or None
        Specification of the descriptors for the metadata, where they are known.
    values : torch.Tensor
        Derivatives of every frame in the order that the chain rule wants, shape
        (n_frames, n_values). A buffer that moves with the module and stays out of its state dict.
        With compiled kernels one vector per pair is stored of descriptors that are
        `antisymmetric` (distances and functions of them), half the memory.

    Examples
    --------
    >>> smart = SmartDerivatives()
    >>> frames = {"data": torch.randn(8, 3, 3)}
    >>> dataset = smart.setup(frames, lambda r: (r[:, :2] - r[:, 1:]).norm(dim=2), n_atoms=3)
    >>> dataset["data"].shape, smart(torch.ones(8, 2), dataset["ref_idx"]).shape
    (torch.Size([8, 2]), torch.Size([8, 3, 3]))
    """

    values: Tensor

    def __init__(
        self,
        setup_device: str = "cpu",
        force_all_atoms: bool = False,
        kernel: str = "auto",
        *,
        atomics: bool = False,
    ) -> None:
        super().__init__()
        _require_kernel(kernel)
        self.kernel = kernel
        self.atomics = atomics
        self.setup_device = setup_device
        self.force_all_atoms = force_all_atoms
        self.pattern: SparsityPattern | None = None
        self.descriptors: dict[str, Any] | None = None
        self.chain_rule: ChainRule | None = None
        self.register_buffer("values", torch.empty(0, 0), persistent=False)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    @ordinary_modes()
    def setup(
        self,
        dataset: Any,
        descriptor_function: DescriptorFunction,
        n_atoms: int,
        separate_boundary_dataset: bool = False,
        descriptors_batch_size: int | None = None,
        *,
        pattern: SparsityPattern | None = None,
    ) -> Any:
        """Freeze the derivatives of the descriptors of every frame.

        Analytic descriptors (ours, and mlcolvar's own classes, which are recognised) bring their
        structure and their derivatives along. For any other function the structure is found by
        moving one atom at a time (`ofcv_export.jacobian.pattern_search.find_pattern`) and the
        derivatives come from one backward pass per group of descriptors that share no atom.

        The guarantee, for every function: the stored Jacobian of each frame is proved against one
        plain backward pass with a random vector. Where it differs, a dependence had been missed;
        the pattern is widened by what the failing frames show, and the set-up starts over. So no
        derivative of any frame is lost, and a component that is 0.0 in some frames, or in all of
        them, stays in the pattern.

        Parameters
        ----------
        dataset : mapping or mlcolvar.data.DictDataset
            ``data`` holds positions, shape (n_frames, n_atoms, 3) or (n_frames, n_atoms * 3),
            float32 or float64; ``labels`` and ``weights`` are passed on.
        descriptor_function : callable
            Maps positions (batch, n_atoms, 3) to descriptors (batch, n_descriptors), every frame
            on its own.
        n_atoms : int
            Number of atoms in a frame.
        separate_boundary_dataset : bool
            Whether frames with labels 0 and 1 are boundary conditions without derivatives; their
            ``ref_idx`` is -1.
        descriptors_batch_size : int, optional
            Frames evaluated at once; by default as many as keep a batch's arrays small.
        pattern : SparsityPattern, optional
            A known structure, for a function that is not recognised. It is proved like any other.

        Returns
        -------
        dict or mlcolvar.data.DictDataset
            As `dataset`, with descriptors (n_frames, n_descriptors) as ``data`` and ``ref_idx``
            (n_frames,), int64.

        Raises
        ------
        ValueError
            For wrong shapes, values that are not finite, atoms without a descriptor (unless
            `force_all_atoms`), or a function that mixes frames or is random.
        TypeError
            For positions or descriptors that are not float32 or float64, or no tensors.
        """
        require_tensor("data", dataset["data"])
        if self.kernel == "numba":
            self._require_device("data", dataset["data"])
        positions = _positions(dataset["data"], n_atoms)
        varies = _variational(dataset, len(positions), separate_boundary_dataset)
        frames = positions[varies].to(self.setup_device)
        function = recognise(descriptor_function) or descriptor_function
        if isinstance(function, nn.Module):
            function = without_inference_tensors(function)
        if not isinstance(function, Descriptor):
            require_own_frames("descriptor_function", function, frames)
        if pattern is None:
            pattern = _pattern(function, frames)
        _require_sizes(pattern, n_atoms)
        batch_size = _batch_size(descriptors_batch_size, pattern)

        while True:
            self._require_used(pattern)
            jacobian = SparseJacobian(function, pattern)
            try:
                with full_precision(self.setup_device, self.atomics):
                    kernel = self._kernel_on(positions.device)
                    rule = suitable_chain_rule(pattern, kernel, jacobian.antisymmetric)
                    descriptors, values = _evaluate(jacobian, rule, frames, batch_size)
                break
            except PatternTooNarrowError as error:
                pattern = error.wider_pattern

        self.pattern = pattern
        self.descriptors = function.specification() if isinstance(function, Descriptor) else None
        self.chain_rule = rule.to(positions.device)
        self.values = values.to(positions.device)
        with full_precision(positions.device, self.atomics):
            described = _all_descriptors(function, positions, varies, descriptors, batch_size)
        return _smart_dataset(dataset, described, varies)

    def _require_used(self, pattern: SparsityPattern) -> None:
        unused = pattern.unused_atoms()
        if unused and not self.force_all_atoms:
            raise ValueError(
                f"descriptor_function: expected every one of the {pattern.n_atoms} atoms to be "
                f"used by a descriptor, got none for atoms {unused} (zero-based); "
                "force_all_atoms=True allows them"
            )

    def forward(self, x: Tensor, ref_idx: Tensor | None = None) -> Tensor:
        """Return d(out)/d(positions) of some frames.

        Parameters
        ----------
        x : torch.Tensor
            d(out)/d(descriptors), shape (batch, n_descriptors) or
            (batch, n_descriptors, n_outputs), in the dtype of the frozen values.
        ref_idx : torch.Tensor, optional
            Frame of each row, integers (batch,), in any order and repeated at will; by default
            0, 1, ... batch - 1.

        Returns
        -------
        torch.Tensor
            Shape (batch, n_atoms, 3) or (batch, n_atoms, 3, n_outputs), differentiable with
            respect to `x`.

        Raises
        ------
        RuntimeError
            Before `setup`.
        ValueError, TypeError, IndexError
            For a wrong shape, dtype or device, or a frame that does not exist.
        """
        chain_rule, pattern = self._require_setup()
        require_tensor("x", x)
        if ref_idx is None:
            ref_idx = torch.arange(len(x), device=x.device)
        self._require_inputs(pattern, x, ref_idx)
        try:
            with full_precision(x.device, self.atomics):
                out: Tensor = chain_rule(x, self.values, ref_idx)
        except IndexError:
            require_in_range("ref_idx", ref_idx, 0, len(self.values))
            raise
        return out

    def _require_inputs(self, pattern: SparsityPattern, x: Tensor, ref_idx: Tensor) -> None:
        sizes = ("batch", pattern.n_descriptors) + ("n_outputs",) * (x.dim() == 3)
        values = self.values
        if self.kernel in _DEVICES:
            require_floating("values", values)
        self._require_device("values", values)
        require_floats("x", x, sizes, values.dtype, values.device)
        require_integers("ref_idx", ref_idx, (len(x),), values.device)
        if not (values.is_cpu or isinstance(self.chain_rule, FrameChainRule)):
            # Elsewhere the lookup itself refuses a frame that does not exist, at no cost.
            require_in_range("ref_idx", ref_idx, 0, len(values))

    def _require_device(self, name: str, tensor: Tensor) -> None:
        wanted = _DEVICES.get(self.kernel)
        if wanted is not None and tensor.device.type != wanted:
            raise ValueError(
                f'{name}: expected a tensor on {wanted} for kernel="{self.kernel}", '
                f"got one on {tensor.device}"
            )

    def move_to_cpu(self) -> None:
        """Move the frozen tensors to the CPU."""
        self.to("cpu")

    def blocks(self) -> Tensor:
        """Return the frozen derivatives in block order, shape (n_frames, n_blocks, 3).

        Raises
        ------
        RuntimeError
            Before `setup`.
        """
        rule, _ = self._require_setup()
        return rule.blocks(self.values)

    def sparse_chain_rule(self) -> SparseChainRule:
        """Return the chain rule on this pattern with the derivatives as an input."""
        _, pattern = self._require_setup()
        return SparseChainRule(pattern, self.values.dtype, self.descriptors)

    def export_graph(self, form: str | None = None, n_outputs: int | None = None) -> ExportGraph:
        """Return the graph of the frozen dataset.

        Parameters
        ----------
        form : {"scatter", "gather"}, optional
            Scatter-add, or the sum over gathered blocks, which is reproducible everywhere. By
            default gather for frozen values on CUDA, where a scatter-add is slow or atomic, and
            scatter otherwise.
        n_outputs : int, optional
            Number of outputs; None for a single output without a dimension of its own.
        """
        core = self.core(form)
        _, pattern = self._require_setup()
        x, out = chain_rule_specs(pattern, self.values.dtype, n_outputs)
        return ExportGraph(
            SmartDerivativesDetails(
                n_atoms=pattern.n_atoms,
                n_descriptors=pattern.n_descriptors,
                nnz=pattern.nnz,
                n_frames=len(self.values),
                form=self._form(form),
                descriptors=self.descriptors,
            ),
            (x, TensorSpec("ref_idx", "int64", ("batch",), 0, len(self.values))),
            (out,),
            build=lambda graph: traced(core, graph.inputs),
            exact=SummedBlocks(pattern, self.blocks().cpu().flatten(1)),
            pattern_digest=pattern.digest(),
        )

    def core(self, form: str | None = None) -> FrozenDataset:
        """Return the frozen dataset as buffers and tensor operations, on the CPU.

        It is what is exported, and what ``torch.jit.script`` takes for this module: where the
        module is part of another one that is scripted, PyTorch leaves the core in its place.

        Parameters
        ----------
        form : {"scatter", "gather"}, optional
            See `export_graph`.
        """
        rule, pattern = self._require_setup()
        vectors, are_pairs = _smallest(rule, self.values.cpu(), pattern)
        wanted = exportable_chain_rule(pattern, self._form(form), are_pairs)
        return FrozenDataset(wanted, wanted.arrange(vectors)).eval()

    def __prepare_scriptable__(self) -> FrozenDataset:
        """Return what ``torch.jit.script`` takes for this module."""
        return self.core().to(self.values.device)

    def _form(self, form: str | None) -> Any:
        return form or ("gather" if self.values.is_cuda else "scatter")

    def save(self, path: str | PathLike[str]) -> None:
        """Write the frozen set-up to an ``.npz`` file, from which `load` makes it again."""
        rule, pattern = self._require_setup()
        vectors, are_pairs = _smallest(rule, self.values.cpu(), pattern)
        require_suffix("path", path, ".npz")
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                descriptor_index=pattern.descriptor_index.numpy(),
                atom_index=pattern.atom_index.numpy(),
                sizes=np.array([pattern.n_descriptors, pattern.n_atoms]),
                blocks=vectors.numpy(),
                version=_PAIRS if are_pairs else _FULL,
                descriptors=json.dumps(self.descriptors),
            )

    @classmethod
    def load(cls, path: str | PathLike[str], kernel: str = "auto") -> SmartDerivatives:
        """Read a set-up that `save` wrote, with one vector for each pair or without.

        Parameters
        ----------
        path : path-like
            The ``.npz`` file.
        kernel : {"auto", "torch", "numba", "triton"}
            What computes the chain rule, whatever it was when the file was written.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a set-up, of an unknown version, or holds values that are not
            finite.
        """
        arrays = read_npz("path", path, _SAVED, {"version": np.array(_FULL)})
        version = int(arrays["version"])
        if version not in (_FULL, _PAIRS):
            raise ValueError(f"path: expected a set-up of version 1 or 2, got version {version}")
        pattern = SparsityPattern(
            as_tensor("descriptor_index", arrays["descriptor_index"]),
            as_tensor("atom_index", arrays["atom_index"]),
            *arrays["sizes"].tolist(),
        )
        vectors = as_tensor("blocks", arrays["blocks"])
        n_vectors = pattern.n_blocks if version == _FULL else pattern.n_descriptors
        require_floats("blocks", vectors, ("n_frames", n_vectors, 3))
        require_finite("blocks", vectors)
        smart = cls(force_all_atoms=bool(pattern.unused_atoms()), kernel=kernel)
        smart.pattern = pattern
        smart.descriptors = json.loads(str(arrays["descriptors"]))
        smart._arrange(blocks_of_pairs(vectors) if version == _PAIRS else vectors)
        return smart

    def _arrange(self, blocks: Tensor) -> None:
        """Choose the chain rule for derivatives in block order, and arrange them for it."""
        assert self.pattern is not None
        kernel = self._kernel_on(blocks.device)
        pairs = None if kernel == "torch" else pairs_of_blocks(blocks, self.pattern)
        rule = suitable_chain_rule(self.pattern, kernel, pairs is not None)
        self.chain_rule = rule.to(blocks.device)
        vectors = pairs if rule.stores_pairs and pairs is not None else blocks
        self.values = self.chain_rule.arrange(vectors)

    def _apply(self, function: Any, recurse: bool = True) -> SmartDerivatives:
        """Move or cast the frozen values, and choose the chain rule anew on another device."""
        before = self.values.device
        super()._apply(function, recurse)
        if self.chain_rule is not None and self._kernel_on(before) != self._kernel_on(
            self.values.device
        ):
            self._arrange(self.chain_rule.blocks(self.values))
        return self

    def _kernel_on(self, device: torch.device) -> str:
        """Return what computes the chain rule on a device."""
        if self.kernel != "auto":
            return self.kernel
        suitable = next((name for name, kind in _DEVICES.items() if kind == device.type), "torch")
        return suitable if find_spec(suitable) else "torch"

    def _require_setup(self) -> tuple[ChainRule, SparsityPattern]:
        if self.chain_rule is None or self.pattern is None:
            raise RuntimeError("setup: expected to be called first, got no frozen frames")
        return self.chain_rule, self.pattern


def _require_kernel(kernel: str) -> None:
    if kernel not in KERNELS:
        expected = ", ".join(f'"{name}"' for name in KERNELS)
        raise ValueError(f"kernel: expected one of {expected}, got {kernel!r}")
    if kernel in _DEVICES and find_spec(kernel) is None:
        extra = " (pip install 'ofcv-export[fast]')" if kernel == "numba" else ""
        raise ImportError(
            f'kernel: expected the package {kernel} for kernel="{kernel}"{extra}, got none'
        )


def _evaluate(
    jacobian: SparseJacobian, rule: ChainRule, frames: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return descriptors and arranged values of all frames."""
    descriptors = torch.empty(len(frames), jacobian.pattern.n_descriptors, dtype=frames.dtype)
    values = torch.empty(len(frames), rule.n_values, dtype=frames.dtype)
    show_progress = values.numel() >= _LONG_SETUP
    for rows, d, blocks in evaluate_all(jacobian, frames, batch_size, show_progress):
        descriptors[rows] = d.cpu()
        vectors = _pairs(blocks, jacobian.pattern) if rule.stores_pairs else blocks
        values[rows] = rule.arrange(vectors.cpu())
    return descriptors, values


def _pairs(blocks: Tensor, pattern: SparsityPattern) -> Tensor:
    """Return the derivatives for the second atom of every pair, proved to be minus the first."""
    pairs = pairs_of_blocks(blocks, pattern)
    if pairs is None:
        raise ValueError(
            "descriptor_function: expected opposite derivatives from descriptors that say they "
            "are antisymmetric, got others"
        )
    return pairs


def _smallest(rule: ChainRule, values: Tensor, pattern: SparsityPattern) -> tuple[Tensor, bool]:
    """Return frozen vectors, and whether they are one for each pair of opposite blocks."""
    vectors = rule.vectors(values)
    if rule.stores_pairs:
        return vectors, True
    pairs = pairs_of_blocks(vectors, pattern)
    return (vectors, False) if pairs is None else (pairs, True)


def _positions(data: Any, n_atoms: int) -> Tensor:
    """Return positions as (n_frames, n_atoms, 3), checked."""
    require_positive("n_atoms", n_atoms)
    sizes = (3 * n_atoms,) if data.dim() == 2 else (n_atoms, 3)
    require_floats("data", data, ("n_frames", *sizes))
    if len(data) == 0:
        raise ValueError("data: expected at least one frame, got none")
    require_finite("data", data)
    return data.detach().reshape(-1, n_atoms, 3)


def _variational(dataset: Any, n_frames: int, separate_boundary_dataset: bool) -> Tensor:
    """Return which frames get derivatives, boolean (n_frames,)."""
    if not separate_boundary_dataset:
        return torch.ones(n_frames, dtype=torch.bool)
    labels = as_tensor("labels", dataset["labels"] if "labels" in _keys(dataset) else []).cpu()
    if labels.numel() != n_frames:
        got = labels.numel() or "none"
        raise ValueError(f"labels: expected one for each of {n_frames} frames, got {got}")
    varies: Tensor = labels.reshape(n_frames) > 1
    if not bool(varies.any()):
        raise ValueError(
            "labels: expected some frames beyond the boundaries (labels above 1), got none; "
            "unbiased data wants separate_boundary_dataset=False"
        )
    return varies


def _pattern(function: DescriptorFunction, frames: Tensor) -> SparsityPattern:
    """Return the structure that a descriptor knows, or find that of any other function."""
    if isinstance(function, Descriptor):
        return function.pattern()
    return find_pattern(function, frames)


def _require_sizes(pattern: SparsityPattern, n_atoms: int) -> None:
    if pattern.n_atoms != n_atoms:
        raise ValueError(
            f"n_atoms: expected {pattern.n_atoms} as in the descriptors, got {n_atoms}"
        )


def _batch_size(wanted: int | None, pattern: SparsityPattern) -> int:
    """Return the number of frames to evaluate at once."""
    if wanted is not None and wanted != -1:
        require_positive("descriptors_batch_size", wanted)
        return wanted
    per_frame = 3 * max(pattern.n_atoms**2, pattern.n_blocks)
    return max(_NUMBERS_PER_BATCH // per_frame, 1)


def _all_descriptors(
    function: DescriptorFunction,
    positions: Tensor,
    varies: Tensor,
    descriptors: Tensor,
    batch_size: int,
) -> Tensor:
    """Return the descriptors of all frames, of which those that vary are known."""
    everything = descriptors.new_empty(len(positions), descriptors.shape[1])
    everything[varies] = descriptors
    boundary = torch.nonzero(~varies).flatten()
    for start in range(0, len(boundary), batch_size):
        rows = boundary[start : start + batch_size]
        everything[rows] = function(positions[rows]).to(everything)
    return everything.to(positions.device)


def _keys(dataset: Any) -> Collection[str]:
    """Return the keys of a mapping, or of mlcolvar's DictDataset, whose `keys` is a property."""
    return dataset.keys() if callable(dataset.keys) else dataset.keys


def _smart_dataset(dataset: Any, descriptors: Tensor, varies: Tensor) -> Any:
    """Return a dataset of the same class with descriptors and frame numbers."""
    ref_idx = torch.full((len(varies),), -1)
    ref_idx[varies] = torch.arange(int(varies.sum()))
    known = [key for key in ("labels", "weights") if key in _keys(dataset)]
    passed_on = {key: torch.clone(dataset[key]) for key in known}
    smart = {"data": descriptors, **passed_on, "ref_idx": ref_idx.to(descriptors.device)}
    return smart if isinstance(dataset, Mapping) else type(dataset)(smart)
