"""Rows that tables name become pointers, and nothing else does."""

import pytest

from ofcv_export.c_source.nests import Nest
from ofcv_export.c_source.rows import by_rows

TYPES = {"in0": "const float", "b1": "float", "b2": "float"}
LOOPS = (("i", 8),)


def lines_of(*lines):
    return by_rows(Nest(LOOPS, lines), TYPES).lines


def test_entries_of_a_row_are_read_and_written_by_one_pointer():
    assert lines_of(
        "b1[i] = (in0[3 * (int64_t)t1[i]] - in0[3 * (int64_t)t2[i + 4]]);",
        "b1[i + 8] = (in0[3 * (int64_t)t1[i] + 1] - in0[3 * (int64_t)t2[i + 4] + 1]);",
        "b2[3 * (int64_t)t1[i] + 2] += b1[i];",
        "b2[3 * (int64_t)t1[i]] += (-b1[i + 8]);",
    ) == (
        "const float *const row0 = in0 + 3 * (int64_t)t1[i];",
        "const float *const row1 = in0 + 3 * (int64_t)t2[i + 4];",
        "b1[i] = (row0[0] - row1[0]);",
        "b1[i + 8] = (row0[1] - row1[1]);",
        "float *const row2 = b2 + 3 * (int64_t)t1[i];",
        "row2[2] += b1[i];",
        "row2[0] += (-b1[i + 8]);",
    )


@pytest.mark.parametrize(
    "lines",
    [
        ("b1[i] = in0[3 * i];", "b1[i + 8] = in0[3 * i + 1];"),
        ("b1[i] = in0[(int64_t)t1[i]];", "b1[i + 8] = in0[(int64_t)t2[i]];"),
        ("b1[i] = t3[3 * (int64_t)t1[i]];", "b1[i + 8] = t3[3 * (int64_t)t1[i] + 1];"),
    ],
    ids=["places that are known", "entries of their own", "arrays of unknown type"],
)
def test_other_lines_stay_as_they_are(lines):
    assert lines_of(*lines) == lines


def test_lines_of_which_each_has_its_own_braces_stay_as_they_are():
    inner = ("{", "b1[(int64_t)t1[i]] += 1;", "}", "b1[(int64_t)t1[i]] += 2;")
    assert lines_of(*inner) == inner
