r"""Fitting mldft's dataset statistics to label files, two streaming passes, in parallel over files.

The statistics are those of mldft's ``DatasetStatisticsFitter``, under the same keys. With sample
weights w_s, a mean, a standard deviation or a largest value of a basis function (of an element)
runs over all atoms of that element in all samples:

========================================  ==========================================================
key                                       statistic
========================================  ==========================================================
``coeffs/mean``, ``/std``, ``/abs_max``   of p; the std is that of the population, abs_max is
                                          max w_s|p|
``gradient_label/mean``, ...              of the (projected) gradient g, likewise
``gradient_max_after_atom_ref``           max w_s|g - mean g|
``gradient_max_after_scalar_atom_ref``    the same for l = 0, max w_s|g| for l > 0
``atom_ref_atom_type_bias``               t_Z per element, and the global bias t_0: least squares
``atom_ref_global_bias``                  of the molecules' mean energies minus (mean g)·p by
                                          composition, every molecule once
``scalar_atom_ref_atom_type_bias``, ...   the same with the mean g of l = 0 only
``energy_minus_atom_ref/mean``, ...       of E - (mean g)·p - sum t_Z - t_0, ``/std`` being its root
                                          mean square
``initial_guess_delta/mean``, ...         of p - (p of the last SCF step)
========================================  ==========================================================

A first pass takes moments and a small triangular factor of the least squares, a second one the
largest deviations and what the atomic reference leaves of the energy. Nothing that is kept grows
with the number of files but their names.
"""

from __future__ import annotations

import multiprocessing
import operator
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ofcv_export.base.files import path_or_url
from ofcv_export.base.validation import require_positive
from ofcv_export.density.basis import basis_function_ind, element_text, irreps_per_element
from ofcv_export.density.dataset_statistics import DatasetStatistics, store_path
from ofcv_export.density.fitting.accumulators import LeastSquares, Moments, weighted_abs_max
from ofcv_export.density.fitting.density_labels import (
    DensityLabels,
    FloatArray,
    project_gradient,
    read_labels,
    stored_basis,
)
from ofcv_export.density.fitting.sample_weighers import (
    HasEnergyLabelSampleWeigher,
    InitialGuessOnlySampleWeigher,
    SampleWeigher,
)
from ofcv_export.density.store_files import files_at

K = TypeVar("K")
T = TypeVar("T")
Paths = Sequence[str | os.PathLike[str]]

# The two atomic references: with all of the mean gradient, and with that of scalars only.
ATOM_REFS = ("atom_ref", "scalar_atom_ref")
# Files that wait for a process, for each process: enough to keep it busy.
_FILES_AHEAD = 4


def fit_statistics(
    paths: Paths,
    output_path: str | os.PathLike[str],
    basis_info: Any = None,
    *,
    weighers: Sequence[SampleWeigher] = (HasEnergyLabelSampleWeigher(),),
    initial_guess_weighers: Sequence[SampleWeigher] = (InitialGuessOnlySampleWeigher(),),
    energy_key: str = "e_kin",
    gradient_key: str = "grad_kin",
    project: bool = True,
    with_bias: bool = True,
    min_atoms_per_type: int = 1,
    overwrite: bool = False,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetStatistics:
    """Fit dataset statistics to label files and store them as mldft does.

    Parameters
    ----------
    paths : sequence of str or path-like
        Label files or their URLs, a molecule each, see
        `ofcv_export.density.fitting.density_labels`.
    output_path : str or path-like
        Store to write, ending in ``.zarr``, or its URL. One that exists may lack statistics, which
        are added, and has to be of the same basis.
    basis_info : BasisInfo, optional
        Ours or mldft's; by default the one kept in the first label file. It is kept in the store
        as well, see `ofcv_export.density.fitting.density_labels.stored_basis`.
    weighers : sequence of SampleWeigher
        Weights of the samples for the statistics of coefficients, gradients and energies.
    initial_guess_weighers : sequence of SampleWeigher
        Weights of the samples for ``initial_guess_delta``.
    energy_key, gradient_key : str
        Which labels to take, e.g. ``e_kin_plus_xc`` and ``grad_kin_plus_xc``.
    project : bool
        Project the gradients onto a fixed number of electrons first, as mldft requires of its data.
    with_bias : bool
        Fit a global bias of the energy; otherwise it is 0.
    min_atoms_per_type : int
        Smallest weight that every element of the basis must have. With 0, an element that is
        absent has statistics 0.
    overwrite : bool
        Replace statistics of an existing store that differ.
    processes : int
        Number of processes that read files; the result does not depend on it.
    progress : callable, optional
        Called with the number of files done and to do, each file counting twice.

    Returns
    -------
    DatasetStatistics
        The store.

    Raises
    ------
    FileNotFoundError
        If a label file does not exist.
    ValueError
        For a file that is no label file or of another basis, arrays that are absent, of the wrong
        shape or not finite where a sample has weight (the message names file and array), an element
        or a weigher without samples, a molecule that occurs twice, or a store with other values.
        Nothing is written.

    Notes
    -----
    Where mldft divides by a sum of weights below 1 as if it were 1, the mean is the mean here.
    """
    files = [path_or_url(path) for path in paths]
    if not files:
        raise ValueError("paths: expected at least one label file, got none")
    require_positive("processes", processes)
    output_path = store_path("output_path", output_path)
    if basis_info is None:
        basis_info = stored_basis(files[0])
    if basis_info is None:
        raise ValueError(f"basis_info: expected a basis, got none, nor one kept in {files[0]}")
    if files_at("output_path", output_path).exists():
        DatasetStatistics(output_path).require_basis("output_path", basis_info)
    job = _Job(
        basis_info, tuple(weighers), tuple(initial_guess_weighers),
        energy_key, gradient_key, project, with_bias,
    )  # fmt: skip

    def counted(results: Iterator[T], n_before: int) -> Iterator[T]:
        for n_done, result in enumerate(results, start=n_before + 1):
            yield result
            if progress is not None:
                progress(n_done, 2 * len(files))

    with _mapping(processes) as mapped:
        parts = mapped(partial(_first_pass, job), files)
        first = reduce(operator.add, _distinct_molecules(counted(parts, 0)))
        _require_atoms(first, basis_info, min_atoms_per_type)
        references = _atom_references(first, basis_info, with_bias)
        remainders = mapped(partial(_second_pass, job, references), files)
        second = reduce(_added, counted(remainders, len(files)))
    statistics = _statistics(first, references, second, basis_info)
    return _store(statistics, output_path, basis_info, overwrite)


@dataclass(frozen=True)
class _Job:
    """What to fit; sent to every process."""

    basis_info: Any
    weighers: tuple[SampleWeigher, ...]
    initial_guess_weighers: tuple[SampleWeigher, ...]
    energy_key: str
    gradient_key: str
    project: bool
    with_bias: bool

    @property
    def n_basis(self) -> int:
        return int(self.basis_info.n_basis)


@dataclass(frozen=True)
class _FirstPass:
    """Sums over files, by weigher: weights, moments by field, and the energies' equations."""

    weight: dict[str, float]
    moments: dict[tuple[str, str], Moments]
    energies: dict[str, LeastSquares]

    def __add__(self, other: _FirstPass) -> _FirstPass:
        return _FirstPass(
            _added(self.weight, other.weight),
            _added(self.moments, other.moments),
            _added(self.energies, other.energies),
        )


@dataclass(frozen=True)
class _AtomReference:
    """Energy g·p + sum t_Z + t_0."""

    gradient: FloatArray
    atom_type_bias: FloatArray
    global_bias: float


@dataclass(frozen=True)
class _Remainders:
    """What atomic references leave, over files: weighted sums, and largest weighted values."""

    gradient_max: FloatArray
    energy_sum: FloatArray
    energy_squares: FloatArray
    energy_max: FloatArray

    def __add__(self, other: _Remainders) -> _Remainders:
        return _Remainders(
            np.maximum(self.gradient_max, other.gradient_max),
            self.energy_sum + other.energy_sum,
            self.energy_squares + other.energy_squares,
            np.maximum(self.energy_max, other.energy_max),
        )


References = Mapping[str, tuple[_AtomReference, ...]]


def _first_pass(job: _Job, path: Path | str) -> tuple[str, _FirstPass]:
    """Return a molecule's name and its part of the sums."""
    labels, index = _read(job, path)
    result = _FirstPass({}, {}, {})
    for weigher in job.weighers:
        key = weigher.summary_string()
        rows, weights = _weighted(weigher, labels)
        coeffs, gradient, energy = _samples(job, labels, rows)
        result.weight[key] = float(weights.sum())
        result.moments[key, "coeffs"] = Moments.of(coeffs, weights, index, job.n_basis)
        result.moments[key, "gradient_label"] = Moments.of(gradient, weights, index, job.n_basis)
        result.energies[key] = _equation(job, labels, index, coeffs, energy, weights)
    for weigher in job.initial_guess_weighers:
        rows, weights = _weighted(weigher, labels)
        delta = _finite(labels, "of_labels/spatial/coeffs", labels.coeffs, rows) - labels.coeffs[-1]
        result.moments[weigher.summary_string(), "initial_guess_delta"] = Moments.of(
            delta, weights, index, job.n_basis
        )
    return labels.mol_id, result


def _second_pass(job: _Job, references: References, path: Path | str) -> dict[str, _Remainders]:
    """Return a molecule's part of what the atomic references leave, by weigher."""
    labels, index = _read(job, path)
    composition = _composition(job.basis_info, labels)
    result = {}
    for weigher in job.weighers:
        key = weigher.summary_string()
        rows, weights = _weighted(weigher, labels)
        coeffs, gradient, energy = _samples(job, labels, rows)
        left = np.stack(
            [
                energy
                - coeffs @ reference.gradient[index]
                - composition @ reference.atom_type_bias
                - reference.global_bias
                for reference in references[key]
            ]
        )
        deviation = gradient - references[key][0].gradient[index]
        result[key] = _Remainders(
            weighted_abs_max(deviation, weights, index, job.n_basis),
            left @ weights,
            left**2 @ weights,
            np.max(np.abs(left) * weights, axis=1, initial=0.0),
        )
    return result


def _read(job: _Job, path: Path | str) -> tuple[DensityLabels, NDArray[np.int64]]:
    """Return a file's labels and the basis function of each coefficient."""
    labels = read_labels(path, job.energy_key, job.gradient_key)
    if labels.basis_info is not None:
        expected = irreps_per_element(job.basis_info)
        for element, irreps in irreps_per_element(labels.basis_info).items():
            if expected.get(element, irreps) != irreps:
                raise ValueError(
                    f"{path}: expected the basis {expected[element]} of {element}, got {irreps}"
                )
    try:
        index = basis_function_ind(job.basis_info, labels.atomic_numbers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if labels.coeffs.shape[1] != len(index):
        raise ValueError(
            f"{path}: of_labels/spatial/coeffs: expected {len(index)} coefficients, the basis of "
            f"its atoms, got {labels.coeffs.shape[1]}"
        )
    return labels, index


def _weighted(weigher: SampleWeigher, labels: DensityLabels) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the samples that have weight, and their weights."""
    weights = np.asarray(weigher.get_weights(labels), dtype=np.float64)
    if weights.shape != (labels.n_samples,) or not np.all(weights >= 0):
        raise ValueError(
            f"{labels.path}: {weigher.summary_string()}: expected {labels.n_samples} weights of at "
            f"least 0, got {weights}"
        )
    rows = np.flatnonzero(weights)
    return rows, weights[rows]


def _samples(
    job: _Job, labels: DensityLabels, rows: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return coefficients, gradients and energies of some samples."""
    coeffs = _finite(labels, "of_labels/spatial/coeffs", labels.coeffs, rows)
    gradient = _finite(labels, f"of_labels/spatial/{job.gradient_key}", labels.gradient, rows)
    if job.project:
        name = "of_labels/spatial/dual_basis_integrals"
        gradient = project_gradient(gradient, _finite(labels, name, labels.basis_integrals, rows))
    energy = _finite(labels, f"of_labels/energies/{job.energy_key}", labels.energy, rows)
    return coeffs, gradient, energy


def _finite(
    labels: DensityLabels, name: str, values: FloatArray, rows: NDArray[np.intp]
) -> FloatArray:
    """Return the rows of an array, or raise ValueError at the first NaN or infinity in them."""
    chosen = values[rows]
    if not np.isfinite(chosen).all():
        row, *rest = np.argwhere(~np.isfinite(chosen))[0].tolist()
        place = (int(rows[row]), *rest)
        raise ValueError(
            f"{labels.path}: {name}: expected finite values, got {values[place]} at index {place}"
        )
    return chosen


def _composition(basis_info: Any, labels: DensityLabels) -> FloatArray:
    """Return the number of atoms of every element of the basis, shape (n_types,)."""
    rows = np.asarray(basis_info.atomic_number_to_atom_index)[labels.atomic_numbers]
    counts: FloatArray = np.bincount(rows, minlength=len(basis_info.atomic_numbers)).astype(float)
    return counts


def _equation(
    job: _Job,
    labels: DensityLabels,
    index: NDArray[np.int64],
    coeffs: FloatArray,
    energy: FloatArray,
    weights: FloatArray,
) -> LeastSquares:
    """Return the molecule's equation for the energy biases.

    The target, its mean energy minus (mean g)·(mean p), is linear in the mean gradient, which the
    first pass does not know yet: the coefficients, summed by basis function, stay apart.
    """
    unknowns = np.append(_composition(job.basis_info, labels), [1.0] if job.with_bias else [])
    if not len(weights):
        return LeastSquares(np.empty((0, len(unknowns))), np.empty((0, job.n_basis + 1)), 0)
    share = weights / weights.sum()
    by_function = np.bincount(index, weights=share @ coeffs, minlength=job.n_basis)
    return LeastSquares(unknowns[None], np.append(by_function, share @ energy)[None], 1)


def _distinct_molecules(results: Iterable[tuple[str, _FirstPass]]) -> Iterator[_FirstPass]:
    """Yield the parts, or raise ValueError at a molecule that occurs again."""
    seen: set[str] = set()
    for name, part in results:
        if name in seen:
            raise ValueError(f"geometry/mol_id: expected each molecule once, got {name!r} twice")
        seen.add(name)
        yield part


def _require_atoms(first: _FirstPass, basis_info: Any, min_atoms_per_type: int) -> None:
    """Raise ValueError unless every element has enough weight for every weigher."""
    for (key, _), moments in first.moments.items():
        if not moments.weight.any():
            raise ValueError(f"{key}: expected a sample with weight, got none")
        for number, functions in zip(
            basis_info.atomic_numbers, basis_info.atom_ind_to_basis_function_ind, strict=True
        ):
            weight = moments.weight[functions[0]]
            if weight < min_atoms_per_type:
                raise ValueError(
                    f"{key}: expected at least {min_atoms_per_type} atoms of "
                    f"{element_text(int(number))}, got a weight of {weight:g}"
                )


def _atom_references(first: _FirstPass, basis_info: Any, with_bias: bool) -> References:
    """Return the two atomic references of every weigher, in the order of `ATOM_REFS`."""
    scalar = np.asarray(basis_info.l_per_basis_func) == 0
    references = {}
    for key, equations in first.energies.items():
        mean = first.moments[key, "gradient_label"].mean
        of_key = []
        for gradient in (mean, np.where(scalar, mean, 0.0)):
            biases = equations.solve(np.append(-gradient, 1.0))
            global_bias = float(biases[-1]) if with_bias else 0.0
            of_key.append(
                _AtomReference(gradient, biases[: len(basis_info.atomic_numbers)], global_bias)
            )
        references[key] = tuple(of_key)
    return references


def _statistics(
    first: _FirstPass, references: References, second: Mapping[str, _Remainders], basis_info: Any
) -> dict[tuple[str, str], NDArray[Any]]:
    """Return all statistics by weigher and key."""
    scalar = np.asarray(basis_info.l_per_basis_func) == 0
    result: dict[tuple[str, str], NDArray[Any]] = {}
    for (key, field), moments in first.moments.items():
        result[key, f"{field}/mean"] = moments.mean
        result[key, f"{field}/std"] = moments.std
        result[key, f"{field}/abs_max"] = moments.abs_max
    for key, left in second.items():
        result[key, "gradient_max_after_atom_ref"] = left.gradient_max
        result[key, "gradient_max_after_scalar_atom_ref"] = np.where(
            scalar, left.gradient_max, result[key, "gradient_label/abs_max"]
        )
        for row, name in enumerate(ATOM_REFS):
            reference = references[key][row]
            result[key, f"{name}_atom_type_bias"] = reference.atom_type_bias
            result[key, f"{name}_global_bias"] = np.array(reference.global_bias)
            weight = first.weight[key]
            result[key, f"energy_minus_{name}/mean"] = np.array(left.energy_sum[row] / weight)
            result[key, f"energy_minus_{name}/std"] = np.sqrt(left.energy_squares[row] / weight)
            result[key, f"energy_minus_{name}/abs_max"] = np.array(left.energy_max[row])
    return result


def _store(
    statistics: Mapping[tuple[str, str], NDArray[Any]],
    output_path: Path | str,
    basis_info: Any,
    overwrite: bool,
) -> DatasetStatistics:
    """Write all statistics, or none, and the basis with them."""
    with tempfile.TemporaryDirectory(prefix="ofcv-") as scratch:
        store = DatasetStatistics(Path(scratch) / Path(output_path).name, create_store=True)
        for (key, name), values in statistics.items():
            store.save_statistic(key, name, values)
        store.keep_basis(basis_info)
        if isinstance(output_path, Path):
            output_path.parent.mkdir(parents=True, exist_ok=True)
        store.save_to(output_path, overwrite=overwrite)
    return DatasetStatistics(output_path)


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` whose calls run in several processes; results come in the files' order."""
    if processes == 1:
        yield map
        return
    # A forked process would inherit the locks of threads that it has not got.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield partial(_map_ahead, pool, _FILES_AHEAD * processes)


def _map_ahead(
    pool: ProcessPoolExecutor,
    n_ahead: int,
    function: Callable[[Path | str], T],
    files: Iterable[Path | str],
) -> Iterator[T]:
    """Yield the results of a pool, with no more than `n_ahead` files under way or waiting."""
    waiting: deque[Future[T]] = deque()
    for file in files:
        waiting.append(pool.submit(function, file))
        if len(waiting) == n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _added(one: Mapping[K, Any], other: Mapping[K, Any]) -> dict[K, Any]:
    """Return the sums of what two mappings hold under the same keys."""
    return {key: value + other[key] for key, value in one.items()}
