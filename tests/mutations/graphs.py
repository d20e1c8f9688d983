"""Changes to variables of graphs of atoms and to what makes networks for them."""

from tests.mutations.mutation import Mutation

_VARIABLE = "tests/variables/test_graph_collective_variable.py"
_REFERENCE = f"{_VARIABLE}::test_reference_values"
_ANSWERS = (
    f"{_VARIABLE}::test_what_a_network_asks_of_constants_and_masks_is_answered_as_in_eager_mode"
)
_REFUSED = f"{_VARIABLE}::test_what_cannot_be_traced_is_refused_with_one_line"
_BAD = f"{_VARIABLE}::test_bad_arguments_are_refused"
_BAD_GRAPHS = f"{_VARIABLE}::test_bad_graphs_are_refused"
_PYG = "tests/integrations/test_pytorch_geometric.py"
_PYG_VALUES = f"{_PYG}::test_values_and_derivatives_are_the_models"
_FORMATS = "tests/formats/test_graph_formats.py"

GRAPHS = [
    Mutation(
        "graphs: vectors without their shifts", "variables/graph_network.py",
        "positions[edge_index[0]] + shifts", "positions[edge_index[0]] + 0 * shifts",
        (_REFERENCE, "-k", "nacl_schnet"),
    ),
    Mutation(
        "graphs: vectors turned round", "variables/graph_network.py",
        "positions[edge_index[1]] - positions[edge_index[0]] + shifts",
        "positions[edge_index[0]] - positions[edge_index[1]] - shifts",
        (f"{_VARIABLE}::test_edges_point_from_sender_to_receiver",),
    ),
    Mutation(
        "graphs: box derivatives of lattice vectors as columns", "variables/graph_network.py",
        "shifts = cell_shifts @ box", "shifts = cell_shifts @ box.T",
        (f"{_VARIABLE}::test_turning_and_moving_the_system_turns_the_derivatives",),
    ),
    Mutation(
        "graphs: derivatives of the first value for all", "graph/graph_derivatives.py",
        "torch.autograd.grad(values[k],", "torch.autograd.grad(values[0],",
        (_REFERENCE, "-k", "alanine_painn"),
    ),
    Mutation(
        "graphs: no derivatives where no position counts", "graph/graph_derivatives.py",
        "if values.requires_grad", "if True",
        (f"{_VARIABLE}::test_values_that_no_position_changes_have_no_derivatives",),
    ),
    Mutation(
        "graphs: environment in the system", "variables/graph_collective_variable.py",
        "in_system != 0, is_long != 0", "in_system >= 0, is_long != 0",
        (_REFERENCE, "-k", "nacl_schnet"),
    ),
    Mutation(
        "graphs: long-range edges as short ones", "variables/graph_collective_variable.py",
        "in_system != 0, is_long != 0", "in_system != 0, is_long < 0",
        (_REFERENCE, "-k", "long_range"),
    ),
    Mutation(
        "graphs: subsystem in the old numbering", "variables/graph_collective_variable.py",
        "other.subsystem = self.subsystem and [renamed[atom] for atom in self.subsystem]",
        "other.subsystem = self.subsystem",
        (f"{_VARIABLE}::test_with_atoms_names_other_atoms_and_shares_the_weights",),
    ),
    Mutation(
        "graphs: the user's own network", "variables/graph_collective_variable.py",
        "evaluated = evaluation_copy(network)", "evaluated = network",
        (f"{_VARIABLE}::test_the_users_network_stays_as_it_is",),
    ),
    Mutation(
        "graphs: any integers in masks", "graph/tensor_spec.py",
        "        require_choice(spec.name, array, spec.choices)", "        pass",
        (_BAD_GRAPHS, "-k", "mask"),
    ),
    Mutation(
        "graphs: a flat box", "variables/graph_variable.py",
        'if spec.name == "box" and given.any():', 'if spec.name == "box" and not given.numel():',
        (_BAD_GRAPHS, "-k", "flat"),
    ),
    Mutation(
        "graphs: a long-range cutoff below the cutoff", "variables/graph_collective_variable.py",
        '"long_range_cutoff", long_range_cutoff) <= cutoff', '"cutoff", long_range_cutoff) < 0',
        (_BAD, "-k", "short"),
    ),
    Mutation(
        "graphs: statements of index_copy_ without effect", "graph/known_values.py",
        'return target.copy_(result) if name.endswith("_") else result', "return result",
        (_ANSWERS, "-k", "statement"),
    ),
    Mutation(
        "graphs: selected rows where the mask is not set", "graph/known_values.py",
        "source.dim() - 1)), source, target)", "source.dim() - 1)), target, source)",
        (_ANSWERS, "-k", "rows"),
    ),
    Mutation(
        "graphs: sums of all rows for selected ones", "graph/known_values.py",
        "        if values in self._selected:", "        if not values.dim():",
        (_REFUSED, "-k", "selected"),
    ),
    Mutation(
        "graphs: C source of free sizes", "formats/c99.py",
        "if size not in graph.largest]", "if not graph.symbol]",
        (_FORMATS, "-k", "asked_for_before"),
    ),
    Mutation(
        "pyg: directions turned round", "integrations/pytorch_geometric.py",
        "-vectors / lengths[:, None]", "vectors / lengths[:, None]",
        (f"{_PYG}::test_directions_are_the_models",),
    ),
    Mutation(
        "pyg: no messages of an atom to itself", "integrations/pytorch_geometric.py",
        "lengths.new_zeros(n_nodes)", "lengths.new_full((n_nodes,), 1e9)",
        (_PYG_VALUES, "-k", "ViSNet and not of and not with"),
    ),
    Mutation(
        "graphs in C: more nodes than there is memory for", "c_source/interface.py",
        'f" || {size} > {most}"', '""',
        (f"{_FORMATS}::test_a_graph_that_is_too_large_is_refused",),
    ),
    Mutation(
        "graphs: a user's frames are not looked at", "artifacts/atom_graphs.py",
        "for inputs in self._frames:", "for inputs in self._frames[:0]:",
        ("tests/artifacts/test_graph_frames.py", "-k", "verified"),
    ),
    Mutation(
        "graphs: derivatives of nodes taken for those of atoms", "artifacts/graph_trajectory.py",
        "whole[:, frame.graph.nodes] = outputs[place]",
        "whole[:, : len(frame.graph.nodes)] = outputs[place]",
        ("tests/artifacts/test_graph_frames.py", "-k", "command"),
    ),
    Mutation(
        "graphs: frames in the wrong unit", "artifacts/graph_frames.py",
        "frame.positions[atoms] / unit", "frame.positions[atoms] * unit",
        ("tests/artifacts/test_graph_frames.py", "-k", "nanometres"),
    ),
    Mutation(
        "graphs in C: any element", "c_source/interface.py",
        "if spec.choices is not None:\n            wrong",
        "if spec.low is not None:\n            wrong",
        (f"{_FORMATS}::test_its_own_checks_name_what_is_wrong",),
    ),
    Mutation(
        "pyg: an atom is its own neighbour", "integrations/pytorch_geometric.py",
        "self._among_neighbours(elements, edge_index, lengths, expanded[:n_edges])",
        "self._among_neighbours(elements, everything, distances, expanded)",
        (_PYG_VALUES, "-k", "ViSNet and not of and not with"),
    ),
    Mutation(
        "pyg: lengths of vectors up to 2", "integrations/pytorch_geometric.py",
        "return scaled.relu() * vectors", "return 2 * scaled.relu() * vectors",
        (_PYG_VALUES, "-k", "normalised"),
    ),
    Mutation(
        "pyg: a subclass evaluated as its base", "integrations/pytorch_geometric.py",
        'if class_name(type(model).forward) != f"{name}.forward":', "if not name:",
        (f"{_PYG}::test_other_models_are_refused",),
    ),
]  # fmt: skip
