"""Places in memory as sums of loop variables times constants, in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ofcv_export.c_source.extent import Extent


@dataclass(frozen=True)
class Index:
    """A sum of C expressions times whole numbers, and a number.

    Attributes
    ----------
    terms : mapping
        Factors by expression: a loop variable, or an entry of a table.
    offset : int
        The number.
    """

    terms: dict[str, int] = field(default_factory=dict)
    offset: int = 0

    @classmethod
    def of(cls, expression: str | int) -> Index:
        """Return the index of one expression or number."""
        if isinstance(expression, Extent):
            return cls({expression.text: 1})
        return cls({}, expression) if isinstance(expression, int) else cls({expression: 1})

    @classmethod
    def looked_up(cls, entry: str) -> Index:
        """Return the index that an entry of a table holds, as wide as addresses."""
        if entry.isdigit():
            return cls.of(int(entry))
        return cls.of(f"(int64_t){entry}")

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.offset + other)
        terms = dict(self.terms)
        for name, factor in other.terms.items():
            terms[name] = terms.get(name, 0) + factor
        kept = {name: factor for name, factor in terms.items() if factor}
        return Index(kept, self.offset + other.offset)

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index()
        return Index({name: f * factor for name, f in self.terms.items()}, self.offset * factor)

    def times(self, expression: str) -> Index:
        """Return the product with an expression."""
        factors = {f"{name} * ({expression})": f for name, f in self.terms.items()}
        return Index(factors | ({expression: self.offset} if self.offset else {}))

    def __str__(self) -> str:
        parts = [name if f == 1 else f"{f} * {name}" for name, f in self.terms.items()]
        if self.offset or not parts:
            parts.append(str(self.offset))
        return " + ".join(parts).replace("+ -", "- ")


def linear(indices: Sequence[Index], strides: Sequence[int], offset: int = 0) -> Index:
    """Return the place of an entry in memory."""
    place = Index({}, offset)
    for index, stride in zip(indices, strides, strict=True):
        place = place + index * stride
    return place
