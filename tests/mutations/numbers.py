"""Changes that bring back wrong numbers, crashes and refusals of files, formats and density."""

from tests.mutations.mutation import Mutation

NUMBERS: list[Mutation] = [
]  # fmt: skip
