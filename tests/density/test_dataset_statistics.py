"""mldft's statistics store: a real one read, its rules kept, and nothing lost on failure."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import zarr

import ofcv_export.density.store_files as store_files
from ofcv_export.density.basis import BasisInfo
from ofcv_export.density.dataset_statistics import DatasetStatistics
from ofcv_export.density.rescaling import DimensionWiseRescaling

# Written by zarr 2.18.7 and numcodecs 0.15.2 through zarr.DirectoryStore, as mldft writes it.
ZARR2_STORE = Path(__file__).parent / "data" / "statistics_zarr2.zarr"


@pytest.fixture
def store(tmp_path: Path) -> DatasetStatistics:
    store = DatasetStatistics(tmp_path / "statistics.zarr", create_store=True)
    store.save_statistic("constant", "coeffs/mean", np.arange(4, dtype=np.float32))
    return store


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_store_of_zarr_2_lists_its_keys() -> None:
    assert DatasetStatistics(ZARR2_STORE).keys_recursive() == [
        "has_energy_label/atom_ref_atom_type_bias",
        "has_energy_label/atom_ref_global_bias",
        "has_energy_label/coeffs/abs_max",
        "has_energy_label/coeffs/mean",
        "has_energy_label/coeffs/std",
        "has_energy_label/energy_minus_atom_ref/mean",
        "has_energy_label/gradient_label/abs_max",
        "has_energy_label/gradient_label/mean",
        "has_energy_label/gradient_label/std",
        "has_energy_label/gradient_max_after_atom_ref",
        "has_energy_label/gradient_max_after_scalar_atom_ref",
        "initial_guess_only/initial_guess_delta/mean",
    ]


@pytest.mark.parametrize(
    ("weigher", "statistic", "expected"),
    [
        ("has_energy_label", "coeffs/mean", np.arange(9, dtype=np.float32) / 8 - 0.5),
        ("has_energy_label", "coeffs/std", np.arange(9, dtype=np.float32) / 4),
        ("has_energy_label", "gradient_label/mean", 1 - np.arange(9, dtype=np.float32) / 4),
        ("has_energy_label", "atom_ref_atom_type_bias", np.array([-0.5, -75.25])),
        ("has_energy_label", "atom_ref_global_bias", np.array(0.125)),
        ("has_energy_label", "energy_minus_atom_ref/mean", np.array(0.0)),
        ("initial_guess_only", "initial_guess_delta/mean", -np.arange(9, dtype=np.float32) / 8),
    ],
)
def test_a_store_of_zarr_2_is_read(weigher: str, statistic: str, expected: np.ndarray) -> None:
    loaded = DatasetStatistics(ZARR2_STORE).load_statistic(weigher, statistic)
    np.testing.assert_array_equal(loaded, expected)
    assert (loaded.dtype, loaded.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize(
    "data",
    [
        np.array([1.5, -2.0, 0.0], dtype=np.float32),
        np.zeros(3),
        np.arange(12.0).reshape(3, 4),
        np.array(2.5),
        np.arange(3),
        np.zeros(0),
        7.25,
    ],
    ids=["float32", "zeros", "matrix", "0-d", "integers", "empty", "number"],
)
def test_what_is_saved_is_loaded(store: DatasetStatistics, data: np.ndarray) -> None:
    store.save_statistic("has_energy_label", "fields/anything", data)
    loaded = DatasetStatistics(store.path).load_statistic("has_energy_label", "fields/anything")
    np.testing.assert_array_equal(loaded, data)
    assert loaded.dtype == np.asarray(data).dtype


def test_tensors_are_saved_whatever_they_note_beside_their_memory(store: DatasetStatistics) -> None:
    lazy = torch.complex(torch.zeros(3), -torch.arange(3.0)).conj().imag.requires_grad_()
    assert lazy.is_neg()
    store.save_statistic("w", "x", lazy)
    assert store.load_statistic("w", "x").tolist() == [0, 1, 2]


def test_files_are_laid_out_as_zarr_2_does(store: DatasetStatistics) -> None:
    files = contents(store.path)
    assert (
        json.loads(files["constant/coeffs/mean/.zarray"]).items()
        >= {
            "zarr_format": 2,
            "chunks": [4],
            "dtype": "<f4",
            "compressor": {
                "id": "blosc",
                "cname": "lz4",
                "clevel": 5,
                "shuffle": 1,
                "blocksize": 0,
            },
        }.items()
    )
    for group in ("", "constant/", "constant/coeffs/"):
        assert json.loads(files[f"{group}.zgroup"]) == {"zarr_format": 2}
    created_at = json.loads(files["constant/coeffs/mean/.zattrs"])["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", created_at)


def test_zeros_are_written_out(store: DatasetStatistics) -> None:
    store.save_statistic("constant", "zeros", np.zeros(4))
    assert (store.path / "constant" / "zeros" / "0").exists()


def test_an_empty_directory_is_an_empty_store(tmp_path: Path) -> None:
    # mldft creates a store so.
    (tmp_path / "bare.zarr").mkdir()
    store = DatasetStatistics(tmp_path / "bare.zarr")
    assert store.keys_recursive() == []
    store.save_statistic("constant", "coeffs/mean", np.ones(2))
    assert store.keys_recursive() == ["constant/coeffs/mean"]
    assert (store.path / ".zgroup").exists()


def test_create_store_leaves_an_existing_one(store: DatasetStatistics) -> None:
    before = contents(store.path)
    DatasetStatistics(store.path, create_store=True)
    assert contents(store.path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_saving_the_same_values_does_nothing(store: DatasetStatistics, overwrite: bool) -> None:
    before = contents(store.path)
    same = np.arange(4, dtype=np.float32)
    store.save_statistic("constant", "coeffs/mean", same, overwrite=overwrite)
    assert contents(store.path) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (np.array([1e-9, 2.0]), np.array([5e-9, 2.0])),
        (np.arange(3, dtype=np.float32), np.arange(3.0)),
        (np.array([0.0]), np.array([-0.0])),
        (np.array(2.0), np.array([2.0])),
    ],
    ids=["small", "dtype", "sign of zero", "shape"],
)
def test_values_differ_in_any_bit(
    store: DatasetStatistics, old: np.ndarray, new: np.ndarray
) -> None:
    store.save_statistic("constant", "x", old)
    with pytest.raises(ValueError, match="constant/x: expected the values stored in"):
        store.save_statistic("constant", "x", new)
    store.save_statistic("constant", "x", new, overwrite=True)
    loaded = store.load_statistic("constant", "x")
    assert (loaded.dtype, loaded.shape, loaded.tobytes()) == (new.dtype, new.shape, new.tobytes())


@pytest.mark.parametrize("data", [np.ones(4), np.arange(5.0), np.array(0.0)])
def test_different_values_are_refused(store: DatasetStatistics, data: np.ndarray) -> None:
    before = contents(store.path)
    with pytest.raises(ValueError, match="constant/coeffs/mean: expected the values stored in"):
        store.save_statistic("constant", "coeffs/mean", data)
    assert contents(store.path) == before


@pytest.mark.parametrize("data", [np.ones(4), np.arange(5.0), np.array(0.0)])
def test_different_values_are_replaced_on_request(
    store: DatasetStatistics, data: np.ndarray
) -> None:
    store.save_statistic("constant", "coeffs/mean", data, overwrite=True)
    np.testing.assert_array_equal(store.load_statistic("constant", "coeffs/mean"), data)
    assert not list(store.path.glob(".writing-*"))


def test_a_failed_write_leaves_the_old_values(
    store: DatasetStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store.path)

    def fails(folder: Path, files: dict[str, bytes]) -> None:
        folder.mkdir()
        (folder / ".zarray").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(store_files, "_write_all", fails)
    with pytest.raises(OSError, match="disk full"):
        store.save_statistic("constant", "coeffs/mean", np.ones(4), overwrite=True)
    assert contents(store.path) == before


def test_unfinished_arrays_are_no_members(store: DatasetStatistics) -> None:
    shutil.copytree(store.path / "constant", store.path / ".writing-1" / "constant")
    assert store.keys_recursive() == ["constant/coeffs/mean"]


def test_missing_names_are_reported_with_what_is_there(store: DatasetStatistics) -> None:
    with pytest.raises(KeyError, match="weigher_key: expected one of constant, got 'other'"):
        store.load_statistic("other", "coeffs/mean")
    with pytest.raises(KeyError, match="statistic_key: expected one of coeffs/mean of weigher"):
        store.load_statistic("constant", "coeffs/std")
    with pytest.raises(KeyError, match="statistic_key"):
        store.load_statistic("constant", "coeffs")


def test_a_missing_store_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="path: expected a statistics store, got"):
        DatasetStatistics(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()


def test_a_foreign_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: expected a path ending in \.zarr, got"):
        DatasetStatistics(tmp_path / "statistics.h5", create_store=True)
    (tmp_path / "file.zarr").write_text("no directory")
    zarr.create_group(tmp_path / "format3.zarr", zarr_format=3)
    zarr.create_array(tmp_path / "array.zarr", data=np.ones(2), zarr_format=2)
    for name in ("file.zarr", "format3.zarr", "array.zarr"):
        with pytest.raises(ValueError, match="path: expected a group of zarr-format 2, got"):
            DatasetStatistics(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "damage"),
    [("0", b"\x02\x01\x21"), ("0", b""), (".zarray", b"{"), (".zarray", b"{}")],
    ids=["truncated chunk", "empty chunk", "truncated metadata", "foreign metadata"],
)
def test_a_damaged_array_is_reported_in_one_line(
    store: DatasetStatistics, file: str, damage: bytes
) -> None:
    (store.path / "constant" / "coeffs" / "mean" / file).write_bytes(damage)
    with pytest.raises(ValueError, match="constant/coeffs/mean: expected a readable") as caught:
        store.load_statistic("constant", "coeffs/mean")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b"])
def test_a_weigher_is_one_name(store: DatasetStatistics, name: str) -> None:
    with pytest.raises(ValueError, match="weigher_key: expected a name without"):
        store.save_statistic(name, "coeffs/mean", np.ones(4))


@pytest.mark.parametrize("name", ["", "/coeffs", "coeffs/", "coeffs//mean", "../../mean"])
def test_a_statistic_is_a_path_of_names(store: DatasetStatistics, name: str) -> None:
    with pytest.raises(ValueError, match="statistic_key: expected names joined by"):
        store.save_statistic("constant", name, np.ones(4))


@pytest.mark.parametrize("name", ["coeffs", "coeffs/mean/more"])
def test_an_array_and_a_group_do_not_share_a_name(store: DatasetStatistics, name: str) -> None:
    before = contents(store.path)
    with pytest.raises(ValueError, match="statistic_key: expected the name of an array"):
        store.save_statistic("constant", name, np.ones(4), overwrite=True)
    assert contents(store.path) == before


def test_only_numbers_are_saved(store: DatasetStatistics) -> None:
    with pytest.raises(TypeError, match="constant/words: expected numbers, got dtype"):
        store.save_statistic("constant", "words", ["a", "b"])


def test_save_to_a_new_path_copies(tmp_path: Path) -> None:
    DatasetStatistics(ZARR2_STORE).save_to(tmp_path / "copy.zarr")
    assert contents(tmp_path / "copy.zarr") == contents(ZARR2_STORE)
    assert [path.name for path in tmp_path.iterdir()] == ["copy.zarr"]


def test_save_to_an_existing_path_adds(store: DatasetStatistics, tmp_path: Path) -> None:
    other = DatasetStatistics(tmp_path / "other.zarr", create_store=True)
    other.save_statistic("constant", "coeffs/std", np.ones(4))
    store.save_to(other.path)
    store.save_to(other.path)
    assert other.keys_recursive() == ["constant/coeffs/mean", "constant/coeffs/std"]
    np.testing.assert_array_equal(other.load_statistic("constant", "coeffs/mean"), np.arange(4))


def test_save_to_refuses_before_it_writes(store: DatasetStatistics, tmp_path: Path) -> None:
    other = DatasetStatistics(tmp_path / "other.zarr", create_store=True)
    store.save_statistic("constant", "a_first", np.ones(4))
    other.save_statistic("constant", "coeffs/mean", np.ones(4))
    before = contents(other.path)
    with pytest.raises(ValueError, match="constant/coeffs/mean: expected the values stored"):
        store.save_to(other.path)
    assert contents(other.path) == before
    store.save_to(other.path, overwrite=True)
    np.testing.assert_array_equal(other.load_statistic("constant", "coeffs/mean"), np.arange(4))


def test_save_to_refuses_a_foreign_name(store: DatasetStatistics, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"new_path: expected a path ending in \.zarr"):
        store.save_to(tmp_path / "copy")


def test_repr_names_the_path(store: DatasetStatistics) -> None:
    assert repr(store) == f"DatasetStatistics({str(store.path)!r})"


# Chunks that are absent


def test_a_lost_chunk_is_no_zero(tmp_path: Path) -> None:
    store = DatasetStatistics(shutil.copytree(ZARR2_STORE, tmp_path / "s.zarr"))
    (store.path / "has_energy_label" / "coeffs" / "std" / "0").unlink()
    message = "has_energy_label/coeffs/std: expected a readable zarr array, got .*0 of 1 chunks"
    for use in (
        lambda: store.load_statistic("has_energy_label", "coeffs/std"),
        lambda: DimensionWiseRescaling.from_dataset_statistics(store),
        lambda: store.save_statistic("has_energy_label", "coeffs/std", np.zeros(9)),
        lambda: store.save_to(DatasetStatistics(tmp_path / "t.zarr", create_store=True).path),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    store.save_statistic("has_energy_label", "coeffs/std", np.arange(9.0), overwrite=True)
    np.testing.assert_array_equal(
        store.load_statistic("has_energy_label", "coeffs/std"), np.arange(9.0)
    )


def test_chunks_left_out_on_purpose_are_zero_where_the_store_says_so(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2)
    data = np.array([0.0, 0.0, 1.0, 2.0])
    options = {"chunks": (2,), "config": {"write_empty_chunks": False}, "fill_value": 0}
    root.create_array("w/x", data=data, **options)
    store = DatasetStatistics(tmp_path / "s.zarr")
    with pytest.raises(ValueError, match='1 of 2 chunks; .* "write_empty_chunks": false'):
        store.load_statistic("w", "x")
    root.attrs["write_empty_chunks"] = False
    np.testing.assert_array_equal(store.load_statistic("w", "x"), data)
    # What is written since then has all of its chunks.
    store.save_statistic("w", "y", data)
    (store.path / "w" / "y" / "0").unlink()
    with pytest.raises(ValueError, match="w/y: expected a readable zarr array"):
        store.load_statistic("w", "y")


# Bases


BASIS = BasisInfo([1, 8], ["2x0e", "1x0e+1x1o"])


def test_the_order_of_elements_is_kept(store: DatasetStatistics) -> None:
    basis = BasisInfo([8, 1], ["1x0e+1x1o", "2x0e"])
    assert store.basis_info is None
    store.keep_basis(basis)
    assert repr(DatasetStatistics(store.path).basis_info) == repr(basis)
    with pytest.raises(ValueError, match="basis_info: expected a store of this basis"):
        store.keep_basis(BASIS)


def test_a_copy_is_of_the_same_basis(store: DatasetStatistics, tmp_path: Path) -> None:
    store.keep_basis(BASIS)
    for there in (False, True):
        other = tmp_path / f"{there}.zarr"
        if there:
            DatasetStatistics(other, create_store=True)
        store.save_to(other)
        assert repr(DatasetStatistics(other).basis_info) == repr(BASIS)
    other = DatasetStatistics(tmp_path / "other.zarr", create_store=True)
    other.keep_basis(BasisInfo([8, 1], ["1x0e+1x1o", "2x0e"]))
    before = contents(other.path)
    with pytest.raises(ValueError, match="new_path: expected a store of this basis"):
        store.save_to(other.path, overwrite=True)
    assert contents(other.path) == before


# Several writers, consolidated metadata, URLs


def test_consolidated_metadata_are_kept_up_to_date(store: DatasetStatistics) -> None:
    zarr.consolidate_metadata(store.path)
    store.save_statistic("other", "coeffs/std", np.ones(3))
    store.save_statistic("constant", "coeffs/mean", np.ones(7), overwrite=True)
    store.keep_basis(BASIS)
    root = zarr.open_consolidated(str(store.path))
    assert root["other/coeffs/std"][()].tolist() == [1, 1, 1]
    assert root["constant/coeffs/mean"].shape == (7,)
    assert root.attrs["irreps_per_element"] == {"H": "2x0e", "O": "1x0e+1x1o"}
    assert [name for name, _ in root["other"].members()] == ["coeffs"]


def _save(path: Path, names: list[str], start: str) -> None:
    while not Path(start).exists():
        pass
    store = DatasetStatistics(path, create_store=True)
    for name in names:
        store.save_statistic("w", name, np.arange(5.0))


@pytest.mark.parametrize("consolidated", [False, True])
def test_several_processes_may_save_the_same_keys(tmp_path: Path, consolidated: bool) -> None:
    path, start = tmp_path / "s.zarr", tmp_path / "start"
    if consolidated:
        DatasetStatistics(path, create_store=True)
        zarr.consolidate_metadata(path)
    names = [f"group{number}/{name}" for number in range(4) for name in ("mean", "std")]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_save, args=(path, names[: 8 - number], str(start)))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    start.touch()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = DatasetStatistics(path)
    assert store.keys_recursive() == sorted(f"w/{name}" for name in names)
    for name in names:
        np.testing.assert_array_equal(store.load_statistic("w", name), np.arange(5.0))
    assert not list(path.glob(".writing-*"))
    if consolidated:
        assert len(list(zarr.open_consolidated(str(path))["w"].members(max_depth=None))) == 12


@pytest.mark.parametrize("theirs", [np.arange(5.0), np.zeros(5)], ids=["same", "other"])
def test_another_process_may_be_first(tmp_path: Path, monkeypatch, theirs: np.ndarray) -> None:
    """Between the look at what is there and the writing."""
    store = DatasetStatistics(tmp_path / "s.zarr", create_store=True)
    write = store_files.FolderFiles.put_array

    def second(files, name, content, replace):
        monkeypatch.undo()
        DatasetStatistics(store.path).save_statistic("w", "group/x", theirs)
        write(files, name, content, replace)

    monkeypatch.setattr(store_files.FolderFiles, "put_array", second)
    if theirs[1] == 1:
        store.save_statistic("w", "group/x", np.arange(5.0))
    else:
        with pytest.raises(ValueError, match="w/group/x: expected the values stored in"):
            store.save_statistic("w", "group/x", np.arange(5.0))
    np.testing.assert_array_equal(store.load_statistic("w", "group/x"), theirs)
    assert not list(store.path.glob(".writing-*"))


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A URL of fsspec that is no path to pathlib."""
    url = (
        f"memory://of-{tmp_path.name}/s.zarr"
        if request.param == "memory"
        else f"file://{tmp_path}/u/s.zarr"
    )
    yield url
    system, root = fsspec.core.url_to_fs(url)
    if system.exists(root):
        system.rm(root, recursive=True)


def test_a_url_is_a_store(url: str, store: DatasetStatistics, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="path: expected a statistics store, got"):
        DatasetStatistics(url)
    remote = DatasetStatistics(url, create_store=True)
    assert (remote.path, remote.keys_recursive()) == (url, [])
    remote.save_statistic("w", "coeffs/mean", np.arange(3.0))
    remote.save_statistic("w", "coeffs/mean", np.arange(4.0), overwrite=True)
    with pytest.raises(ValueError, match="w/coeffs/mean: expected the values stored in"):
        remote.save_statistic("w", "coeffs/mean", np.zeros(4))
    remote.keep_basis(BASIS)
    assert repr(DatasetStatistics(url).basis_info) == repr(BASIS)
    store.save_to(url)
    assert remote.keys_recursive() == ["constant/coeffs/mean", "w/coeffs/mean"]
    remote.save_to(tmp_path / "back.zarr")
    back = DatasetStatistics(tmp_path / "back.zarr")
    np.testing.assert_array_equal(back.load_statistic("w", "coeffs/mean"), np.arange(4.0))
    # zarr itself reads the same.
    assert zarr.open_group(url, mode="r", zarr_format=2)["w/coeffs/mean"][()].tolist() == [
        0,
        1,
        2,
        3,
    ]
    system, root = fsspec.core.url_to_fs(url)
    system.rm(f"{root}/w/coeffs/mean/0")
    with pytest.raises(ValueError, match="0 of 1 chunks"):
        remote.load_statistic("w", "coeffs/mean")
    assert not any(":" in entry.name for entry in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "nothing://b/x.zarr",
            "path: expected a URL that fsspec can open, got 'nothing://b/x.zarr'",
        ),
        (Path("s3://b/x.zarr"), "path: expected a URL as a str, got PosixPath"),
        ("s3://b/x", r"path: expected a path ending in \.zarr, got s3://b/x"),
    ],
)
def test_what_is_no_store_at_a_url_is_refused(tmp_path: Path, monkeypatch, path, message) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        DatasetStatistics(path, create_store=True)
    assert not list(tmp_path.iterdir())


def test_without_fsspec_a_url_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    message = (
        "path: expected a path on this machine where fsspec is not installed, got 's3://b/x.zarr'"
    )
    with pytest.raises(ImportError, match=message):
        DatasetStatistics("s3://b/x.zarr", create_store=True)
    assert not list(tmp_path.iterdir())
