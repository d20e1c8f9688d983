"""Reading and writing files: atomic writes, and one-line errors for files that do not fit."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block succeeds.

    An error inside the block leaves whatever was at `path` as it was.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: expected an existing folder, got {str(target.parent)!r}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        temporary = Path(folder) / target.name
        yield temporary
        temporary.replace(target)


def require_file(name: str, path: str | PathLike[str]) -> Path:
    """Return `path` as a Path, or raise FileNotFoundError."""
    if not Path(path).is_file():
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
            return {key: archive[key] for key in keys} | extra
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, AttributeError) as error:
        raise ValueError(
            f"{name}: expected an .npz file with {', '.join(keys)}, got {str(path)!r}"
        ) from error


def is_noexec(folder: str | PathLike[str]) -> bool:
    """Return whether a folder is on a file system from which no code may be loaded."""
    return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
