"""Memory that one array after another takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ofcv_export.c_source.nests import Nest, renamed

# Smaller arrays keep their own memory: there is little to win.
_LEAST = 1024
_WORD = re.compile(r"\b[A-Za-z_]\w*")


def in_slots(
    nests: Sequence[Nest], types: Mapping[str, str], sizes: Mapping[str, int]
) -> tuple[list[Nest], dict[str, tuple[str, int]]]:
    """Return nests in which large arrays take the place of those that nothing reads any more.

    Parameters
    ----------
    nests : sequence of Nest
        All of a function, in order.
    types, sizes : mapping
        Types of entries and numbers of entries of the arrays that belong to it.

    Returns
    -------
    list of Nest, dict
        And the type and size of every array that is left.
    """
    first, last = _lives(nests, types)
    names: dict[str, str] = {}
    slots: dict[str, tuple[str, int]] = {}
    free_from: dict[str, int] = {}
    for array in sorted(first, key=lambda name: first[name]):
        size, kind = sizes[array], types[array]
        slot = None
        if size >= _LEAST:
            slot = _fitting(slots, free_from, first[array], kind, size)
        if slot is None:
            slot = array
        slots[slot] = kind, max(size, slots.get(slot, (kind, 0))[1])
        free_from[slot] = last[array] if size >= _LEAST else len(nests)
        names[array] = slot
    moved = {array: slot for array, slot in names.items() if array != slot}
    return [_with_names(nest, moved) for nest in nests], slots


def _lives(
    nests: Sequence[Nest], types: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of the first and the last nest that touch each array."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, nest in enumerate(nests):
        words = (word for line in nest.lines for word in _WORD.findall(line) if word in types)
        for word in dict.fromkeys(words):
            first.setdefault(word, number)
            last[word] = number
    return first, last


def _fitting(
    slots: Mapping[str, tuple[str, int]],
    free_from: Mapping[str, int],
    start: int,
    kind: str,
    size: int,
) -> str | None:
    """Return the free slot of a type whose size is nearest, None where there is none."""
    candidates = [
        name
        for name, (own, own_size) in slots.items()
        if own == kind and free_from[name] < start and own_size >= _LEAST
    ]
    return min(candidates, key=lambda name: abs(slots[name][1] - size), default=None)


def _with_names(nest: Nest, names: Mapping[str, str]) -> Nest:
    return Nest(nest.loops, tuple(renamed(line, names) for line in nest.lines)) if names else nest
