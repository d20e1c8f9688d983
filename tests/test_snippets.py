"""Every fenced block of README and docs runs as it is typed, or says why it does not.

A page is read from top to bottom in one folder and one namespace; `tests.snippets.preludes` supplies
what the text speaks of. Commands that build, install or simulate for long are checked, not run.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ofcv_export.cli import app
from tests.snippets.blocks import BLOCKS, PAGES, ROOT, Block, blocks_of
from tests.snippets.preludes import GENERATED, PRELUDES

# Blocks that are not run, by page and first line: the reason, and whether to skip.
NEEDS: dict[tuple[str, str], tuple[str, Callable[[], bool]]] = {
    ("docs/cuda.md", 'artifact = ofcv.load("cv.pt", device="cuda")'): (
        "CUDA: no device",
        lambda: not torch.cuda.is_available(),
    ),
}
CPP = {
    "README.md": "std::vector<float> positions(66), values(1), derivatives(66);",
    "docs/engines/openmm.md": (
        "OpenMM::System system; OpenMM::VerletIntegrator integrator(0.001);"
        'OpenMM::Platform& platform = OpenMM::Platform::getPlatformByName("Reference");'
    ),
}
CPP_INCLUDES = {"docs/engines/openmm.md": "#include <OpenMM.h>\n"}
PRINTED = re.compile(r"^print\(.+\)  # (.+), \.\.\.$", re.MULTILINE)


class Reader:
    """Someone who types a page from top to bottom, in a folder of their own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.page = path.relative_to(ROOT).as_posix()
        self.folder = folder
        self.blocks = blocks_of(path)
        self.namespace: dict[str, Any] = {"__name__": self.page}
        self.headings: set[str] = set()
        self.n_read = 0

    def read(self, block: Block) -> None:
        """Read on to a block, and that one."""
        with contextlib.chdir(self.folder):
            for earlier in self.blocks[self.n_read : self.blocks.index(block) + 1]:
                if rule(earlier) in (run_python, run_shell, compare):
                    self._read(earlier)
                self.n_read += 1

    def _read(self, block: Block) -> None:
        torch.manual_seed(0)
        check = iter(())
        if block.heading not in self.headings and (block.page, block.heading) in PRELUDES:
            check = PRELUDES[block.page, block.heading](self.namespace)
            next(check)
            self.headings.add(block.heading)
            self.checks = check
        rule(block)(block, self)
        if block.language == "python":
            for _ in self.__dict__.pop("checks", ()):
                raise AssertionError(f"{block}: a prelude with a second yield")


def run_python(block: Block, reader: Reader) -> None:
    """Run a block whose tracebacks point into the page, and compare what it says it prints."""
    padded = "\n" * (block.line - 1) + block.text
    code = compile(padded, str(ROOT / block.page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, reader.namespace)
    for expected in PRINTED.findall(block.text):
        assert expected in output.getvalue()


def compare(block: Block, reader: Reader) -> None:
    """Compare a block with what the project writes itself; the page may leave out parts: `...`."""
    expected = GENERATED[block.page, block.first_line]().strip()
    pattern = ".*".join(re.escape(part) for part in block.text.strip().split("..."))
    assert re.fullmatch(pattern, expected, re.DOTALL), expected


def compile_cpp(block: Block, folder: Path) -> None:
    """Compile a block as a part of a function, with the headers that CMake finds."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    lines = block.text.splitlines()
    heads = [line for line in lines if line.startswith("#include")]
    body = [line for line in lines if line not in heads]
    source = folder / "snippet.cpp"
    source.write_text(
        "\n".join(["#include <vector>", CPP_INCLUDES.get(block.page, ""), *heads])
        + f"\nint main() {{\n{CPP[block.page]}\n" + "\n".join(body) + "\n}\n"
    )
    subprocess.run(
        [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wno-unused", *include_flags(), source],
        check=True,
    )  # fmt: skip


def include_flags() -> list[str]:
    from torch.utils.cpp_extension import include_paths

    (json,) = importlib.util.find_spec("nlohmann_json").submodule_search_locations
    folders = [*include_paths(), f"{json}/include"]
    with contextlib.suppress(ImportError):
        from openmm.version import openmm_library_path

        folders.append(str(Path(openmm_library_path).parent / "include"))
    own = [f"-I{ROOT / 'cpp_demo' / name}" for name in ("include", "openmm")]
    return own + [part for folder in folders for part in ("-isystem", folder)]


# Shell


def run_shell(block: Block, reader: Reader) -> None:
    for words in commands(block):
        COMMANDS[words[0]](words)


def commands(block: Block) -> list[list[str]]:
    """Return the words of each command."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_cli(words: list[str]) -> None:
    expanded = [name for word in words[1:] for name in (sorted(glob.glob(word)) or [word])]
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, expanded)
    assert result.exit_code == 0, result.output


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words[1:]) <= set(targets)


def check_pip(words: list[str]) -> None:
    """Check the packages, and this project's extras, against pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {re.split(r"[\[>=]", entry)[0] for part in extras.values() for entry in part}
    assert words[1] == "install"
    arguments = words[2:]
    if arguments[0] == "-c":
        assert (ROOT / arguments[1]).is_file()
        del arguments[:2]
    for argument in arguments:
        own = re.fullmatch(r"\.\[(.+)\]", argument)
        assert own[1] in extras if own else argument in known


def check_module(words: list[str]) -> None:
    """Check that a module exists and lists the options that it is given."""
    assert words[1] == "-m"
    assert importlib.util.find_spec(words[2])
    options = [word for word in words[3:] if word.startswith("-")]
    if options:
        command = [sys.executable, "-m", words[2], "--help"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        assert all(option in listed.stdout for option in options)


def check_cmake(words: list[str]) -> None:
    assert words[1] == "--build" or (ROOT / words[words.index("-S") + 1] / "CMakeLists.txt").exists()


def check_program(arguments: str) -> Callable[[list[str]], None]:
    """Return a check of the options of a program of ours, from its usage."""

    def check(words: list[str]) -> None:
        usage = (ROOT / arguments).read_text()
        options = [word for word in words if word.startswith("--")]
        assert all(f"\n  {option} " in usage for option in options)

    return check


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "ofcv-export": run_cli,
    "make": check_make,
    "pip": check_pip,
    "python": check_module,
    "cmake": check_cmake,
    "build/cpp_demo/ofcv_demo": check_program("cpp_demo/src/arguments.hpp"),
    "build/cpp_demo/openmm/ofcv_openmm": check_program("cpp_demo/openmm/openmm_arguments.hpp"),
}


def check_mklib(block: Block, folder: Path) -> None:
    """Run the assignments, and check what they name; the build itself needs PLUMED's headers."""
    *assignments, build = block.text.replace("\\\n", " ").splitlines()
    assert build.split() == "cd cpp_demo/plumed && plumed mklib OFCV.cpp # cpp_demo/plumed/OFCV.so".split()
    assert (ROOT / "cpp_demo/plumed/OFCV.cpp").is_file()
    python = f"python() {{ {shlex.quote(sys.executable)} \"$@\"; }}\n"
    script = python + "\n".join([*assignments, 'echo "$PLUMED_MKLIB_CFLAGS $PLUMED_MKLIB_LDFLAGS"'])
    flags = subprocess.run(["bash", "-euc", script], check=True, capture_output=True, text=True)
    words = flags.stdout.split()
    named = [after for flag, after in zip(words, words[1:]) if flag == "-isystem"]
    named += [word.removeprefix("-L") for word in words if word.startswith("-L")]
    assert named
    assert all(Path(name).is_dir() for name in named)


# What becomes of a block.


def rule(block: Block) -> Callable[..., None] | None:
    """Return what is done with a block."""
    key = (block.page, block.first_line)
    if key in GENERATED:
        return compare
    if key == ("docs/engines/plumed.md", MKLIB):
        return check_mklib
    if block.language == "python":
        return run_python
    if block.language == "cpp" and block.page in CPP:
        return compile_cpp
    if block.language in ("", "sh", "bash") and all(w[0] in COMMANDS for w in commands(block)):
        return run_shell
    return None


MKLIB = 'torch=$(python -c "import torch; print(torch.__path__[0])")'


@cache
def reader_of(page: str, folder: Path) -> Reader:
    return Reader(ROOT / page, folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return cache(lambda page: tmp_path_factory.mktemp(Path(page).stem))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(block, folders):
    chosen = rule(block)
    assert chosen, f"{block}: no rule for this block"
    reason, is_missing = NEEDS.get((block.page, block.first_line), ("", lambda: False))
    if block.language == "python":
        compile(block.text, block.page, "exec")
    if is_missing():
        pytest.skip(reason)
    if chosen in (compile_cpp, check_mklib):
        chosen(block, folders(block.page))
    else:
        reader_of(block.page, folders(block.page)).read(block)
