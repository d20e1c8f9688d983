"""Times of calls that take turns, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of times in seconds."""

    times: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.times)

    @property
    def width(self) -> str:
        """Half the distance of the quartiles, relative to the median."""
        low, _, high = statistics.quantiles(self.times, n=4)
        return f"±{(high - low) / 2 / self.median:.0%}"

    def __str__(self) -> str:
        return f"{text(self.median)} {self.width}"


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    at_least: int = 7,
    calls_in_a_row: int = 1,
) -> dict[str, Spread]:
    """Time calls that take turns.

    Parameters
    ----------
    calls : mapping
        What to time. Each is called once before.
    seconds : float
        How long to go on, in all.
    at_least : int
        Rounds to make, however long they take.
    calls_in_a_row : int
        Calls in each turn, each of them timed.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end, n_rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or n_rounds < at_least:
        n_rounds += 1
        for name, call in calls.items():
            times[name] += [timed(call) for _ in range(calls_in_a_row)]
    return {name: Spread(each) for name, each in times.items()}


def timed(call: Callable[[], object]) -> float:
    """Return the time of one call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def text(seconds: float) -> str:
    """Return a time with its unit."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def machine(*packages: str) -> str:
    """Return the processor, its cores, and versions of packages in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    known = ", ".join([*versions, f"Python {platform.python_version()}"])
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}; {known}"
