"""C source as an action of PLUMED: one file of C++11 that ``LOAD FILE=cv.cpp`` compiles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from math import prod

from ofcv_export.base.units import ENERGIES, LENGTHS
from ofcv_export.graph.details import Details, VariableDetails
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TensorSpec

_HEXADECIMAL = re.compile(r"\b0x[\da-f.]+p[+-]?\d+(f?)")
_REALS = {"float32": "float", "float64": "double"}
# Of PLUMED's actions those after which somebody may name a file. A second one of a name disables
# both in PLUMED 2.9, and takes the first one's place in 2.10.
_ACTIONS = frozenset(
    """ABMD ALPHABETA ALPHARMSD ANGLE ANGLES ANTIBETARMSD BIASVALUE CELL CENTER COM COMBINE
    COMMITTOR CONSTANT CONTACTMAP COORDINATION CUSTOM DIHCOR DIPOLE DISTANCE DISTANCES DRMSD
    ECV_MULTITHERMAL EEFSOLV ENERGY ENSEMBLE ENVIRONMENTSIMILARITY ERMSD EXTERNAL
    FIT_TO_TEMPLATE FLUSH FUNCPATHMSD GHOST GROUP GYRATION HISTOGRAM INCLUDE LOAD LOWER_WALLS
    MATHEVAL MAXENT METAD MOLINFO MOVINGRESTRAINT OFCV OPES_EXPANDED OPES_METAD PARABETARMSD
    PATHMSD PBMETAD PCARMSD POSITION PRINT PROPERTYMAP PUCKERING PYTORCH_MODEL READ RESTART
    RESTRAINT RMSD TARGET TEMPLATE TIME TORSION TORSIONS UNITS UPPER_WALLS VOLUME WHOLEMOLECULES
    WRAPAROUND
    """.split()  # noqa: SIM905
)
_NOT_PARAMETERS = ("positions", "box", "values", "derivatives", "box_derivatives")


def require_variable(details: Details, kind: str) -> VariableDetails:
    """Return the details of a collective variable of all its atoms, or raise ValueError."""
    if not isinstance(details, VariableDetails):
        raise ValueError(f"module: expected a collective_variable for PLUMED, got {kind}")
    return details


def require_action(metadata: Metadata) -> VariableDetails:
    """Return the facts about a file that can be an action of PLUMED.

    Raises
    ------
    ValueError
        If it is no collective variable or bias of one frame that takes positions, in units that
        PLUMED's convert to.
    """
    details = require_variable(metadata.details, metadata.kind)
    n_frames = metadata.inputs[0].shape[0] if len(metadata.inputs[0].shape) == 3 else 1
    if n_frames != 1:
        raise ValueError(f"batch: expected 1 for PLUMED, got {n_frames}")
    if details.box.fractions:
        raise ValueError("module: expected positions for PLUMED, got fractions of a box")
    if metadata.length_unit not in LENGTHS:
        raise ValueError(
            f"length_unit: expected {', '.join(LENGTHS)} for PLUMED, got {metadata.length_unit}"
        )
    if details.time_unit not in (None, "ps"):
        raise ValueError(f"time_unit: expected ps for PLUMED, got {details.time_unit}")
    return details


def require_no_action(symbol: str) -> None:
    """Raise ValueError if an action of that name is PLUMED's own."""
    if symbol.upper() in _ACTIONS:
        raise ValueError(
            f"path: expected another name than that of PLUMED's action {symbol.upper()}, got it "
            "(the action is named after the file; symbol=... chooses another name)"
        )


def action_text(source: str, metadata: Metadata, symbol: str, about: str) -> str:
    """Return C source with an action of PLUMED behind it, named after the symbol in capitals.

    Parameters
    ----------
    source : str
        A translation unit that compiles in C++ too.
    metadata : Metadata
        Of the file.
    symbol : str
        Beginning of the names in the source.
    about : str
        What PLUMED's log says about the file.

    Raises
    ------
    ValueError
        If the file can be no action, see `require_action`.
    """
    details = require_action(metadata)
    action = files(__package__).joinpath("plumed_action.cpp").read_text()
    facts = _facts(metadata, details, symbol, about)
    # PLUMED's own options, with which it compiles the file, may be any.
    source = source.replace("#pragma GCC optimize(", '#pragma GCC optimize("O3", ', 1)
    return "\n".join([_HEXADECIMAL.sub(_decimal, source), facts, action])


def _decimal(number: re.Match[str]) -> str:
    """Return a hexadecimal number, which C++ knows since 2017, with all digits that it needs."""
    value = float.fromhex(number[0].removesuffix("f"))
    text = f"{value:.9g}" if number[1] else repr(value)
    return (text if re.search(r"[.e]", text) else f"{text}.0") + number[1]


def _facts(metadata: Metadata, details: VariableDetails, symbol: str, about: str) -> str:
    """Return what the action has to know about the file."""
    box, energy = details.box, ENERGIES.get(metadata.output_units.get("values", ""))
    fixed = [[number for row in lattice for number in row] for lattice in box.fixed]
    lines = [
        f'const char *const action = "{symbol.upper()}";',
        f"typedef {_REALS[metadata.inputs[0].dtype]} Real;",
        f"const unsigned n_atoms = {details.n_atoms};",
        f"const int n_values = {details.n_outputs};",
        f"const unsigned atoms[] = {_list(metadata.atoms or range(details.n_atoms))};",
        f"const double length_in_nm = {LENGTHS[str(metadata.length_unit)]!r};",
        f"const bool is_energy = {_flag(energy is not None)};",
        f"const double energy_in_kj_per_mol = {energy or 1.0!r};",
        f"const double periods[] = {_list(period or 0.0 for period in details.periods)};",
        f"const bool takes_box = {_flag(metadata.periodic or bool(fixed))};",
        f"const bool takes_orthorhombic = {_flag(box.run_time == 'orthorhombic')};",
        f"const bool has_box_derivatives = {_flag(metadata.periodic)};",
        f"const bool may_be_moved = {_flag(details.descriptors is not None)};",
        f"const int n_boxes = {len(fixed)};",
        f"const double boxes[][9] = {_list(map(_list, fixed or [[0.0] * 9]))};",
        f'const char *const parameters = "{", ".join(_settable(details)) or "none"}";',
        f'const char *const about = "{about}";',
        f"inline const char *error(int code) {{ return {symbol}_error(code); }}",
        *_frame(metadata, details, symbol),
    ]
    text = "\n".join(lines)
    return f"#include <string>\n\nnamespace {{\nnamespace ofcv_file {{\n\n{text}\n\n}}\n}}\n"


def _frame(metadata: Metadata, details: VariableDetails, symbol: str) -> list[str]:
    """Return a struct with memory for what goes in and comes out, and its evaluation."""
    names = {spec.name: spec.name for spec in (*metadata.inputs, *metadata.outputs)}
    members, settings = [], []
    for number, spec in enumerate(metadata.inputs):
        if spec.name in _NOT_PARAMETERS:
            continue
        names[spec.name] = member = f"parameter_{number}"
        members.append(f"{_memory(spec, member)} = {_list(details.parameters[spec.name])};")
        if spec.name in _settable(details):
            settings.append(f'if (name == "{spec.name}") return copy({member}, values, size);')
    own = [spec for spec in (*metadata.inputs, *metadata.outputs) if spec.name in _NOT_PARAMETERS]
    members += [f"{_memory(spec, spec.name)};" for spec in own]
    if not metadata.periodic:
        members.append("Real box[9], box_derivatives[1];")
    time = f"{names['time']}[0] = time;" if details.time_unit else "(void)time;"
    return [
        "/* Memory of one evaluation. */",
        "struct Frame {",
        *members,
        f"int evaluate() {{ return {symbol}_evaluate({', '.join(names.values())}); }}",
        f"void set_time(double time) {{ {time} }}",
        "/* Returns 0, -1 for an unknown name, or the number of values that are wanted. */",
        "int set(const std::string &name, const double *values, int size) {",
        *settings,
        "(void)name; (void)values; (void)size;",
        "return -1;",
        "}",
        "template <typename T, int n>",
        "static int copy(T (&target)[n], const double *values, int size) {",
        "if (size != n) return n;",
        "for (int i = 0; i < n; ++i) target[i] = static_cast<T>(values[i]);",
        "return 0;",
        "}",
        "};",
    ]


def _settable(details: VariableDetails) -> list[str]:
    """Return the parameters that a user sets: the time is the simulation's."""
    return [name for name in details.parameters if not (details.time_unit and name == "time")]


def _memory(spec: TensorSpec, name: str) -> str:
    return f"{_REALS[spec.dtype]} {name}[{prod(int(size) for size in spec.shape)}]"


def _list(entries: Iterable[object]) -> str:
    return f"{{{', '.join(map(str, entries))}}}"


def _flag(value: bool) -> str:
    return "true" if value else "false"
