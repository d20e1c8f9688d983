"""The command line: ``ofcv-export export | verify | inspect | run | fit``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import ofcv_export as ofcv
from ofcv_export.artifacts.trajectory import read_frames
from ofcv_export.artifacts.verification import VerificationReport
from ofcv_export.base.files import atomic_path, require_file, require_suffix
from ofcv_export.base.validation import shape_text
from ofcv_export.density.fitting.density_labels import basis_of_irreps
from ofcv_export.density.fitting.fit_statistics import fit_statistics
from ofcv_export.density.fitting.sample_weighers import parse_weigher
from ofcv_export.graph.export_graph import Exportable
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tensor_spec import TensorSpec

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
    "What to export: a frozen set-up (.npz, written by SmartDerivatives.save) or dataset "
    "statistics (.zarr)."
)
ArtifactArgument = Annotated[Path, typer.Argument(help="An artifact: .onnx, .pt or .pt2.")]
WeigherOption = Annotated[str, typer.Option(help="Weigher of the statistics.")]
ChainRuleOption = Annotated[
    bool, typer.Option("--chain-rule", help="Of a set-up, take the sparse chain rule alone.")
]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the library's errors into one line and exit code 1."""
    try:
        yield
    except (ValueError, TypeError, IndexError, KeyError, OSError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        errors.print(f"[bold red]error[/] {_escape(str(text))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _source(path: Path, weigher: str, chain_rule: bool) -> Exportable:
    """Return the module that a file describes."""
    if require_suffix("source", path, ".npz", ".zarr") == ".zarr":
        statistics = ofcv.DatasetStatistics(path)
        return ofcv.DimensionWiseRescaling.from_dataset_statistics(statistics, weigher_key=weigher)
    smart = ofcv.SmartDerivatives.load(path)
    return smart.sparse_chain_rule() if chain_rule else smart


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help=SOURCE_HELP)],
    path: Annotated[Path, typer.Argument(help="The artifact to write: .onnx, .pt or .pt2.")],
    batch: Annotated[int | None, typer.Option(help="Fix the number of frames.")] = None,
    n_outputs: Annotated[
        int | None, typer.Option(help="Number of outputs of the CV; none for a single one.")
    ] = None,
    form: Annotated[str, typer.Option(help="Sum by scatter or by gather.")] = "scatter",
    gradient: Annotated[
        bool, typer.Option("--gradient", help="Rescale the gradient as well.")
    ] = False,
    chain_rule: ChainRuleOption = False,
    atoms: Annotated[
        str | None, typer.Option(help="The engine's zero-based atom indices, e.g. 0,1,5-8.")
    ] = None,
    length_unit: Annotated[str | None, typer.Option(help="Unit of lengths, e.g. nm.")] = None,
    weigher: WeigherOption = "has_energy_label",
) -> None:
    """Export a frozen set-up or dataset statistics; the file is verified before it is kept."""
    with _one_line_errors():
        module = _source(source, weigher, chain_rule)
        options: dict[str, Any] = {}
        if isinstance(module, ofcv.DimensionWiseRescaling):
            options["gradient"] = gradient
        else:
            options["n_outputs"] = n_outputs
        if isinstance(module, ofcv.SmartDerivatives):
            options["form"] = form
        report = ofcv.export(
            module,
            path,
            batch,
            atoms=None if atoms is None else _atoms(atoms),
            length_unit=length_unit,
            **options,
        )
        if path.suffix == ".pt":
            errors.print("[dim]TorchScript is deprecated upstream; prefer .onnx where you can.[/]")
        _print_report(report)


@app.command()
def verify(
    path: ArtifactArgument,
    reference: Annotated[
        Path | None, typer.Option(help="What was exported, .npz or .zarr, to compare with.")
    ] = None,
    chain_rule: ChainRuleOption = False,
    weigher: WeigherOption = "has_energy_label",
) -> None:
    """Replay an artifact in its own runtime and compare it with float64."""
    with _one_line_errors():
        module = None if reference is None else _source(reference, weigher, chain_rule)
        report = ofcv.verify(path, reference=module)
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
    console.print(_tensor_table(metadata))


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
        given = dict(_named("input", entry, artifact.metadata.inputs) for entry in inputs)
        wanted = dict(_named("output", entry, artifact.metadata.outputs) for entry in outputs or [])
        results = [_evaluate(artifact, call) for call in _calls(artifact, given)]
        table = Table("output", "shape", "dtype", "smallest", "largest", "written to")
        for spec, *parts in zip(artifact.metadata.outputs, *results, strict=True):
            array = np.concatenate(parts)
            file = wanted.get(spec.name)
            if file is not None:
                with atomic_path(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, array)
            table.add_row(
                spec.name,
                shape_text(array.shape),
                spec.dtype,
                f"{array.min():.6g}",
                f"{array.max():.6g}",
                "" if file is None else str(file),
            )
        console.print(table)


@app.command()
def fit(
    labels: Annotated[
        list[Path], typer.Argument(help="Label files of mldft's layout (.zarr.zip, .zarr).")
    ],
    output: Annotated[Path, typer.Argument(help="The statistics store to write (.zarr).")],
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
        task = bar.add_task("Fitting", total=None)
        statistics = fit_statistics(
            labels,
            output,
            None if basis is None else basis_of_irreps(json.loads(basis.read_text())),
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
    console.print(f"{output}: {len(labels)} files, {len(statistics.keys_recursive())} statistics")


def _calls(artifact: ofcv.Artifact, files: dict[str, Path]) -> list[dict[str, np.ndarray]]:
    """Return the inputs of one call, or of one call a frame where each has a box of its own."""
    trajectory = files.get("positions")
    if trajectory is None or trajectory.suffix == ".npy":
        given = {name: _read_npy(name, file) for name, file in files.items()}
        return list(_frame_by_frame(artifact.metadata.inputs, given))
    arrays = {name: _read_npy(name, file) for name, file in files.items() if name != "positions"}
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
    if len(lengths) != 1:
        yield given
        return
    for frame in range(lengths.pop()):
        one = {name: array[frame : frame + 1] for name, array in given.items() if name in framed}
        yield given | one


def _evaluate(artifact: ofcv.Artifact, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a call as arrays, in the metadata's order."""
    result = artifact(**inputs)
    tensors = result if isinstance(result, tuple) else (result,)
    return [tensor.cpu().numpy() for tensor in tensors]


def _atoms(text: str) -> list[int]:
    """Return the indices in a list such as ``0,1,5-8``."""
    try:
        parts = [[int(end) for end in part.split("-")] for part in text.split(",")]
        return [index for part in parts for index in range(part[0], part[-1] + 1)]
    except ValueError as error:
        raise ValueError(f"atoms: expected indices such as 0,1,5-8, got {text!r}") from error


def _named(option: str, entry: str, specs: tuple[TensorSpec, ...]) -> tuple[str, Path]:
    """Return name and file of ``NAME=FILE``; the name may be left out where there is only one."""
    name, equals, file = entry.rpartition("=")
    if not equals and len(specs) == 1:
        name = specs[0].name
    if name not in [spec.name for spec in specs]:
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(f"{option}: expected NAME=FILE with a NAME among {names}, got {entry!r}")
    return name, Path(file)


def _read_npy(name: str, path: Path) -> np.ndarray:
    """Return the array in a .npy file."""
    require_file(name, path)
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{name}: expected a .npy file, got {str(path)!r}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: expected a .npy file, got {str(path)!r}")
    return array


def _print_report(report: VerificationReport) -> None:
    table = Table(
        "output", "device", "comparisons", "max abs error", "max rel error", "tolerance", "verdict",
        title=f"{report.path.name} in {report.runtime}, against {report.reference}",
    )  # fmt: skip
    groups = sorted({(entry.output, entry.device) for entry in report.comparisons})
    for output, device in groups:
        entries = [
            entry
            for entry in report.comparisons
            if (entry.output, entry.device) == (output, device)
        ]
        worst = max(entry.max_rel_error for entry in entries)
        table.add_row(
            output,
            device,
            str(len(entries)),
            f"{max(entry.max_abs_error for entry in entries):.1e}",
            f"{worst:.1e}",
            f"{report.tolerance:.0e}",
            "[green]passed[/]" if worst <= report.tolerance else "[red]FAILED[/]",
        )
    console.print(table)


def _metadata_table(path: Path, metadata: Metadata) -> Table:
    table = Table("field", "value", title=f"{path.name}: digest matches")
    table.add_row("kind", metadata.kind)
    table.add_row(
        "format", metadata.format + (f", opset {metadata.opset}" if metadata.opset else "")
    )
    table.add_row("created", metadata.created)
    table.add_row("device", metadata.device)
    table.add_row("instruction set", metadata.instruction_set or "any")
    table.add_row("versions", ", ".join(f"{k} {v}" for k, v in metadata.versions.items()))
    table.add_row("atoms", "not given" if metadata.atoms is None else str(list(metadata.atoms)))
    table.add_row("length unit", metadata.length_unit or "not given")
    table.add_row("periodic", "yes" if metadata.periodic else "no")
    table.add_row("sha256 of pattern", metadata.sha256.pattern or "none")
    table.add_row("sha256 of weights", metadata.sha256.weights)
    if metadata.parity is not None:
        table.add_row(
            "parity with float64",
            f"max rel error {metadata.parity.max_rel_error:.1e}, "
            f"max abs error {metadata.parity.max_abs_error:.1e} "
            f"({metadata.parity.runtime}, {metadata.parity.comparisons} comparisons)",
        )
    for name, value in msgspec.to_builtins(metadata.details).items():
        text = json.dumps(value)
        table.add_row(name, text if len(text) <= 60 else text[:57] + "...")
    return table


def _tensor_table(metadata: Metadata) -> Table:
    table = Table("", "name", "dtype", "shape", "range or unit")
    for spec in metadata.inputs:
        limits = "" if spec.low is None else f"{spec.low} to {spec.high} - 1"
        if isinstance(spec.high, int):
            limits = f"{spec.low} to {spec.high - 1}"
        table.add_row("input", spec.name, spec.dtype, shape_text(spec.shape), limits)
    for spec in metadata.outputs:
        unit = metadata.output_units.get(spec.name, "")
        table.add_row("output", spec.name, spec.dtype, shape_text(spec.shape), unit)
    return table
