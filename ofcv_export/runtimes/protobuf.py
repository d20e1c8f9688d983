"""The fields of a serialised protocol buffer, without a schema.

A message is a row of fields, each a key and a value. The key holds the field's number and how its
value is written (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10


class Field(NamedTuple):
    """A field of a message.

    Attributes
    ----------
    number : int
        Which field it is.
    value : memoryview
        The bytes of a string, of bytes or of a message; empty for a number.
    start : int
        Where the field begins in the message.
    """

    number: int
    value: memoryview
    start: int


def fields(message: bytes | memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order.

    Raises
    ------
    ValueError
        If the bytes are no message.

    Examples
    --------
    >>> [(number, bytes(value)) for number, value, _ in fields(bytes([0x12, 2, 104, 105]))]
    [(2, b'hi')]
    """
    view, position = memoryview(message), 0
    while position < len(view):
        start = position
        key, position = _varint(view, position)
        value = view[:0]
        if key & 7 == _VARINT:
            _, position = _varint(view, position)
        elif key & 7 == _BYTES:
            size, position = _varint(view, position)
            value = view[position : position + size]
            position += size
        elif key & 7 in (_EIGHT_BYTES, _FOUR_BYTES):
            position += 8 if key & 7 == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"message: expected a known kind of field, got {key & 7}")
        if position > len(view) or key >> 3 == 0:
            raise ValueError("message: expected whole fields, got a part of one")
        yield Field(key >> 3, value, start)


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, lowest first, and where what follows begins."""
    number = 0
    for place, byte in enumerate(view[position : position + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, position + place + 1
    raise ValueError("message: expected whole fields, got a part of one")
