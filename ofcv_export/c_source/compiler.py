"""Compiling C source with the system's compiler, into a cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Looked for in this order, after the one that the environment variable CC names.
_NAMES = ("cc", "gcc", "clang")
# What files are compiled with to run here.
OPTIONS = "-std=c99 -O3 -march=native -shared -fPIC"
# For any processor of this kind; faster code for those that run it is in the source.
_ANYWHERE = "-std=c99 -O3 -fPIC"
_LINK = "-shared -Wl,-Bsymbolic" if sys.platform == "linux" else "-shared"
_CACHE_VARIABLE = "OFCV_CACHE"


def compiler() -> str:
    """Return the path of the system's C compiler.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    named = os.environ.get("CC")
    names = [named] if named else list(_NAMES)
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return os.path.abspath(found)  # noqa: PTH100 (a link to it may be its name)
    raise FileNotFoundError(
        f"path: expected a C compiler for a .c or .so file, got none named {' or '.join(names)} "
        "(install gcc or clang, or name one by the environment variable CC)"
    )


def compilers() -> list[str]:
    """Return the system's compiler, and GCC and Clang where they are others."""
    found: dict[str, str] = {}
    for path in filter(None, [compiler(), *map(shutil.which, _NAMES)]):
        found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def library(source: bytes, command: str) -> Path:
    """Return the shared library of some source, compiled unless that was done before.

    Libraries are kept in the folder that the environment variable ``OFCV_CACHE`` names, by default
    ``ofcv-export`` in the user's folder for caches. Their names are digests of the source, the
    compiler and the processor.

    Parameters
    ----------
    source : bytes
        C99.
    command : str
        Path of a compiler.

    Raises
    ------
    ValueError
        If it does not compile; with the compiler's first line.
    """
    return _kept(source, command, OPTIONS, "so")


def portable_library(source: bytes, facts: bytes) -> bytes:
    """Return a shared library of two sources for any processor of this kind.

    Parameters
    ----------
    source, facts : bytes
        C99. The former is compiled once, see `library`, the latter with every call.

    Raises
    ------
    FileNotFoundError
        If there is no compiler.
    ValueError
        If they do not compile; with the compiler's first line.
    """
    command = compiler()
    objects = _kept(source, command, f"{_ANYWHERE} -c", "o")
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".compiling-") as scratch:
        options = [*_ANYWHERE.split(), *_LINK.split(), str(objects)]
        return _compiled(facts, command, options, Path(scratch) / "model.so").read_bytes()


def _kept(source: bytes, command: str, options: str, suffix: str) -> Path:
    """Return what a compiler makes of some source, made unless that was done before."""
    key = hashlib.sha256(source)
    for text in (command, _said(command, "--version"), options, _processor()):
        key.update(text.encode() + b"\0")
    folder = cache()
    kept = folder / f"{key.hexdigest()}.{suffix}"
    if not kept.is_file():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".compiling-") as scratch:
            target = Path(scratch) / f"model.{suffix}"
            _compiled(source, command, options.split(), target).replace(kept)
    return kept


def _compiled(source: bytes, command: str, options: Sequence[str], target: Path) -> Path:
    text = target.with_suffix(".c")
    text.write_bytes(source)
    done = subprocess.run(
        [command, *options, "-o", target.name, text.name, "-lm"],
        cwd=target.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line]
        why = said[0] if said else f"status {done.returncode}"
        raise ValueError(f"path: expected source that {Path(command).name} compiles, got {why}")
    return target


def cache() -> Path:
    """Return the folder of compiled source, one that nobody else can write to.

    Raises
    ------
    PermissionError
        If the folder cannot be written to, or others can write to it.
    """
    named = os.environ.get(_CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = (Path(named) if named else Path(base) / "ofcv-export").absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(
            f"{_CACHE_VARIABLE}: expected a folder that can be written to, got {str(folder)!r}"
        ) from error
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"{_CACHE_VARIABLE}: expected a folder that only its owner can write to, "
            f"got {str(folder)!r}"
        )
    return folder


def _processor() -> str:
    """Return what code for this very processor depends on."""
    flags = ""
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {flags}"


def _said(command: str, option: str) -> str:
    return subprocess.run([command, option], capture_output=True, text=True, check=False).stdout
