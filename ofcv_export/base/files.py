"""Reading and writing files: atomic writes, and one-line errors for files that do not fit."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np

# A scheme of two letters or more; pathlib takes one slash of "s3://" away, "a::b" chains schemes.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/:]")


def is_url(path: str | PathLike[str]) -> bool:
    """Return whether `path` is a URL such as ``s3://bucket/statistics.zarr``."""
    return _URL.match(os.fspath(path)) is not None


def path_or_url(path: str | PathLike[str]) -> Path | str:
    """Return a path as a Path, a URL as it is."""
    return path if isinstance(path, str) and is_url(path) else Path(path)


def local_path(name: str, path: str | PathLike[str]) -> Path:
    """Return `path` as a Path, or raise ValueError for a URL."""
    if is_url(path):
        raise ValueError(f"{name}: expected a path on this machine, got the URL {str(path)!r}")
    return Path(path)


def require_folder_of(name: str, path: str | PathLike[str]) -> Path:
    """Return `path` as a Path, or raise unless a file can be put there.

    Raises
    ------
    FileNotFoundError
        If its folder does not exist.
    PermissionError
        If its folder can't be written to.
    ValueError
        For a URL.
    """
    target = local_path(name, path)
    folder = target.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: expected an existing folder, got {str(folder)!r}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _no_permission(name, folder)
    return target


@contextmanager
def scratch_folder(name: str, folder: Path, prefix: str) -> Iterator[Path]:
    """Give a temporary folder inside `folder`; what it can't be made for is said of `folder`.

    Raises
    ------
    PermissionError
        If `folder` can't be written to.
    """
    try:
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix=prefix)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise _no_permission(name, folder) from error
    with scratch as temporary:
        yield Path(temporary)


def _no_permission(name: str, folder: Path) -> PermissionError:
    return PermissionError(f"{name}: expected a folder that can be written to, got {str(folder)!r}")


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block succeeds.

    An error inside the block leaves whatever was at `path` as it was. Of a symbolic link it is what
    the link points to that is replaced.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        See `require_folder_of`.
    """
    target = require_folder_of("path", path)
    if target.is_symlink():
        target = require_folder_of("path", target.resolve())
    with scratch_folder("path", target.parent, f".{target.name}-") as folder:
        temporary = folder / Path(path).name
        yield temporary
        temporary.replace(target)


def require_file(name: str, path: str | PathLike[str]) -> Path:
    """Return `path` as a Path, or raise FileNotFoundError; ValueError for a URL."""
    if not local_path(name, path).is_file():
        raise FileNotFoundError(f"{name}: expected an existing file, got {str(path)!r}")
    return Path(path)


def require_suffix(name: str, path: str | PathLike[str], *suffixes: str) -> str:
    """Return the suffix of `path`, or raise ValueError unless it is one of `suffixes`."""
    suffix = Path(path).suffix
    if suffix not in suffixes:
        expected = " or ".join(suffixes)
        raise ValueError(f"{name}: expected a file name ending in {expected}, got {str(path)!r}")
    return suffix


def read_npz(
    name: str,
    path: str | PathLike[str],
    keys: Sequence[str],
    defaults: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return some arrays of an ``.npz`` file, and those of `defaults` where they are there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, of another kind, or lacks an array.
    """
    require_file(name, path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            extra = {key: archive.get(key, value) for key, value in (defaults or {}).items()}
            arrays = {key: archive[key] for key in keys} | extra
        # Of what is no array numpy gives the bytes.
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("expected arrays, got bytes")
        return arrays
    # A damaged file fails in zipfile, zlib, the header's parser or pickle, each with its own type.
    except Exception as error:
        raise ValueError(
            f"{name}: expected an .npz file with {', '.join(keys)}, got {str(path)!r}"
        ) from error


def read_npy(name: str, path: str | PathLike[str]) -> np.ndarray:
    """Return the array in an ``.npy`` file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another kind.
    """
    require_file(name, path)
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # Likewise.
        raise ValueError(f"{name}: expected a .npy file, got {str(path)!r}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: expected a .npy file, got {str(path)!r}")
    return array


def is_noexec(folder: str | PathLike[str]) -> bool:
    """Return whether a folder is on a file system from which no code may be loaded."""
    return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
