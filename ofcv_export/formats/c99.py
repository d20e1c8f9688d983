"""C source (``.c``): one C99 file that needs no runtime, with the same bits from any compiler.

From Python it is compiled by the system's compiler, once, and called through ctypes.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, fx

from ofcv_export.base.arrays import in_memory
from ofcv_export.base.files import require_file, require_suffix
from ofcv_export.c_source import compiler
from ofcv_export.c_source.emitter import Function, emit
from ofcv_export.c_source.fortran import fortran_text
from ofcv_export.c_source.interface import code_in, errors, metadata_in, source_text, symbol_in
from ofcv_export.formats.format import Format, Runner, damaged, foreign
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.probe import probe
from ofcv_export.graph.tensor_spec import TensorSpec, symbols

# Numbers in tables that a compiler takes in its stride, and memory that any thread's stack has.
_MOST_CONSTANTS = 2**20
_MOST_BYTES = 2**19
_DIGEST = b"/* sha256 %s */\n"
_DIGEST_LENGTH = len(_DIGEST % (b"0" * 64))


@dataclass(frozen=True)
class _Compiled:
    """What is written: a function, what it takes and gives, and the beginning of its name."""

    function: Function
    specs: tuple[TensorSpec, ...]
    symbol: str


class C99(Format):
    """C99 source, compiled by the system's compiler."""

    name = "c"
    suffix = ".c"
    runtime = "C99"

    def compile(self, graph: ExportGraph) -> _Compiled:
        """Write the graph of one frame as a function.

        Raises
        ------
        ValueError
            If a size is free, an operator is one that C source cannot hold, or there are more
            constants or intermediate results than a compiler or a stack has room for.
        """
        frame = graph.frame or graph
        free = symbols(frame.inputs)
        if free:
            raise ValueError(
                f"module: expected fixed sizes for a .c file, got {', '.join(free)} free "
                "(.pt, .pt2 and .onnx files leave sizes free)"
            )
        module = frame.module.eval()
        assert isinstance(module, fx.GraphModule)
        given = probe(frame.inputs, {})
        function = emit(module, given, f"{graph.symbol}_frame", graph.fast)
        _require_at_most("constants", function.n_constants, _MOST_CONSTANTS)
        _require_at_most("bytes of intermediate results", function.n_bytes, _MOST_BYTES)
        return _Compiled(function, (*frame.inputs, *frame.outputs), graph.symbol)

    def write(self, compiled: _Compiled, metadata: Metadata, path: Path) -> None:
        """Write the source, its metadata as an array, and a digest of both as the last line."""
        version = metadata.versions["ofcv-export"]
        text = source_text(compiled.function, compiled.specs, metadata, compiled.symbol, version)
        content = text.encode()
        path.write_bytes(content + _DIGEST % hashlib.sha256(content).hexdigest().encode())

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Format.metadata`."""
        body, last = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
        if not (last.startswith(_DIGEST[:10]) and last.endswith(_DIGEST[-4:])):
            raise foreign(path, "no digest in its last line")
        if last != _DIGEST % hashlib.sha256(body).hexdigest().encode():
            raise damaged(path)
        found = metadata_in(body.decode())
        if found is None:
            raise foreign(path, "no metadata in it")
        return Metadata.from_json(found)

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Compile the source with the system's compiler, unless that was done before."""
        return _runner(content, self.metadata(content, path), compiler.compiler())

    def runners(self, content: bytes, path: Path, metadata: Metadata) -> dict[str, Runner]:
        """Return what verification runs: the code of every compiler there is."""
        commands = compiler.compilers()
        names = ["cpu", *(f"cpu, {Path(command).name}" for command in commands[1:])]
        runners = [_runner(content, metadata, command) for command in commands]
        return dict(zip(names, runners, strict=True))

    def devices(self, metadata: Metadata) -> list[str]:
        """Return ``cpu``."""
        return ["cpu"]


def _runner(content: bytes, metadata: Metadata, command: str) -> Runner:
    """Return a file's function, compiled by a compiler."""
    text = content.decode()
    library = ctypes.CDLL(str(compiler.library(code_in(text).encode(), command)))
    evaluate = getattr(library, f"{symbol_in(text)}_evaluate")
    reasons = errors(metadata.inputs)
    results = [([int(n) for n in spec.shape], spec.torch_dtype) for spec in metadata.outputs]

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        given = [in_memory(tensor.detach()) for tensor in inputs]
        outputs = tuple(torch.empty(shape, dtype=dtype) for shape, dtype in results)
        # ctypes releases the interpreter's lock.
        code = evaluate(*(ctypes.c_void_p(each.data_ptr()) for each in (*given, *outputs)))
        if code:
            raise ValueError(reasons[code - 1])
        return outputs

    return run


def _require_at_most(what: str, found: int, most: int) -> None:
    if found > most:
        raise ValueError(
            f"module: expected at most {most} {what} for a .c file, got {found} (.pt2 has no limit)"
        )


def fortran_module(path: str | PathLike[str]) -> str:
    """Return a Fortran 2003 module with the interface of a file of C source.

    Parameters
    ----------
    path : path-like
        The file, ``.c``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, foreign or of another format.
    """
    target = require_file("path", path)
    require_suffix("path", target, C99.suffix)
    content = target.read_bytes()
    metadata = C99().metadata(content, target)
    return fortran_text(metadata.inputs, metadata.outputs, symbol_in(content.decode()))
