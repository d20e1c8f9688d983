"""Loops around straight lines of C, and the places in memory that these lines touch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

_ARRAY = re.compile(r"\b([A-Za-z_]\w*)\[")
_TERM = re.compile(r"(?:(\d+) \* )?([A-Za-z_]\w*)$")


@dataclass(frozen=True)
class Nest:
    """Loops, one in the other, around lines without any of their own.

    Attributes
    ----------
    loops : tuple of (str, int)
        Variables and how often each loop runs, the outermost first; none for lines alone.
    lines : tuple of str
        What the innermost does.
    """

    loops: tuple[tuple[str, int], ...]
    lines: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How often each loop runs."""
        return tuple(size for _, size in self.loops)

    def text(self) -> list[str]:
        """Return the nest in C."""
        heads = [loop_head(i, size) for i, size in self.loops]
        return [*heads, *self.lines, *["}"] * len(heads)]

    def accesses(self) -> list[Access]:
        """Return what its lines touch, in order."""
        return [access for line in self.lines for access in accesses(line)]

    def over(self, loops: Sequence[tuple[str, int]]) -> Nest:
        """Return the same nest with the variables of other loops of the same sizes."""
        names = {own: other for (own, _), (other, _) in zip(self.loops, loops, strict=True)}
        lines = tuple(renamed(line, names) for line in self.lines)
        return replace(self, loops=tuple(loops), lines=lines)


@dataclass(frozen=True)
class Access:
    """An entry that a line reads or writes.

    Attributes
    ----------
    array : str
        Its array.
    index : str
        The place, in C.
    is_write : bool
        Whether the line writes it; `+=` counts as both.
    is_sum : bool
        Whether the line adds to it.
    """

    array: str
    index: str
    is_write: bool
    is_sum: bool = False

    @property
    def text(self) -> str:
        """The entry in C."""
        return f"{self.array}[{self.index}]"

    def place(self) -> Place | None:
        """Return the place as a sum, None where it is none."""
        factors: dict[str, int] = {}
        offset = 0
        for term in self.index.replace("- ", "+ -").split(" + "):
            sign, bare = (-1, term[1:]) if term.startswith("-") else (1, term)
            if bare.isdigit():
                offset += sign * int(bare)
                continue
            match = _TERM.match(bare)
            if match is None:
                return None
            factors[match[2]] = factors.get(match[2], 0) + sign * int(match[1] or 1)
        return Place(frozenset(factors.items()), offset)


@dataclass(frozen=True)
class Place:
    """A sum of variables times whole numbers, and a number.

    Attributes
    ----------
    factors : frozenset of (str, int)
        Variables and their factors.
    offset : int
        The number.
    """

    factors: frozenset[tuple[str, int]]
    offset: int


def loop_head(variable: str, size: int) -> str:
    """Return the beginning of a loop."""
    return f"for (int {variable} = 0; {variable} < {size!s}; ++{variable}) {{"


def whole(statements: Sequence[Nest | str]) -> list[Nest]:
    """Return nests, those without loops made of a line or of lines from brace to brace."""
    nests: list[Nest] = []
    lines: list[str] = []
    depth = 0
    for statement in statements:
        if isinstance(statement, Nest) and not depth:
            nests.append(statement)
            continue
        text = [statement] if isinstance(statement, str) else statement.text()
        lines += text
        depth += sum(line.count("{") - line.count("}") for line in text)
        if not depth:
            nests.append(Nest((), tuple(lines)))
            lines = []
    return nests


def accesses(line: str) -> Iterator[Access]:
    """Return the entries that a line touches: what it reads first."""
    found = [
        (match[1], line[match.end() : _end(line, match.end())]) for match in _ARRAY.finditer(line)
    ]
    target = found[0] if found and line.startswith(f"{found[0][0]}[") else None
    after = line[len(f"{target[0]}[{target[1]}]") :] if target else ""
    is_plain, is_sum = after.startswith(" = "), after.startswith(" += ")
    for number, (array, index) in enumerate(found):
        if number or not is_plain:
            yield Access(array, index, False, is_sum and not number)
    if target:
        yield Access(*target, True, is_sum)


def _end(line: str, start: int) -> int:
    """Return where the bracket that opened before `start` closes."""
    depth = 1
    for place in range(start, len(line)):
        depth += {"[": 1, "]": -1}.get(line[place], 0)
        if not depth:
            return place
    raise AssertionError(line)


def renamed(line: str, names: Mapping[str, str]) -> str:
    """Return a line with other names."""
    return re.sub(r"\b[A-Za-z_]\w*", lambda match: names.get(match[0], match[0]), line)
