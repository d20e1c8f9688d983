"""AOTInductor packages (``.pt2``): a graph compiled to machine code, the fastest of the formats.

A package runs on the kind of CPU or GPU it was compiled for, with the minor version of PyTorch it
was compiled by; anything else is refused before any of its code runs.
"""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from ofcv_export.base.fixed_order import fixed_order
from ofcv_export.base.validation import first_line
from ofcv_export.formats.checked_sizes import checked_sizes
from ofcv_export.formats.example import dynamic, examples
from ofcv_export.formats.format import Format
from ofcv_export.formats.plain_code import plain_code
from ofcv_export.formats.stack_buffers import stack_buffers
from ofcv_export.graph.editing import with_shapes
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.gathered_sums import gather_sums
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.runtimes.aotinductor import (
    CODE,
    KIND,
    LIBRARY,
    AOTInductorRuntime,
    package_of,
    temporary_folder,
)
from ofcv_export.runtimes.archive import DIGEST, METADATA, digest, records

# The environment variable that lets PyTorch keep precompiled headers, for many exports.
PRECOMPILE = "OFCV_PRECOMPILE_HEADERS"
_FOLDER_VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "TMPDIR")
# What the compiler may use of each instruction set of Inductor's, in PyTorch's names.
_FEATURES = {
    "VecAVX2": "avx2 fma3 f16c",
    "VecAVX512": "avx512_f avx512_dq avx512_vl avx512_bw fma3",
    "VecAVX512VNNI": "avx512_f avx512_dq avx512_vl avx512_bw fma3 avx512_vnni",
    "VecAMX": "avx512_f avx512_dq avx512_vl avx512_bw fma3 avx512_vnni amx_tile amx_bf16 amx_int8",
    "VecNEON": "neon",
    "VecSVE": "sve bf16 sve_max_length={sve_max_length}",
}


class AOTInductor(AOTInductorRuntime, Format):
    """AOTInductor, run by LibTorch."""

    def target(self, graph: ExportGraph) -> dict[str, Any]:
        """Return the device of the graph's data and what the code needs of the CPU."""
        with _inductor():
            needed = {"device": graph.device, "instruction_set": _instruction_set()}
        return super().target(graph) | needed

    def compile(self, graph: ExportGraph) -> dict[str, bytes]:
        """Compile the graph for one thread; return the records of the package.

        An MD engine gives the cores to its ranks and threads, so the code takes one of them.

        Raises
        ------
        FileNotFoundError
            If there is no C++ compiler.
        ValueError
            If the graph cannot be compiled.
        """
        on_stack = graph.stack_buffers and graph.device == "cpu"
        with (
            _inductor() as folder,
            stack_buffers() if on_stack else nullcontext(),
            checked_sizes(graph.inputs),
            fixed_order(graph.device),
        ):
            package = folder / "model.pt2"
            module = graph.module.eval()
            if graph.device != "cpu":
                module = _without_atomics(module, graph.inputs)
            program = torch.export.export(
                module,
                examples(graph.inputs, graph.device),
                dynamic_shapes=tuple(dynamic(spec) for spec in graph.inputs),
            )
            if graph.device != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, graph.device)
            try:
                torch._inductor.aoti_compile_and_package(
                    program,
                    package_path=str(package),
                    inductor_configs={"cpp.simdlen": 1} if graph.scalar_code else None,
                )
            except RuntimeError as error:
                raise ValueError(
                    "module: expected a graph that AOTInductor can compile, "
                    f"got {first_line(error)}"
                ) from error
            content = records(package, package.read_bytes(), KIND)
        return _code(content, folder)

    def write(self, compiled: dict[str, bytes], metadata: Metadata, path: Path) -> None:
        """Write the package with the records ``extra/ofcv.json`` and ``extra/ofcv.sha256``."""
        extras = {METADATA: metadata.to_json().encode(), DIGEST: b"0" * 64}
        found = records(path, package_of(compiled | extras), KIND)
        extras[DIGEST] = digest(found).encode()
        path.write_bytes(package_of(compiled | extras))


def _without_atomics(module: nn.Module, specs: Sequence[TensorSpec]) -> nn.Module:
    """Return a module whose sums over constant indices need neither atomics nor sorting."""
    if isinstance(module, fx.GraphModule):
        module = copy.deepcopy(module)
        with_shapes(module, examples(specs))
        gather_sums(module)
    return module


@contextmanager
def _inductor() -> Iterator[Path]:
    """Set up Inductor for one thread, with its files in a temporary folder."""
    with temporary_folder() as folder, _files_in(folder):
        # Imported here, since Inductor makes its folder when it is imported.
        from torch._inductor import config

        _require_compiler()
        settings: dict[str, Any] = {
            "cpp.threads": 1,
            "compile_threads": 1,
            # They are kept outside the folder, half a gigabyte that takes a minute to make.
            "aot_inductor.precompile_headers": bool(os.environ.get(PRECOMPILE)),
            "aot_inductor.embed_kernel_binary": torch.cuda.is_available(),
        }
        # PyTorch 2.11 writes none.
        if hasattr(config.aot_inductor, "enable_line_tables"):
            settings["aot_inductor.enable_line_tables"] = False
        # No more of the CPU than the instruction set that the metadata name.
        with config.patch(settings), plain_code(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield Path(folder)


@contextmanager
def _files_in(folder: str) -> Iterator[None]:
    """Set the folder that Inductor and the compilers that it calls write to."""
    before = {name: os.environ.get(name) for name in _FOLDER_VARIABLES}
    os.environ.update(dict.fromkeys(_FOLDER_VARIABLES, folder))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _require_compiler() -> None:
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        compiler = config.cpp.cxx[-1]
        raise FileNotFoundError(
            f"path: expected a C++ compiler to write a .pt2 file, got none named {compiler!r} "
            "(the environment variable CXX names another)"
        ) from error


def _instruction_set() -> str:
    """Return the architecture and the features of the CPU that Inductor compiles for."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    here = torch.cpu.get_capabilities()
    features = _FEATURES.get(type(pick_vec_isa()).__name__, "")
    return f"{here['architecture']} {features.format(**here)}".strip()


def _code(content: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """Return what is needed to run: the library, and the files that go with it by its name.

    The sources, which Inductor packages as well, are full of paths.
    """
    (library,) = (name for name in content if name.endswith(".so"))
    stem = library.removesuffix(".so")
    return {
        CODE + LIBRARY.removesuffix(".so") + name.removeprefix(stem): _anonymous(data, folder)
        for name, data in content.items()
        if name.startswith(stem) and not name.endswith(".cpp")
    }


def _anonymous(data: bytes, folder: Path) -> bytes:
    """Overwrite the names of source files and the build's number, byte for byte.

    The names stand in error messages and in the symbol table. Without them a graph that is compiled
    again gives the same code.
    """
    torch_folder = Path(torch.__file__).parent
    names = [re.escape(str(place).encode()) + rb"[\w./-]*" for place in (folder, torch_folder)]
    names.append(rb"c[a-z2-7]{51}\.(kernel|wrapper)\.cpp")
    data = re.sub(b"|".join(names), lambda match: b"/" * len(match[0]), data)
    build_number = rb"(\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0).{20}"
    return re.sub(build_number, rb"\1" + bytes(20), data, count=1, flags=re.DOTALL)
