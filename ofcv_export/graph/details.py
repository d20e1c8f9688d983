"""What metadata say about each kind of artifact, one type a kind."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Lattice = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
Description = dict[str, Any]
Form = Literal["general", "one frame", "cyclic pairs", "gathered pairs"]


class Box(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a variable makes of boxes and periodic images.

    Parameters
    ----------
    run_time : {"triclinic", "orthorhombic"}, optional
        Which boxes it takes with every call; None where none is an input.
    fixed : tuple of lattices
        Periodic boxes that are part of it, lattice vectors as rows, in its unit of length.
    open : bool
        Whether some descriptor takes vectors between atoms as they are, so that a molecule has to
        be whole.
    fractions : bool
        Whether positions are fractions of a box.
    """

    run_time: Literal["triclinic", "orthorhombic"] | None
    fixed: tuple[Lattice, ...]
    open: bool
    fractions: bool


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Descriptor and atom of every block of a sparse Jacobian, in order."""

    descriptor_index: tuple[int, ...]
    atom_index: tuple[int, ...]


class _Details(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """Facts about one kind of artifact; the tag is the name of the kind."""


class SmartDerivativesDetails(_Details, frozen=True, kw_only=True, tag="smart_derivatives"):
    """The chain rule on frozen frames.

    Parameters
    ----------
    n_atoms, n_descriptors, nnz, n_frames : int
        Sizes; nnz is the number of structural non-zeros per frame.
    form : {"scatter", "gather"}
        How contributions are added up.
    descriptors : dict or None
        Description of the descriptors, where they have one.
    """

    n_atoms: int
    n_descriptors: int
    nnz: int
    n_frames: int
    form: Literal["scatter", "gather"]
    descriptors: Description | None


class SparseChainRuleDetails(_Details, frozen=True, kw_only=True, tag="sparse_chain_rule"):
    """The chain rule with the derivatives of the descriptors as an input.

    Parameters
    ----------
    n_atoms, n_descriptors, nnz : int
        As in `SmartDerivativesDetails`.
    pattern : Pattern
        Order of the derivatives.
    descriptors : dict or None
        Description of the descriptors, where they have one.
    """

    n_atoms: int
    n_descriptors: int
    nnz: int
    pattern: Pattern
    descriptors: Description | None


class RescalingDetails(_Details, frozen=True, kw_only=True, tag="dimension_wise_rescaling"):
    """The rescaling of any molecule or, with `atomic_numbers`, of one.

    Parameters
    ----------
    n_basis : int
        Number of basis functions of all elements together.
    epsilon : float
        Added to lambda where gradients are divided by it.
    s_coeff, s_grad : float or None
        The scales of eq. (4); None for one molecule.
    atomic_numbers : tuple of int, optional
        The molecule.
    """

    n_basis: int
    epsilon: float
    s_coeff: float | None = None
    s_grad: float | None = None
    atomic_numbers: tuple[int, ...] | None = None


class EnergyFunctionalDetails(_Details, frozen=True, kw_only=True, tag="energy_functional"):
    """A functional of density coefficients, of any molecules or of one.

    Parameters
    ----------
    n_basis : int
        Number of basis functions of all elements together.
    atomic_reference, transform : bool
        Whether there is an atomic reference, and a linear map of the coefficients before all else.
    atomic_numbers : tuple of int, optional
        The molecule.
    """

    n_basis: int
    atomic_reference: bool
    transform: bool = False
    atomic_numbers: tuple[int, ...] | None = None


class VariableDetails(_Details, frozen=True, kw_only=True, tag="collective_variable"):
    """A collective variable or a bias.

    Parameters
    ----------
    n_atoms, n_outputs : int
        Sizes.
    box : Box
        Boundary conditions.
    descriptors : dict or None
        Description of the descriptors, None where a part has none.
    periods : tuple of float or None
        Period of each value, None where it has none.
    parameters : dict of str to tuple of float
        Default values of the inputs that follow positions and box.
    time_unit : str or None
        Unit of the parameter ``time``, which follows the simulation's, if there is one.
    bias : dict or None
        Description of the energy of a bias.
    form : str
        Form of the graph, see `ofcv_export.variables.one_frame`.
    """

    n_atoms: int
    n_outputs: int
    box: Box
    descriptors: Description | None
    periods: tuple[float | None, ...]
    parameters: dict[str, tuple[float, ...]]
    time_unit: str | None
    bias: Description | None
    form: Form


class GraphVariableDetails(_Details, frozen=True, kw_only=True, tag="graph_collective_variable"):
    """A collective variable of a graph of atoms, or a bias of one.

    Parameters
    ----------
    n_outputs : int
        Number of values.
    known_elements : tuple of str
        Chemical symbols that the network knows.
    cutoff, buffer, long_range_cutoff : float
        See `GraphCollectiveVariable`, in the unit of length; None without long-range edges.
    system, environment, subsystem : tuple of int or None
        Zero-based indices in the engine's numbering; a system of None is all atoms.
    periods : tuple of float or None
        Period of each value, None where it has none.
    parameters, time_unit, bias
        As in `VariableDetails`.
    """

    n_outputs: int
    known_elements: tuple[str, ...]
    cutoff: float
    buffer: float
    long_range_cutoff: float | None
    system: tuple[int, ...] | None
    environment: tuple[int, ...] | None
    subsystem: tuple[int, ...] | None
    periods: tuple[float | None, ...]
    parameters: dict[str, tuple[float, ...]]
    time_unit: str | None
    bias: Description | None


class ContractDetails(_Details, frozen=True, kw_only=True, tag="contract"):
    """A variable, or its network, in an engine's own calling convention.

    Parameters
    ----------
    contract : str
        Name of the convention.
    variable : VariableDetails
        What is behind it.
    engine_inputs : tuple of str, optional
        The engine's names of the inputs, where it lists them.
    group : tuple of int, optional
        Atoms of the engine that the file is given.
    """

    contract: str
    variable: VariableDetails
    engine_inputs: tuple[str, ...] | None = None
    group: tuple[int, ...] | None = None


Details = (
    SmartDerivativesDetails
    | SparseChainRuleDetails
    | RescalingDetails
    | EnergyFunctionalDetails
    | VariableDetails
    | GraphVariableDetails
    | ContractDetails
)


def variable_of(details: Details) -> VariableDetails | None:
    """Return the facts about a variable, or about the one behind a contract; else None."""
    variable = details.variable if isinstance(details, ContractDetails) else details
    return variable if isinstance(variable, VariableDetails) else None


def box_shape(details: Details) -> Literal["triclinic", "orthorhombic", "optional"]:
    """Return which boxes an input of the name ``box`` may hold."""
    if isinstance(details, GraphVariableDetails):
        return "optional"
    variable = variable_of(details)
    return (variable.box.run_time if variable else None) or "triclinic"
