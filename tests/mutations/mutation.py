"""A change to the code that a test must notice."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A change to a file of ``ofcv_export``, and the tests that must notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
