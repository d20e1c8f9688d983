"""Reading and writing files: folders that can't be written to, URLs, damaged files."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ofcv_export.base import files


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which the system refuses to make anything, also for root."""
    mkdir = os.mkdir

    def refuse(path, *arguments, **options):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return mkdir(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    return tmp_path


def test_a_folder_that_is_read_only_is_named(read_only: Path) -> None:
    message = f"path: expected a folder that can be written to, got '{read_only}'"
    with pytest.raises(PermissionError) as caught, files.atomic_path(read_only / "cv.pt"):
        pass
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["s3://b/cv.pt", "gs:/b/cv.pt", "simplecache::s3://b/cv.pt"])
def test_a_url_is_no_path(name: str) -> None:
    assert files.is_url(name)
    for use in (files.require_file, files.require_folder_of):
        with pytest.raises(ValueError, match="path: expected a path on this machine, got the URL"):
            use("path", name)


@pytest.mark.parametrize("name", ["cv.pt", "/a/b.pt", "./s3:/b.pt", "C:/b.pt", "T=300 K:/x", "a:b"])
def test_a_path_is_no_url(name: str) -> None:
    assert not files.is_url(name)


def damaged_npy() -> dict[str, bytes]:
    """Return files that numpy fails on in as many ways as it has."""
    stream = io.BytesIO()
    np.save(stream, np.arange(3))
    good = stream.getvalue()
    return {
        "empty": b"",
        "cut": good[:-8],
        "header": good[:10] + good[10:].replace(b"}", b"(", 1),
        "zip": b"PK\x03\x04" + good,
        "pickle": b"\x80\x04damaged",
    }


@pytest.mark.parametrize("kind", list(damaged_npy()))
def test_a_damaged_array_is_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(damaged_npy()[kind])
    with pytest.raises(ValueError, match=r"x: expected a \.npy file, got '.*x\.npy'"):
        files.read_npy("x", tmp_path / "x.npy")


@pytest.mark.parametrize("kind", [*damaged_npy(), "method", "deflate"])
def test_a_damaged_archive_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    if kind in damaged_npy():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", damaged_npy()[kind])
    else:
        np.savez_compressed(path, x=np.arange(3000))
        content = bytearray(path.read_bytes())
        if kind == "method":
            content[content.rindex(b"PK\x01\x02") + 10] = 99
            content[8] = 99
        else:
            content[60:200] = bytes(140)
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path: expected an \.npz file with x, got '.*x\.npz'"):
        files.read_npz("path", path, ("x",))


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    target, link = tmp_path / "models" / "model.bin", tmp_path / "cv.pt"
    link.symlink_to(Path("models", "model.bin"))
    for content in (b"new", b"replaced"):  # At first there is nothing where it points to.
        with files.atomic_path(link) as temporary:
            assert temporary.suffix == ".pt"
            temporary.write_bytes(content)
        assert link.is_symlink()
        assert (target.read_bytes(), link.read_bytes()) == (content, content)
    with pytest.raises(ZeroDivisionError), files.atomic_path(link):
        _ = 1 / 0
    assert target.read_bytes() == b"replaced"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["cv.pt", "model.bin", "models"]
    (tmp_path / "lost.pt").symlink_to(tmp_path / "none" / "cv.pt")
    with pytest.raises(FileNotFoundError, match="path: expected an existing folder, got '.*none'"):
        files.atomic_path(tmp_path / "lost.pt").__enter__()
