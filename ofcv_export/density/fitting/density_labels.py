"""mldft's label files: densities, energies and gradients of the SCF steps of one molecule.

A file is a zarr group of zarr-format 2, zipped (``H2O.zarr.zip``) or as a directory
(``H2O.zarr``). Everything is float64 in atomic units; S counts SCF steps from the initial guess to
the converged density, n the coefficients of the molecule.

====================================  ======  ==================================================
array                                 shape   content
====================================  ======  ==================================================
``geometry/mol_id``                   ()      name of the molecule, once in a data set
``geometry/atom_pos``                 (A, 3)  positions, Bohr
``geometry/atomic_numbers``           (A,)    elements
``of_labels/energies/e_kin``          (S,)    energy labels; ``e_hartree``, ``e_xc``, ... likewise
``of_labels/spatial/coeffs``          (S, n)  density coefficients p, atom by atom
``of_labels/spatial/grad_kin``        (S, n)  gradient labels; ``grad_hartree``, ... likewise
``of_labels/spatial/dual_basis_integrals``  (S, n)  w, the integral of every basis function
``ks_labels/energies/has_energy_label``     (S,)    whether a step has energies and gradients
====================================  ======  ==================================================

The basis is kept in the attribute ``irreps_per_element`` of the group ``of_labels``, e.g.
``{"H": "6x0e+3x1o+1x2e"}``; mldft, which keeps it in a file of its own, ignores it. All chunks of
an array have to be there, see `ofcv_export.density.zarr_arrays`. Files are read at URLs that fsspec
opens as well.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from ofcv_export.base.files import atomic_path, path_or_url
from ofcv_export.base.validation import shape_text
from ofcv_export.density.basis import BasisInfo, irreps_per_element
from ofcv_export.density.dataset_statistics import (
    GROUP,
    IRREPS_ATTRIBUTE,
    read_attributes,
    stored_irreps,
)
from ofcv_export.density.store_files import ARRAY, FolderFiles, ReadFiles, ZipFiles, local_copy
from ofcv_export.density.zarr_arrays import ZARR_FORMAT, array_from_files, create_array

FloatArray = NDArray[np.float64]

LABEL_GROUP: Final = "of_labels"
# The earliest date that a zip file can hold: the same labels make the same file.
ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class DensityLabels:
    """What a fit of statistics needs of one molecule, atomic units.

    Attributes
    ----------
    path : Path or str
        Where the labels come from; a URL is a str.
    mol_id : str
        Name of the molecule.
    positions : numpy.ndarray of float64, shape (n_atoms, 3)
    atomic_numbers : numpy.ndarray of int64, shape (n_atoms,)
    coeffs : numpy.ndarray of float64, shape (n_samples, n)
        Density coefficients of every SCF step.
    gradient : numpy.ndarray of float64, shape (n_samples, n)
        Derivatives of the energy with respect to the coefficients, not projected.
    energy : numpy.ndarray of float64, shape (n_samples,)
    has_energy_label : numpy.ndarray of bool, shape (n_samples,)
        False where energy and gradient are meaningless, as for the initial guess.
    basis_integrals : numpy.ndarray of float64, shape (n_samples, n)
        Integrals w of the basis functions; the number of electrons is w·p.
    basis_info : BasisInfo or None
        The basis of the data set, where the file says.
    """

    path: Path | str
    mol_id: str
    positions: FloatArray
    atomic_numbers: NDArray[np.int64]
    coeffs: FloatArray
    gradient: FloatArray
    energy: FloatArray
    has_energy_label: NDArray[np.bool_]
    basis_integrals: FloatArray
    basis_info: BasisInfo | None

    @property
    def n_samples(self) -> int:
        """Number of SCF steps."""
        return len(self.coeffs)

    def projected_gradient(self) -> FloatArray:
        """Return the gradient in the tangent space of a fixed number of electrons.

        See `project_gradient`.
        """
        return project_gradient(self.gradient, self.basis_integrals)


def project_gradient(gradient: FloatArray, basis_integrals: FloatArray) -> FloatArray:
    r"""Project gradients onto the coefficients that keep the number of electrons.

    .. math:: \left(I - \frac{w w^T}{w^T w}\right) \nabla_p E

    Parameters
    ----------
    gradient : numpy.ndarray of float64, shape (..., n)
    basis_integrals : numpy.ndarray of float64, shape (..., n)
        w, the integral of every basis function.

    Returns
    -------
    numpy.ndarray of float64, shape (..., n)
    """
    along = np.sum(gradient * basis_integrals, axis=-1, keepdims=True)
    norm = np.sum(basis_integrals**2, axis=-1, keepdims=True)
    return gradient - basis_integrals * (along / norm)


def read_labels(
    path: str | os.PathLike[str], energy_key: str = "e_kin", gradient_key: str = "grad_kin"
) -> DensityLabels:
    """Read one molecule's labels, ours or mldft's.

    Parameters
    ----------
    path : str or path-like
        A zip file (``.zip``) or a directory; or the URL of one.
    energy_key, gradient_key : str
        Which energy and which gradient, e.g. ``e_kin_plus_xc`` and ``grad_kin_plus_xc``.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If it is no label file, or an array is absent, can't be read or has the wrong shape; the
        message names file and array.
    """
    path = path_or_url(path)
    with _opened(path) as read:
        coeffs = read.floats("of_labels/spatial/coeffs", ("n_scf_steps", "n"))
        n_samples = len(coeffs)
        positions = read.floats("geometry/atom_pos", ("n_atoms", 3))
        numbers = read.array("geometry/atomic_numbers", (len(positions),)).astype(np.int64)
        if read.holds("ks_labels/energies/has_energy_label"):
            labelled = read.array("ks_labels/energies/has_energy_label", (n_samples,)).astype(bool)
        else:
            labelled = np.ones(n_samples, dtype=bool)
        return DensityLabels(
            path=path,
            mol_id=str(read.array("geometry/mol_id", ())),
            positions=positions,
            atomic_numbers=numbers,
            coeffs=coeffs,
            gradient=read.floats(f"of_labels/spatial/{gradient_key}", coeffs.shape),
            energy=read.floats(f"of_labels/energies/{energy_key}", (n_samples,)),
            has_energy_label=labelled,
            basis_integrals=read.floats("of_labels/spatial/dual_basis_integrals", coeffs.shape),
            basis_info=read.basis(),
        )


def read_array(path: str | os.PathLike[str], name: str) -> NDArray[Any]:
    """Read one array of a label file, e.g. ``of_labels/energies/e_hartree``.

    Raises
    ------
    FileNotFoundError, ValueError
        See `read_labels`.
    """
    path = path_or_url(path)
    with _opened(path) as read:
        return read.array(name)


def write_labels(
    path: str | os.PathLike[str],
    arrays: Mapping[str, ArrayLike],
    basis_info: BasisInfo | None = None,
) -> None:
    """Write a label file as mldft does; the same labels make the same bytes.

    Parameters
    ----------
    path : str or path-like
        File to write, ending in ``.zarr.zip``; one that exists is replaced once the new one is
        whole.
    arrays : mapping of str to array_like
        Arrays by name, see the head of this module. Matrices under ``of_labels/spatial`` are cut
        into one chunk an SCF step.
    basis_info : BasisInfo, optional
        The basis of the data set, kept with the labels.

    Raises
    ------
    ValueError
        If `path` has another ending.
    TypeError
        For an array that holds neither numbers nor text.
    """
    path = Path(path)
    if not path.name.endswith(".zarr.zip"):
        raise ValueError(f"path: expected a path ending in .zarr.zip, got {path}")
    with tempfile.TemporaryDirectory(prefix="ofcv-") as scratch:
        root = zarr.open_group(scratch, mode="w", zarr_format=ZARR_FORMAT)
        for name, values in arrays.items():
            data = np.asarray(values)
            if data.dtype.kind not in "biufU":
                raise TypeError(f"{name}: expected numbers or text, got dtype {data.dtype}")
            by_step = name.startswith("of_labels/spatial/") and data.ndim == 2
            create_array(scratch, name, data, chunks=(1, data.shape[1]) if by_step else "auto")
        if basis_info is not None:
            group = root.require_group(LABEL_GROUP)
            group.attrs[IRREPS_ATTRIBUTE] = irreps_per_element(basis_info)
        with atomic_path(path) as temporary:
            _pack(Path(scratch), temporary)


def stored_basis(path: str | os.PathLike[str]) -> BasisInfo | None:
    """Return the basis that is kept with labels or with the statistics fitted to them.

    Parameters
    ----------
    path : str or path-like
        A label file, or a statistics store written by `ofcv_export.density.fitting.fit_statistics`.

    Returns
    -------
    BasisInfo or None
        None if no basis is kept there, as in mldft's own files.
    """
    path = path_or_url(path)
    with _opened(path) as read:
        return read.basis()


@contextmanager
def _opened(path: Path | str) -> Iterator[_Reader]:
    """Open a zipped or unzipped zarr group to read."""
    with local_copy("path", path) as local, ExitStack() as stack:
        if not local.exists():
            raise FileNotFoundError(f"path: expected a zarr store, got {path}")
        try:
            files: ReadFiles = (
                ZipFiles(stack.enter_context(zipfile.ZipFile(local)))
                if local.is_file()
                else FolderFiles("path", local)
            )
            if files.get(GROUP) is None:
                raise ValueError(f"no {GROUP}")
            attributes = read_attributes(files, "")
        # Not a zip file, no group in it, damaged metadata: each with its own type.
        except Exception as error:
            raise ValueError(
                f"path: expected a zarr group, got {path} ({_reason(error)})"
            ) from error
        yield _Reader(path, files, attributes)


class _Reader:
    """The arrays of one file; every complaint names file and array."""

    def __init__(self, path: Path | str, files: ReadFiles, attributes: dict[str, Any]) -> None:
        self.path = path
        self.files = files
        self.attributes = attributes

    def basis(self) -> BasisInfo | None:
        """Return the basis that is kept with labels, or with statistics."""
        try:
            attributes = self.attributes | read_attributes(self.files, LABEL_GROUP)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        irreps = attributes.get(IRREPS_ATTRIBUTE)
        return None if irreps is None else stored_irreps(self.path, irreps)

    def holds(self, name: str) -> bool:
        return self.files.get(f"{name}/{ARRAY}") is not None

    def array(self, name: str, shape: tuple[int | str, ...] | None = None) -> NDArray[Any]:
        try:
            files = self.files.below(name)
            values = array_from_files(files, self.attributes) if ARRAY in files else None
        # A damaged array fails in the codec, the reshape or the metadata, each with its own type.
        except Exception as error:
            raise ValueError(
                f"{self.path}: expected a readable array {name}, got {_reason(error)}"
            ) from error
        if values is None:
            raise ValueError(f"{self.path}: expected the array {name}, got none")
        if shape is not None and not _fits(values.shape, shape):
            raise ValueError(
                f"{self.path}: {name}: expected shape {shape_text(shape)}, got {values.shape}"
            )
        return values

    def floats(self, name: str, shape: tuple[int | str, ...]) -> FloatArray:
        values = self.array(name, shape)
        if values.dtype.kind != "f":
            raise ValueError(f"{self.path}: {name}: expected floats, got dtype {values.dtype}")
        return values.astype(np.float64)


def _fits(actual: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    return len(actual) == len(expected) and all(
        isinstance(size, str) or size == given for size, given in zip(expected, actual, strict=True)
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _pack(folder: Path, path: Path) -> None:
    """Zip a directory, uncompressed and without dates: its arrays are compressed already."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            name = file.relative_to(folder).as_posix()
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), file.read_bytes())
