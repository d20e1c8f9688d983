"""Rows that tables name, as pointers: looked up once for all of their entries."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from ofcv_export.c_source.nests import Access, Nest

_LOOKED_UP = re.compile(r"(.*\(int64_t\)\w+\[.*\])(?: \+ (\d+))?$")


def by_rows(nest: Nest, types: Mapping[str, str]) -> Nest:
    """Return a nest with pointers to rows of which it touches several entries.

    Compilers find the common part of the places themselves, but then keep more of them at a time
    than there are registers.

    Parameters
    ----------
    nest : Nest
        Loops around lines.
    types : mapping of str to str
        Types of the entries of the arrays that may have pointers, with ``const`` where they are
        that.
    """
    if not nest.loops or any("{" in line for line in nest.lines):
        return nest
    counts = Counter(row for row, _ in map(_row_of, nest.accesses()) if row)
    names = {
        row: f"row{number}"
        for number, row in enumerate(row for row, n in counts.items() if n > 1 and row[0] in types)
    }
    lines: list[str] = []
    declared = set()
    for line in nest.lines:
        for access in Nest((), (line,)).accesses():
            row, offset = _row_of(access)
            if row not in names:
                continue
            if row not in declared:
                declared.add(row)
                array, place = row
                lines.append(f"{types[array]} *const {names[row]} = {array} + {place};")
            line = line.replace(access.text, f"{names[row]}[{offset}]")
        lines.append(line)
    return Nest(nest.loops, tuple(lines))


def _row_of(access: Access) -> tuple[tuple[str, str] | None, int]:
    """Return the array and the start of a row, in C, and the number of an entry in it."""
    match = _LOOKED_UP.match(access.index)
    if match is None:
        return None, 0
    return (access.array, match[1]), int(match[2] or 0)
