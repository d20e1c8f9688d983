"""The files of a store, in a folder or at a URL that fsspec opens.

A folder's array is put in place by renaming, so that it is there whole or not at all, whoever else
writes. At a URL nothing can be renamed: an array's metadata are written last and removed first, so
that an array in the making is absent.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zipfile import ZipFile

from ofcv_export.base.files import is_url, scratch_folder
from ofcv_export.base.validation import first_line

ARRAY: Final = ".zarray"
SCRATCH: Final = ".writing-"


class ReadFiles(ABC):
    """Files to read, by their names relative to the store, with slashes."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Return the names of all files in a folder; not of those that are being written."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return what is in a file, None where there is none."""

    def below(self, folder: str = "") -> dict[str, bytes]:
        """Return the files in a folder, by their names relative to it."""
        found = {key: self.get(key) for key in self.names(folder)}
        start = len(f"{folder}/") if folder else 0
        return {key[start:]: file for key, file in found.items() if file is not None}


class StoreFiles(ReadFiles):
    """Files to read and write.

    Attributes
    ----------
    path : Path or str
        The folder, or the URL.
    """

    path: Path | str

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is anything at the path."""

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Write a file, in place of one that is there."""

    @abstractmethod
    def put_array(self, name: str, files: Mapping[str, bytes], replace: bool) -> None:
        """Write the files of an array.

        Parameters
        ----------
        name : str
            The array.
        files : mapping
            What `array_to_files` returns.
        replace : bool
            Whether an array that is there may go.

        Raises
        ------
        FileExistsError
            If an array is there, and may not go.
        """

    @abstractmethod
    def create(self, files: Mapping[str, bytes]) -> None:
        """Write a new store, or raise FileExistsError."""


def files_at(name: str, path: str | os.PathLike[str]) -> StoreFiles:
    """Return the files at a path or URL.

    Raises
    ------
    ValueError, ImportError
        For a URL that fsspec can't open, by the argument's name.
    """
    if not is_url(path):
        return FolderFiles(name, Path(path))
    if not isinstance(path, str):
        raise ValueError(f"{name}: expected a URL as a str, got {path!r}")
    return UrlFiles(name, path)


class FolderFiles(StoreFiles):
    """The files in a folder of this machine."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path: Path = path

    def exists(self) -> bool:
        """See `StoreFiles`."""
        return self.path.exists()

    def names(self, folder: str = "") -> list[str]:
        """See `StoreFiles`."""
        found = []
        for place, subfolders, files in os.walk(self.path / folder):
            subfolders[:] = [entry for entry in subfolders if not entry.startswith(SCRATCH)]
            found += [Path(place, file).relative_to(self.path).as_posix() for file in files]
        return found

    def get(self, key: str) -> bytes | None:
        """See `StoreFiles`."""
        try:
            return (self.path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def put(self, key: str, content: bytes) -> None:
        """See `StoreFiles`."""
        target = self.path / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(self.name, self.path, SCRATCH) as scratch:
            (scratch / "new").write_bytes(content)
            (scratch / "new").replace(target)

    def put_array(self, name: str, files: Mapping[str, bytes], replace: bool) -> None:
        """See `StoreFiles`."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Hidden, so that no reader takes the unfinished array for a member of the store.
        with scratch_folder(self.name, self.path, SCRATCH) as scratch:
            _write_all(scratch / "new", files)
            if (target / ARRAY).exists() and not replace:
                raise FileExistsError(f"{name}: expected no array, got one")
            with contextlib.suppress(FileNotFoundError):
                target.rename(scratch / "old")
            _rename_new(scratch / "new", target, f"{name}: expected no array, got one")

    def create(self, files: Mapping[str, bytes]) -> None:
        """See `StoreFiles`."""
        with scratch_folder(self.name, self.path.parent, SCRATCH) as scratch:
            _write_all(scratch / "new", files)
            _rename_new(scratch / "new", self.path, f"{self.name}: expected no store, got one")


class ZipFiles(ReadFiles):
    """The files in a zip file."""

    def __init__(self, archive: ZipFile) -> None:
        self.archive = archive

    def names(self, folder: str = "") -> list[str]:
        """See `ReadFiles`."""
        names = [name for name in self.archive.namelist() if not name.endswith("/")]
        return [name for name in names if not folder or name.startswith(f"{folder}/")]

    def get(self, key: str) -> bytes | None:
        """See `ReadFiles`."""
        try:
            return self.archive.read(key)
        except KeyError:
            return None


class UrlFiles(StoreFiles):
    """The files at a URL such as ``s3://bucket/statistics.zarr``."""

    def __init__(self, name: str, path: str) -> None:
        self.path: str = path
        self.system, self.root = _file_system(name, path)

    def exists(self) -> bool:
        """See `StoreFiles`."""
        self.system.invalidate_cache()
        return bool(self.system.exists(self.root))

    def names(self, folder: str = "") -> list[str]:
        """See `StoreFiles`."""
        self.system.invalidate_cache()
        place = f"{self.root}/{folder}" if folder else self.root
        # Of a place that is a file, fsspec finds the file itself.
        found = [key for key in self.system.find(place) if key.startswith(f"{place}/")]
        return [key[len(self.root) :].lstrip("/") for key in found]

    def get(self, key: str) -> bytes | None:
        """See `StoreFiles`."""
        try:
            return bytes(self.system.cat_file(f"{self.root}/{key}"))
        except FileNotFoundError:
            return None

    def put(self, key: str, content: bytes) -> None:
        """See `StoreFiles`."""
        place = f"{self.root}/{key}"
        self.system.makedirs(place.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(place, content)

    def put_array(self, name: str, files: Mapping[str, bytes], replace: bool) -> None:
        """See `StoreFiles`."""
        there = self.names(name)
        if f"{name}/{ARRAY}" in there and not replace:
            raise FileExistsError(f"{name}: expected no array, got one")
        for key in sorted(there, key=_metadata_last, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                self.system.rm_file(f"{self.root}/{key}")
        for key in sorted(files, key=_metadata_last):
            self.put(f"{name}/{key}", files[key])

    def create(self, files: Mapping[str, bytes]) -> None:
        """See `StoreFiles`."""
        if self.exists():
            raise FileExistsError(f"{self.path}: expected no store, got one")
        for key in sorted(files, key=_metadata_last):
            self.put(key, files[key])


@contextmanager
def local_copy(name: str, path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path on this machine: `path` itself, or a copy of what is at a URL while it lasts.

    Raises
    ------
    ValueError, ImportError
        For a URL that fsspec can't open, by the argument's name.
    FileNotFoundError
        If there is nothing at a URL.
    """
    if not is_url(path):
        yield Path(path)
        return
    system, root = _file_system(name, str(path))
    with TemporaryDirectory(prefix="ofcv-") as scratch:
        copy = Path(scratch) / root.rstrip("/").rpartition("/")[2]
        if system.isfile(root):
            system.get_file(root, str(copy))
        else:
            for key in system.find(root):
                target = copy / key[len(root) :].lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(key, str(target))
        yield copy


def _metadata_last(key: str) -> bool:
    return key.rpartition("/")[2] == ARRAY


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for key, content in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)


def _rename_new(source: Path, target: Path, message: str) -> None:
    """Rename a folder, or raise FileExistsError where another process was first."""
    try:
        source.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise FileExistsError(message) from error


def _file_system(name: str, url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path there."""
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            f"{name}: expected a path on this machine where fsspec is not installed, got {url!r}"
        ) from error
    try:
        system, root = fsspec.core.url_to_fs(url)
    # An unknown scheme, a package that is not installed, a URL that its package can't read.
    except Exception as error:
        kind = ImportError if isinstance(error, ImportError) else ValueError
        raise kind(
            f"{name}: expected a URL that fsspec can open, got {url!r} ({first_line(error)})"
        ) from error
    return system, root.rstrip("/")
