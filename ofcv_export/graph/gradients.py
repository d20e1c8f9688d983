"""Values and derivatives of a function, of positions or coefficients, written out as one graph.

The reverse pass is traced together with the forward pass, so that nothing differentiates at run
time: ``torch.func.vjp`` under ``make_fx`` leaves plain aten operations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten

Outputs = tuple[Tensor, ...]

_ARITHMETIC = {
    aten.add.Tensor: aten.add.Tensor,
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}
# Activations with numbers among their arguments are written out, so that the numbers are seen.
_WITH_NUMBERS = [
    aten.leaky_relu,
    aten.leaky_relu_backward,
    aten.elu,
    aten.elu_backward,
    aten.softplus,
    aten.softplus_backward,
    aten.threshold_backward,
    aten.hardtanh,
    aten.hardtanh_backward,
]


class ValuesAndDerivatives(nn.Module):
    """Values and derivatives by autograd: what the written-out graph must equal.

    Parameters
    ----------
    function : torch.nn.Module
        Maps positions (batch, n_atoms, 3), a box for each (batch, 3, 3) or None, and parameters to
        values (batch, n_outputs), every frame on its own.
    n_outputs : int
        Number of values.
    periodic : bool
        Whether a box is an input.
    """

    def __init__(self, function: nn.Module, n_outputs: int, periodic: bool) -> None:
        super().__init__()
        self.function = function
        self.n_outputs = n_outputs
        self.periodic = periodic

    def forward(self, positions: Tensor, *others: Tensor) -> Outputs:
        """Return values and derivatives, and derivatives with respect to the box.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (batch, n_atoms, 3).
        *others : torch.Tensor
            Lattice vectors as rows, shape (3, 3), when periodic; then the parameters.

        Returns
        -------
        tuple of torch.Tensor
            (batch, n_outputs), (batch, n_outputs, n_atoms, 3) and, when periodic,
            (batch, n_outputs, 3, 3).
        """
        box, parameters = _split(others, self.periodic)
        # Every frame gets a box of its own, so that the derivatives come out frame by frame.
        leaves = [positions.detach().clone()]
        leaves += [entry.detach().expand(len(positions), 3, 3).clone() for entry in box]
        for leaf in leaves:
            leaf.requires_grad_()
        with torch.enable_grad():
            values = _apply(self.function, leaves, parameters)
            gradients = [
                torch.autograd.grad(
                    values[:, k].sum(), leaves, retain_graph=True, materialize_grads=True
                )
                for k in range(self.n_outputs)
            ]
        stacked = [torch.stack(entries, dim=1) for entries in zip(*gradients, strict=True)]
        return (values.detach(), *stacked)


class EnergyAndGradient(nn.Module):
    """Energies and their gradient by autograd: what the written-out graph must equal.

    Parameters
    ----------
    function : torch.nn.Module
        Maps coefficients (n,), and indices (n,) if it takes any, to energies (n_molecules,).
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, coeffs: Tensor, *indices: Tensor) -> Outputs:
        """Return energies (n_molecules,) and the gradient (n,) of their sum.

        A coefficient belongs to one molecule, so that its entry is the derivative of that
        molecule's energy.
        """
        leaf = coeffs.detach().clone().requires_grad_()
        with torch.enable_grad():
            energy = self.function(leaf, *indices)
            (gradient,) = torch.autograd.grad(energy.sum(), leaf, materialize_grads=True)
        return energy.detach(), gradient


def write_out(
    function: nn.Module, n_outputs: int, examples: Sequence[Tensor], periodic: bool
) -> fx.GraphModule:
    """Return the graph of values and derivatives, see `ValuesAndDerivatives`.

    Reverse mode, one pass per output: a CV has few outputs and many inputs.

    Parameters
    ----------
    function : torch.nn.Module
        Maps positions, a box or None, and parameters to values (batch, n_outputs).
    n_outputs : int
        Number of values.
    examples : sequence of torch.Tensor
        Positions (batch, n_atoms, 3), a box (3, 3) when periodic, and parameters. The batch stays
        free; all other sizes are fixed.
    periodic : bool
        Whether a box is among the inputs.

    Returns
    -------
    torch.fx.GraphModule
        Plain aten operations, with the function's parameters and constants as buffers.

    Raises
    ------
    ValueError
        If the function has operations that cannot be traced.
    """
    values_and_derivatives = differentiated(function, n_outputs, examples[0].dtype, periodic)
    graph_module = traced(values_and_derivatives, examples, free=[(0, 0)])
    _require_free(graph_module, [examples[0][:-1], *examples[1:]], "frames")
    return graph_module


def differentiated(
    function: Callable[..., Tensor], n_outputs: int, dtype: torch.dtype, periodic: bool
) -> Callable[..., Outputs]:
    """Return a function that gives values and derivatives by reverse mode, see `write_out`."""
    seeds = torch.eye(n_outputs, dtype=dtype)

    def values_and_derivatives(positions: Tensor, *others: Tensor) -> Outputs:
        box, parameters = _split(others, periodic)
        leaves = (positions, *(entry.expand(positions.shape[0], 3, 3) for entry in box))
        values, pullback = torch.func.vjp(  # type: ignore[misc]
            lambda *leaves: _apply(function, leaves, parameters), *leaves
        )
        gradients = [pullback(seeds[k].expand_as(values)) for k in range(n_outputs)]
        stacked = [torch.stack(entries, dim=1) for entries in zip(*gradients, strict=True)]
        return (values, *stacked)

    return values_and_derivatives


def write_out_gradient(
    function: nn.Module, examples: Sequence[Tensor], free: bool
) -> fx.GraphModule:
    """Return the graph of energies and their gradient, see `EnergyAndGradient`.

    Parameters
    ----------
    function : torch.nn.Module
        Maps coefficients (n,), and indices (n,) if it takes any, to energies (n_molecules,).
    examples : sequence of torch.Tensor
        Coefficients and indices.
    free : bool
        Whether n stays free.

    Returns
    -------
    torch.fx.GraphModule
        Plain aten operations, with the function's parameters and constants as buffers.

    Raises
    ------
    ValueError
        If the function has operations that cannot be traced.
    """

    def energy_and_gradient(coeffs: Tensor, *indices: Tensor) -> Outputs:
        energy, pullback = torch.func.vjp(  # type: ignore[misc]
            lambda coeffs: function(coeffs, *indices), coeffs
        )
        (gradient,) = pullback(torch.ones_like(energy))
        return energy, gradient

    places = [(place, 0) for place in range(len(examples))] if free else []
    graph_module = traced(energy_and_gradient, examples, places)
    if free:
        _require_free(graph_module, [example[:-1] for example in examples], "coefficients")
    return graph_module


def traced(
    function: Callable[..., Outputs], examples: Sequence[Tensor], free: Sequence[tuple[int, int]]
) -> fx.GraphModule:
    """Return a function's graph; sizes are fixed except those of (input, axis) in `free`."""
    trace = make_fx(
        function,
        decomposition_table=get_decompositions(_WITH_NUMBERS),  # type: ignore[arg-type]
        tracing_mode="symbolic" if free else "real",
        _allow_non_fake_inputs=True,
    )
    try:
        graph_module: fx.GraphModule = trace(*examples)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"network: expected operations that torch.export can see, got {type(error).__name__}: "
            f"{reason}"
        ) from error
    _fix_sizes(graph_module, examples, free)
    freeze(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module.eval()


def _split(others: Sequence[Tensor], periodic: bool) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return the box, if there is one, and the parameters."""
    return others[:periodic], others[periodic:]


def _apply(
    function: Callable[..., Tensor], leaves: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Tensor:
    """Return the function's values at positions and perhaps a box."""
    positions, *box = leaves
    values: Tensor = function(positions, box[0] if box else None, *parameters)
    return values


def _require_free(graph_module: fx.GraphModule, fewer: Sequence[Tensor], what: str) -> None:
    """Raise ValueError if the graph does not take inputs with one frame or coefficient less."""
    size = len(fewer[0])
    try:
        with torch.no_grad():
            free = len(graph_module(*fewer)[-1]) == size
    except RuntimeError:
        free = False
    if not free:
        raise ValueError(
            f"network: expected one that takes any number of {what}, "
            f"got one that fixes it at {size + 1} when it is traced"
        )


def _fix_sizes(
    graph_module: fx.GraphModule, examples: Sequence[Tensor], free: Sequence[tuple[int, int]]
) -> None:
    """Replace every size of an input, except those in `free`, by its number."""
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for place, (node, example) in enumerate(zip(inputs, examples, strict=True)):
        for user in list(node.users):
            if user.target is not aten.sym_size.int:
                continue
            axis = user.args[1]
            if (place, axis) not in free:
                user.replace_all_uses_with(example.shape[axis])
                graph_module.graph.erase_node(user)


def freeze(graph_module: fx.GraphModule) -> None:
    """Turn traced parameters and constants into buffers, so that they move and cast together."""
    for name, value in [*graph_module.named_parameters(), *vars(graph_module).items()]:
        if isinstance(value, Tensor):
            delattr(graph_module, name)
            graph_module.register_buffer(name, value.detach().clone())


def with_exact_numbers(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with the numbers in its arithmetic as tensors of its own precision.

    ONNX exporters write plain numbers as float32, even into a float64 graph.
    """
    copied = copy.deepcopy(graph_module)
    for count, node in enumerate(copied.graph.nodes):
        if node.target not in _ARITHMETIC or not isinstance(node.args[1], float):
            continue
        name = f"number_{count}"
        copied.register_buffer(name, torch.tensor(node.args[1], dtype=torch.float64))
        with copied.graph.inserting_before(node):
            number = copied.graph.get_attr(name)
        node.target = _ARITHMETIC[node.target]
        node.args = (node.args[0], number, *node.args[2:])
    copied.graph.lint()
    copied.recompile()
    return copied


def scriptable(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph in the words of TorchScript, which knows operators but no overloads."""
    copied = copy.deepcopy(graph_module)
    for node in copied.graph.nodes:
        if node.target is aten.sym_size.int:
            node.target = aten.size
        elif node.target is aten._local_scalar_dense.default:
            node.target = aten.Int
        elif isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
    _split_addmm(copied)
    _follow_device(copied)
    copied.recompile()
    return copied


def _follow_device(graph_module: fx.GraphModule) -> None:
    """Let operators make tensors on the device of the first input, not on that of the trace."""
    graph = graph_module.graph
    first = next(node for node in graph.nodes if node.op == "placeholder")
    for node in list(graph.nodes):
        if node.kwargs.get("device") is not None:
            with graph.inserting_before(node):
                current = graph.call_function(getattr, (first, "device"))
            node.kwargs = {**node.kwargs, "device": current}


def _split_addmm(graph_module: fx.GraphModule) -> None:
    """Write a @ b + c as a product and a sum.

    The shape propagation of TorchScript's executor fails on some frozen graphs with both together.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is aten.addmm and len(node.args) == 3 and not node.kwargs:
            bias, left, right = node.args
            with graph.inserting_before(node):
                product = graph.call_function(aten.mm, (left, right))
                node.replace_all_uses_with(graph.call_function(aten.add, (product, bias)))
            graph.erase_node(node)
