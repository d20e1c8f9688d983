"""What a file of C source shows to the outside: evaluate, error, metadata, around its functions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import (
    MAY_BE_NONE,
    TOLD_BY_LARGEST,
    TensorSpec,
    free_sizes,
    symbols,
)

if TYPE_CHECKING:
    from ofcv_export.c_source.function import Function

_TYPES = {"float32": "float", "float64": "double", "int64": "int64_t"}
_PER_LINE = 24
# What no argument can be called, in C or in C++.
_KEYWORDS = frozenset(
    """alignas alignof and asm auto bitand bitor bool break case catch char class compl const
    constexpr continue decltype default delete do double else enum explicit export extern false
    float for friend goto if inline int long mutable namespace new noexcept not nullptr operator or
    private protected public register restrict return short signed sizeof static struct switch
    template this throw true try typedef typeid typename union unsigned using virtual void volatile
    while xor NAN INFINITY""".split()  # noqa: SIM905
)

_SAME_BITS = (
    "   The results are the same bits with any compiler, options and processor, as long as",
    "   -ffast-math is off.",
)
_FAST = (
    "   Made with fast=True: compilers may fuse products with sums (FMA), so that the last bits of",
    "   the results depend on the compiler, its options and the processor. Leave -ffast-math off.",
)
_NO_MEMORY = "memory: expected enough for the largest sizes, got less"
# Variables of the function that evaluates.
_LOCAL = frozenset(["i", "wrong", "memory"])


def symbol_of(path: Path) -> str:
    """Return the name in C that a file's functions begin with: its stem, where that is one."""
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return name if _is_name(name) else f"model_{name}"


def require_symbol(name: str, symbol: object) -> None:
    """Raise an error unless names in C and C++ can begin with `symbol`.

    Raises
    ------
    ValueError
        If it is no name, or a keyword.
    TypeError
        If it is no text.
    """
    if not isinstance(symbol, str):
        raise TypeError(f"{name}: expected a text, got {symbol!r}")
    if not _is_name(symbol) or symbol.startswith("_"):
        raise ValueError(
            f"{name}: expected letters, digits and underscores, a letter first, and no keyword of "
            f"C or C++, got {symbol!r}"
        )


def _is_name(text: str) -> bool:
    """Return whether a text is a name in C and C++."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and text not in _KEYWORDS


def source_text(
    function: Function,
    frame: Sequence[TensorSpec],
    metadata: Metadata,
    symbol: str,
    version: str,
) -> str:
    """Return a whole translation unit, without its digest.

    Parameters
    ----------
    function : Function
        Named ``{symbol}_frame``.
    frame : sequence of TensorSpec
        Inputs and outputs of that function, which is called once for each frame of the file's, for
        so many rows at a time where their number is an argument, or with the free sizes that its
        own inputs have.
    metadata : Metadata
        Of the file.
    symbol : str
        Beginning of the names.
    version : str
        Of this package.
    """
    inputs, outputs = metadata.inputs, metadata.outputs
    return "\n".join([
        _comment(metadata, symbol, version, function),
        function.preamble,
        *([function.memory] if function.memory else []),
        "",
        function.body,
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        *_prototypes(inputs, outputs, symbol),
        *_evaluate(metadata, frame, symbol, bool(function.memory)),
        *_error(metadata, symbol),
        *_metadata(metadata, symbol),
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
    ])  # fmt: skip


def library_text(metadata: Metadata, symbol: str) -> str:
    """Return what a shared library holds beside `source_text`'s functions, C99 as well.

    ``{symbol}_call`` takes arrays of free sizes and of pointers, for programs that know no argument
    before they read the metadata.
    """
    inputs, outputs = metadata.inputs, metadata.outputs
    places = [f"sizes[{k}]" for k in range(len(free_sizes(inputs)))]
    places += [f"inputs[{k}]" for k in range(len(inputs))]
    places += [f"outputs[{k}]" for k in range(len(outputs))]
    return "\n".join([
        "#include <stdint.h>",
        f"{signature(inputs, outputs, symbol)};",
        f"int {symbol}_call(const int64_t *sizes, const void *const *inputs, "
        "void *const *outputs) {",
        "  (void)sizes;",
        f"  return {symbol}_evaluate({', '.join(places)});",
        "}",
        *_metadata(metadata, symbol),
        "",
    ])  # fmt: skip


def argument(spec: TensorSpec) -> str:
    """Return what an input or output is called in C."""
    return f"{spec.name}_" if spec.name in _KEYWORDS | _LOCAL else spec.name


def errors(metadata: Metadata) -> list[str]:
    """Return what the codes from 1 on say."""
    sizes = free_sizes(metadata.inputs)
    reasons = [
        *map(_wrong_values, metadata.inputs),
        *(_wrong_size(size, metadata) for size in sizes),
    ]
    if any(size in metadata.options for size in sizes):
        reasons.append(_NO_MEMORY)
    return reasons


def _wrong_values(spec: TensorSpec) -> str:
    if not spec.is_integer:
        return f"{spec.name}: expected finite numbers, got NaN or infinity"
    if spec.choices is not None:
        return f"{spec.name}: expected {', '.join(map(str, spec.choices))}, got others"
    return f"{spec.name}: expected integers in [{spec.low}, {_end(spec)}), got others"


def _end(spec: TensorSpec) -> int | str | None:
    """Return where the range of an integer input ends."""
    return TOLD_BY_LARGEST.get(spec.name, spec.high)


def _wrong_size(size: str, metadata: Metadata) -> str:
    least, most = size_limits(size, metadata)
    if most is None:
        return f"{size}: expected {least} or more, got less"
    return f"{size}: expected {least} to {most}, got others"


def size_limits(size: str, metadata: Metadata) -> tuple[int, int | str | None]:
    """Return the least value of a free size, and the largest, also that of one that is told."""
    told = {TOLD_BY_LARGEST.get(spec.name): spec.high for spec in metadata.inputs}
    return int(size != MAY_BE_NONE), metadata.options.get(size, told.get(size))


def signature(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], symbol: str) -> str:
    """Return the declaration of the function that evaluates."""
    arguments = [f"int64_t {size}" for size in free_sizes(inputs)]
    arguments += [f"const {_TYPES[spec.dtype]} *{argument(spec)}" for spec in inputs]
    arguments += [f"{_TYPES[spec.dtype]} *{argument(spec)}" for spec in outputs]
    return f"int {symbol}_evaluate({', '.join(arguments)})"


def _prototypes(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], symbol: str
) -> list[str]:
    return [
        f"{signature(inputs, outputs, symbol)};",
        f"const char *{symbol}_error(int code);",
        f"const char *{symbol}_metadata(void);",
        "",
    ]


def _evaluate(
    metadata: Metadata, frame: Sequence[TensorSpec], symbol: str, takes_memory: bool
) -> list[str]:
    """Return the function that checks its inputs and calls the one for a frame."""
    inputs, outputs = metadata.inputs, metadata.outputs
    lines = [f"{signature(inputs, outputs, symbol)} {{"]
    for code, size in enumerate(free_sizes(inputs), len(inputs) + 1):
        least, most = size_limits(size, metadata)
        above = "" if most is None else f" || {size} > {most}"
        lines.append(f"  if ({size} < {least}{above}) return {code};")
    for code, spec in enumerate(inputs, 1):
        name = argument(spec)
        wrong = f"!({name}[i] - {name}[i] == 0)"
        if spec.choices is not None:
            wrong = "!(" + " || ".join(f"{name}[i] == {one}" for one in spec.choices) + ")"
        elif spec.is_integer:
            wrong = f"({name}[i] < {spec.low} || {name}[i] >= {_end(spec)})"
        # All entries, in place of all up to the first wrong one, are looked at by vectors.
        lines.append(
            f"  {{ int wrong = 0; for (int64_t i = 0; i < {_count(spec)}; ++i) wrong |= {wrong}; "
            f"if (wrong) return {code}; }}"
        )
    if symbols(frame):
        no_memory = errors(metadata).index(_NO_MEMORY) + 1 if takes_memory else None
        return [*lines, *_with_sizes(inputs, outputs, symbol, no_memory), "}", ""]
    calls = _by_rows if symbols(inputs) else _by_frames
    return [*lines, *calls(inputs, outputs, frame, symbol), "  return 0;", "}", ""]


def _with_sizes(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    symbol: str,
    no_memory: int | None,
) -> list[str]:
    """Return the call of a function that takes the free sizes, perhaps with memory.

    `no_memory` is the code that says that there is none.
    """
    places = [f"(int){size}" for size in free_sizes(inputs)]
    places += [argument(spec) for spec in (*inputs, *outputs)]
    if no_memory is None:
        return [f"  return {symbol}_frame({', '.join(places)});"]
    kind = f"struct {symbol}_frame_memory"
    return [
        f"  {kind} *memory = ({kind} *)malloc(sizeof({kind}));",
        f"  if (!memory) return {no_memory};",
        f"  {symbol}_frame({', '.join([*places, 'memory'])});",
        "  free(memory);",
        "  return 0;",
    ]


def _by_frames(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    frame: Sequence[TensorSpec],
    symbol: str,
) -> list[str]:
    """Return calls of the function for a frame, one for each."""
    places, n_frames = [], 1
    for spec, one in zip([*inputs, *outputs], frame, strict=True):
        if spec.shape == one.shape:
            places.append(argument(spec))
        else:
            places.append(f"{argument(spec)} + {_size(one)} * i")
            n_frames = _size(spec) // _size(one)
    call = f"{symbol}_frame({', '.join(places)});"
    return [f"  for (int i = 0; i < {n_frames}; ++i) {call}" if n_frames > 1 else f"  {call}"]


def _by_rows(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    frame: Sequence[TensorSpec],
    symbol: str,
) -> list[str]:
    """Return calls of the function for some rows; the last are filled up with copies of one."""
    (size,) = symbols(inputs)
    rows = int(frame[0].shape[0])
    widths = [_size(one) // rows for one in frame]
    specs = [*inputs, *outputs]
    whole = [f"{argument(s)} + {width} * i" for s, width in zip(specs, widths, strict=True)]
    parts = [f"{argument(spec)}_part" for spec in specs]
    memory = [
        f"    {_TYPES[spec.dtype]} {part}[{width * rows}];"
        for spec, part, width in zip(specs, parts, widths, strict=True)
    ]
    taken = [
        f"      for (int j = 0; j < {width}; ++j) "
        f"{part}[{width} * k + j] = {argument(spec)}[{width} * (i + k < {size} ? i + k : i) + j];"
        for spec, part, width in zip(inputs, parts, widths, strict=False)
    ]
    given = [
        f"      for (int j = 0; j < {width}; ++j) "
        f"{argument(spec)}[{width} * (i + k) + j] = {part}[{width} * k + j];"
        for spec, part, width in list(zip(specs, parts, widths, strict=True))[len(inputs) :]
    ]
    return [
        "  int64_t i = 0;",
        f"  for (; i + {rows} <= {size}; i += {rows}) {symbol}_frame({', '.join(whole)});",
        f"  if (i < {size}) {{",
        *memory,
        f"    for (int k = 0; k < {rows}; ++k) {{",
        *taken,
        "    }",
        f"    {symbol}_frame({', '.join(parts)});",
        f"    for (int k = 0; i + k < {size}; ++k) {{",
        *given,
        "    }",
        "  }",
    ]


def _error(metadata: Metadata, symbol: str) -> list[str]:
    reasons = errors(metadata)
    cases = [f'    case {code}: return "{text}";' for code, text in enumerate(reasons, 1)]
    return [
        f"const char *{symbol}_error(int code) {{",
        "  switch (code) {",
        '    case 0: return "";',
        *cases,
        f'    default: return "code: expected 0 to {len(reasons)}, got another one";',
        "  }",
        "}",
        "",
    ]


def _metadata(metadata: Metadata, symbol: str) -> list[str]:
    """Return the JSON as an array, since C99 allows no string so long, and a function to it."""
    numbers = [*metadata.to_json().encode(), 0]
    # Signed, as char may be.
    text = [str(n - 256 if n > 127 else n) for n in numbers]
    rows = [", ".join(text[k : k + _PER_LINE]) for k in range(0, len(text), _PER_LINE)]
    return [
        f"static const signed char {symbol}_json[] = {{",
        ",\n".join(rows),
        "};",
        "",
        f"const char *{symbol}_metadata(void) {{ return (const char *){symbol}_json; }}",
    ]


def code_in(text: str) -> str:
    """Return a file's text without its metadata, which change when nothing that runs does."""
    return text[: text.index("static const signed char ")]


def metadata_in(text: str) -> bytes | None:
    """Return the JSON in a file's text, or None where there is none."""
    found = re.search(r"^static const signed char \w+_json\[\] = \{([^}]*)\};", text, re.MULTILINE)
    if found is None:
        return None
    return bytes(int(entry) % 256 for entry in found[1].split(","))[:-1]


def symbol_in(text: str) -> str:
    """Return the beginning of the names in a file of ours."""
    found = re.search(r"^static const signed char (\w+)_json\[\]", text, re.MULTILINE)
    assert found is not None
    return found[1]


def _size(spec: TensorSpec) -> int:
    return math.prod(int(size) for size in spec.shape)


def _count(spec: TensorSpec) -> str:
    """Return the number of a tensor's entries in C."""
    return " * ".join(map(str, spec.shape)) if symbols([spec]) else str(_size(spec))


def _comment(metadata: Metadata, symbol: str, version: str, function: Function) -> str:
    """Return what somebody who opens the file wants to know."""
    inputs, outputs = metadata.inputs, metadata.outputs
    rows = []
    for spec in (*inputs, *outputs):
        unit = metadata.output_units.get(spec.name)
        if spec.name in ("positions", "box"):
            unit = metadata.length_unit
        shape = " x ".join(map(str, spec.shape)) or "one number"
        rows.append(f"     {argument(spec):20} {shape}{f', {unit}' if unit else ''}")
    rows += [
        f"     {size} is {least} to {most}"
        for size in free_sizes(inputs)
        for least, most in [size_limits(size, metadata)]
        if most is not None
    ]
    kind = metadata.kind.replace("_", " ")
    allocated = f"{function.n_bytes} bytes a call" if function.memory else "nothing"
    lines = [
        f"{symbol}: {kind}, written by ofcv-export {version}.",
        "",
        f"     {signature(inputs, outputs, symbol)};",
        "",
        *rows,
        "",
        f"   It returns 0, or a code that {symbol}_error(code) explains; then no output is set.",
        f"   {symbol}_metadata() is JSON: units, atoms, measured errors. Re-entrant, and allocates",
        f"   {allocated}. C99, nothing but the standard library: cc -std=c99 -O3 -march=native -c.",
        *(_FAST if metadata.options.get("fast") else _SAME_BITS),
    ]
    text = "\n".join(lines)
    # No unit may end the comment.
    return "/* " + text.replace("*/", "* /") + " */"
