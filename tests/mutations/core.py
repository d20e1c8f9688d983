"""Changes to the core: descriptors, chain rules, variables, density, artifacts, contracts."""

from tests.mutations.mutation import Mutation

_DESCRIPTORS = "tests/descriptors/test_descriptors.py"
_DERIVATIVES = f"{_DESCRIPTORS}::test_derivatives_equal_autograd_and_central_differences"
_VALUES = f"{_DESCRIPTORS}::test_values_equal_numpys"
_BOX_DERIVATIVES = f"{_DESCRIPTORS}::test_box_derivatives_equal_central_differences"
_BOUNDARIES = "tests/descriptors/test_boundaries.py"
_CHAIN_RULE = "tests/jacobian/test_chain_rule.py"
_COMPILED = "tests/jacobian/test_compiled_chain_rule.py"
_SMART = "tests/jacobian/test_smart_derivatives.py"
_SEARCH = "tests/jacobian/test_pattern_search.py"
_CV = "tests/variables/test_collective_variable.py"
_ONE_FRAME = "tests/variables/test_one_frame.py"
_RESTRAINTS = "tests/variables/test_restraints.py"
_KOLMOGOROV = "tests/variables/test_kolmogorov_bias.py"
_RESCALING = "tests/density/test_rescaling.py"
_FUNCTIONAL = "tests/density/test_energy_functional.py"
_REFERENCE = "tests/density/test_atomic_reference.py"
_VERIFICATION = "tests/artifacts/test_verification.py"
_LOADING = "tests/artifacts/test_loading.py"
_ENGINE = "tests/engines/test_engine_bias.py"
_CONTRACTS = "tests/contracts/test_contracts.py"
_CUDA = "tests/test_cuda.py"
_TRITON = "tests/jacobian/test_triton_chain_rule.py"

CORE = [
    # Descriptors and their derivatives.
    Mutation(
        "distances: derivatives turned round", "descriptors/distances.py",
        "torch.stack([-unit, unit], dim=2)", "torch.stack([unit, -unit], dim=2)",
        (_DERIVATIVES, "-k", "distances"),
    ),
    Mutation(
        "torsions: a term of the derivative with the wrong sign", "descriptors/torsions.py",
        "shear = shear + (bc * cd)", "shear = shear - (bc * cd)",
        (_DERIVATIVES, "-k", "torsions"),
    ),
    Mutation(
        "coordination: an atom is its own neighbour", "descriptors/coordination.py",
        "s = s.masked_fill(~self.different, 0.0)", "s = s",
        (_VALUES, "-k", "coordination"),
    ),
    Mutation(
        "rotations: one step of Newton's method less", "descriptors/optimal_rotation.py",
        "        root = _newton(root, c2, c1, c0, degenerate)\n" * 2,
        "        root = _newton(root, c2, c1, c0, degenerate)\n",
        (f"{_DESCRIPTORS}::test_second_derivatives",),
    ),
    # Boundaries and lattices.
    Mutation(
        "fixed box: fractions keep their image", "descriptors/boundaries.py",
        "                vectors = vectors - torch.round(vectors.detach())\n"
        "            return vectors * lengths",
        "                vectors = vectors\n            return vectors * lengths",
        (_VALUES, "-k", "distances"),
    ),
    Mutation(
        "fixed box: derivatives with respect to fractions", "descriptors/boundaries.py",
        "return derivatives * self.lengths.to(derivatives) if", "return derivatives if",
        (_DERIVATIVES, "-k", "distances"),
    ),
    Mutation(
        "box at run time: the image to the left", "descriptors/boundaries.py",
        "images = torch.round((vectors / torch.diagonal(one_box(box))).detach())",
        "images = torch.floor((vectors / torch.diagonal(one_box(box))).detach())",
        (_VALUES, "-k", "distances"),
    ),
    Mutation(
        "box: any oblique one is accepted", "base/lattice.py",
        "np.square(once).sum() * (1 - 1e-9)", "0.0",
        (f"{_BOUNDARIES}::test_bad_boxes_are_refused_in_one_line",),
    ),
    Mutation(
        "lattice: one step of reduction", "base/lattice.py",
        "N_STEPS = 10", "N_STEPS = 1",
        (_BOUNDARIES,),
    ),
    Mutation(
        "lattice: the reduced box has no derivative", "descriptors/lattice.py",
        "return torch.matmul(combination, basis)",
        "return torch.matmul(combination, basis.detach())",
        (_BOX_DERIVATIVES, "-k", "distances"),
    ),
    Mutation(
        "nearest image: half of the neighbours", "descriptors/lattice.py",
        "2 * along.abs()", "2 * along",
        (_BOUNDARIES,),
    ),
    Mutation(
        "nearest image of an engine: half of the neighbours", "base/lattice.py",
        "np.zeros((1, 3)), half, -half", "np.zeros((1, 3)), half",
        ("tests/base/test_lattice.py",),
    ),
    # The chain rule, with torch's operators and with numba's loops.
    Mutation(
        "scatter form: contributions replace one another", "jacobian/chain_rule.py",
        "out = out.scatter_add(1,", "out = out.scatter(1,",
        (_CHAIN_RULE,),
    ),
    Mutation(
        "gather form: the descriptors in the pattern's order", "jacobian/chain_rule.py",
        "descriptors[place] = pattern.descriptor_index",
        "descriptors[place.sort().values] = pattern.descriptor_index",
        (_CHAIN_RULE,),
    ),
    Mutation(
        "opposite pairs: the first one is not turned round", "jacobian/chain_rule.py",
        "torch.cat([values, -values, zero], dim=1)", "torch.cat([values, values, zero], dim=1)",
        ("tests/artifacts/test_exporting.py", "-k", "file_equals_autograd and not pt2"),
    ),
    Mutation(
        "numba, pairs: the first atom's sum with the wrong sign", "jacobian/compiled_chain_rule.py",
        "sums[2, first] -= sz", "sums[2, first] += sz",
        (f"{_COMPILED}::test_against_central_differences",),
    ),
    Mutation(
        "numba, pairs: a gradient without the first atom's", "jacobian/compiled_chain_rule.py",
        "+ u[frame, 2, p] * (g[2, a] - gz)", "+ u[frame, 2, p] * g[2, a]",
        (f"{_SMART}::test_differentiable_with_respect_to_x",),
    ),
    Mutation(
        "numba, pairs: those turned round", "jacobian/opposite_pairs.py",
        "torch.where(self.flipped.unsqueeze(1), -pairs, pairs)", "pairs",
        (f"{_SMART}::test_functions_of_distances_take_half_the_memory", "-k", "inverse"),
    ),
    Mutation(
        "numba, blocks: only one component", "jacobian/compiled_chain_rule.py",
        "+= v[frame, b, c] * g[row, o, atom[b], c]", "+= v[frame, b, c] * g[row, o, atom[b], 0]",
        (f"{_COMPILED}::test_blocks_equal_plain_operators",),
    ),
    # Setting up SmartDerivatives.
    Mutation(
        "set-up: all descriptors are antisymmetric", "jacobian/sparse_jacobian.py",
        "self.analytic is not None and self.analytic.antisymmetric and has_pairs(pattern)",
        "self.analytic is not None and has_pairs(pattern)",
        (_SMART, "-k", "two_atoms"),
    ),
    Mutation(
        "set-up: no batch is proved", "jacobian/sparse_jacobian.py",
        "torch.nonzero(~(error <= tolerance * scale))", "torch.nonzero(error < 0)",
        (_SMART, "-k", "narrow or mixes or random_function"),
    ),
    Mutation(
        "set-up: label 1 is no boundary", "jacobian/smart_derivatives.py",
        "labels.reshape(n_frames) > 1", "labels.reshape(n_frames) >= 1",
        (f"{_SMART}::test_boundary_frames_have_no_derivatives",),
    ),
    Mutation(
        "set-up: moved nowhere", "jacobian/smart_derivatives.py",
        '        self.to("cpu")', "        return",
        (f"{_SMART}::test_move_to_cpu",),
    ),
    Mutation(
        "pattern search: atoms visit no others", "jacobian/pattern_search.py",
        "origin = torch.cat([atoms, atoms, host, host])",
        "origin = torch.cat([atoms, atoms, visitor, visitor])",
        (_SEARCH,),
    ),
    # Tracing, and what makes graphs smaller or faster.
    Mutation(
        "tracing: a network may fix its batch", "graph/tracing.py",
        "    if not free:\n", "    if not free and symbol != 'batch':\n",
        (_CV, "-k", "fixes_its_batch"),
    ),
    Mutation(
        "tracing: the batch is like other sizes", "graph/tracing.py",
        "if number not in fixed and all(", "if all(",
        (_CV, "-k", "special_case"),
    ),
    Mutation(
        "folding: also of graphs that change their inputs", "graph/folding.py",
        "if any(map(_changes_its_input, graph_module.graph.nodes)):", "if False:",
        (_ONE_FRAME, "-k", "in_place"),
    ),
    Mutation(
        "folding: rows replace one another", "graph/folding.py",
        "rows.index_add_(0, index, weights)", "rows[index] = weights",
        (_ONE_FRAME, "-k", "selections or begin_with"),
    ),
    Mutation(
        "folding: any filling counts as 0", "graph/folding.py",
        "(len(source.args) == 2 or source.args[2] == 0)", "True",
        (_ONE_FRAME, "-k", "selections"),
    ),
    Mutation(
        "vectors: no bias", "graph/matrix_vector.py",
        "if node.target is aten.addmm.default:", "if node.target is None:",
        (f"{_ONE_FRAME}::test_all_pairs", "-k", "5"),
    ),
    Mutation(
        "derivatives: of the first value for all", "graph/derivatives.py",
        "seeds[k].expand_as(values)", "seeds[0].expand_as(values)",
        (_CV, "-k", "central_differences and onnx"),
    ),
    # Forms for one frame.
    Mutation(
        "cyclic pairs: a shift starts at its end", "variables/pair_forms.py",
        "torch.where(is_forward, self.first, self.second)",
        "torch.where(is_forward, self.second, self.first)",
        (f"{_ONE_FRAME}::test_pairs_in_any_order_and_direction",),
    ),
    Mutation(
        "gathered pairs: the first atom with the wrong sign", "variables/pair_forms.py",
        "index_add(0, self.first, -forces)", "index_add(0, self.first, forces)",
        (f"{_ONE_FRAME}::test_few_or_repeated_pairs_are_gathered",),
    ),
    Mutation(
        "pair forms: coincident atoms", "variables/pair_forms.py",
        "return torch.rsqrt(squared).masked_fill(squared == 0, 0.0)",
        "return torch.rsqrt(squared)",
        (f"{_ONE_FRAME}::test_coincident_atoms_have_finite_derivatives",),
    ),
    # Biases.
    Mutation(
        "restraints: twice the energy", "variables/restraints.py",
        "(0.5 * force_constant *", "(force_constant *",
        (f"{_RESTRAINTS}::test_harmonic_energy",),
    ),
    Mutation(
        "restraints: centre and force constant are ignored for one frame",
        "variables/restraints.py",
        '        """Return what maps descriptors and parameters to the energy."""\n'
        "        cv_head = self.cv.head()\n"
        "        return lambda descriptors, *parameters: "
        "self.energy(cv_head(descriptors), *parameters)",
        "        cv_head = self.cv.head()\n"
        "        return lambda descriptors, *parameters: self.energy(cv_head(descriptors))",
        (_ONE_FRAME, "-k", "parameters"),
    ),
    Mutation(
        "restraints: time is ignored for one frame", "variables/restraints.py",
        '        """Return what maps descriptors and the time to the energy."""\n'
        "        cv_head = self.cv.head()\n"
        "        return lambda descriptors, *parameters: "
        "self.energy(cv_head(descriptors), *parameters)",
        "        cv_head = self.cv.head()\n"
        "        return lambda descriptors, *parameters: self.energy(cv_head(descriptors))",
        (_ONE_FRAME, "-k", "moving_restraint"),
    ),
    Mutation(
        "restraints: the schedule goes on after the last time", "variables/restraints.py",
        ".clamp(0, 1)", ".clamp(0)",
        (f"{_RESTRAINTS}::test_the_schedule_is_linear_between_its_times",),
    ),
    Mutation(
        "collective variables: twice the value", "variables/collective_variable.py",
        "values: Tensor = self.network(self.descriptors(positions, box))",
        "values: Tensor = 2 * self.network(self.descriptors(positions, box))",
        (_CV, "-k", "activation or any_network or batch_norm"),
    ),
    Mutation(
        "Kolmogorov bias: beta upside down", "variables/kolmogorov_bias.py",
        "torch.tensor(self.lambd / self.beta,", "torch.tensor(self.lambd * self.beta,",
        (f"{_KOLMOGOROV}::test_energies_and_derivatives_are_those_of_the_definition",),
    ),
    Mutation(
        "Kolmogorov bias: masses upside down", "variables/kolmogorov_bias.py",
        "else 1 / given)", "else given)",
        (_KOLMOGOROV, "-k", "definition or masses"),
    ),
    Mutation(
        "Kolmogorov bias: small gradients lose their digits", "variables/kolmogorov_bias.py",
        "torch.log1p(squared / self.regularisation)",
        "torch.log(1 + squared / self.regularisation)",
        (f"{_KOLMOGOROV}::test_small_gradients_keep_their_digits_in_float32",),
    ),
    # Rescaling, functionals and their reference.
    Mutation(
        "rescaling: the bias is not scaled", "density/rescaling_core.py",
        "return scale * (coeffs - bias)", "return scale * coeffs - bias",
        (_RESCALING, "-k", "by_hand or is_the_formula"),
    ),
    Mutation(
        "rescaling: the larger of two scales", "density/rescaling.py",
        "torch.minimum(self.max_grads / self.s_grad", "torch.maximum(self.max_grads / self.s_grad",
        (_RESCALING, "-k", "lambda_by_case or is_the_formula"),
    ),
    Mutation(
        "rescaling: gradients without epsilon", "density/rescaling_core.py",
        "divisor = select(self.lambda_z + self.epsilon, basis_function_ind)",
        "divisor = select(self.lambda_z, basis_function_ind)",
        (_RESCALING, "-k", "epsilon or is_the_formula"),
    ),
    Mutation(
        "rescaling: a shell's smallest gradient", "density/rescaling.py",
        'reduce="amax"', 'reduce="amin"',
        (_RESCALING, "-k", "pooling or equivariant"),
    ),
    Mutation(
        "rescaling: vectors keep their bias", "density/rescaling.py",
        "biases = torch.where(scalar, biases, 0.0)", "biases = torch.where(scalar, biases, biases)",
        (_RESCALING, "-k", "equivariant"),
    ),
    Mutation(
        "functional: the reference is subtracted", "density/energy_core.py",
        "(energy + reference)", "(energy - reference)",
        (f"{_FUNCTIONAL}::test_energy_is_that_of_the_formula",),
    ),
    Mutation(
        "functional: the transform is transposed", "density/energy_core.py",
        "torch.mv(transform, coeffs)", "torch.mv(transform.t(), coeffs)",
        (_FUNCTIONAL, "-k", "transform"),
    ),
    Mutation(
        "atomic reference: of the scaled coefficients", "density/energy_core.py",
        "[operator]\n            coeffs,", "[operator]\n            scaled_coeffs,",
        (_FUNCTIONAL, "-k", "formula or differences"),
    ),
    Mutation(
        "atomic reference: the global bias is shared", "density/atomic_reference.py",
        "index_add(0, batch, terms) + self.t_global",
        "index_add(0, batch, terms) + self.t_global / n_molecules",
        (_REFERENCE,),
    ),
    Mutation(
        "atomic reference: vectors keep their slope", "density/atomic_reference.py",
        "torch.where(is_scalar, g_z, 0.0)", "torch.where(is_scalar, g_z, g_z)",
        (_REFERENCE,),
    ),
    # Files.
    Mutation(
        "verification: one good replay is enough", "artifacts/verification.py",
        "return all(entry.max_rel_error <= self.tolerance",
        "return any(entry.max_rel_error <= self.tolerance",
        (_VERIFICATION, "-k", "not pt2"),
    ),
    Mutation(
        "verification: errors relative to the largest row", "artifacts/verification.py",
        "scale = row_scales(expected).clamp(min=smallest_scale)",
        "scale = row_scales(expected).max().clamp(min=smallest_scale)",
        (_VERIFICATION, "-k", "not pt2"),
    ),
    Mutation(
        "verification: rounding excuses anything", "artifacts/verification.py",
        "_LARGEST_TOLERANCE = 100", "_LARGEST_TOLERANCE = 1e9",
        (_VERIFICATION, "-k", "not pt2"),
    ),
    Mutation(
        "verification: values have no images", "artifacts/verification.py",
        "found = (_nearest_image(first, expected[0], graph.details), *others)",
        "found = (first, *others)",
        (_VERIFICATION, "-k", "period_apart"),
    ),
    Mutation(
        "verification: values of the probe have no images", "artifacts/verification.py",
        "            if spec == metadata.outputs[0]:\n", "            if False:\n",
        (_VERIFICATION, "-k", "period_apart"),
    ),
    Mutation(
        "verification: values have the period of the first", "artifacts/verification.py",
        "periods[places % len(periods)]", "periods[0]",
        (_VERIFICATION, "-k", "period_apart"),
    ),
    Mutation(
        "verification: nothing is tried where values change", "artifacts/geometry.py",
        "kinds = [*SIZES, TRANSITION]", "kinds = [*SIZES]",
        (f"{_VERIFICATION}::test_a_slope_is_found_where_it_is",),
    ),
    Mutation(
        "verification: far from where values change", "artifacts/geometry.py",
        "_BISECTIONS = 26", "_BISECTIONS = 3",
        (f"{_VERIFICATION}::test_a_slope_is_found_where_it_is",),
    ),
    Mutation(
        "digest: of the names alone", "runtimes/archive.py",
        "            sha.update(records[name])\n", "",
        (_LOADING, "-k", "made_again"),
    ),
    Mutation(
        "digest: of an ONNX file is not compared", "runtimes/onnx.py",
        "if digest != properties[DIGEST]:", "if False:",
        (_LOADING, "-k", "(bit or edited) and not pt2"),
    ),
    Mutation(
        "CUDA graph: what it runs is let go", "artifacts/cuda_graph.py",
        "self._recorded = run", "self._recorded = None",
        (f"{_CUDA}::test_a_recording_keeps_what_it_runs",),
    ),
    Mutation(
        "gathered sums: all terms of a place in one row", "graph/gathered_sums.py",
        " + rank // width", "", ("tests/graph/test_gathered_sums.py",),
    ),
    Mutation(
        "gathered sums: an index that comes with a call", "graph/gathered_sums.py",
        'if index.op != "get_attr":', 'if index.op == "":', ("tests/graph/test_gathered_sums.py",),
    ),
    Mutation(
        "Triton: pairs without their first atom", "jacobian/triton_kernels.py",
        "by += _with_own(tl.where(is_here, 0, fy), place == other_own)",
        "by += tl.where(is_here, 0, fy)",
        (f"{_TRITON}::test_pairs_equal_plain_operators",),
    ),
    Mutation(
        "Triton: frames below zero", "jacobian/triton_kernels.py",
        "exists = (frame >= 0) & (frame < n_frames)", "exists = frame < n_frames",
        (f"{_TRITON}::test_a_frame_that_does_not_exist_gives_nan_and_an_error_at_the_next_call",),
    ),
    Mutation(
        "Triton: blocks in the order of their descriptors", "jacobian/triton_chain_rule.py",
        "vector_of_descriptor=place[by_descriptor.order]",
        "vector_of_descriptor=by_descriptor.order",
        (f"{_TRITON}::test_blocks_equal_plain_operators",),
    ),
    Mutation(
        "CUDA graph: inputs are not copied", "artifacts/cuda_graph.py",
        "            recorded.copy_(tensor)\n", "",
        (_CUDA, "-k", "recording"),
    ),
    # Engines and contracts.
    Mutation(
        "engine: forces in the artifact's length", "engines/engine_bias.py",
        "forces=(-self._energy * self._length) * gradient", "forces=-self._energy * gradient",
        (_ENGINE, "-k", "units"),
    ),
    Mutation(
        "engine: a virial without the box", "engines/engine_bias.py",
        "strain = strain + inputs[1].T @ derivatives[1][0]", "pass",
        (_ENGINE, "-k", "strain"),
    ),
    Mutation(
        "engine: the first box for ever", "engines/engine_bias.py",
        "if last is not None and np.array_equal(last.given, box):", "if last is not None:",
        (_ENGINE, "-k", "box or strain or whole"),
    ),
    Mutation(
        "engine: long steps count as whole", "engines/engine_bias.py",
        "if 4 * np.square(steps)", "if np.square(steps)",
        (_ENGINE, "-k", "whole or is_a_cut"),
    ),
    Mutation(
        "engine: one atom too many", "engines/engine_bias.py",
        "if atoms.max() >= n_atoms:", "if atoms.max() > n_atoms:",
        (_ENGINE, "-k", "fit"),
    ),
    Mutation(
        "contracts: forces in the bias's length", "contracts/potential.py",
        "forces = derivatives[0, 0] * (-self.energy * self.length)",
        "forces = derivatives[0, 0] * -self.energy",
        (f"{_CONTRACTS}::test_units",),
    ),
    Mutation(
        "contracts: an energy that climbs", "contracts/potential.py",
        "return energy - (forces.detach()", "return energy + (forces.detach()",
        (_CONTRACTS, "-k", "energy_alone"),
    ),
    Mutation(
        "contracts: GROMACS's group in the given order", "contracts/gromacs.py",
        "members = sorted(atom_indices(", "members = list(atom_indices(",
        (f"{_CONTRACTS}::test_gromacs_file",),
    ),
    Mutation(
        "contracts: any periodic direction is enough", "contracts/gromacs.py",
        "not bool(pbc.all())", "not bool(pbc.any())",
        (_CONTRACTS, "-k", "does_not_fit or boxes"),
    ),
    Mutation(
        "contracts: a cut molecule stays cut", "contracts/potential.py",
        "whole=bias.box.open,", "whole=False,",
        (_CONTRACTS, "-k", "whole"),
    ),
]  # fmt: skip
