"""Lines of C: arrays, tables and loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product

from torch import Tensor

from ofcv_export.c_source.extent import Extent, is_free
from ofcv_export.c_source.fusion import fused, in_registers
from ofcv_export.c_source.index import Index, linear
from ofcv_export.c_source.nests import Nest, loop_head, whole
from ofcv_export.c_source.rows import by_rows
from ofcv_export.c_source.slots import in_slots
from ofcv_export.c_source.value import Value, array, by_component, constant
from ofcv_export.graph.editing import row_major

# Partial sums that are under way at a time, as many in every compiler's code.
LANES = 16
# Loops of so few iterations are written out, up to so many copies of a line.
_SHORT, _COPIES = 4, 16
# With so many vectors, or rows of a few columns, loops over them are vector instructions.
_VECTORS, _MANY = 8, 32
_CONST = """#if defined(__GNUC__) && !defined(__cplusplus)
extern __typeof__({0}) {0} __attribute__((__const__));
#elif defined(__GLIBC__)
extern "C" {1} {0}({1}) noexcept __attribute__((__const__));
#endif"""


class Writer:
    """Collects the body of a function and the tables beside it.

    Parameters
    ----------
    real : str
        ``float`` or ``double``.
    prefix : str
        Beginning of the names of tables.

    Attributes
    ----------
    n_constants : int
        Numbers in the tables.
    needed : list of str
        Files of this package, of C, that the function calls.
    arguments : dict of str to str
        Types of the entries of the function's arguments, which are pointers.
    """

    def __init__(self, real: str, prefix: str = "") -> None:
        self.real = real
        self.prefix = prefix
        self.n_constants = 0
        self.needed: list[str] = []
        self.arguments: dict[str, str] = {}
        self._statements: list[Nest | str] = []
        self._types: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self.tables: list[str] = []
        self._count = 0
        self._known: dict[tuple[str, tuple[int, ...], bytes], Value] = {}

    def name(self, prefix: str) -> str:
        """Return a new name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def line(self, text: str) -> None:
        """Add a line."""
        self._statements.append(text)

    def body(self) -> tuple[dict[str, tuple[str, int]], list[str]]:
        """Return the function's arrays, and its lines with loops over the same entries in one.

        Of an array its type and the number of its entries.
        """
        nests, gone = in_registers(fused(whole(self._statements)), self._types)
        kept = {name: kind for name, kind in self._types.items() if name not in gone}
        nests, slots = in_slots(nests, kept, self._sizes)
        types = {**self.arguments, **kept}
        return slots, [line for nest in nests for line in by_rows(nest, types).text()]

    def number(self, value: float) -> str:
        """Return a number in C, exact."""
        if value != value or value in (float("inf"), float("-inf")):
            text = "NAN" if value != value else "INFINITY" if value > 0 else "-INFINITY"
            return f"({self.real})({text})"
        if value == int(value) and abs(value) < 1e6:
            text = f"{int(value)}.0" if value or str(value)[0] != "-" else "-0.0"
        else:
            text = float(value).hex()
        text += "f" if self.real == "float" else ""
        return f"({text})" if text.startswith("-") else text

    def need(self, file: str) -> None:
        """Note that the function calls what is in a file of C of this package."""
        if file not in self.needed:
            self.needed.append(file)

    def own(self, name: str) -> str:
        """Return the name of an elementary function of the project's own."""
        return f"ofcv_{name}" if self.real == "float" else f"ofcv_{name}_d"

    def declare(self, shape: Sequence[int], kind: str) -> Value:
        """Return a new array."""
        name = self.name("b")
        value = array(name, shape, kind)
        self._types[name], self._sizes[name] = self.type_of(kind), max(value.size, 1)
        return value

    def owns(self, value: Value) -> bool:
        """Return whether a value is all of an array that was declared here."""
        return value.array in self._types

    def type_of(self, kind: str) -> str:
        """Return the type of an entry."""
        return self.real if kind == "real" else kind

    def known(self, tensor: Tensor) -> Value:
        """Return a constant, whose table is written when an entry is first asked for."""

        def at(indices: Sequence[Index]) -> str:
            if any(index.terms for index in indices):
                return self.table(tensor).at(indices)
            return self._text(tensor[tuple(index.offset for index in indices)].item())

        return Value(tuple(tensor.shape), _kind(tensor), at, 0, None, tensor)

    def _text(self, entry: float) -> str:
        """Return an entry of a constant in C."""
        return self.number(entry) if isinstance(entry, float) else str(int(entry))

    def table(self, tensor: Tensor) -> Value:
        """Return a constant array, one for equal contents."""
        tensor, kind = tensor.detach().cpu().contiguous(), _kind(tensor)
        key = _key(tensor)
        if key not in self._known:
            name, shape = self.name(f"{self.prefix}_t"), tensor.shape
            self.n_constants += tensor.numel()
            n_last = _n_components(shape) or _n_columns(shape)
            entries = tensor.reshape(-1, math.prod(shape[len(shape) - n_last :])).t().flatten()
            text = [self._text(e) for e in entries.tolist()] or ["0"]
            self.tables.append(
                f"static const {self.type_of(kind)} {name}[{len(text)}] = {{{', '.join(text)}}};"
            )
            self._known[key] = by_component(name, shape, n_last, kind)
        return self._known[key]

    def has_table(self, tensor: Tensor) -> bool:
        """Return whether a constant array with these contents is there."""
        return _key(tensor) in self._known

    @contextmanager
    def loop(self, size: int) -> Iterator[Index]:
        """Write a loop around what is written inside; give its variable."""
        if size == 1:
            yield Index()
            return
        variable = self.name("i")
        self.line(loop_head(variable, size))
        yield Index.of(variable)
        self.line("}")

    def depends_on_arguments_alone(self, function: str) -> None:
        """Tell GCC that a function of C's library sets no errno, else it is not vectorised.

        In C++ its name may be that of several functions, of which only glibc's type is known.
        """
        text = _CONST.format(function, self.real)
        if text not in self.tables:
            self.tables.append(text)

    def loops(self, shape: Sequence[int], body: Callable[[list[Index]], None]) -> None:
        """Write nested loops around what `body` writes for their variables.

        Short ones, as over x, y and z, are written out inside the others.
        """
        short = _short(shape)
        loops = [
            (self.name("i"), size)
            for size, is_short in zip(shape, short, strict=True)
            if not is_short
        ]
        outer, self._statements = self._statements, []
        for places in product(
            *(range(n) for n, is_short in zip(shape, short, strict=True) if is_short)
        ):
            numbers, variables = iter(places), iter(loops)
            body([
                Index({}, next(numbers)) if is_short else Index.of(next(variables)[0])
                for is_short in short
            ])  # fmt: skip
        inner, self._statements = self._statements, outer
        self._statements.extend(_around(loops, inner) if loops else inner)

    def store(
        self, target: Value, value: Value, offset: int = 0, strides: Sequence[int] = ()
    ) -> None:
        """Write every entry of a value to an array, at its own place or at other strides."""
        steps = list(strides) or row_major(value.shape)

        def body(indices: list[Index]) -> None:
            self.line(f"{target.array}[{linear(indices, steps, offset)}] = {value.at(indices)};")

        self.loops(value.shape, body)

    def put(self, target: Value, value: Value) -> None:
        """Write every entry of a value to the same place of another."""
        self.loops(value.shape, lambda i: self.line(f"{target.at(i)} = {value.at(i)};"))

    def in_memory(self, value: Value) -> Value:
        """Return a value as an array of its own."""
        if value.array is not None:
            return value
        target = self.declare(value.shape, value.kind)
        self.store(target, value)
        return target

    def is_written_out(self, length: int, of: int) -> bool:
        """Return whether sums are written as one expression, one of so many of this length."""
        if is_free(length):
            return False
        return length <= _SHORT or (length <= _COPIES and of >= _MANY)

    def sum(
        self, length: int, term: Callable[[Index], str], total: str, of: int = 1, start: str = ""
    ) -> None:
        """Write the sum of terms to a place, in lanes whose order no compiler can change.

        Parameters
        ----------
        length : int
            Number of terms.
        term : callable
            A term by its number.
        total : str
            The place.
        of : int
            Number of such sums; many short ones are written out, for vector instructions.
        start : str
            What the terms are added to.
        """
        first = f"{start} + " if start else ""
        if self.is_written_out(length, of):
            terms = [term(Index({}, k)) for k in range(length)]
            self.line(f"{total} = {first}{tree(terms)};")
            return
        self.line("{")
        if not is_free(length) and length < 2 * LANES:
            self.line(f"{self.real} s = {self.number(0)};")
            self.loops([length], lambda i: self.line(f"s += {term(i[0])};"))
            self.line(f"{total} = {first}s;\n}}")
            return
        n_blocks, rest = divided(length, LANES)
        done = Index.of(f"({n_blocks!s} * {LANES})" if is_free(n_blocks) else n_blocks * LANES)
        self.line(f"{self.real} s[{LANES}] = {{0}};")
        with self.loop(n_blocks) as block, self.loop(LANES) as c:
            self.line(f"s[{c}] += {term(block * LANES + c)};")
        if rest:
            with self.loop(rest) as c:
                self.line(f"s[{c}] += {term(c + done)};")
        half = LANES // 2
        while half:
            with self.loop(half) as c:
                self.line(f"s[{c}] += s[{c + half}];")
            half //= 2
        self.line(f"{total} = {first}s[0];\n}}")

    def once(self, value: Value) -> Value:
        """Return a value of which an expression may take an entry more than once."""
        return self.kept(value) if value.cost else value

    def kept(self, value: Value) -> Value:
        """Return a value whose entries are in memory, in the order that suits loops."""
        if value.array is not None and not value.cost:
            return value
        target = self.declare_kept(value.shape, value.kind)
        self.put(target, value)
        return target

    def declare_kept(self, shape: Sequence[int], kind: str) -> Value:
        """Return a new array in the order that suits loops."""
        name = self.declare(shape, kind).array
        assert name is not None
        return by_component(name, shape, _n_components(shape), kind)

    def filled_up(self, x: Value, n_columns: int) -> Value:
        """Return an array (n, k) with columns of zeros added."""
        n, k = x.shape
        if k == n_columns:
            return x
        if n == 1 and x.array in self._sizes:
            self._sizes[x.array] = max(self._sizes[x.array], n_columns)
            wide = array(x.array, (1, n_columns), x.kind)
        else:
            wide = self.declare((n, n_columns), x.kind)
            self.store(wide, x, strides=(n_columns, 1))
        self.store(wide, constant(self.number(0), (n, n_columns - k), "real"), k, (n_columns, 1))
        return wide


def divided(size: int, parts: int) -> tuple[int, int]:
    """Return how often a number goes into a size, and the rest."""
    if not isinstance(size, Extent):
        return divmod(size, parts)
    whole_parts = Extent(int(size) // parts, f"({size!s}) / {parts}")
    return whole_parts, Extent(parts - 1, f"({size!s}) % {parts}")


def _n_components(shape: Sequence[int]) -> int:
    """Return how many of the last axes are components of vectors or tensors; 0 for few vectors."""
    short = _short(shape)
    n_last = next((n for n, is_short in enumerate(reversed(short)) if not is_short), len(short))
    n_components = math.prod(shape[len(shape) - n_last :])
    return n_last if 1 < n_components <= math.prod(shape) // _VECTORS else 0


def _n_columns(shape: Sequence[int]) -> int:
    """Return 1 for many rows of a few columns, else 0."""
    are_few = len(shape) > 1 and 1 < shape[-1] <= _COPIES
    return int(are_few and math.prod(shape[:-1]) >= _MANY)


def _short(shape: Sequence[int]) -> list[bool]:
    """Return which loops are written out: the innermost of a few iterations."""
    short, copies = [], 1
    for size in reversed(shape):
        short.append(not is_free(size) and size <= _SHORT and copies * size <= _COPIES)
        copies *= size if short[-1] else 1
    return short[::-1]


def _around(loops: list[tuple[str, int]], statements: list[Nest | str]) -> list[Nest | str]:
    """Return loops around statements, as one nest where these are lines or a nest."""
    inner = whole(statements)
    if not inner:
        return []
    lines = tuple(line for nest in inner for line in nest.lines)
    is_plain = not any("{" in line for line in lines)
    if is_plain and (len(inner) == 1 or not any(nest.loops for nest in inner)):
        return [Nest((*loops, *inner[0].loops), lines)]
    return list(Nest(tuple(loops), tuple(line for nest in inner for line in nest.text())).text())


def tree(terms: Sequence[str]) -> str:
    """Return the sum of terms, halves first, so that few of them wait for others."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({tree(terms[:half])} + {tree(terms[half:])})"


def _key(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """Return what tells a table from others."""
    return _kind(tensor), tuple(tensor.shape), tensor.detach().cpu().contiguous().numpy().tobytes()


def _kind(tensor: Tensor) -> str:
    """Return the kind of a constant's entries."""
    return "real" if tensor.is_floating_point() else "int32_t"
