"""An artifact on graphs of atoms along a trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofcv_export.artifacts.graph_frames import graphs_of
from ofcv_export.artifacts.loading import Artifact
from ofcv_export.base.arrays import is_tensor, to_array


def along(
    artifact: Artifact, path: str | PathLike[str], others: Mapping[str, NDArray[Any]]
) -> Iterator[list[NDArray[Any]]]:
    """Yield the outputs of each frame, with a first axis of length 1.

    Parameters
    ----------
    artifact : Artifact
        Of a graph variable or a bias of one.
    path : path-like
        A trajectory in Angstrom that ASE reads.
    others : mapping
        Inputs that no frame tells: parameters.

    Yields
    ------
    list of numpy.ndarray
        In the metadata's order. Derivatives are those with respect to all of the artifact's atoms,
        shape (1, n_outputs, n_atoms, 3), and 0 where an atom is no node.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError, TypeError
        As `graphs_of`, and if `others` do not fit.
    """
    metadata = artifact.metadata
    names = [spec.name for spec in metadata.outputs]
    dtypes = {spec.name: spec.dtype for spec in metadata.inputs}
    for frame in graphs_of(path, metadata, name="positions"):
        inputs = frame.inputs.items()
        taken = {name: x.astype(dtypes[name]) for name, x in inputs if name in dtypes}
        found = artifact(**taken | dict(others))
        outputs = [to_array(entry) if is_tensor(entry) else np.asarray(entry) for entry in found]
        place = names.index("derivatives")
        whole = np.zeros((len(outputs[place]), frame.n_atoms, 3), outputs[place].dtype)
        whole[:, frame.graph.nodes] = outputs[place]
        outputs[place] = whole
        yield [output[None] for output in outputs]
