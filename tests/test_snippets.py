"""Every fenced block of README and docs runs as it is typed, or says why it does not.

A page is read from top to bottom in one folder and one namespace; `tests.snippets.preludes`
supplies what the text speaks of. Commands that build, install or simulate for long are checked, not
run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ofcv_export.cli import app
from tests.snippets.blocks import BLOCKS, PAGES, ROOT, Block, blocks_of
from tests.snippets.preludes import GENERATED, PRELUDES

# What a snippet needs beside its prelude, by page and first line: the reason to skip it, and when.
NEEDS: dict[tuple[str, str], tuple[str, Callable[[], bool]]] = {
    ("docs/cuda.md", 'artifact = ofcv.load("cv.pt", device="cuda")'): (
        "CUDA: no device",
        lambda: not torch.cuda.is_available(),
    ),
}
# Declarations before a C++ snippet.
CPP = {
    "docs/formats.md": "const double positions[66] = {}; double values[1], derivatives[66];",
    "docs/cuda.md": 'ofcv::Model model("cv.pt2", "cuda");',
    "README.md": "std::vector<float> positions(66), values(1), derivatives(66);",
    "docs/engines/openmm.md": (
        "OpenMM::System system; OpenMM::VerletIntegrator integrator(0.001);"
        'OpenMM::Platform& platform = OpenMM::Platform::getPlatformByName("Reference");'
    ),
}
CPP_INCLUDES = {
    "docs/cuda.md": "#include <ofcv/model.hpp>\n",
    "docs/engines/openmm.md": "#include <OpenMM.h>\n",
}
PRINTED = re.compile(r"^print\(.+\)  # (.+), \.\.\.$", re.MULTILINE)


class Reader:
    """Someone who types a page from top to bottom, in a folder of their own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.page = path.relative_to(ROOT).as_posix()
        self.folder = folder
        self.blocks = blocks_of(path)
        self.namespace: dict[str, Any] = {"__name__": self.page}
        self.checks: dict[str, Iterator[None]] = {}
        self.n_read = 0
        self.failed: Block | None = None

    def read(self, block: Block) -> None:
        """Read on to a block, and that one."""
        if self.failed:
            pytest.fail(f"{self.failed} failed, and {block} comes after it", pytrace=False)
        with contextlib.chdir(self.folder):
            for current in self.blocks[self.n_read : self.blocks.index(block) + 1]:
                self.failed = current
                if rule(current) in (run_python, run_shell, compare) and not missing(current):
                    self._read(current)
                self.failed = None
                self.n_read += 1

    def _read(self, block: Block) -> None:
        torch.manual_seed(0)
        key = (block.page, block.heading)
        if key in PRELUDES and block.heading not in self.checks:
            self.checks[block.heading] = PRELUDES[key](self.namespace)
            next(self.checks[block.heading])
        rule(block)(block, self.namespace)
        if block.language == "python":
            assert not list(self.checks.get(block.heading, ())), "a prelude yields once"


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    """Run a block whose tracebacks point into the page, and compare what it says it prints."""
    padded = "\n" * (block.line - 1) + block.text
    code = compile(padded, str(ROOT / block.page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, namespace)
    for expected in PRINTED.findall(block.text):
        assert expected in output.getvalue()


def compare(block: Block, _: object) -> None:
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
        + f"\nint main() {{\n{CPP[block.page]}\n"
        + "\n".join(body)
        + "\n}\n"
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


# Commands


def run_shell(block: Block, _: object) -> None:
    for words in commands(block):
        COMMANDS[words[0]](words)


def commands(block: Block) -> list[list[str]]:
    """Return the words of each command."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_cli(words: list[str]) -> None:
    expanded = [
        name for word in words[1:] for name in (sorted(map(str, Path().glob(word))) or [word])
    ]
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
        assert set(own[1].split(",")) <= set(extras) if own else argument in known


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
    assert (
        words[1] == "--build" or (ROOT / words[words.index("-S") + 1] / "CMakeLists.txt").exists()
    )


def check_program(arguments: str) -> Callable[[list[str]], None]:
    """Return a check of the options of a program of ours, from its usage."""

    def check(words: list[str]) -> None:
        usage = (ROOT / arguments).read_text()
        options = [word for word in words if word.startswith("--")]
        assert all(f"\n  {option} " in usage for option in options)

    return check


MKLIB = 'torch=$(python -c "import torch; print(torch.__path__[0])")'
COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "ofcv-export": run_cli,
    "make": check_make,
    "pip": check_pip,
    "python": check_module,
    "cmake": check_cmake,
    "build/cpp_demo/ofcv_demo": check_program("cpp_demo/demo/ofcv_demo.cpp"),
    "build/cpp_demo/openmm/ofcv_openmm": check_program("cpp_demo/openmm/ofcv_openmm.cpp"),
}


def check_mklib(block: Block, folder: Path) -> None:
    """Run the assignments, and check what they name; the build itself needs PLUMED's headers."""
    *assignments, build = block.text.replace("\\\n", " ").splitlines()
    assert build.startswith("cd cpp_demo/plumed && plumed mklib OFCV.cpp ")
    assert (ROOT / "cpp_demo/plumed/OFCV.cpp").is_file()
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    script = python + "\n".join([*assignments, 'echo "$PLUMED_MKLIB_CFLAGS $PLUMED_MKLIB_LDFLAGS"'])
    flags = subprocess.run(["bash", "-euc", script], check=True, capture_output=True, text=True)
    words = flags.stdout.split()
    named = [after for flag, after in pairwise(words) if flag == "-isystem"]
    named += [word.removeprefix("-L") for word in words if word.startswith("-L")]
    assert named
    assert all(Path(name).is_dir() for name in named)


# What becomes of a block


def rule(block: Block) -> Callable[..., None] | None:
    """Return what is done with a block."""
    if (block.page, block.first_line) in GENERATED:
        return compare
    if block.first_line == MKLIB:
        return check_mklib
    if block.language == "python":
        return run_python
    if block.language == "cpp" and block.page in CPP:
        return compile_cpp
    is_shell = block.language in ("", "sh", "bash")
    if is_shell and all(words[0] in COMMANDS for words in commands(block)):
        return run_shell
    return None


def missing(block: Block) -> str:
    """Return why a block cannot run here; nothing if it can."""
    reason, is_missing = NEEDS.get((block.page, block.first_line), ("", lambda: False))
    return reason if is_missing() else ""


@cache
def reader_of(page: str, folder: Path) -> Reader:
    return Reader(ROOT / page, folder)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    return cache(lambda page: tmp_path_factory.mktemp(Path(page).stem))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(block, folder_of):
    chosen = rule(block)
    assert chosen, f"{block}: no rule for this block"
    if block.language == "python":
        compile(block.text, block.page, "exec")
    if missing(block):
        pytest.skip(missing(block))
    if chosen in (compile_cpp, check_mklib):
        chosen(block, folder_of(block.page))
    else:
        reader_of(block.page, folder_of(block.page)).read(block)


def test_every_rule_has_a_block():
    headings = {(block.page, block.heading) for block in BLOCKS}
    first_lines = {(block.page, block.first_line) for block in BLOCKS}
    assert set(PRELUDES) <= headings
    assert {*GENERATED, *NEEDS} <= first_lines


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_a_page_names_exists(path):
    """Links within the repository, and modules, targets and files of tests in the text."""
    text = path.read_text()
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / link).exists(), link
    for module in re.findall(r"python -m ([\w.]+)(?![\w.<])", text):
        assert importlib.util.find_spec(module), module
    for target in re.findall(r"`make ([\w-]+)`", text):
        assert target in [*targets, "install"], target  # the latter is PLUMED's
    for name in re.findall(r"`((?:tests|cpp_demo|export_scripts|ofcv_export)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name


def test_blocks_are_all_found():
    fences = sum(
        line.lstrip().startswith("```") for path in PAGES for line in path.read_text().splitlines()
    )
    assert 2 * len(BLOCKS) == fences
