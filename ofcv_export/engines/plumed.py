"""Input of PLUMED that evaluates an exported file.

Two ways lead into PLUMED, see docs/engines/plumed.md: the action OFCV of cpp_demo/plumed, which
takes positions, and PLUMED's own PYTORCH_MODEL, which takes descriptors from other actions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ofcv_export.artifacts.loading import read_metadata
from ofcv_export.base.elements import atomic_numbers, require_known_elements
from ofcv_export.base.units import ENERGIES, LENGTHS, length_factor
from ofcv_export.base.validation import require_known
from ofcv_export.c_source.interface import symbol_in
from ofcv_export.graph.details import ContractDetails, GraphVariableDetails, VariableDetails
from ofcv_export.graph.metadata import Metadata

CONTRACT = "plumed-pytorch"
_FORMATS = ("plumed", "so", "torchscript", "aotinductor")
_ACTIONS = {"angles": "ANGLE", "torsions": "TORSION"}


def ofcv_input(
    path: str | PathLike[str],
    *,
    label: str = "cv",
    library: str | PathLike[str] = "OFCV.so",
    device: str = "cpu",
    threads: int = 1,
    nopbc: bool = False,
    parameters: Mapping[str, float | Sequence[float]] | None = None,
    elements: Sequence[str] | None = None,
) -> str:
    """Return the input that loads OFCV and evaluates a file; an energy is added as a bias.

    Parameters
    ----------
    path : path-like
        A collective variable or a bias, .pt or .pt2.
    label : str
        Label of the action; its values are ``<label>.node-0``, ``<label>.node-1``, ...
    library : path-like
        The built library.
    device : str
        ``cpu``, ``cuda`` or ``cuda:<index>``.
    threads : int
        Number of threads of LibTorch.
    nopbc : bool
        Takes positions as the engine gives them. By default a molecule is made whole for a file
        that knows no box.
    parameters : mapping, optional
        Run-time parameters of a bias that differ from the file's own, in the file's units.
    elements : sequence of str, optional
        Chemical symbols of the system's atoms, then of the environment's, of a file that takes
        graphs of atoms and does not know them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If OFCV cannot evaluate the file, or parameters do not fit.

    Examples
    --------
    >>> print(ofcv_input("restraint.pt2", parameters={"centre": 0.4}))  # doctest: +SKIP
    LOAD FILE=OFCV.so
    cv: OFCV MODEL=restraint.pt2 ATOMS=5,7,9 PARAMETERS={centre=0.4}
    BIASVALUE ARG=cv.node-0
    """
    metadata = read_metadata(path)
    details = metadata.details
    if (
        not isinstance(details, VariableDetails | GraphVariableDetails)
        or metadata.format not in _FORMATS
    ):
        raise ValueError(
            "path: expected a collective variable in a .cpp, .so, .pt or .pt2 file, "
            f"got a {metadata.kind} in {metadata.format}"
        )
    if isinstance(details, GraphVariableDetails):
        atoms = _graph_atoms(metadata, details, elements)
    else:
        if nopbc and metadata.periodic:
            raise ValueError("nopbc: expected False for a periodic file, got True")
        atoms = f"ATOMS={_serials(metadata, details)}"
    if metadata.format == "plumed":
        # PLUMED compiles it in its own folder, and takes no other.
        library = Path(path).name
        action = f"{label}: {symbol_in(Path(path).read_text()).upper()} {atoms}"
    else:
        action = f"{label}: OFCV MODEL={_word(path)} {atoms}".rstrip()
        if device != "cpu":
            action += f" DEVICE={device}"
        if threads != 1:
            action += f" THREADS={threads}"
    if nopbc:
        action += " NOPBC"
    if parameters:
        action += f" PARAMETERS={{{_parameters(details, parameters)}}}"
    lines = [f"LOAD FILE={_word(library)}", action]
    if metadata.output_units.get("values") in ENERGIES:
        lines.append(f"BIASVALUE ARG={label}.node-0")
    return "\n".join(lines) + "\n"


def pytorch_model_input(
    path: str | PathLike[str], *, label: str = "cv", nopbc: bool = False
) -> str:
    """Return the input that computes descriptors with PLUMED and hands them to PYTORCH_MODEL.

    Where the file's unit of length is not nm, the input begins with UNITS, which holds for
    everything else in the same input.

    Parameters
    ----------
    path : path-like
        A file written with ``contract="plumed-pytorch"``, of distances, angles or torsions, or
        several of them.
    label : str
        Label of the model; its values are ``<label>.node-0``, ``<label>.node-1``, ... PYTORCH_MODEL
        knows no periods: a value k that has one is ``<label>_periodic_k``.
    nopbc : bool
        Takes positions as the engine gives them. By default a molecule is made whole for
        descriptors that know no box.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file has another contract, or PLUMED has no action for its descriptors.
    """
    metadata = read_metadata(path)
    details = metadata.details
    contract = details.contract if isinstance(details, ContractDetails) else "none"
    if not isinstance(details, ContractDetails) or contract != CONTRACT:
        raise ValueError(f"path: expected a file with contract {CONTRACT}, got {contract}")
    specification = details.variable.descriptors
    lines = [f"UNITS LENGTH={_length(metadata)}"] if metadata.length_unit != "nm" else []
    if not nopbc and any(part.get("box") is None for part in _parts(specification)):
        lines.append(f"WHOLEMOLECULES ENTITY0={_serials(metadata, details.variable)}")
    actions, arguments = descriptor_actions(
        specification, _atoms(metadata, details.variable), label
    )
    lines += actions
    lines.append(f"{label}: PYTORCH_MODEL FILE={_word(path)} ARG={','.join(arguments)}")
    for index, period in enumerate(details.variable.periods):
        if period is not None:
            domain = plumed_domain(period)
            lines.append(
                f"{label}_periodic_{index}: COMBINE ARG={label}.node-{index} PERIODIC={domain}"
            )
    return "\n".join(lines) + "\n"


def plumed_domain(period: float) -> str:
    """Return the domain of a value with a period, as PLUMED's keyword PERIODIC takes it.

    Examples
    --------
    >>> plumed_domain(360.0), plumed_domain(2 * math.pi)
    ('-180,180', '-pi,pi')
    """
    # PLUMED compares the text of grids' limits with it, and users write pi.
    end = "pi" if math.isclose(period, 2 * math.pi) else repr(period / 2).removesuffix(".0")
    return f"-{end},{end}"


def descriptor_actions(
    specification: Mapping[str, Any] | None, atoms: Sequence[int], label: str = "cv"
) -> tuple[list[str], list[str]]:
    """Return the actions that compute descriptors, and the labels of the descriptors in order.

    Parameters
    ----------
    specification : mapping
        What `Descriptor.specification` returns.
    atoms : sequence of int
        Zero-based indices of the descriptors' atoms in the engine.
    label : str
        What the labels begin with.

    Raises
    ------
    ValueError
        If PLUMED has no action for a descriptor, or positions are fractions of the box.
    """
    lines: list[str] = []
    labels: list[str] = []
    for part in _parts(specification):
        flag = _boundaries(part.get("box"))
        for group, functions in _groups(part):
            number = len(labels) + 1
            serials = ",".join(str(atoms[index] + 1) for index in group)
            name = f"{label}_{number}"
            action = _ACTIONS.get(part["type"], "DISTANCE")
            lines.append(f"{name}: {action} ATOMS={serials}{flag}")
            for function in functions:
                if function is None:
                    labels.append(name)
                else:
                    labels.append(f"{name}_{function}")
                    lines.append(f"{labels[-1]}: CUSTOM ARG={name} FUNC={function}(x) PERIODIC=NO")
    return lines, labels


def _parts(specification: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the descriptors that PLUMED can compute, in order."""
    kind = None if specification is None else specification["type"]
    if specification is not None and kind == "multiple_descriptors":
        for part in specification["descriptors"]:
            yield from _parts(part)
    elif specification is not None and kind in ("pairwise_distances", *_ACTIONS):
        yield specification
    else:
        raise ValueError(
            "descriptors: expected distances, angles, torsions or several of them, "
            f"got {kind or 'none that are described'}"
        )


def _groups(part: Mapping[str, Any]) -> Iterator[tuple[list[int], list[str | None]]]:
    """Yield the atoms of each action and the functions of its value that are descriptors.

    None stands for the value itself.
    """
    for group in part["pairs"] if part["type"] == "pairwise_distances" else part["atoms"]:
        yield group, [None if mode == "angle" else mode for mode in part.get("modes", ["angle"])]


def _boundaries(box: Mapping[str, Any] | None) -> str:
    """Return the flag of an action for a description of boundaries."""
    if box is not None and box["scaled"]:
        raise ValueError("descriptors: expected positions in a unit of length, got fractions")
    return "" if box is not None and box["periodic"] else " NOPBC"


def _parameters(
    details: VariableDetails | GraphVariableDetails,
    parameters: Mapping[str, float | Sequence[float]],
) -> str:
    """Return run-time parameters as OFCV reads them, checked."""
    defaults = dict(details.parameters)
    if details.time_unit is not None:
        del defaults["time"]  # PLUMED's own
    words = []
    for name, value in parameters.items():
        require_known(name, defaults)
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if numbers.shape != (len(defaults[name]),):
            raise ValueError(f"{name}: expected {len(defaults[name])} values, got {numbers.size}")
        words.append(f"{name}={','.join(repr(float(number)) for number in numbers)}")
    return " ".join(words)


def _length(metadata: Metadata) -> str:
    """Return the unit of length as UNITS reads it: A, or a number of nm."""
    length_factor(metadata.length_unit, "nm")
    unit = str(metadata.length_unit)
    return "A" if unit in ("A", "angstrom") else repr(LENGTHS[unit])


def _atoms(metadata: Metadata, details: VariableDetails) -> list[int]:
    return list(metadata.atoms or range(details.n_atoms))


def _serials(metadata: Metadata, details: VariableDetails) -> str:
    """Return the one-based numbers of the atoms, with ranges, e.g. ``1-5,8``."""
    ranges: list[list[int]] = []
    for atom in _atoms(metadata, details):
        if ranges and atom == ranges[-1][1]:
            ranges[-1][1] += 1
        else:
            ranges.append([atom + 1, atom + 1])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def _graph_atoms(
    metadata: Metadata, details: GraphVariableDetails, elements: Sequence[str] | None
) -> str:
    """Return the elements of a graph's atoms as OFCV reads them, ``O*216``; the file has the rest.

    Raises
    ------
    ValueError
        If the file does not name its atoms, or elements are missing or do not fit.
    """
    if metadata.atoms is None:
        raise ValueError("path: expected a file that names its atoms, got one for all atoms")
    if elements is None:
        if metadata.elements is None:
            raise ValueError("elements: expected chemical symbols of the atoms, got none")
        return ""
    numbers = np.array(atomic_numbers(elements))
    if len(numbers) != len(metadata.atoms):
        raise ValueError(f"elements: expected {len(metadata.atoms)} symbols, got {len(numbers)}")
    require_known_elements(numbers, atomic_numbers(details.known_elements), metadata.atoms)
    runs = [(symbol, len(list(run))) for symbol, run in groupby(elements)]
    words = [symbol if count == 1 else f"{symbol}*{count}" for symbol, count in runs]
    return f"ELEMENTS={','.join(words)}"


def _word(text: object) -> str:
    """Return a value of the input, in braces where it has blanks."""
    word = str(text)
    return f"{{{word}}}" if " " in word else word
