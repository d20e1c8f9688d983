"""A restraint of alanine dipeptide's psi torsion as a file for OpenMM-Torch's TorchForce.

``python -m export_scripts.openmm_torch_example`` writes the file and prints the Python lines that
use it. OpenMM-Torch itself is not needed here; where OpenMM runs from Python anyway,
`ofcv_export.engines.openmm` needs no plugin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import ofcv_export as ofcv
from export_scripts.gromacs_example import psi_restraint
from ofcv_export.graph.metadata import Metadata

console = Console(soft_wrap=True, highlight=False)


def python_lines(path: Path, metadata: Metadata) -> str:
    """Return the lines that add a file to an OpenMM System."""
    inputs = [spec.name for spec in metadata.inputs]
    defaults = [
        value for values in metadata.details.variable.parameters.values() for value in values
    ]
    outputs_forces = len(metadata.outputs) == 2
    names = [name for name in inputs if name not in ("positions", "box")]
    return "\n".join(
        [
            "from openmmtorch import TorchForce",
            "",
            f'force = TorchForce("{path}")',
            f"force.setOutputsForces({outputs_forces})",
            f"force.setUsesPeriodicBoundaryConditions({'box' in inputs})",
            *(
                f'force.addGlobalParameter("{name}", {value:g})'
                for name, value in zip(names, defaults, strict=True)
            ),
            "system.addForce(force)",
        ]
    )


def main(
    output: Annotated[Path, typer.Option(help="Where to write the file.")] = Path(
        "openmm_torch_restraint.pt"
    ),
    box: Annotated[bool, typer.Option(help="For a periodic system.")] = False,
) -> None:
    """Write the file and print the lines that use it."""
    restraint, n_particles = psi_restraint()
    report = ofcv.export(
        restraint, output, contract="openmm-torch", n_particles=n_particles, box=box
    )
    console.print(f"{report}\n\n{python_lines(report.path, report.metadata)}")


if __name__ == "__main__":
    typer.run(main)
