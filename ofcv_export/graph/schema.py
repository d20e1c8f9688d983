"""``python -m ofcv_export.graph.schema``: the JSON schema of the metadata, made anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ofcv_export.graph.metadata import Metadata

PATH = Path(__file__).with_name("metadata.schema.json")


def schema() -> dict[str, Any]:
    """Return the JSON schema of `Metadata`."""
    return msgspec.json.schema(Metadata)


if __name__ == "__main__":
    PATH.write_text(json.dumps(schema(), indent=2) + "\n")
