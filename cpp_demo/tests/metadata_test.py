"""Metadata in Python, in C++ and as JSON schema: all accept and refuse the same.

Usage: metadata_test.py PROGRAM.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

from ofcv_export.graph import metadata as metadata_module
from ofcv_export.graph.metadata import Metadata

PROGRAM = Path(sys.argv[1])
SCHEMA = json.loads(Path(metadata_module.__file__).with_name("metadata.schema.json").read_text())
JUDGE = jsonschema.Draft202012Validator(SCHEMA)

VALID = json.loads(Path(__file__).with_name("valid_metadata.json").read_text())
COMMON, DETAILS = VALID["common"], VALID["details"]
# One of each type, and of some that hold others.
OTHERS: list[Any] = [None, True, 7, 7.5, "text", [], ["text"], [7], {}, {"text": "text"}, {"a": 7}]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a document, and to one that is too many in each object."""
    if isinstance(value, dict):
        value = value | {"extra": None}
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*place, key)
        if isinstance(entry, (dict, list)):
            yield from places(entry, (*place, key))


def changed(document: Any, place: tuple[Any, ...], entry: Any) -> Any:
    """Return a copy with another entry; none at all for `...`."""
    parent = copied = copy.deepcopy(document)
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = entry
    if entry is ...:
        del parent[place[-1]]
    return copied


def variants() -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Yield documents with an entry missing or another, and where and what it is."""
    for number, details in enumerate(DETAILS):
        document = COMMON | {"details": details}
        for place in places(document):
            # What is common to all kinds is changed once; C++ knows some dtypes only.
            if number == 0 or place[0] == "details":
                entries = OTHERS if place[-1] != "dtype" else [None, 7, []]
                for entry in (..., *entries):
                    yield place, entry, changed(document, place, entry)


def in_python(text: str) -> str:
    """Return what Python says of metadata."""
    try:
        Metadata.from_json(text)
    except ValueError as error:
        return str(error)
    return "accepted"


def in_cpp(texts: list[str]) -> list[str]:
    """Return what C++ says of metadata."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents"
        path.write_text("".join(f"{text}\n" for text in texts))
        done = subprocess.run([PROGRAM, path], capture_output=True, text=True, check=False)
    found = done.stdout.splitlines()
    assert len(found) == len(texts), done
    assert done.returncode == (0 if set(found) == {"accepted"} else 2), done
    return found


def test_valid_documents() -> None:
    """One of each kind."""
    for details in DETAILS:
        text = json.dumps(COMMON | {"details": details})
        JUDGE.validate(json.loads(text))
        assert [in_python(text), *in_cpp([text])] == ["accepted", "accepted"]


def test_changed_documents() -> None:
    """Missing fields, wrong types and unknown fields, everywhere."""
    cases = list(variants())
    verdicts = in_cpp([json.dumps(document) for *_, document in cases])
    n_refused = 0
    for (place, entry, document), verdict in zip(cases, verdicts, strict=True):
        is_valid = JUDGE.is_valid(document) and (*place, entry) != ("schema", ...)
        assert (verdict == "accepted") == is_valid, (place, entry, verdict)
        assert is_valid or verdict.startswith("metadata: expected schema 2, got "), verdict
        # In Python the tag of what has one type only may be left out.
        if (*place, entry) != ("details", "variable", "kind", ...):
            assert (in_python(json.dumps(document)) == "accepted") == is_valid, (place, entry)
        n_refused += not is_valid
    assert n_refused > len(cases) / 2 > 500


def test_messages() -> None:
    """Which version or which field it is."""
    document = COMMON | {"details": DETAILS[4]}

    def text(*place: Any, entry: Any) -> str:
        return json.dumps(changed(document, place, entry))

    messages = {
        text("schema", entry=1): "1",
        text("schema", entry="2"): '"2"',
        text("schema", entry=...): "null",
        "[]": "no JSON object",
        "no JSON": "no JSON object",
        text("details", "box", "fixed", 0, 2, entry=[1, 2]): (
            "others (details.box.fixed[0][2] is no array of 3)"
        ),
        text("probe", entry=...): "others (probe is missing)",
        text("sha256", "x", entry=1): "others (sha256.x is unknown)",
        text("details", "kind", entry="cv"): 'others (details.kind is "cv")',
    }
    expected = [f"metadata: expected schema 2, got {message}" for message in messages.values()]
    assert in_cpp(list(messages)) == expected


if __name__ == "__main__":
    test_valid_documents()
    test_changed_documents()
    test_messages()
