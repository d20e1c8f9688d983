"""Changes that bring back wrong numbers, crashes and refusals of variables and engines."""

from tests.mutations.mutation import Mutation

ENGINES: list[Mutation] = [
]  # fmt: skip
