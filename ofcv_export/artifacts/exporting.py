"""Writing a module to a file that is checked before it takes its place."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from ofcv_export.artifacts.source_options import bounded, source_options
from ofcv_export.artifacts.verification import (
    VerificationReport,
    checked_frames,
    compare,
    graph_of,
    record_probe,
    replays_of,
)
from ofcv_export.base.atoms import atom_indices
from ofcv_export.base.files import atomic_path, require_folder_of
from ofcv_export.base.modes import ordinary_modes
from ofcv_export.base.termination import stopping_tidily
from ofcv_export.base.units import LENGTHS, require_length_unit
from ofcv_export.base.validation import (
    require_finite,
    require_floating_dtype,
    require_positive,
)
from ofcv_export.c_source.interface import symbol_of
from ofcv_export.contracts import CONTRACTS
from ofcv_export.formats import FORMATS, format_of
from ofcv_export.formats.format import Format
from ofcv_export.graph.export_graph import Exportable, ExportGraph
from ofcv_export.graph.metadata import (
    Digests,
    Metadata,
    Parity,
    Probe,
    version_of,
    weights_digest,
)
from ofcv_export.runtimes.machine import devices

_ONE_AT_A_TIME = threading.RLock()


class VerificationError(ValueError):
    """An exported file did not give the numbers of its module."""


def export(
    module: Exportable,
    path: str | PathLike[str],
    batch: int | None = None,
    *,
    device: str = "cpu",
    contract: str | None = None,
    atoms: Sequence[int] | None = None,
    length_unit: str | None = None,
    output_units: Mapping[str, str] | None = None,
    frames: Any = None,
    **options: Any,
) -> VerificationReport:
    """Export a module to C (.c, .so, .cpp), ONNX (.onnx), AOTInductor (.pt2) or TorchScript (.pt).

    The file is written beside `path`, replayed in its own runtime against the module in float64,
    and takes its place only when every replay is within the tolerance. A failed export leaves
    whatever was at `path` as it was. Which format is for what: docs/formats.md.

    Parameters
    ----------
    module : module
        `CollectiveVariable` and its biases, `SmartDerivatives` after its set-up,
        `SparseChainRule`, `DimensionWiseRescaling`, `MoleculeRescaling`, `EnergyFunctional` or
        `MoleculeFunctional`.
    path : path-like
        Where to write; the suffix chooses the format. TorchScript is deprecated upstream; prefer
        ONNX where the engine leaves the choice.
    batch : int, optional
        Fixes the number of frames; by default it is free. With 1 a collective variable gets a
        graph of its own for TorchScript and AOTInductor, see `ofcv_export.variables.one_frame`.
    device : {"cpu", "cuda"}
        What a ``.pt2`` file is compiled for; this machine must have it. On CUDA its sums have a
        fixed order. Other files run on any device.
    contract : str, optional
        An engine's own calling convention, for a ``.pt`` file that it loads as it is:
        ``gromacs-nnpot`` or ``openmm-torch`` for a `Bias`, ``plumed-pytorch`` or
        ``colvars-torchann`` for the network of a `CollectiveVariable`. See
        `ofcv_export.contracts`. ``plumed`` for a ``.cpp`` file, an action of PLUMED.
    atoms : sequence of int, optional
        Zero-based indices of the module's atoms in the engine's numbering, in place of those that a
        `CollectiveVariable` or a bias has.
    length_unit : str, optional
        Unit of lengths, e.g. ``nm``, of a module that knows none.
    output_units : mapping, optional
        Unit of each output by its name, for those that the module does not know.
    frames : array_like, path-like, or objects of ASE or MDAnalysis, optional
        Positions at which a collective variable or a bias is verified, besides those that are
        drawn: as the input has them, shape (n_frames, n_atoms, 3), an array, a tensor, a ``.npy``
        file, or a pair with boxes (n_frames, 3, 3); or the whole system in Angstrom, of which
        `atoms` are taken: a file that ASE reads, ASE's Atoms, a Universe or AtomGroup. Without
        them the normalisation of a model from mlcolvar tells what geometries it was trained on. Of
        a graph variable up to 64 of them are taken, and their graphs found (the extra ``graphs``).
    **options
        Options of the module's ``export_graph``: ``n_outputs`` and ``form`` for the chain rule,
        ``gradient`` for the rescaling; with a contract those of the contract. Of a ``.c``, ``.so``
        or ``.cpp`` file also ``fast=True``, which lets compilers fuse products with sums, so that
        the last bits depend on them, and ``symbol``, with which its names begin in place of the
        file's stem. A ``.c`` or ``.so`` file of a graph variable needs ``n_nodes`` and ``n_edges``,
        the largest graph that it is made for, one of an `EnergyFunctional` ``n``, the most
        coefficients.

    Returns
    -------
    VerificationReport
        The measured differences from float64, also recorded in the metadata.

    Raises
    ------
    ValueError
        For an unknown suffix or contract, a size that cannot be fixed, frozen data that are not
        finite, `atoms` that do not fit, and units that are unknown or contradict the module or one
        another.
    TypeError
        If the module is none of these, an option is unknown, or an atom is no integer.
    VerificationError
        If the file does not give the module's numbers.
    """
    # What compiles has settings of the process, and a folder of its own.
    with _ONE_AT_A_TIME, stopping_tidily(), ordinary_modes():
        return _export(
            module, path, batch, device, contract, atoms, length_unit, output_units, frames, options
        )


def _export(
    module: Exportable,
    path: str | PathLike[str],
    batch: int | None,
    device: str,
    contract: str | None,
    atoms: Sequence[int] | None,
    length_unit: str | None,
    output_units: Mapping[str, str] | None,
    frames: Any,
    options: dict[str, Any],
) -> VerificationReport:
    """Export a module, see `export`."""
    file_format = format_of(path)
    require_folder_of("path", path)
    _require_contract(contract, file_format, path)
    own = source_options(options, file_format)
    graph = graph_of("module", module, atoms, contract if contract in CONTRACTS else None, options)
    if batch is not None:
        _require_batch(graph, batch)
    if file_format.fixes_sizes:
        symbol = own.get("symbol", symbol_of(Path(path)))
        graph = bounded(graph, own).by_frames(batch or 1)
        graph = dataclasses.replace(graph, symbol=symbol, fast=own.get("fast", False))
    elif batch is not None:
        graph = graph.with_size("batch", batch)
    file_format.require_graph(graph)
    if device != "cpu":
        _require_device(device, file_format.name)
        graph = dataclasses.replace(graph, device=device)
    if batch == 1 and file_format.name != "onnx" and not file_format.fixes_sizes:
        # ONNX Runtime has its own ways with the general form.
        graph = graph.for_one_frame(compiled=file_format.name == "aotinductor")
    for spec in (*graph.inputs, *graph.outputs):
        if not spec.is_integer:
            require_floating_dtype(spec.name, spec.torch_dtype)
    for name, tensor in _named_tensors(graph.exact):
        if tensor.is_floating_point():
            require_finite(name, tensor)
    metadata = _described(
        graph,
        file_format,
        options={name: _plain(value) for name, value in options.items()},
        atoms=_atoms(atoms, graph),
        **_units(length_unit, output_units, graph),
    )
    file_format.require(metadata)
    replays = replays_of(graph, checked_frames(frames, graph, metadata))
    metadata = msgspec.structs.replace(metadata, probe=record_probe(replays))
    with torch.no_grad():
        compiled = file_format.compile(graph)
    with atomic_path(path) as temporary:
        file_format.write(compiled, metadata, temporary)
        report = compare(temporary, temporary.read_bytes(), metadata, replays)
        if not report.passed:
            raise VerificationError(
                f"module: expected a file within {report.tolerance:.0e} of float64, "
                f"got a relative error of {report.max_rel_error:.1e} in {report.runtime}"
            )
        metadata = _with_parity(metadata, report)
        file_format.write(compiled, metadata, temporary)
        file_format.metadata(temporary.read_bytes(), temporary)
    return dataclasses.replace(report, path=Path(path), metadata=metadata)


def _require_contract(contract: str | None, file_format: Format, path: str | PathLike[str]) -> None:
    """Raise ValueError unless files of a format can have a contract, or need none."""
    if file_format.needs_contract and contract is None:
        raise ValueError(
            f"contract: expected {' or '.join(file_format.contracts)} "
            f"for a {file_format.suffix} file, got none"
        )
    known = {name: entry.suffix for entry in FORMATS.values() for name in entry.contracts}
    if contract is None or contract in file_format.contracts:
        return
    if contract not in known:
        raise ValueError(f"contract: expected {', '.join(known)}, got {contract!r}")
    raise ValueError(
        f"path: expected the suffix {known[contract]} for the contract {contract}, "
        f"got {str(path)!r}"
    )


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_buffers()
    yield from module.named_parameters()


def _described(graph: ExportGraph, file_format: Format, **facts: Any) -> Metadata:
    """Return the metadata of a graph about to be written; `facts` are those it does not know."""
    return Metadata(
        format=file_format.name,
        details=graph.details,
        inputs=graph.inputs,
        outputs=graph.outputs,
        elements=graph.elements,
        sha256=Digests(pattern=graph.pattern_digest, weights=weights_digest(graph.module)),
        versions={name: version_of(name) for name in ("ofcv-export", "torch", "onnx")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parity=None,
        probe=Probe(sizes={}, outputs={}),
        **file_format.target(graph),
        **facts,
    )


def _plain(value: Any) -> Any:
    """Return an option as JSON knows it: a range, a tuple or an array as a list."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return [entry.item() if isinstance(entry, np.generic) else entry for entry in value]


def _require_device(device: str, format_name: str) -> None:
    """Raise ValueError unless a file can be compiled for a device other than the CPU."""
    if format_name != "aotinductor":
        raise ValueError(
            f"device: expected cpu for a {format_name} file, which runs on any device, "
            f"got {device!r}"
        )
    if device not in devices():
        raise ValueError(f"device: expected {' or '.join(devices())} here, got {device!r}")


def _require_batch(graph: ExportGraph, batch: int) -> None:
    """Raise ValueError unless a graph has batches, of a positive number of frames."""
    require_positive("batch", batch)
    if not any("batch" in spec.shape for spec in graph.inputs):
        raise ValueError(
            f"batch: expected None for a {graph.kind}, which has no batch of frames, got {batch}"
        )


def _atoms(atoms: Sequence[int] | None, graph: ExportGraph) -> list[int] | None:
    """Return the atoms' indices, checked against the graph's number of atoms."""
    if graph.atoms is not None and atoms is not None and list(atoms) != list(graph.atoms):
        raise ValueError(f"atoms: expected {graph.atoms} as in the module, got {list(atoms)}")
    if atoms is None or graph.atoms is not None:
        return graph.atoms
    n_atoms = getattr(graph.details, "n_atoms", None)
    if n_atoms is None:
        raise ValueError(f"atoms: expected none for a {graph.kind}, got {list(atoms)}")
    return atom_indices("atoms", atoms, n_atoms)


def _units(
    length_unit: str | None, output_units: Mapping[str, str] | None, graph: ExportGraph
) -> dict[str, Any]:
    """Return the units of lengths and outputs: the graph's, and given ones that it does not know.

    Raises
    ------
    ValueError
        If the graph has others, or they do not go together.
    """
    if length_unit is not None:
        require_length_unit(length_unit)
        own = graph.length_unit
        if own is not None and LENGTHS.get(own) != LENGTHS[length_unit]:
            raise ValueError(f"length_unit: expected {own} as in the module, got {length_unit}")
    length = graph.length_unit or length_unit
    given = dict(output_units or {})
    names = [spec.name for spec in graph.outputs]
    if not set(given) <= set(names):
        raise ValueError(
            f"output_units: expected names among {', '.join(names)}, got {', '.join(given)}"
        )
    units = given | graph.output_units
    for name, unit in given.items():
        expected = _expected_unit(name, unit, length, units, graph.output_units)
        if unit != expected:
            raise ValueError(f"output_units: expected {expected} for {name}, got {unit}")
    return {"length_unit": length, "output_units": units}


def _expected_unit(
    name: str, unit: str, length: str | None, units: Mapping[str, str], known: Mapping[str, str]
) -> str:
    """Return the unit that an output has by what else is known, the one that is given if none is.

    A unit of derivatives ends in that of lengths.
    """
    if name in known:
        return known[name]
    if name.endswith("derivatives") and "values" in units:
        return f"{units['values']}/{length}" if length else units[name]
    quantity, slash, per = unit.rpartition("/")
    if length and slash and per in LENGTHS:
        return f"{quantity}/{length}" if LENGTHS[per] != LENGTHS[length] else units[name]
    return units[name]


def _with_parity(metadata: Metadata, report: VerificationReport) -> Metadata:
    parity = Parity(
        reference="float64",
        runtime=report.runtime,
        max_abs_error=report.max_abs_error,
        max_rel_error=report.max_rel_error,
        tolerance=report.tolerance,
        comparisons=len(report.comparisons),
    )
    return msgspec.structs.replace(metadata, parity=parity)
