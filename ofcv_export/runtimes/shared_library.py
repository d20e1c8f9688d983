"""Compiled C source (``.so``): a shared library of functions in C that needs nothing else.

Behind the library, where loaders do not look, stands the trailer: the beginning of its names, where
in the library its JSON is, SHA-256 of all that and a mark of ours.
"""

from __future__ import annotations

import hashlib
import platform
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes.c99 import library_runner, loaded
from ofcv_export.runtimes.runtime import Runner, Runtime, damaged, foreign

_MARK = b"ofcv.so\n"
_DIGEST_LENGTH = 64
# Offset and length of the JSON, length of the symbol.
_PLACES = struct.Struct("<QQI")


@dataclass(frozen=True)
class Trailer:
    """What stands behind a library.

    Parameters
    ----------
    symbol : str
        Beginning of its names.
    offset, length : int
        Where the JSON is in the library, in bytes.
    """

    symbol: str
    offset: int
    length: int

    def behind(self, library: bytes) -> bytes:
        """Return a library with this trailer."""
        symbol = self.symbol.encode()
        content = library + symbol + _PLACES.pack(self.offset, self.length, len(symbol))
        return content + hashlib.sha256(content).hexdigest().encode() + _MARK

    @classmethod
    def of(cls, content: bytes, path: Path) -> Trailer:
        """Return the trailer of a file's content, whose digest is checked.

        Raises
        ------
        ValueError
            If there is none, or the content is damaged.
        """
        body = content[: -len(_MARK) - _DIGEST_LENGTH]
        if not content.endswith(_MARK) or len(body) < _PLACES.size:
            raise foreign(path, "no trailer behind the library")
        expected = content[len(body) : -len(_MARK)]
        if hashlib.sha256(body).hexdigest().encode() != expected:
            raise damaged(path)
        offset, length, n_symbol = _PLACES.unpack(body[-_PLACES.size :])
        start = len(body) - _PLACES.size - n_symbol
        symbol = body[max(start, 0) : -_PLACES.size]
        if start < 0 or offset + length > start or not symbol.isascii():
            raise foreign(path, "a trailer that does not fit the library")
        return cls(symbol.decode(), offset, length)

    def metadata(self, content: bytes) -> Metadata:
        """Return what the JSON in a file's content says."""
        return Metadata.from_json(content[self.offset : self.offset + self.length])


class SharedLibraryRuntime(Runtime):
    """A shared library, called through ctypes."""

    name = "so"
    suffix = ".so"
    runtime = "C99"
    on_torch = False

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Runtime.metadata`."""
        return Trailer.of(content, path).metadata(content)

    def symbol(self, content: bytes, path: Path) -> str:
        """Return the beginning of the names in C."""
        return Trailer.of(content, path).symbol

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Load the library, from a copy of what was checked."""
        trailer = Trailer.of(content, path)
        # A name of its own: the system takes a library that it has under a name for the same one.
        # A network's file system may keep the file for as long as it is mapped.
        with tempfile.TemporaryDirectory(prefix="ofcv-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / "model.so"
            copy.write_bytes(content)
            library = loaded(copy, path)
        return library_runner(library, trailer.symbol, trailer.metadata(content))

    def devices(self, metadata: Metadata) -> list[str]:
        """Return ``cpu``, see `Runtime.devices`."""
        if metadata.instruction_set != platform.machine():
            raise ValueError(
                "path: expected an artifact for this CPU, got one that needs "
                f"{metadata.instruction_set}"
            )
        return ["cpu"]
