"""Arrays of zarr-format 2, whole or not at all.

What zarr doesn't find it takes for the fill value: an array that has lost a chunk has zeros there.
Here every chunk has to be there. A store that left chunks of zeros out on purpose, written with
``write_empty_chunks=False``, says so in the attribute `WRITES_EMPTY_CHUNKS`, its own for all arrays
or that of one array::

    zarr.open_group("labels.zarr", mode="r+").attrs["write_empty_chunks"] = False

Arrays that are written here have all chunks and say that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.storage import MemoryStore

# mldft pins zarr 2, which knows no other format and compresses so by default.
ZARR_FORMAT: Final = 2
COMPRESSOR: Final[dict[str, Any]] = {
    "id": "blosc",
    "cname": "lz4",
    "clevel": 5,
    "shuffle": 1,
    "blocksize": 0,
}
WRITES_EMPTY_CHUNKS: Final = "write_empty_chunks"


def create_array(store: Any, name: str, data: NDArray[Any], **options: Any) -> None:
    """Write an array into a store as zarr 2.18 does: compressed alike, whole.

    Parameters
    ----------
    store : zarr.abc.store.Store or path-like
    name : str
        Path inside the store; empty for an array that is a store of its own.
    data : numpy.ndarray
        Numbers, or text.
    **options
        ``chunks`` and further ``attributes``, see `zarr.create_array`.
    """
    options["attributes"] = options.get("attributes", {}) | {WRITES_EMPTY_CHUNKS: True}
    zarr.create_array(
        store,
        name=name or None,
        data=data,
        zarr_format=ZARR_FORMAT,
        fill_value="" if data.dtype.kind == "U" else 0,
        compressors=COMPRESSOR,
        config={"write_empty_chunks": True},
        **options,
    )


def array_to_files(data: NDArray[Any], attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of an array by their names: ``.zarray``, ``.zattrs``, chunks."""
    files: dict[str, Any] = {}
    create_array(MemoryStore(files), "", data, attributes=dict(attributes))
    return {key: buffer.to_bytes() for key, buffer in files.items()}


def array_from_files(
    files: Mapping[str, bytes], store_attributes: Mapping[str, Any]
) -> NDArray[Any]:
    """Return the array that `array_to_files` or zarr 2 has written.

    Parameters
    ----------
    files : mapping
        Content of the files by their names.
    store_attributes : mapping
        Attributes of the whole store.

    Raises
    ------
    ValueError
        If chunks are absent and neither array nor store says that empty ones were left out; what
        zarr raises for damaged ones.
    """
    buffers: dict[str, Any] = {key: cpu.Buffer.from_bytes(value) for key, value in files.items()}
    array = zarr.open_array(MemoryStore(buffers), mode="r", zarr_format=ZARR_FORMAT)
    written = array.attrs.get(WRITES_EMPTY_CHUNKS, store_attributes.get(WRITES_EMPTY_CHUNKS, True))
    n_present = array.nchunks_initialized
    if n_present < array.nchunks and written is not False:
        raise ValueError(
            f"{n_present} of {array.nchunks} chunks; if those of zeros were left out "
            f'on purpose, the store has to say so by the attribute "{WRITES_EMPTY_CHUNKS}": false'
        )
    return np.asarray(array[()])
