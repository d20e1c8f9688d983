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
    slots: dict[str, tuple[str, int]] = {}
    taken_until: dict[str, int] = {}
    moved: dict[str, str] = {}
    for array in first:
        kind, size = types[array], sizes[array]
        if size < _LEAST:
            slots[array] = kind, size
            continue
        free = [slot for slot, end in taken_until.items() if end < first[array]]
        alike = {slot: slots[slot][1] for slot in free if slots[slot][0] == kind}
        # The one whose size is nearest.
        slot = min(alike, key=lambda name: abs(alike[name] - size), default=array)
        slots[slot] = kind, max(size, alike.get(slot, 0))
        taken_until[slot] = last[array]
        if slot != array:
            moved[array] = slot
    return [Nest(n.loops, tuple(renamed(line, moved) for line in n.lines)) for n in nests], slots


def _lives(
    nests: Sequence[Nest], types: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of the first and the last nest that touch each array, by the first."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, nest in enumerate(nests):
        words = (word for line in nest.lines for word in _WORD.findall(line) if word in types)
        for word in dict.fromkeys(words):
            first.setdefault(word, number)
            last[word] = number
    return first, last
