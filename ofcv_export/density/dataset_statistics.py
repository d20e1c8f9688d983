"""mldft's store of dataset statistics: a zarr-format 2 directory, read and written with zarr 3."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

# mldft pins zarr 2, which knows no other format and compresses so by default.
ZARR_FORMAT: Final = 2
COMPRESSOR: Final[dict[str, Any]] = {
    "id": "blosc",
    "cname": "lz4",
    "clevel": 5,
    "shuffle": 1,
    "blocksize": 0,
}


class DatasetStatistics:
    """Named arrays of statistics, ``<weigher>/<statistic>``, in the ``.zarr`` directory of mldft.

    A weigher names the samples that a statistic was taken over, e.g. ``has_energy_label``; a
    statistic is e.g. ``coeffs/mean`` of shape (n_basis,) or ``atom_ref_global_bias`` of shape ().
    A new array is written aside and moved into the store once it is whole.

    Parameters
    ----------
    path : str or path-like
        Directory whose name ends in ``.zarr``.
    create_store : bool
        Create the store if there is none; one that exists is left as it is.

    Raises
    ------
    FileNotFoundError
        If there is no store and `create_store` is False.
    ValueError
        If the name doesn't end in ``.zarr`` or what is there is no store of zarr-format 2.
    """

    def __init__(self, path: str | os.PathLike[str], create_store: bool = False) -> None:
        self.path = store_path("path", path)
        if not self.path.exists():
            if not create_store:
                raise FileNotFoundError(f"path: expected a statistics store, got {self.path}")
            zarr.open_group(self.path, mode="a", zarr_format=ZARR_FORMAT)
        elif (
            not self.path.is_dir()
            or (self.path / "zarr.json").exists()
            or (self.path / ".zarray").exists()
        ):
            raise ValueError(f"path: expected a group of zarr-format 2, got {self.path}")

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
            If the stored array can't be read.
        """
        folder = self._folder(weigher_key, statistic_key)
        if not (folder / ".zarray").exists():
            raise KeyError(self._absent(weigher_key, statistic_key))
        try:
            return np.asarray(zarr.open_array(folder, mode="r", zarr_format=ZARR_FORMAT)[()])
        # A damaged array fails in the codec, the reshape or the metadata, each with its own type.
        except Exception as error:
            raise ValueError(
                f"{weigher_key}/{statistic_key}: expected a readable zarr array, "
                f"got {type(error).__name__} ({' '.join(str(error).split())})"
            ) from error

    def save_statistic(
        self, weigher_key: str, statistic_key: str, data: ArrayLike, overwrite: bool = False
    ) -> None:
        """Store one statistic, and when it was stored as the attribute ``created_at``.

        Nothing is done if the same values are there already, to within `numpy.allclose`.

        Parameters
        ----------
        weigher_key, statistic_key : str
            See `load_statistic`.
        data : array_like
            Numbers.
        overwrite : bool
            Replace values that differ.

        Raises
        ------
        ValueError
            If other values are there and `overwrite` is False, or if the key is no valid name.
        TypeError
            If `data` are not numbers.
        """
        folder = self._folder(weigher_key, statistic_key)
        array = _numbers(f"{weigher_key}/{statistic_key}", data)
        if self._holds(weigher_key, statistic_key):
            if self._agrees(weigher_key, statistic_key, array):
                return
            if not overwrite:
                raise ValueError(
                    f"{weigher_key}/{statistic_key}: expected the values stored in {self.path}, "
                    f"got different ones (overwrite=True replaces them)"
                )
        elif folder.exists() or any(
            (self.path / parent / ".zarray").exists()
            for parent in folder.relative_to(self.path).parents
        ):
            raise ValueError(f"statistic_key: expected the name of an array, got {statistic_key!r}")
        group = folder.parent.relative_to(self.path).as_posix()
        zarr.open_group(self.path, path=group, mode="a", zarr_format=ZARR_FORMAT)
        # Hidden, so that no reader takes the unfinished array for a member of the store.
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=self.path) as scratch:
            _write_array(Path(scratch) / "new", array)
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            (Path(scratch) / "new").rename(folder)

    def keys_recursive(self) -> list[str]:
        """Return the key ``<weigher>/<statistic>`` of every array, sorted."""
        paths = [file.parent.relative_to(self.path) for file in self.path.rglob(".zarray")]
        members = [
            path for path in paths if len(path.parts) > 1 and not path.parts[0].startswith(".")
        ]
        return [path.as_posix() for path in sorted(members, key=lambda path: path.parts)]

    def save_to(self, new_path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Copy the statistics to another store, adding to it if it exists.

        Parameters
        ----------
        new_path : str or path-like
            Directory whose name ends in ``.zarr``.
        overwrite : bool
            Replace values that differ, see `save_statistic`.

        Raises
        ------
        ValueError
            If `overwrite` is False and the other store holds different values; it is then left as
            it was.
        """
        new_path = store_path("new_path", new_path)
        if not new_path.exists():
            with tempfile.TemporaryDirectory(prefix=".writing-", dir=new_path.parent) as scratch:
                copy = shutil.copytree(
                    self.path, Path(scratch) / "new", ignore=shutil.ignore_patterns(".writing-*")
                )
                copy.rename(new_path)
            return
        other = DatasetStatistics(new_path)
        arrays = {
            tuple(key.split("/", 1)): self.load_statistic(*key.split("/", 1))
            for key in self.keys_recursive()
        }
        for (weigher_key, statistic_key), array in arrays.items():
            if not overwrite and other._holds(weigher_key, statistic_key):
                # Refuses before anything is written.
                other.save_statistic(weigher_key, statistic_key, array)
        for (weigher_key, statistic_key), array in arrays.items():
            other.save_statistic(weigher_key, statistic_key, array, overwrite=overwrite)

    def __repr__(self) -> str:
        """Return the path."""
        return f"DatasetStatistics({str(self.path)!r})"

    def _folder(self, weigher_key: str, statistic_key: str) -> Path:
        if not weigher_key or "/" in weigher_key or weigher_key.startswith("."):
            raise ValueError(f"weigher_key: expected a name without '/', got {weigher_key!r}")
        if not all(part and not part.startswith(".") for part in statistic_key.split("/")):
            raise ValueError(f"statistic_key: expected names joined by '/', got {statistic_key!r}")
        return self.path / weigher_key / statistic_key

    def _holds(self, weigher_key: str, statistic_key: str) -> bool:
        return (self._folder(weigher_key, statistic_key) / ".zarray").exists()

    def _agrees(self, weigher_key: str, statistic_key: str, array: NDArray[Any]) -> bool:
        stored = self.load_statistic(weigher_key, statistic_key)
        return stored.shape == array.shape and np.allclose(stored, array)

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


def store_path(name: str, path: str | os.PathLike[str]) -> Path:
    """Return `path`, or raise ValueError unless it ends in ``.zarr``."""
    path = Path(path)
    if path.suffix != ".zarr":
        raise ValueError(f"{name}: expected a path ending in .zarr, got {path}")
    return path


def _numbers(name: str, data: ArrayLike) -> NDArray[Any]:
    array = np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}")
    return array


def _write_array(folder: Path, array: NDArray[Any]) -> None:
    """Write one array as zarr 2.18 does: compressed alike, no chunk left out."""
    zarr.create_array(
        folder,
        data=array,
        zarr_format=ZARR_FORMAT,
        fill_value=0,
        compressors=COMPRESSOR,
        attributes={"created_at": datetime.now().strftime("%Y-%m-%d %H:%M:%S")},
        config={"write_empty_chunks": True},
    )
