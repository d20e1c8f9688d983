"""The program that a test script's first argument names, run as a user would."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAM = Path(sys.argv[1])


@contextlib.contextmanager
def another(program: str | Path) -> Iterator[None]:
    """Run another program for a while."""
    global PROGRAM
    before, PROGRAM = PROGRAM, Path(program)
    yield
    PROGRAM = before


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the program; what has spaces is several words."""
    command = [str(PROGRAM), *" ".join(map(str, words)).split()]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def succeeds(*words: object) -> str:
    """Return what the program prints; it must succeed and complain about nothing."""
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def fails(message: str, *words: object) -> None:
    """The program must end with code 2 and this one line, and leave no file behind."""
    before = sorted(Path().iterdir())
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, ""), done
    name = PROGRAM.name.removesuffix("_light")
    assert done.stderr == f"{name}: {message}\n", done.stderr
    assert sorted(Path().iterdir()) == before


def run_tests(*tests: Callable[[], None]) -> None:
    """Run each test in a folder of its own."""
    for test in tests:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            test()
