"""Sizes that a function is told when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn


class FreeSizeError(ValueError):
    """Something needs to know a size that is only known in a call."""


class Extent(int):
    """A size that a call tells; as a number, the most that it can be.

    Memory is laid out for the most, so that places in it are as with fixed sizes; only loops end
    earlier. It may be multiplied, for a size in memory, and is equal to itself alone.

    Attributes
    ----------
    text : str
        The size in C, a product of numbers and arguments of the function.
    """

    text: str

    def __new__(cls, most: int, text: str) -> Extent:
        """Return a size in C and the most that it can be."""
        size = super().__new__(cls, most)
        size.text = text
        return size

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extent) and self.text == other.text

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.text)

    def _unknown(self, *_: Any) -> NoReturn:
        raise FreeSizeError(self.text)

    __add__ = __radd__ = __sub__ = __rsub__ = __neg__ = _unknown
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _unknown


def is_free(size: int) -> bool:
    """Return whether a size is one that only a call tells."""
    return isinstance(size, Extent)


def require_fixed(*sizes: int) -> None:
    """Raise FreeSizeError if any of these sizes is free."""
    for size in sizes:
        if isinstance(size, Extent):
            raise FreeSizeError(size.text)


def has_fixed_strides(shape: Sequence[int]) -> bool:
    """Return whether an array without gaps is laid out alike for all sizes."""
    return not any(map(is_free, shape[1:]))
