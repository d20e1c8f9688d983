"""C source (``.c``), compiled by the system's compiler, once, and called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.c_source import compiler
from ofcv_export.c_source.interface import code_in, errors, metadata_in, size_limits, symbol_in
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TOLD_BY_LARGEST, TensorSpec, free_sizes, sized
from ofcv_export.runtimes.runtime import Runner, Runtime, damaged, foreign

DIGEST = b"/* sha256 %s */\n"
_DIGEST_LENGTH = len(DIGEST % (b"0" * 64))


class C99Runtime(Runtime):
    """C99 source, compiled by the system's compiler."""

    name = "c"
    suffix = ".c"
    runtime = "C99"
    on_torch = False

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Runtime.metadata`."""
        body, last = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
        if not (last.startswith(DIGEST[:10]) and last.endswith(DIGEST[-4:])):
            raise foreign(path, "no digest in its last line")
        if last != DIGEST % hashlib.sha256(body).hexdigest().encode():
            raise damaged(path)
        found = metadata_in(body.decode())
        if found is None:
            raise foreign(path, "no metadata in it")
        return Metadata.from_json(found)

    def symbol(self, content: bytes, path: Path) -> str:
        """Return the beginning of the names in C, of a file whose digest was checked."""
        return symbol_in(content.decode())

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Compile the source with the system's compiler, unless that was done before."""
        return _runner(content, path, self.metadata(content, path), compiler.compiler())

    def runners(self, content: bytes, path: Path, metadata: Metadata) -> dict[str, Runner]:
        """Return what verification runs: the code of every compiler there is."""
        commands = compiler.compilers()
        names = ["cpu", *(f"cpu, {Path(command).name}" for command in commands[1:])]
        runners = [_runner(content, path, metadata, command) for command in commands]
        return dict(zip(names, runners, strict=True))

    def devices(self, metadata: Metadata) -> list[str]:
        """Return ``cpu``."""
        return ["cpu"]


def _runner(content: bytes, path: Path, metadata: Metadata, command: str) -> Runner:
    """Return a file's function, compiled by a compiler."""
    text = content.decode()
    library = loaded(compiler.library(code_in(text).encode(), command), path)
    return library_runner(library, symbol_in(text), metadata)


def loaded(library: Path, path: Path) -> ctypes.CDLL:
    """Return a library that the system has loaded, that of the file at a path.

    Raises
    ------
    ValueError
        If the system cannot load it; with its reason.
    """
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise ValueError(
            f"path: expected a library that this system can load, got {str(path)!r} ({error})"
        ) from error


def library_runner(library: ctypes.CDLL, symbol: str, metadata: Metadata) -> Runner:
    """Return the function of a library whose names begin with a symbol."""
    evaluate = getattr(library, f"{symbol}_evaluate")
    reasons = errors(metadata)
    free = {size: size_limits(size, metadata) for size in free_sizes(metadata.inputs)}

    def run(inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        given = [np.asarray(array, order="C") for array in inputs]
        sizes = _sizes(metadata.inputs, given)
        for size, (least, most) in free.items():
            if isinstance(most, int) and sizes[size] > most:
                raise ValueError(f"{size}: expected {least} to {most}, got {sizes[size]}")
        outputs = tuple(np.empty(sized(spec, sizes), spec.dtype) for spec in metadata.outputs)
        # ctypes releases the interpreter's lock.
        places = map(_pointer, (*given, *outputs))
        code = evaluate(*(ctypes.c_int64(sizes[size]) for size in free), *places)
        if code:
            raise ValueError(reasons[code - 1])
        return outputs

    return run


def _sizes(specs: Sequence[TensorSpec], arrays: Sequence[NDArray[Any]]) -> dict[str, int]:
    """Return the sizes that some arrays have, or tell by their largest entry."""
    sizes: dict[str, int] = {}
    for spec, array in zip(specs, arrays, strict=True):
        found = zip(spec.shape, array.shape, strict=True)
        sizes |= {size: number for size, number in found if isinstance(size, str)}
        if spec.name in TOLD_BY_LARGEST:
            sizes[TOLD_BY_LARGEST[spec.name]] = int(array.max()) + 1
    return sizes


def _pointer(array: NDArray[Any]) -> Any:
    """Return a pointer to an array's numbers; `array.ctypes` takes several times as long."""
    if not array.size:
        return None
    # What may only be read has no buffer that ctypes takes.
    buffer: Any = array if array.flags.writeable else array.copy()
    return ctypes.byref(ctypes.c_char.from_buffer(buffer))
