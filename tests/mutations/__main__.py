"""Small changes to the package, each of which some test must notice: ``python -m tests.mutations``.

Every change is made in a copy of the package, and the tests concerned run against that copy, up to
the first that fails; the files here are left alone. In the end the tests that failed run on the
unchanged copy, where they must pass. Words after the command choose the changes whose names contain
one of them. The exit status is 1 if a change was noticed by no test, or its old text is not in its
file exactly once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutations.core import CORE
from tests.mutations.engines import ENGINES
from tests.mutations.graphs import GRAPHS
from tests.mutations.mutation import Mutation
from tests.mutations.numbers import NUMBERS

MUTATIONS = [*CORE, *GRAPHS, *NUMBERS, *ENGINES]

_ROOT = Path(__file__).parents[2]
SOURCE = _ROOT / "ofcv_export"
_COPIED = ("ofcv_export", "tests", "export_scripts", "benchmarks")
# Of pytest: all tests passed, and some failed.
_PASSED, _FAILED = 0, 1
_LONGEST = 600
_CAUSE = re.compile(r"^(?:FAILED|ERROR) (\S+?::.*?)(?: - .*)?$", re.MULTILINE)


class Outcome(NamedTuple):
    """What became of a change: whether a test noticed it, and which, or what went wrong."""

    noticed: bool
    remark: str
    seconds: float = 0.0


def main(words: Sequence[str] = ()) -> int:
    """Make the changes one by one, print what became of them, and return the exit status."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    outcomes: dict[str, Outcome] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ofcv-mutations-") as folder,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        task = progress.add_task("", total=len(chosen) + 1)
        copy = _copied(Path(folder))
        for mutation in chosen:
            progress.update(task, description=mutation.name)
            outcomes[mutation.name] = outcome = _outcome(copy, mutation)
            if not outcome.noticed:
                console.print(f"{mutation.name}: {outcome.remark}")
            progress.advance(task)
        progress.update(task, description="the tests that failed, nothing changed")
        failed = {outcome.remark for outcome in outcomes.values() if outcome.noticed}
        code, remark = _run(copy, ["tests/test_of_the_copy.py", *sorted(failed)])
        progress.advance(task)
    console.print(_table(chosen, outcomes))
    if code != _PASSED:
        console.print(f"tests: expected to pass where nothing is changed, got: {remark}")
        return 1
    n_noticed = sum(outcome.noticed for outcome in outcomes.values())
    console.print(f"{n_noticed} of {len(chosen)} changes were noticed")
    return int(n_noticed < len(chosen))


def _copied(folder: Path) -> Path:
    """Return a folder with a copy of the package, its tests and what they import."""
    for name in _COPIED:
        shutil.copytree(
            _ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache")
        )
    shutil.copy(_ROOT / "pyproject.toml", folder)
    # Fails unless the copy is what tests import.
    (folder / "tests" / "test_of_the_copy.py").write_text(
        "import ofcv_export\n\n\n"
        "def test_it_is_the_copy():\n"
        f"    assert ofcv_export.__file__ == {str(folder / 'ofcv_export' / '__init__.py')!r}\n"
    )
    return folder


def _outcome(copy: Path, mutation: Mutation) -> Outcome:
    """Change a file, run the tests concerned, and change the file back."""
    target = copy / "ofcv_export" / mutation.file
    before = target.read_text()
    if before.count(mutation.old) != 1:
        return Outcome(False, f"old text found {before.count(mutation.old)} times")
    start = time.perf_counter()
    target.write_text(before.replace(mutation.old, mutation.new))
    try:
        code, remark = _run(copy, mutation.tests)
    finally:
        target.write_text(before)
    seconds = time.perf_counter() - start
    if code == _PASSED:
        return Outcome(False, "SURVIVED", seconds)
    return Outcome(code == _FAILED, remark, seconds)


def _run(copy: Path, selection: Sequence[str]) -> tuple[int, str]:
    """Run tests in the copy up to the first that fails; return pytest's status and that test."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--color=no", "-p", "no:cacheprovider"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "OMP_NUM_THREADS": "1",
        # A file that is changed twice in one second has to be compiled twice.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [*command, "--rootdir", str(copy), *selection],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    found = _CAUSE.search(done.stdout)
    if found:
        return done.returncode, found[1]
    last = (done.stdout + done.stderr).strip().splitlines()[-1:]
    return done.returncode, f"pytest exited with {done.returncode}: {' '.join(last)}"


def _table(mutations: Sequence[Mutation], outcomes: dict[str, Outcome]) -> Table:
    table = Table("change", "file", "noticed", "by", "s")
    for mutation in mutations:
        noticed, remark, seconds = outcomes[mutation.name]
        verdict = "yes" if noticed else "[bold red]no"
        test = remark.rpartition("::")[2] if noticed else remark
        table.add_row(mutation.name, mutation.file, verdict, escape(test), f"{seconds:.0f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
