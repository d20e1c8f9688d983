"""The command line: ``ofcv-export export | verify | inspect | run | fit``."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

import ofcv_export as ofcv
from ofcv_export.artifacts.graph_trajectory import along
from ofcv_export.artifacts.trajectory import read_frames
from ofcv_export.base.arrays import to_array
from ofcv_export.base.files import (
    atomic_path,
    read_npy,
    require_file,
    require_folder_of,
    require_suffix,
)
from ofcv_export.base.packages import require_torch
from ofcv_export.base.validation import FLOATING, first_line, shape_text
from ofcv_export.graph.details import GraphVariableDetails
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TensorSpec
from ofcv_export.runtimes.fortran import fortran_module

if TYPE_CHECKING:
    from ofcv_export.graph.export_graph import Exportable

app = typer.Typer(
    help="Export collective variables and OF-DFT rescalings, verified.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Inputs whose first axis counts frames.
_WITH_FRAMES = (
    "positions",
    "output_wrt_descriptors",
    "ref_idx",
    "descriptors_wrt_positions",
)
# What is no terminal has no width: tables are not cut.
_WIDTH = None if sys.stdout.isatty() else 120
console = Console(width=_WIDTH)
errors = Console(stderr=True, width=_WIDTH)

SOURCE_HELP = (
    "What to export: a frozen set-up (.npz, written by SmartDerivatives.save), dataset statistics "
    "(.zarr, or their URL) or a Lightning checkpoint of an mlcolvar model (.ckpt)."
)
ArtifactArgument = Annotated[
    Path, typer.Argument(help="An artifact: .c, .so, .cpp, .onnx, .pt or .pt2.")
]
FramesOption = Annotated[
    Path | None,
    typer.Option(
        help="Positions at which to compare with float64: a trajectory in Angstrom (.xyz, .pdb, "
        "...), or .npy as the artifact takes them."
    ),
]
AtomsOption = Annotated[
    str | None, typer.Option(help="The engine's zero-based atom indices, e.g. 0,1,5-8.")
]
UnitOption = Annotated[str | None, typer.Option(help="Unit of lengths, e.g. nm.")]
UnpicklingOption = Annotated[
    bool,
    typer.Option(
        "--allow-unpickling",
        help="Load a checkpoint with objects in it, which can run any code: for files you trust.",
    ),
]
ModelClassOption = Annotated[
    str | None, typer.Option(help="mlcolvar's class of the model in a checkpoint, e.g. DeepTDA.")
]
WeigherOption = Annotated[
    str | None, typer.Option(help="Weigher of the statistics; has_energy_label by default.")
]
ChainRuleOption = Annotated[
    bool, typer.Option("--chain-rule", help="Of a set-up, take the sparse chain rule alone.")
]


@app.callback()
def _any_terminal() -> None:
    """Export collective variables and OF-DFT rescalings, verified."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without a character gets its code.
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the library's errors into one line and exit code 1."""
    try:
        yield
    except (ValueError, TypeError, IndexError, KeyError, OSError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = str(text) or type(error).__name__
        errors.print(f"[bold red]error[/] {escape(text)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


def _source(
    path: str,
    weigher: str | None,
    chain_rule: bool,
    atoms: Sequence[int] | None,
    length_unit: str | None,
    allow_unpickling: bool,
    model_class: str | None,
) -> Exportable:
    """Return the module that a file describes; of a model, with its atoms and its unit."""
    suffix = require_suffix("source", path, ".npz", ".zarr", ".ckpt")
    if suffix == ".ckpt":
        _require_unused("a checkpoint", weigher=weigher, chain_rule=chain_rule or None)
        unit = length_unit or "nm"
        return ofcv.from_mlcolvar(
            Path(path), atoms, unit, allow_unpickling, model_class=model_class
        )
    checkpoint = {"allow_unpickling": allow_unpickling or None, "model_class": model_class}
    if suffix == ".zarr":
        _require_unused("dataset statistics", chain_rule=chain_rule or None, **checkpoint)
        return ofcv.DimensionWiseRescaling.from_dataset_statistics(
            ofcv.DatasetStatistics(path), weigher_key=weigher or "has_energy_label"
        )
    _require_unused("a frozen set-up", weigher=weigher, **checkpoint)
    smart = ofcv.SmartDerivatives.load(path)
    return smart.sparse_chain_rule() if chain_rule else smart


def _require_unused(source: str, **options: Any) -> None:
    """Raise ValueError at an option that is given and says nothing about such a source."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: expected none for {source}, got {value!r}")


@app.command()
def export(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    path: Annotated[
        Path, typer.Argument(help="The artifact to write: .c, .so, .cpp, .onnx, .pt, .pt2.")
    ],
    batch: Annotated[int | None, typer.Option(help="Fix the number of frames.")] = None,
    n_outputs: Annotated[
        int | None, typer.Option(help="Number of outputs of the CV; none for a single one.")
    ] = None,
    form: Annotated[
        str | None, typer.Option(help="Of a set-up, sum by scatter (by default) or by gather.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of statistics, float32 or float64; by default their own.")
    ] = None,
    gradient: Annotated[
        bool, typer.Option("--gradient", help="Rescale the gradient as well.")
    ] = False,
    chain_rule: ChainRuleOption = False,
    atoms: AtomsOption = None,
    length_unit: UnitOption = None,
    weigher: WeigherOption = None,
    contract: Annotated[
        str | None,
        typer.Option(
            help="An engine's calling convention: plumed (.cpp), plumed-pytorch (.pt), ..."
        ),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="Beginning of names in C; by default the file's stem.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Let compilers of C fuse products with sums.")
    ] = False,
    frames: FramesOption = None,
    allow_unpickling: UnpicklingOption = False,
    model_class: ModelClassOption = None,
) -> None:
    """Export a set-up, dataset statistics or a model; the file is verified before it is kept."""
    with _one_line_errors():
        require_torch("the command export")
        require_folder_of("path", path)
        indices = None if atoms is None else _atoms(atoms)
        module = _source(
            source, weigher, chain_rule, indices, length_unit, allow_unpickling, model_class
        )
        of_source = {"symbol": symbol, "fast": fast or None}
        options: dict[str, Any] = {k: v for k, v in of_source.items() if v is not None}
        if isinstance(module, ofcv.DimensionWiseRescaling):
            _require_unused("dataset statistics", form=form, n_outputs=n_outputs)
            options["gradient"] = gradient
            module = _cast(module, dtype)
        elif isinstance(module, ofcv.CollectiveVariable):
            _require_unused(
                "a checkpoint",
                form=form,
                n_outputs=n_outputs,
                gradient=gradient or None,
                dtype=dtype,
            )
        else:
            _require_unused("a frozen set-up", gradient=gradient or None, dtype=dtype)
            options["n_outputs"] = n_outputs
            if isinstance(module, ofcv.SmartDerivatives):
                options["form"] = form or "scatter"
            else:
                _require_unused("the sparse chain rule alone", form=form)
        report = ofcv.export(
            module,
            path,
            batch,
            contract=contract,
            atoms=indices,
            length_unit=length_unit,
            frames=frames,
            **options,
        )
        if path.suffix == ".pt":
            errors.print("[dim]TorchScript is deprecated upstream; prefer .onnx where you can.[/]")
        _print_report(report)


@app.command()
def verify(
    path: ArtifactArgument,
    reference: Annotated[
        str | None,
        typer.Option(help="What was exported, .npz, .zarr or .ckpt, to compare with."),
    ] = None,
    chain_rule: ChainRuleOption = False,
    weigher: WeigherOption = None,
    frames: FramesOption = None,
    allow_unpickling: UnpicklingOption = False,
    model_class: ModelClassOption = None,
) -> None:
    """Replay an artifact in its own runtime and compare it with float64."""
    with _one_line_errors():
        require_torch("the command verify")
        module = None
        if reference is not None:
            known = ofcv.read_metadata(path)
            module = _source(
                reference,
                weigher,
                chain_rule,
                known.atoms,
                known.length_unit,
                allow_unpickling,
                model_class,
            )
            if isinstance(module, ofcv.DimensionWiseRescaling):
                module = _cast(module, known.inputs[0].dtype)
        report = ofcv.verify(path, reference=module, frames=frames)
    _print_report(report)
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def inspect(
    path: ArtifactArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metadata as JSON.")] = False,
) -> None:
    """Print an artifact's metadata. The digest is checked; nothing is executed."""
    with _one_line_errors():
        metadata = ofcv.read_metadata(path)
    if as_json:
        typer.echo(json.dumps(json.loads(metadata.to_json()), indent=2))
        return
    console.print(_metadata_table(path, metadata))
    _print_tensors(metadata)


@app.command()
def fortran(
    path: Annotated[Path, typer.Argument(help="An artifact: .c or .so.")],
    module: Annotated[
        Path | None, typer.Argument(help="The module to write; by default beside the artifact.")
    ] = None,
) -> None:
    """Write a Fortran module with the interface of C source, compiled or not."""
    with _one_line_errors():
        target = module or path.with_suffix(".f90")
        text = fortran_module(path)
        with atomic_path(target) as temporary:
            temporary.write_text(text)
    console.print(f"{target}: interface of {path}")


@app.command()
def run(
    path: ArtifactArgument,
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            help="NAME=FILE.npy, once for each input; the positions of a collective variable, and "
            "its box, may come from a trajectory in Angstrom (.xyz, .pdb, ...) instead.",
        ),
    ],
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", help="NAME=FILE.npy, or FILE.npy for a single output."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Run an artifact on .npy files or a trajectory."""
    with _one_line_errors():
        artifact = ofcv.load(path, device)
        given = _files("input", inputs, artifact.metadata.inputs)
        wanted = _files("output", outputs or [], artifact.metadata.outputs)
        for entry in wanted.values():
            require_folder_of("output", entry)
        results = _results(artifact, given)
        rows = []
        for spec, *parts in zip(artifact.metadata.outputs, *results, strict=True):
            array = np.concatenate(parts)
            file = wanted.get(spec.name)
            if file is not None:
                with atomic_path(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, array)
            row = [spec.name, shape_text(array.shape), spec.dtype]
            rows.append([*row, f"{array.min():.6g}", f"{array.max():.6g}", str(file or "")])
        _print_table("", ["output", "shape", "dtype", "smallest", "largest", "written to"], rows)


@app.command()
def fit(
    labels: Annotated[
        list[str], typer.Argument(help="Label files of mldft's layout (.zarr.zip, .zarr), or URLs.")
    ],
    output: Annotated[
        str, typer.Argument(help="The statistics store to write (.zarr), or its URL.")
    ],
    weigher: Annotated[
        list[str] | None, typer.Option(help="Weigher of the samples; may be repeated.")
    ] = None,
    initial_guess_weigher: Annotated[
        list[str] | None, typer.Option(help="Weigher for the distance to the ground state.")
    ] = None,
    energy: Annotated[str, typer.Option(help="Energy label to fit.")] = "e_kin",
    gradient: Annotated[str, typer.Option(help="Gradient label to fit.")] = "grad_kin",
    basis: Annotated[
        Path | None,
        typer.Option(help='JSON such as {"H": "6x0e+3x1o"}, where the labels hold no basis.'),
    ] = None,
    min_atoms: Annotated[
        int, typer.Option(help="Fewest atoms of each element; 0 allows elements to be absent.")
    ] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace statistics that differ.")
    ] = False,
    processes: Annotated[int, typer.Option(help="Number of processes that read files.")] = 1,
) -> None:
    """Fit dataset statistics to density labels."""
    with _one_line_errors(), Progress(console=errors, transient=True) as bar:
        require_torch("the command fit")
        from ofcv_export.density.fitting.fit_statistics import fit_statistics
        from ofcv_export.density.fitting.sample_weighers import parse_weigher

        task = bar.add_task("Fitting", total=None)
        statistics = fit_statistics(
            labels,
            output,
            None if basis is None else _read_basis(basis),
            weighers=[parse_weigher(key) for key in weigher or ["has_energy_label"]],
            initial_guess_weighers=[
                parse_weigher(key) for key in initial_guess_weigher or ["initial_guess_only"]
            ],
            energy_key=energy,
            gradient_key=gradient,
            min_atoms_per_type=min_atoms,
            overwrite=overwrite,
            processes=processes,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    n_statistics = len(statistics.keys_recursive())
    console.print(escape(f"{output}: {len(labels)} files, {n_statistics} statistics"))


def _results(artifact: ofcv.Artifact, files: dict[str, Path]) -> list[list[np.ndarray]]:
    """Return the outputs of one call, or of each call."""
    trajectory = files.get("positions")
    if trajectory is None or trajectory.suffix == ".npy":
        given = {name: read_npy(name, file) for name, file in files.items()}
        calls = list(_frame_by_frame(artifact.metadata.inputs, given))
        return [_evaluate(artifact, call) for call in calls]
    arrays = {name: read_npy(name, file) for name, file in files.items() if name != "positions"}
    if isinstance(artifact.metadata.details, GraphVariableDetails):
        return list(along(artifact, trajectory, arrays))
    return [_evaluate(artifact, call) for call in _calls(artifact, trajectory, arrays)]


def _calls(
    artifact: ofcv.Artifact, trajectory: Path, arrays: dict[str, np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """Return the inputs of one call, or of one call a frame where each has a box of its own."""
    positions, boxes = read_frames(trajectory, artifact.metadata)
    positions = positions.astype(artifact.metadata.inputs[0].dtype)
    if boxes is None or "box" in arrays:
        given = {"positions": positions, **arrays}
        return list(_frame_by_frame(artifact.metadata.inputs, given))
    boxes = boxes.astype(positions.dtype)
    return [
        {"positions": frame[None], "box": box, **arrays}
        for frame, box in zip(positions, boxes, strict=True)
    ]


def _frame_by_frame(
    specs: Sequence[TensorSpec], given: dict[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of one call with all frames, or of one a frame for a file of one frame."""
    framed = [spec.name for spec in specs if spec.name in _WITH_FRAMES and spec.shape[0] == 1]
    lengths = {len(given[name]) for name in framed if name in given and given[name].ndim > 0}
    if len(lengths) != 1 or lengths == {0}:
        yield given
        return
    for frame in range(lengths.pop()):
        one = {name: array[frame : frame + 1] for name, array in given.items() if name in framed}
        yield given | one


def _evaluate(artifact: ofcv.Artifact, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a call as arrays, in the metadata's order."""
    result = artifact(**inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    return [output if isinstance(output, np.ndarray) else to_array(output) for output in outputs]


def _atoms(text: str) -> list[int]:
    """Return the indices in a list such as ``0,1,5-8``."""
    try:
        parts = [[int(end) for end in part.split("-")] for part in text.split(",")]
        return [index for part in parts for index in range(part[0], part[-1] + 1)]
    except ValueError as error:
        raise ValueError(f"atoms: expected indices such as 0,1,5-8, got {text!r}") from error


def _cast(module: ofcv.DimensionWiseRescaling, dtype: str | None) -> ofcv.DimensionWiseRescaling:
    """Return the rescaling in another dtype."""
    if dtype not in (None, *FLOATING):
        raise ValueError(f"dtype: expected float32 or float64, got {dtype!r}")
    if dtype is None:
        return module
    import torch

    return module.to(getattr(torch, dtype))


def _read_basis(path: Path) -> ofcv.BasisInfo:
    """Return the basis in a JSON file."""
    from ofcv_export.density.basis import basis_of_irreps

    try:
        return basis_of_irreps(json.loads(require_file("basis", path).read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f'basis: expected a JSON file such as {{"H": "6x0e+3x1o"}}, got {str(path)!r} '
            f"({first_line(error)})"
        ) from error


def _files(option: str, entries: Sequence[str], specs: tuple[TensorSpec, ...]) -> dict[str, Path]:
    """Return the file of each name, every name and, of outputs, every file once."""
    files: dict[str, Path] = {}
    for entry in entries:
        name, file = _named(option, entry, specs)
        if name in files:
            raise ValueError(f"{option}: expected each name once, got {name} again")
        if option == "output" and file.resolve() in [other.resolve() for other in files.values()]:
            raise ValueError(f"{option}: expected a file for each name, got {str(file)!r} again")
        files[name] = file
    return files


def _named(option: str, entry: str, specs: tuple[TensorSpec, ...]) -> tuple[str, Path]:
    """Return name and file of ``NAME=FILE``; the name may be left out where there is only one.

    A file may have more such signs in its name.
    """
    names = [spec.name for spec in specs]
    name, equals, file = entry.partition("=")
    if equals and name in names:
        return name, Path(file)
    if len(names) == 1 and not (equals and name.isidentifier()):
        return names[0], Path(entry)
    raise ValueError(
        f"{option}: expected NAME=FILE with a NAME among {', '.join(names)}, got {entry!r}"
    )


_STYLES = {"passed": "green", "FAILED": "red"}


def _print_report(report: ofcv.VerificationReport) -> None:
    groups = sorted({(entry.output, entry.device) for entry in report.comparisons})
    rows = []
    for output, device in groups:
        entries = [
            entry
            for entry in report.comparisons
            if (entry.output, entry.device) == (output, device)
        ]
        part = dataclasses.replace(report, comparisons=tuple(entries))
        rows.append(
            [
                output,
                device,
                str(len(entries)),
                f"{part.max_abs_error:.1e}",
                f"{part.max_rel_error:.1e}",
                f"{report.tolerance:.0e}",
                "passed" if part.passed else "FAILED",
            ]
        )
    header = ["output", "device", "comparisons", "max abs error", "max rel error", "tolerance"]
    _print_table(
        f"{report.path.name} in {report.runtime}, against {report.reference}",
        [*header, "verdict"],
        rows,
    )


def _print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table; one line for each entry where the terminal is too narrow for its columns."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    if sum(widths) + 3 * len(widths) + 1 <= console.width:
        table = Table(*header, title=Text(title) if title else None)
        for row in rows:
            table.add_row(*[Text(entry, style=_STYLES.get(entry, "")) for entry in row])
        console.print(table)
        return
    if title:
        console.print(Text(title, style="italic"), soft_wrap=True)
    for row in rows:
        for name, entry in zip(header, row, strict=True):
            text = Text.assemble(f"{name}: ", (entry, _STYLES.get(entry, "")))
            console.print(text, soft_wrap=True)


def _metadata_table(path: Path, metadata: Metadata) -> Table:
    table = Table(
        Column("field", no_wrap=True),
        Column("value", overflow="fold"),
        title=Text(f"{path.name}: digest matches"),
    )

    def add(field: str, value: str) -> None:
        table.add_row(field, Text(value))

    add("kind", metadata.kind)
    add("format", metadata.format + (f", opset {metadata.opset}" if metadata.opset else ""))
    add("created", metadata.created)
    add("device", metadata.device)
    add("instruction set", metadata.instruction_set or "any")
    add("versions", ", ".join(f"{k} {v}" for k, v in metadata.versions.items()))
    add("atoms", "not given" if metadata.atoms is None else str(list(metadata.atoms)))
    add("length unit", metadata.length_unit or "not given")
    add("periodic", "yes" if metadata.periodic else "no")
    if metadata.options:
        add("options", ", ".join(f"{name}={value}" for name, value in metadata.options.items()))
    add("sha256 of pattern", metadata.sha256.pattern or "none")
    add("sha256 of weights", metadata.sha256.weights)
    if metadata.parity is not None:
        add(
            "parity with float64",
            f"max rel error {metadata.parity.max_rel_error:.1e}, "
            f"max abs error {metadata.parity.max_abs_error:.1e} "
            f"({metadata.parity.runtime}, {metadata.parity.comparisons} comparisons)",
        )
    for name, value in msgspec.to_builtins(metadata.details).items():
        text = json.dumps(value)
        add(name, text if len(text) <= 60 else text[:57] + "...")
    return table


def _print_tensors(metadata: Metadata) -> None:
    rows = []
    for spec in metadata.inputs:
        limits = "" if spec.low is None else f"{spec.low} to {spec.high} - 1"
        if spec.choices is not None:
            limits = ", ".join(map(str, spec.choices))
        if isinstance(spec.high, int):
            limits = f"{spec.low} to {spec.high - 1}"
        rows.append(["input", spec.name, spec.dtype, shape_text(spec.shape), limits])
    for spec in metadata.outputs:
        unit = metadata.output_units.get(spec.name, "")
        rows.append(["output", spec.name, spec.dtype, shape_text(spec.shape), unit])
    _print_table("", ["tensor", "name", "dtype", "shape", "range or unit"], rows)
