"""Contracts: TorchScript files in the calling conventions of engines that load them as they are.

Each contract turns a collective variable or a bias into an `ExportGraph` whose inputs, outputs,
units and numbering of atoms are the engine's own. May import `base`, `descriptors`, `graph` and
`variables`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ofcv_export.base.options import require_options
from ofcv_export.contracts import gromacs, network_alone, openmm_torch
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.variables.variable import Variable

CONTRACTS: dict[str, Callable[..., ExportGraph]] = {
    "colvars-torchann": network_alone.colvars_torchann,
    "gromacs-nnpot": gromacs.gromacs_nnpot,
    "openmm-torch": openmm_torch.openmm_torch,
    "plumed-pytorch": network_alone.plumed_pytorch,
}


def contract_graph(contract: str, module: Any, **options: Any) -> ExportGraph:
    """Return the graph of a module in an engine's calling convention.

    Parameters
    ----------
    contract : str
        One of ``CONTRACTS``.
    module : CollectiveVariable
        For ``gromacs-nnpot`` and ``openmm-torch`` a `Bias`.
    **options
        Options of the contract, see the functions in ``CONTRACTS``.

    Raises
    ------
    TypeError
        If the module is of another kind, an option is unknown or one that is needed is missing.
    ValueError
        For an unknown contract, or what the engine cannot give the module.
    """
    if contract not in CONTRACTS:
        raise ValueError(f"contract: expected {', '.join(CONTRACTS)}, got {contract!r}")
    if not isinstance(module, Variable):
        raise TypeError(f"module: expected a CollectiveVariable, got {type(module).__name__}")
    require_options(CONTRACTS[contract], options, contract)
    return CONTRACTS[contract](module, **options)
