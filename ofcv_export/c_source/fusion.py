"""Loops over the same entries become one, and what only it needs stays in registers."""

from __future__ import annotations

from collections.abc import Sequence

from ofcv_export.c_source.nests import Access, Nest, Place, accesses

# Functions that no compiler vectorises.
_BRANCHING = ("ofcv_sin", "ofcv_cos")


def fused(nests: Sequence[Nest]) -> list[Nest]:
    """Return nests that do the same, with each put into the first of the same loops that it can be.

    A nest may move before others that touch nothing of what it writes and write nothing of what it
    touches. It may join another if no iteration of it meets what another iteration of the other
    touches, see `_may_join`.
    """
    done: list[Nest] = []
    for nest in nests:
        place = _place(done, nest)
        if place is None:
            done.append(nest)
        else:
            joined = nest.over(done[place].loops)
            done[place] = Nest(joined.loops, (*done[place].lines, *joined.lines))
    return done


def _place(done: Sequence[Nest], nest: Nest) -> int | None:
    """Return the number of the nest that another one joins, the last that it can."""
    if not nest.loops:
        return None
    for number in reversed(range(len(done))):
        other = done[number]
        if other.sizes == nest.sizes and _may_join(other, nest.over(other.loops)):
            return number
        if any(_share(other, nest)):
            return None
    return None


def _share(a: Nest, b: Nest) -> list[tuple[Access, Access]]:
    """Return pairs of accesses to the same array, at least one of each writing."""
    others: dict[str, list[Access]] = {}
    for access in b.accesses():
        others.setdefault(access.array, []).append(access)
    return [
        (one, other)
        for one in a.accesses()
        for other in others.get(one.array, ())
        if one.is_write or other.is_write
    ]


def _may_join(a: Nest, b: Nest) -> bool:
    """Return whether two nests with the same variables give the same as one."""
    if _is_scalar(a) != _is_scalar(b):
        return False
    return not any(_meets_elsewhere(a, one, other) for one, other in set(_share(a, b)))


def _is_scalar(nest: Nest) -> bool:
    """Return whether a nest is no loop of vector instructions: one of tables or of branches."""
    calls = any(function in line for line in nest.lines for function in _BRANCHING)
    return calls or any("[" in access.index for access in nest.accesses())


def _meets_elsewhere(nest: Nest, one: Access, other: Access) -> bool:
    """Return whether an iteration may touch by `other` what another one touches by `one`.

    Unless both add to it, which may be done in any order that is written down.
    """
    if one.is_sum and other.is_sum:
        return False
    here, there = one.place(), other.place()
    if here is None or there is None or here.factors != there.factors:
        return True
    factors, distance = dict(here.factors), there.offset - here.offset
    # By decreasing factors, every entry is further away than all that smaller ones reach.
    reach = 0
    for factor, size in sorted((abs(factors.get(i, 0)), size) for i, size in nest.loops):
        if factor <= reach:
            return True
        reach += factor * (int(size) - 1)
    return 0 < abs(distance) <= reach


def in_registers(nests: Sequence[Nest], types: dict[str, str]) -> tuple[list[Nest], set[str]]:
    """Return nests with scalars instead of arrays that a single iteration writes and reads.

    Parameters
    ----------
    nests : sequence of Nest
        All of a function.
    types : dict of str
        Types of the arrays that belong to the function.

    Returns
    -------
    list of Nest, set of str
        And the arrays that are no more.
    """
    users: dict[str, set[int]] = {}
    for number, nest in enumerate(nests):
        for access in nest.accesses():
            users.setdefault(access.array, set()).add(number)
    gone: set[str] = set()
    result = []
    for number, nest in enumerate(nests):
        own = {array for array in types if users.get(array) == {number}}
        local = {array for array in own if _is_local(nest, array)} if nest.loops else set()
        result.append(_with_scalars(nest, {array: types[array] for array in local}))
        gone |= local
    return result, gone | (set(types) - set(users))


def _is_local(nest: Nest, array: str) -> bool:
    """Return whether every iteration reads nothing of an array but what it wrote before."""
    written: set[Place] = set()
    factors = set()
    for access in nest.accesses():
        if access.array != array:
            continue
        place = access.place()
        if place is None or not (access.is_write or place in written):
            return False
        factors.add(place.factors)
        written.add(place)
    return len(factors) == 1


def _with_scalars(nest: Nest, types: dict[str, str]) -> Nest:
    """Return a nest with scalars instead of arrays."""
    names: dict[tuple[str, Place | None], str] = {}
    lines = []
    for line in nest.lines:
        for access in accesses(line):
            if access.array not in types:
                continue
            key = access.array, access.place()
            is_new = key not in names
            name = names.setdefault(key, f"{access.array}_{len(names)}")
            line = line.replace(access.text, name)
            if is_new:
                line = f"{types[access.array]} {line}"
        lines.append(line)
    return Nest(nest.loops, tuple(lines))
