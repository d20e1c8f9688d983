"""mldft's store of dataset statistics: a zarr-format 2 directory, read and written with zarr 3."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ofcv_export.base.arrays import in_memory
from ofcv_export.base.files import path_or_url
from ofcv_export.density.basis import BasisInfo, basis_of_irreps, irreps_per_element, same_basis
from ofcv_export.density.store_files import ARRAY, ReadFiles, files_at
from ofcv_export.density.zarr_arrays import ZARR_FORMAT, array_from_files, array_to_files

# The basis of the statistics, in the attributes of a store, and of a label file's `of_labels`.
IRREPS_ATTRIBUTE: Final = "irreps_per_element"
GROUP, _ATTRIBUTES, _CONSOLIDATED = ".zgroup", ".zattrs", ".zmetadata"
_GROUP_CONTENT: Final = json.dumps({"zarr_format": ZARR_FORMAT}, indent=4).encode()


class DatasetStatistics:
    """Named arrays of statistics, ``<weigher>/<statistic>``, in the ``.zarr`` directory of mldft.

    A weigher names the samples that a statistic was taken over, e.g. ``has_energy_label``; a
    statistic is e.g. ``coeffs/mean`` of shape (n_basis,) or ``atom_ref_global_bias`` of shape ().
    A new array is written aside and moved into the store once it is whole; several processes may
    write at once.

    Parameters
    ----------
    path : str or path-like
        Directory whose name ends in ``.zarr``, or a URL of one that fsspec opens, such as
        ``s3://bucket/statistics.zarr``. At a URL an array that is being replaced is absent.
    create_store : bool
        Create the store if there is none; one that exists is left as it is.

    Attributes
    ----------
    path : Path or str
        A URL is a str.

    Raises
    ------
    FileNotFoundError
        If there is no store and `create_store` is False.
    ValueError
        If the name doesn't end in ``.zarr`` or what is there is no store of zarr-format 2; for a
        URL that fsspec can't open.
    ImportError
        If a package is needed for a URL and not installed.
    """

    def __init__(self, path: str | os.PathLike[str], create_store: bool = False) -> None:
        self._files = files_at("path", store_path("path", path))
        self.path = self._files.path
        if not self._files.exists():
            if not create_store:
                raise FileNotFoundError(f"path: expected a statistics store, got {self.path}")
            with contextlib.suppress(FileExistsError):  # Another process was first.
                self._files.create({GROUP: _GROUP_CONTENT})
        elif (isinstance(self.path, Path) and not self.path.is_dir()) or any(
            self._files.get(key) is not None for key in ("zarr.json", ARRAY)
        ):
            raise ValueError(f"path: expected a group of zarr-format 2, got {self.path}")

    @property
    def basis_info(self) -> BasisInfo | None:
        """The basis that the statistics are in, where the store says.

        Raises
        ------
        ValueError
            If what the store says is no basis.
        """
        irreps = self._attributes().get(IRREPS_ATTRIBUTE)
        return None if irreps is None else stored_irreps(self.path, irreps)

    def keep_basis(self, basis_info: Any) -> None:
        """Let the store say which basis its statistics are in.

        Parameters
        ----------
        basis_info : BasisInfo
            Ours or mldft's.

        Raises
        ------
        ValueError
            If the store is of another basis.
        """
        self.require_basis("basis_info", basis_info)
        attributes = self._attributes() | {IRREPS_ATTRIBUTE: irreps_per_element(basis_info)}
        self._files.put(_ATTRIBUTES, json.dumps(attributes, indent=2).encode())
        self._consolidate()

    def require_basis(self, name: str, basis_info: Any) -> None:
        """Raise ValueError if the store is of another basis; `name` is the argument at fault."""
        stored = self.basis_info
        if stored is not None and not same_basis(stored, basis_info):
            raise ValueError(f"{name}: expected a store of this basis, got {self.path}")

    def load_statistic(self, weigher_key: str, statistic_key: str) -> NDArray[Any]:
        """Return one statistic.

        Parameters
        ----------
        weigher_key : str
            Weigher, e.g. ``has_energy_label``.
        statistic_key : str
            Statistic, e.g. ``coeffs/mean``.

        Raises
        ------
        KeyError
            If the weigher or the statistic is absent, as callers of mldft expect.
        ValueError
            If the stored array can't be read, or has lost a chunk, see
            `ofcv_export.density.zarr_arrays`.
        """
        name = _name(weigher_key, statistic_key)
        files = self._files.below(name)
        if ARRAY not in files:
            raise KeyError(self._absent(weigher_key, statistic_key))
        try:
            return array_from_files(files, self._attributes())
        # A damaged array fails in the codec, the reshape or the metadata, each with its own type.
        except Exception as error:
            raise ValueError(
                f"{name}: expected a readable zarr array, "
                f"got {type(error).__name__} ({' '.join(str(error).split())})"
            ) from error

    def save_statistic(
        self, weigher_key: str, statistic_key: str, data: ArrayLike, overwrite: bool = False
    ) -> None:
        """Store one statistic, and when it was stored as the attribute ``created_at``.

        Nothing is done if the same values are there already: dtype, shape and every bit.

        Parameters
        ----------
        weigher_key, statistic_key : str
            See `load_statistic`.
        data : array_like
            Numbers.
        overwrite : bool
            Replace values that differ or can't be read.

        Raises
        ------
        ValueError
            If other values are there and `overwrite` is False, or if the key is no valid name.
        TypeError
            If `data` are not numbers.
        """
        name = _name(weigher_key, statistic_key)
        array = _numbers(name, data)
        files = array_to_files(array, {"created_at": datetime.now().strftime("%Y-%m-%d %H:%M:%S")})
        while True:
            there = self._holds(name)
            if there and self._agrees(weigher_key, statistic_key, array, overwrite):
                return
            if there and not overwrite:
                raise ValueError(
                    f"{name}: expected the values stored in {self.path}, "
                    f"got different ones (overwrite=True replaces them)"
                )
            if not there:
                self._require_free(name)
            for group in PurePosixPath(name).parents:
                key = (group / GROUP).as_posix()
                if self._files.get(key) is None:
                    self._files.put(key, _GROUP_CONTENT)
            try:
                self._files.put_array(name, files, replace=there)
            except FileExistsError:
                continue  # Another process was first: look again.
            self._consolidate()
            return

    def keys_recursive(self) -> list[str]:
        """Return the key ``<weigher>/<statistic>`` of every array, sorted."""
        paths = [PurePosixPath(key).parent for key in self._files.names() if _is_array(key)]
        members = [
            path for path in paths if len(path.parts) > 1 and not path.parts[0].startswith(".")
        ]
        return [path.as_posix() for path in sorted(members, key=lambda path: path.parts)]

    def save_to(self, new_path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Copy the statistics and their basis to another store, adding to it if it exists.

        Parameters
        ----------
        new_path : str or path-like
            Directory whose name ends in ``.zarr``, or its URL.
        overwrite : bool
            Replace values that differ, see `save_statistic`.

        Raises
        ------
        ValueError
            If the other store is of another basis, or `overwrite` is False and it holds different
            values; it is then left as it was.
        """
        target = files_at("new_path", store_path("new_path", new_path))
        if not target.exists():
            with contextlib.suppress(FileExistsError):  # Another process was first.
                target.create(self._files.below())
                return
        other = DatasetStatistics(new_path)
        basis_info = self.basis_info
        if basis_info is not None:
            other.require_basis("new_path", basis_info)
        arrays = {
            tuple(key.split("/", 1)): self.load_statistic(*key.split("/", 1))
            for key in self.keys_recursive()
        }
        for (weigher_key, statistic_key), array in arrays.items():
            if not overwrite and other._holds(_name(weigher_key, statistic_key)):
                # Refuses before anything is written.
                other.save_statistic(weigher_key, statistic_key, array)
        for (weigher_key, statistic_key), array in arrays.items():
            other.save_statistic(weigher_key, statistic_key, array, overwrite=overwrite)
        if basis_info is not None:
            other.keep_basis(basis_info)

    def __repr__(self) -> str:
        """Return the path."""
        return f"DatasetStatistics({str(self.path)!r})"

    def _attributes(self) -> dict[str, Any]:
        """Return the attributes of the store."""
        try:
            return read_attributes(self._files, "")
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _holds(self, name: str) -> bool:
        return self._files.get(f"{name}/{ARRAY}") is not None

    def _require_free(self, name: str) -> None:
        """Raise ValueError if a group is where an array is to be, or an array where a group."""
        groups = [f"{parent}/{ARRAY}" for parent in PurePosixPath(name).parents]
        taken = any(self._files.get(key) is not None for key in [*groups, f"{name}/{GROUP}"])
        own = f"{name}/{ARRAY}"  # Another process may have written it by now.
        if taken or any(_is_array(key) and key != own for key in self._files.names(name)):
            statistic_key = name.partition("/")[2]
            raise ValueError(f"statistic_key: expected the name of an array, got {statistic_key!r}")

    def _agrees(
        self, weigher_key: str, statistic_key: str, array: NDArray[Any], overwrite: bool
    ) -> bool:
        try:
            stored = self.load_statistic(weigher_key, statistic_key)
        except KeyError:  # Another process is replacing it.
            return False
        except ValueError:
            if overwrite:
                return False
            raise
        same_kind = (stored.dtype, stored.shape) == (array.dtype, array.shape)
        return same_kind and stored.tobytes() == array.tobytes()

    def _consolidate(self) -> None:
        """Bring consolidated metadata up to date, where a store has them.

        Of several processes each looks again after it has written, the last one at the end.
        """
        if self._files.get(_CONSOLIDATED) is None:
            return
        written = None
        while (current := self._consolidated()) != written:
            self._files.put(_CONSOLIDATED, current)
            written = current

    def _consolidated(self) -> bytes:
        names = (ARRAY, _ATTRIBUTES, GROUP)
        keys = sorted(key for key in self._files.names() if PurePosixPath(key).name in names)
        found = {key: self._files.get(key) for key in keys}
        metadata = {
            key: _parsed(f"{self.path}: {key}", content)
            for key, content in found.items()
            if content is not None
        }
        return json.dumps({"zarr_consolidated_format": 1, "metadata": metadata}, indent=4).encode()

    def _absent(self, weigher_key: str, statistic_key: str) -> str:
        keys = [key.split("/", 1) for key in self.keys_recursive()]
        statistics = [statistic for weigher, statistic in keys if weigher == weigher_key]
        if not statistics:
            weighers = ", ".join(sorted({weigher for weigher, _ in keys})) or "none"
            return f"weigher_key: expected one of {weighers}, got {weigher_key!r}"
        return (
            f"statistic_key: expected one of {', '.join(statistics)} of weigher {weigher_key!r}, "
            f"got {statistic_key!r}"
        )


def store_path(name: str, path: str | os.PathLike[str]) -> Path | str:
    """Return a path as a Path, a URL as it is, or raise ValueError unless it ends in ``.zarr``."""
    if Path(path).suffix != ".zarr":
        raise ValueError(f"{name}: expected a path ending in .zarr, got {path}")
    return path_or_url(path)


def stored_irreps(place: object, irreps: Any) -> BasisInfo:
    """Return the basis in a store's attributes, or raise ValueError that names the place."""
    try:
        return basis_of_irreps(irreps)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {IRREPS_ATTRIBUTE}: {error}") from error


def read_attributes(files: ReadFiles, group: str) -> dict[str, Any]:
    """Return the attributes of a group of a store, none where it has not got any."""
    key = f"{group}/{_ATTRIBUTES}" if group else _ATTRIBUTES
    content = files.get(key)
    return {} if content is None else _parsed(key, content)


def _name(weigher_key: str, statistic_key: str) -> str:
    if not weigher_key or "/" in weigher_key or weigher_key.startswith("."):
        raise ValueError(f"weigher_key: expected a name without '/', got {weigher_key!r}")
    if not all(part and not part.startswith(".") for part in statistic_key.split("/")):
        raise ValueError(f"statistic_key: expected names joined by '/', got {statistic_key!r}")
    return f"{weigher_key}/{statistic_key}"


def _is_array(key: str) -> bool:
    return PurePosixPath(key).name == ARRAY


def _parsed(name: str, content: bytes) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{name}: expected a JSON object, got {error}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{name}: expected a JSON object, got {type(parsed).__name__}")
    return parsed


def _numbers(name: str, data: ArrayLike) -> NDArray[Any]:
    array = np.asarray(in_memory(data).cpu() if isinstance(data, Tensor) else data)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}")
    return array
