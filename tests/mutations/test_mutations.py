"""The list of mutations fits the code."""

import pytest

from tests.mutations.__main__ import MUTATIONS, SOURCE


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_is_changed_stands_once_in_its_file(mutation):
    assert (SOURCE / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new


def test_names_are_different():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
