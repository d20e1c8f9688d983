"""The project's own functions in C, of which a file holds those that it calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

_START = re.compile(r"\n(?=static |/\*)")
_NAME = re.compile(r"^static [^(=;]*?(\w+)\(", re.MULTILINE)


def functions_for(body: str, names: Sequence[str]) -> str:
    """Return the functions that some C calls, and those that they call.

    Parameters
    ----------
    body : str
        What calls them.
    names : sequence of str
        Files of this package that hold them.
    """
    found: list[str] = []
    for name in names:
        heading, *pieces = _START.split(files(__package__).joinpath(name).read_text())
        definitions = _definitions(pieces)
        needed = _called(body, definitions)
        if needed:
            found += [heading, *(text for key, text in definitions.items() if key in needed)]
    return "\n".join(found)


def _definitions(pieces: Sequence[str]) -> dict[str, str]:
    """Return the functions by their names, each with the comment before it."""
    definitions, comment = {}, ""
    for piece in pieces:
        match = _NAME.search(piece)
        if match is None:
            comment += piece + "\n"
        else:
            definitions[match[1]] = comment + piece
            comment = ""
    return definitions


def _called(body: str, definitions: dict[str, str]) -> set[str]:
    """Return the names of the functions that are called, directly or by one another."""
    needed: set[str] = set()
    texts = [body]
    while texts:
        words = set(re.findall(r"\w+", texts.pop()))
        new = (words & definitions.keys()) - needed
        needed |= new
        texts += [definitions[name] for name in new]
    return needed
