"""Loops put together do what they did one after the other, as Python reads them."""

from itertools import product
from random import Random

import pytest

from ofcv_export.c_source.fusion import fused, in_registers
from ofcv_export.c_source.nests import Nest, accesses

OWN = {"b1": "float", "b2": "float", "b3": "float"}
ARRAYS = (*OWN, "x", "y")


def run(nests):
    """Return the arrays after all nests, with a number in every entry before."""
    scope = {name: [(7 * k + 3 * n) % 11 for k in range(40)] for n, name in enumerate(ARRAYS)}
    for nest in nests:
        for places in product(*(range(size) for _, size in nest.loops)):
            scope |= dict(zip((name for name, _ in nest.loops), places, strict=True))
            for line in nest.lines:
                exec(line.removeprefix("float ").removesuffix(";"), scope)
    return scope


def random_nest(random, number):
    sizes = random.choice([(4,), (4,), (2, 3)])
    loops = tuple((f"i{number}_{k}", size) for k, size in enumerate(sizes))
    strides = [1] if len(sizes) == 1 else [3, 1]

    def entry():
        terms = [
            name if stride == 1 else f"{stride} * {name}"
            for (name, _), stride in zip(loops, strides, strict=True)
        ]
        terms += [str(offset)] if (offset := random.choice([0, 0, 1, 8, 16])) else []
        return f"{random.choice(ARRAYS)}[{' + '.join(terms)}]"

    lines = [
        f"{entry()} {random.choice(['=', '=', '+='])} ({entry()} + {entry()}) % 97;"
        for _ in range(random.randint(1, 3))
    ]
    return Nest(loops, tuple(lines))


@pytest.mark.parametrize("seed", range(100))
def test_any_nests_leave_the_same_numbers(seed):
    random = Random(seed)
    writes = [Nest((("i", 40),), tuple(f"{name}[i] = i;" for name in OWN))]
    nests = writes + [random_nest(random, number) for number in range(6)]
    expected = run(nests)
    assert {name: run(fused(nests))[name] for name in ARRAYS} == {
        name: expected[name] for name in ARRAYS
    }
    kept, gone = in_registers(fused(nests), OWN)
    found = run(kept)
    for name in set(ARRAYS) - gone:
        assert found[name] == expected[name]
    assert all(access.array not in gone for nest in kept for access in nest.accesses())


LOOP = (("i", 8),)
JOINS = {
    "entry by entry": (["b1[i] = x[i];"], ["y[j] = b1[j];"], True),
    "another array's neighbours": (["b1[i] = x[i + 1];"], ["y[j] = b1[j] + x[j];"], True),
    "neighbours of what is written": (["b1[i] = x[i];"], ["y[j] = b1[j + 1];"], False),
    "another part": (["b1[i] = x[i];", "b1[i + 8] = x[i];"], ["y[j] = b1[j + 8];"], True),
    "what was read is written": (["b1[i] = x[i + 1];"], ["x[j] = b1[j];"], False),
    "one entry for all": (["b1[0] = x[i];"], ["y[j] = b1[0];"], False),
    "a table's places": (["b1[t[i]] = x[i];"], ["y[j] = b1[t[j]];"], False),
    "sums at a table's places": (["b1[t[i]] += x[i];"], ["b1[t[j]] += y[t[j]];"], True),
    "functions with branches": (["b1[i] = ofcv_sin(x[i]);"], ["y[j] = b1[j];"], False),
}


@pytest.mark.parametrize("name", list(JOINS))
def test_loops_join_where_no_iteration_meets_another(name):
    first, second, do_join = JOINS[name]
    nests = fused([Nest(LOOP, tuple(first)), Nest((("j", 8),), tuple(second))])
    assert len(nests) == (1 if do_join else 2)


def test_an_array_of_one_loop_alone_becomes_scalars():
    lines = ("b1[i] = x[i];", "b1[i + 8] = b1[i] * x[i];", "y[i] = b1[i + 8];")
    (nest,), gone = in_registers([Nest(LOOP, lines)], {"b1": "double"})
    assert gone == {"b1"}
    assert nest.lines == ("double b1_0 = x[i];", "double b1_1 = b1_0 * x[i];", "y[i] = b1_1;")


@pytest.mark.parametrize("line", ["b1[i] += x[i];", "y[i] = b1[i];", "b1[t[i]] = x[i];"])
def test_an_array_that_keeps_numbers_between_iterations_stays(line):
    nests = [Nest(LOOP, (line, "b1[i] = y[i];"))]
    assert in_registers(nests, {"b1": "float"}) == (nests, set())


def test_accesses_of_a_line_are_reads_before_the_write():
    found = [(a.array, a.index, a.is_write) for a in accesses("b1[2 * b2[i] + 1] += x[i - 3];")]
    assert found == [
        ("b1", "2 * b2[i] + 1", False), ("b2", "i", False), ("x", "i - 3", False),
        ("b1", "2 * b2[i] + 1", True),
    ]  # fmt: skip
