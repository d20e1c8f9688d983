"""Archives of named records with a digest of their content: what ``.pt`` and ``.pt2`` files are."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from ofcv_export.runtimes.runtime import damaged, foreign

METADATA = "extra/ofcv.json"
DIGEST = "extra/ofcv.sha256"
# What the digest leaves out: itself, and an identifier that PyTorch derives from all records.
_NOT_DIGESTED = (DIGEST, ".data/serialization_id")


def checked_records(path: Path, content: bytes, kind: str) -> dict[str, bytes]:
    """Return the records of a file whose content matches its digest.

    Parameters
    ----------
    path : Path
        The file.
    content : bytes
        What is in it.
    kind : str
        What the file should be, for the error.

    Raises
    ------
    ValueError
        If the file is damaged, or is not one of ours.
    """
    found = records(path, content, kind)
    if METADATA not in found:
        raise foreign(path, "no ofcv.json in the archive")
    if DIGEST not in found:
        raise foreign(path, "no digest in the archive")
    if digest(found).encode() != found[DIGEST]:
        raise damaged(path)
    return found


def records(path: Path, content: bytes, kind: str) -> dict[str, bytes]:
    """Return the records of an archive by their names below its top folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if "/" in name]
            return {name.split("/", 1)[1]: archive.read(name) for name in names}
    except Exception as error:  # zipfile raises whatever damaged bytes lead its parser to
        why = "truncated or damaged" if content.startswith(b"PK") else f"not {kind}"
        raise foreign(path, why) from error


def digest(records: dict[str, bytes]) -> str:
    """Return the SHA-256 over the names, lengths and contents of the records."""
    sha = hashlib.sha256()
    for name in sorted(records, key=str.encode):
        if name not in _NOT_DIGESTED:
            sha.update(name.encode() + b"\0" + len(records[name]).to_bytes(8, "little"))
            sha.update(records[name])
    return sha.hexdigest()
