"""AOTInductor packages (``.pt2``): a graph compiled to machine code, the fastest of the formats.

A package runs on the kind of CPU or GPU it was compiled for, with the minor version of PyTorch it
was compiled by; anything else is refused before any of its code runs.
"""

from __future__ import annotations

import copy
import io
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ofcv_export.base.arrays import in_memory
from ofcv_export.base.files import is_noexec
from ofcv_export.base.fixed_order import fixed_order
from ofcv_export.base.modes import without_autocast
from ofcv_export.base.validation import first_line, last_line
from ofcv_export.formats.archive import DIGEST, METADATA, checked_records, digest, records
from ofcv_export.formats.checked_sizes import checked_sizes
from ofcv_export.formats.example import dynamic, examples
from ofcv_export.formats.format import Format, Runner, foreign
from ofcv_export.formats.machine import require_this_machine
from ofcv_export.formats.plain_code import plain_code
from ofcv_export.formats.stack_buffers import stack_buffers
from ofcv_export.graph.editing import with_shapes
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.gathered_sums import gather_sums
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TensorSpec

_KIND = "an AOTInductor package"
_LOADED: dict[bytes, Any] = {}
_ONE_AT_A_TIME = threading.Lock()
_FOLDER_VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "TMPDIR")
_OTHER_FOLDERS = ("/tmp", "/var/tmp")
_PLAIN_NAME = re.compile(r"[\w./+-]+")
_CODE = "data/aotinductor/model/"
_LIBRARY = "model.wrapper.so"
# What the compiler may use of each instruction set of Inductor's, in PyTorch's names.
_FEATURES = {
    "VecAVX2": "avx2 fma3 f16c",
    "VecAVX512": "avx512_f avx512_dq avx512_vl avx512_bw fma3",
    "VecAVX512VNNI": "avx512_f avx512_dq avx512_vl avx512_bw fma3 avx512_vnni",
    "VecAMX": "avx512_f avx512_dq avx512_vl avx512_bw fma3 avx512_vnni amx_tile amx_bf16 amx_int8",
    "VecNEON": "neon",
    "VecSVE": "sve bf16 sve_max_length={sve_max_length}",
}


class AOTInductor(Format):
    """AOTInductor, run by LibTorch."""

    name = "aotinductor"
    suffix = ".pt2"
    runtime = "AOTInductor"

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
            content = records(package, package.read_bytes(), _KIND)
        return _code(content, folder)

    def write(self, compiled: dict[str, bytes], metadata: Metadata, path: Path) -> None:
        """Write the package with the records ``extra/ofcv.json`` and ``extra/ofcv.sha256``."""
        extras = {METADATA: metadata.to_json().encode(), DIGEST: b"0" * 64}
        found = records(path, _package(compiled | extras), _KIND)
        extras[DIGEST] = digest(found).encode()
        path.write_bytes(_package(compiled | extras))

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Format.metadata`."""
        return Metadata.from_json(checked_records(path, content, _KIND)[METADATA])

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Load the compiled code; nothing of it is left on disk."""
        found = records(path, content, _KIND)
        if _CODE + _LIBRARY not in found:
            raise foreign(path, "no compiled code in the archive")
        try:
            runner = _loaded(found, device)
        except RuntimeError as error:
            raise foreign(path, f"AOTInductor cannot read it: {last_line(error)}") from error

        def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            # Compiled code takes every input to be contiguous.
            tensors = [in_memory(tensor.to(device)) for tensor in inputs]
            # Not in inference mode, whose tensors a caller could not work on.
            with torch.no_grad(), without_autocast(device):
                return tuple(runner.run(tensors))

        return run

    def devices(self, metadata: Metadata) -> list[str]:
        """Return the device that a file was compiled for, if this is such a machine."""
        require_this_machine(metadata)
        return [metadata.device]


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
    with _temporary_folder() as folder, _files_in(folder):
        # Imported here, since Inductor makes its folder when it is imported.
        from torch._inductor import config

        _require_compiler()
        settings: dict[str, Any] = {
            "cpp.threads": 1,
            "compile_threads": 1,
            # They are kept outside the folder.
            "aot_inductor.precompile_headers": False,
            "aot_inductor.embed_kernel_binary": torch.cuda.is_available(),
        }
        # PyTorch 2.11 writes none.
        if hasattr(config.aot_inductor, "enable_line_tables"):
            settings["aot_inductor.enable_line_tables"] = False
        # No more of the CPU than the instruction set that the metadata name.
        with config.patch(settings), plain_code(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield Path(folder)


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that Inductor's commands can name and code can be loaded from.

    Inductor writes commands without quotes, so that a folder with a space in its name will not do.

    Raises
    ------
    OSError
        If there is none.
    """
    tried = list(dict.fromkeys([tempfile.gettempdir(), *_OTHER_FOLDERS]))
    named = [place for place in tried if _PLAIN_NAME.fullmatch(place) and Path(place).is_dir()]
    usable = [place for place in named if not is_noexec(place)]
    if not usable:
        raise OSError(
            "TMPDIR: expected a folder with no space or quote in its name from which code may be "
            f"loaded, got {', '.join(tried)} ({len(named) - len(usable)} mounted noexec)"
        )
    return tempfile.TemporaryDirectory(prefix="ofcv-", dir=usable[0], ignore_cleanup_errors=True)


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
        _CODE + _LIBRARY.removesuffix(".so") + name.removeprefix(stem): _anonymous(data, folder)
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


def _package(content: dict[str, bytes]) -> bytes:
    """Return a package with these records."""
    from torch.export.pt2_archive import PT2ArchiveWriter

    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as archive:
        for name, data in content.items():
            archive.write_bytes(name, data)
    return buffer.getvalue()


def _loaded(content: dict[str, bytes], device: str) -> Any:
    """Return LibTorch's runner of compiled code, on the CPU one for all files of one content.

    LibTorch keeps the memory maps of every library that it ever loaded, and a process may have
    65530 of them.
    """
    if device != "cpu":
        return _load(content, device)
    digest = content[DIGEST]
    with _ONE_AT_A_TIME:
        if digest not in _LOADED:
            _LOADED[digest] = _load(content, device)
        return _LOADED[digest]


def _load(content: dict[str, bytes], device: str) -> Any:
    """Return LibTorch's runner of compiled code.

    torch._inductor.aoti_load_package would compile a test program first, which takes seconds and a
    compiler, and leave what it unpacked on disk should the process be killed.
    """
    with _temporary_folder() as folder:
        for name, data in content.items():
            if name.startswith(_CODE):
                (Path(folder) / Path(name).name).write_bytes(data)
        # Once the library is mapped into memory its file can go.
        library = str(Path(folder) / _LIBRARY)
        if device == "cpu":
            return torch._C._aoti.AOTIModelContainerRunnerCpu(library, 1)
    return _load_package(content, device)


def _load_package(content: dict[str, bytes], device: str) -> Any:
    """Return LibTorch's runner of a whole package, for calls from one thread at a time.

    Only this one can be told so. Otherwise it looks after several threads' calls with events, which
    a CUDA graph cannot record.
    """
    index = torch.device(device).index
    with _temporary_folder() as folder:
        path = Path(folder) / "model.pt2"
        # PyTorch before 2.13 finds the other files by the name of a source, which it does not read.
        source = {_CODE + _LIBRARY.removesuffix(".so") + ".cpp": b""}
        path.write_bytes(_package(content | source))
        one_at_a_time, n_runners = True, 1
        return torch._C._aoti.AOTIModelPackageLoader(
            str(path), "model", one_at_a_time, n_runners, -1 if index is None else index
        )
