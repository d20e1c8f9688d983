"""A whole function in C, with what it calls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ofcv_export.c_source.library import functions_for
from ofcv_export.c_source.nests import renamed
from ofcv_export.c_source.writer import Writer

# Memory for arrays that any thread's stack has.
ON_STACK = 2**19
_BYTES = {"float": 4, "double": 8, "int": 4, "int32_t": 4, "int64_t": 8}
# GCC would not vectorise square roots and choices that may set errno or raise a flag. Where the
# options leave the processor open, code for AVX2 stands beside that for any: the same bits.
_HEAD = """#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma {clang}
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract={gcc}", "no-math-errno", "no-trapping-math")
#endif

#ifndef OFCV_CLONES
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__AVX2__) && defined(__has_attribute)
#if __has_attribute(target_clones)
{clones}
#endif
#endif
#endif
#ifndef OFCV_CLONES
#define OFCV_CLONES
#endif
"""
_CLONES = '#define OFCV_CLONES __attribute__((target_clones("default", "{}")))'
_SAME_BITS = _HEAD.format(clang="STDC FP_CONTRACT OFF", gcc="off", clones=_CLONES.format("avx2"))
# A processor by its name, as in arch=haswell, would be that one alone.
_FUSING_CLONES = f"""#if defined(__clang__) || __GNUC__ < 12
{_CLONES.format("fma")}
#else
{_CLONES.format("arch=x86-64-v3")}
#endif"""
_FAST = _HEAD.format(clang="clang fp contract(fast)", gcc="fast", clones=_FUSING_CLONES)


@dataclass(frozen=True)
class Function:
    """C99 source of a function for a graph.

    Attributes
    ----------
    preamble : str
        What stands before the function: includes, elementary functions, tables of constants.
    body : str
        The function, ``static int``.
    n_constants : int
        Numbers in its tables.
    n_bytes : int
        Memory that its arrays take, on the stack unless there is a `memory`.
    memory : str
        The structure, in C, of arrays that are too large for the stack and that the caller gives
        memory for as the last argument; none where that is empty.
    """

    preamble: str
    body: str
    n_constants: int
    n_bytes: int
    memory: str = ""


def written(
    name: str, sizes: Sequence[str], types: Mapping[str, str], writer: Writer, fast: bool
) -> Function:
    """Return the function that a writer has collected.

    Parameters
    ----------
    name : str
        Of the function.
    sizes : sequence of str
        Its free sizes, the first arguments. With any, large arrays are no longer on the stack.
    types : mapping of str to str
        Types of the entries of its other arguments, by name.
    writer : Writer
        Has the body and the tables.
    fast : bool
        Whether compilers may fuse products with sums.
    """
    arrays, lines = writer.body()
    n_bytes = sum(_BYTES[kind] * size for kind, size in arrays.values())
    declared = [f"{kind} {array}[{size}];" for array, (kind, size) in arrays.items()]
    arguments = [f"int {size}" for size in sizes]
    arguments += [f"{kind} *{argument}" for argument, kind in types.items()]
    memory = ""
    if sizes and n_bytes > ON_STACK:
        memory = "\n".join(["#include <stdlib.h>", f"struct {name}_memory {{", *declared, "};"])
        arguments.append(f"struct {name}_memory *memory")
        lines = [renamed(line, {array: f"memory->{array}" for array in arrays}) for line in lines]
        declared = []
    body = "\n".join([
        f"OFCV_CLONES static int {name}({', '.join(arguments)}) {{",
        *declared,
        *(_unused([*sizes, *types], lines) if sizes else []),
        *lines,
        "return 0;",
        "}",
    ])  # fmt: skip
    head = _FAST if fast else _SAME_BITS
    names = [f"functions_{writer.real}.c", *writer.needed]
    preamble = "\n".join([head, functions_for(body, names), *writer.tables])
    return Function(preamble, body, writer.n_constants, n_bytes, memory)


def _unused(arguments: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Return what tells a compiler that some arguments are not used."""
    used = set(re.findall(r"\w+", " ".join(lines)))
    return [f"(void){argument};" for argument in arguments if argument not in used]
