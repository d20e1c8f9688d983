"""Changes that bring back wrong numbers, crashes and refusals of files, formats and density."""

from tests.mutations.mutation import Mutation

_PUBLIC = "tests/test_public_modules.py"
_MESSAGES = "tests/test_empty_messages.py::test_an_error_without_a_message_is_named"
_FILES = "tests/base/test_files.py"
_ARGUMENTS = "tests/base/test_validation.py"
_EXPORTING = "tests/artifacts/test_exporting.py"
_LOADING = "tests/artifacts/test_loading.py"
_VERIFICATION = "tests/artifacts/test_verification.py"
_STORES = "tests/density/test_dataset_statistics.py"
_LABELS = "tests/density/fitting/test_density_labels.py"
_RESCALING = "tests/density/test_rescaling.py"
_PRECISION = "tests/density/test_precision.py"
_FUNCTIONAL = "tests/density/test_energy_functional.py"
_DESCRIPTORS = "tests/descriptors/test_descriptors.py"
_SMART = "tests/jacobian/test_smart_derivatives.py"
_CV = "tests/variables/test_collective_variable.py"
_NETWORKS = f"{_CV}::test_networks_of_any_make"
_RESTRAINTS = "tests/variables/test_restraints.py"
_ONNX = "tests/formats/test_onnx.py"
_AOTINDUCTOR = "tests/formats/test_aotinductor.py"
_DIRECT = "tests/formats/test_direct_calls.py"
_C99 = "tests/formats/test_c99.py"
_LIBRARY = "tests/formats/test_shared_library.py"
_EMITTER = "tests/c_source/test_emitter.py"
_FREE_SIZES = "tests/c_source/test_free_sizes.py"
_TORCHSCRIPT_ALONE = ("-k", "not pt2 and not onnx")

_FUNCTION = (
    "            function = EnergyAndGradient(without_inference_tensors(self))\n"
    "            outputs: tuple[Tensor, ...] = function"
)

NUMBERS: list[Mutation] = [
    # Modules and their parts.
    Mutation(
        "subclass: its own forward is left out of biases", "variables/collective_variable.py",
        "if cls.forward is not CollectiveVariable.forward:", "if False:",
        (f"{_PUBLIC}::test_a_subclass_with_a_forward_of_its_own_is_refused",),
    ),
    Mutation(
        "subclass: a forward of another base class is left out of biases",
        "variables/collective_variable.py",
        "if cls.forward is not CollectiveVariable.forward:", 'if "forward" in vars(cls):',
        (f"{_PUBLIC}::test_a_subclass_with_a_forward_of_its_own_is_refused",),
    ),
    Mutation(
        "autocast: a variable in half precision", "variables/variable.py",
        "with full_precision(positions.device):", "if True:",
        (f"{_CV}::test_autocast_changes_no_number",),
    ),
    Mutation(
        "autocast: a product of gathered blocks in half precision", "jacobian/smart_derivatives.py",
        "with full_precision(x.device, self.atomics):", "if True:",
        (f"{_SMART}::test_autocast_changes_no_number",),
    ),
    Mutation(
        "autocast: a functional in half precision", "density/energy_functional.py",
        f"with full_precision(coeffs.device):\n{_FUNCTION}(coeffs, ",
        f"if True:\n{_FUNCTION}(coeffs, ",
        (f"{_FUNCTIONAL}::test_autocast_changes_no_number",),
    ),
    Mutation(
        "autocast: a functional of one molecule in half precision", "density/energy_functional.py",
        f"with full_precision(coeffs.device):\n{_FUNCTION}(coeffs)",
        f"if True:\n{_FUNCTION}(coeffs)",
        (f"{_FUNCTIONAL}::test_autocast_changes_no_number",),
    ),
    Mutation(
        "autocast: a file in half precision", "runtimes/torchscript.py",
        "with torch.no_grad(), without_autocast(device):", "with torch.no_grad():",
        (f"{_EXPORTING}::test_exported_in_modes_that_a_caller_switched_on", *_TORCHSCRIPT_ALONE),
    ),
    Mutation(
        "autocast: an export in half precision", "artifacts/exporting.py",
        "with _ONE_AT_A_TIME, stopping_tidily(), ordinary_modes():",
        "with _ONE_AT_A_TIME, stopping_tidily():",
        (f"{_EXPORTING}::test_exported_in_modes_that_a_caller_switched_on", *_TORCHSCRIPT_ALONE),
    ),
    Mutation(
        "anomaly detection: what it looks for is traced, too", "base/modes.py",
        "        stack.enter_context(torch.autograd.set_detect_anomaly(False))\n", "",
        (f"{_EXPORTING}::test_exported_in_modes_that_a_caller_switched_on", *_TORCHSCRIPT_ALONE),
    ),
    # Stores and bases.
    Mutation(
        "statistics: a lost chunk counts as zeros", "density/zarr_arrays.py",
        "if n_present < array.nchunks and written is not False:", "if False:",
        (f"{_STORES}::test_a_lost_chunk_is_no_zero",),
    ),
    Mutation(
        "labels: a lost chunk counts as zeros", "density/zarr_arrays.py",
        "if n_present < array.nchunks and written is not False:", "if False:",
        (f"{_LABELS}::test_a_lost_chunk_is_no_zero",),
    ),
    Mutation(
        "statistics: a store's word holds for arrays that say otherwise", "density/zarr_arrays.py",
        "array.attrs.get(WRITES_EMPTY_CHUNKS, store_attributes.get(WRITES_EMPTY_CHUNKS, True))",
        "store_attributes.get(WRITES_EMPTY_CHUNKS, True)",
        (f"{_STORES}::test_chunks_left_out_on_purpose_are_zero_where_the_store_says_so",),
    ),
    Mutation(
        "basis: any is taken for that of the statistics", "density/basis.py",
        "if recorded is not None and not same_basis(given, recorded):", "if False:",
        (f"{_RESCALING}::test_another_basis_of_the_same_length_is_refused",),
    ),
    Mutation(
        "basis: equal numbers of functions are enough", "density/basis.py",
        "return same_shells and _functions_by_element(one) == _functions_by_element(other)",
        "return same_shells and int(one.n_basis) == int(other.n_basis)",
        (f"{_RESCALING}::test_another_basis_of_the_same_length_is_refused",),
    ),
    Mutation(
        "basis: that of the store is not the default", "density/rescaling.py",
        'recorded = getattr(statistics, "basis_info", None)', "recorded = None",
        (f"{_RESCALING}::test_the_basis_of_the_statistics_is_the_default",),
    ),
    Mutation(
        "statistics: small numbers and other dtypes count as equal",
        "density/dataset_statistics.py",
        "return same_kind and stored.tobytes() == array.tobytes()",
        "return stored.shape == array.shape and np.allclose(stored, array)",
        (f"{_STORES}::test_values_differ_in_any_bit",),
    ),
    Mutation(
        "statistics: consolidated metadata stay as they were", "density/dataset_statistics.py",
        "if self._files.get(_CONSOLIDATED) is None:", "if True:",
        (f"{_STORES}::test_consolidated_metadata_are_kept_up_to_date",),
    ),
    Mutation(
        "statistics: of two processes the second fails", "density/dataset_statistics.py",
        "continue  # Another process was first: look again.", "raise",
        (f"{_STORES}::test_another_process_may_be_first",),
    ),
    Mutation(
        "statistics: of two processes the second overwrites", "density/store_files.py",
        "if (target / ARRAY).exists() and not replace:", "if False:",
        (f"{_STORES}::test_another_process_may_be_first",),
    ),
    Mutation(
        "URLs: a folder of this name", "base/files.py",
        "return _URL.match(os.fspath(path)) is not None", "return False",
        (f"{_STORES}::test_what_is_no_store_at_a_url_is_refused",),
    ),
    Mutation(
        "URLs: a file of this name", "base/files.py",
        "    if is_url(path):\n        raise ValueError(",
        "    if False:\n        raise ValueError(",
        (f"{_FILES}::test_a_url_is_no_path",),
    ),
    Mutation(
        "links: replaced by the file", "base/files.py",
        "if target.is_symlink():", "if False:",
        (f"{_FILES}::test_a_link_stays_and_its_target_is_written",),
    ),
    # Precision.
    Mutation(
        "arrays: float64 in the default dtype", "base/validation.py",
        "if not has_dtype(value):", "if True:",
        (f"{_PRECISION}::test_modules_round_no_float64_number",),
    ),
    Mutation(
        "arrays: lists in the default dtype, whatever they meet", "base/validation.py",
        "dtype=dtype or torch.get_default_dtype()", "dtype=torch.get_default_dtype()",
        (f"{_PRECISION}::test_plain_numbers_are_of_the_dtype_that_they_meet",),
    ),
    Mutation(
        "atomic reference: a sum in float32", "density/atomic_reference.py",
        "terms = slope * coeffs.double() + bias",
        "terms = (slope * coeffs.double() + bias).to(coeffs.dtype)",
        (f"{_PRECISION}::test_a_sum_over_a_million_coefficients_is_that_of_float64",
         "-k", "module"),
    ),
    Mutation(
        "ONNX: numbers of operators in float32", "formats/onnx.py",
        "        exact_numbers(module)\n", "        pass\n",
        (f"{_ONNX}::test_comparison_in_a_collective_variable",),
    ),
    Mutation(
        "ONNX: numbers of the exporter in float32", "formats/onnx.py",
        "            require_exact_numbers(model, module)\n", "            pass\n",
        (f"{_ONNX}::test_numbers_that_only_float32_could_hold_are_refused",),
    ),
    Mutation(
        "ONNX: an error function that the runtime lacks for float64", "formats/equivalents.py",
        "    aten.erf.default: _erf,\n", "",
        ("tests/formats/test_onnx.py::test_every_plain_number_of_every_operator_is_float64",),
    ),
    Mutation(
        "ONNX: layer normalisation with numbers in float32", "formats/exact_numbers.py",
        "    aten.native_layer_norm,\n", "",
        (f"{_ONNX}::test_layer_norm_in_float64",),
    ),
    Mutation(
        "ONNX: an error of the checker as it is", "formats/onnx.py",
        "except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:",
        "except ZeroDivisionError as error:",
        (f"{_ONNX}::test_what_the_checker_refuses_is_one_line",),
    ),
    Mutation(
        "ONNX: a version that old runtimes refuse", "formats/onnx.py",
        "model.ir_version = IR_VERSION", "pass",
        (f"{_ONNX}::test_a_file_of_opset_18_has_the_ir_version_that_came_with_it",),
    ),
    # What lies in memory.
    Mutation(
        "lazy views: inputs of a runtime without their sign", "base/arrays.py",
        "return tensor.detach().resolve_conj().resolve_neg().contiguous()",
        "return tensor.detach().contiguous()",
        (f"{_LOADING}::test_lazy_views_are_read_as_what_they_are", "-k", "onnx"),
    ),
    Mutation(
        "lazy views: frozen values without their sign", "jacobian/compiled_chain_rule.py",
        "vectors = in_memory(values).numpy()", "vectors = values.numpy()",
        (f"{_LOADING}::test_lazy_views_in_the_module", "-k", "numba"),
    ),
    Mutation(
        "lazy views: results of a file without their sign", "graph/tracing.py",
        "{aten._neg_view.default: torch.neg}", "{}",
        (f"{_DIRECT}::test_results_lie_in_memory_as_they_are",),
    ),
    Mutation(
        "lazy views: statistics that cannot be saved", "density/dataset_statistics.py",
        "in_memory(data).cpu() if isinstance(data, Tensor) else data", "data",
        (f"{_STORES}::test_tensors_are_saved_whatever_they_note_beside_their_memory",),
    ),
    Mutation(
        "arrays: swapped bytes are refused", "base/arrays.py",
        'array = value.astype(value.dtype.newbyteorder("="), copy=False)', "array = value",
        (f"{_ARGUMENTS}::test_any_layout_of_an_array_can_be_given",),
    ),
    Mutation(
        "arrays: backwards they are refused", "base/arrays.py",
        "is_plain = array.flags.writeable and min(array.strides, default=0) >= 0",
        "is_plain = True",
        (f"{_ARGUMENTS}::test_any_layout_of_an_array_can_be_given",),
    ),
    Mutation(
        "arrays: of atoms, backwards or with swapped bytes", "descriptors/descriptor.py",
        "index = as_tensor(name, atoms)", "index = torch.as_tensor(atoms)",
        (f"{_ARGUMENTS}::test_arrays_in_any_order_of_memory_are_arguments",),
    ),
    Mutation(
        "arrays: of a restraint, backwards", "variables/bias.py",
        "torch.from_numpy(array.copy())", "torch.tensor(array)",
        (f"{_ARGUMENTS}::test_arrays_in_any_order_of_memory_are_arguments",),
    ),
    Mutation(
        "arrays: PyTorch says what holds no numbers", "base/arrays.py",
        'raise TypeError(f"{name}: expected an array of numbers, got {got}") from error', "raise",
        (f"{_ARGUMENTS}::test_what_holds_no_numbers_is_refused_in_one_line",),
    ),
    Mutation(
        "arrays: of a set-up, with swapped bytes", "jacobian/smart_derivatives.py",
        'as_tensor("blocks", arrays["blocks"])', 'torch.from_numpy(arrays["blocks"])',
        (f"{_ARGUMENTS}::test_arrays_in_any_order_of_memory_are_arguments",),
    ),
    Mutation(
        "results: no work on them, nor gradients", "runtimes/torchscript.py",
        "with torch.no_grad(), without_autocast(device):",
        "with torch.inference_mode(), without_autocast(device):",
        (f"{_LOADING}::test_results_are_ordinary_tensors", *_TORCHSCRIPT_ALONE),
    ),
    Mutation(
        "results: of compiled code, no work on them", "runtimes/aotinductor.py",
        "with torch.no_grad(), without_autocast(device):",
        "with torch.inference_mode(), without_autocast(device):",
        (f"{_LOADING}::test_results_are_ordinary_tensors", "-k", "pt2"),
    ),
    # Files in any hands.
    Mutation(
        "indices: those below zero count from the end", "base/indexing.py",
        "torch.where(index < 0, values.shape[0], index)", "index",
        (f"{_DIRECT}::test_an_index_that_does_not_exist_is_an_error", "-k", "rescaling-.onnx"),
    ),
    Mutation(
        "indices: molecules below zero count from the end", "density/energy_core.py",
        "        batch = torch.where(batch < 0, n_molecules, batch)\n", "",
        (f"{_DIRECT}::test_indices_of_a_functional_that_do_not_exist_are_errors", "-k", "onnx"),
    ),
    Mutation(
        "sizes: TorchScript takes any", "graph/scriptable.py",
        "    if specs:\n", "    if False:\n",
        (f"{_DIRECT}::test_a_file_for_one_frame_does_not_take_the_first_of_many",
         *_TORCHSCRIPT_ALONE),
    ),
    Mutation(
        "sizes: ONNX Runtime takes any", "formats/onnx.py",
        "axis.dim_value = size", 'axis.dim_param = f"any {size}"',
        (f"{_DIRECT}::test_a_file_for_one_frame_does_not_take_the_first_of_many", "-k", "onnx"),
    ),
    Mutation(
        "sizes: compiled code takes any", "formats/checked_sizes.py",
        "if (!fits) { refuse", "if (false) { refuse",
        (f"{_DIRECT}::test_another_number_of_frames_than_the_file_takes_is_an_error", "-k", "pt2"),
    ),
    Mutation(
        "sizes: those that are free need not agree in compiled code", "formats/checked_sizes.py",
        "if (symbol.size != size) {", "if (false) {",
        (f"{_DIRECT}::test_compiled_code_looks_at_what_it_is_given",),
    ),
    Mutation(
        "sizes: compiled code takes columns for rows", "formats/checked_sizes.py",
        "if (size >= 2 && n_values > 0 && strides[axis] != stride) {", "if (false) {",
        (f"{_DIRECT}::test_compiled_code_looks_at_what_it_is_given",),
    ),
    Mutation(
        "loading: what runs is read again", "artifacts/loading.py",
        "return Artifact(target, content, found,",
        "return Artifact(target, target.read_bytes(), found,",
        (f"{_LOADING}::test_what_was_checked_is_what_runs", *_TORCHSCRIPT_ALONE),
    ),
    Mutation(
        "verification: what runs is read again", "artifacts/verification.py",
        "return compare(target, content, metadata,",
        "return compare(target, target.read_bytes(), metadata,",
        (f"{_LOADING}::test_what_was_checked_is_what_is_verified", *_TORCHSCRIPT_ALONE),
    ),
    Mutation(
        "code: one library more with every load", "runtimes/aotinductor.py",
        "if digest not in _LOADED:", "if True:",
        (f"{_AOTINDUCTOR}::test_one_library_for_all_loads_of_a_file",),
    ),
    # Exports.
    Mutation(
        "tracing: numbers of values are taken for that of frames", "graph/tracing.py",
        "if number not in fixed and all(", "if all(",
        (f"{_RESTRAINTS}::test_numbers_of_values_and_atoms_are_no_special_case",),
    ),
    Mutation(
        "networks: a compiled one is refused", "graph/evaluation.py",
        'original = getattr(module, "_orig_mod", module)', "original = module",
        (_NETWORKS, "-k", "compiled and None and not onnx"),
    ),
    Mutation(
        "networks: an exported one is refused", "graph/evaluation.py",
        "if isinstance(network, torch.export.ExportedProgram):", "if False:",
        (_NETWORKS, "-k", "exported and None and not onnx"),
    ),
    Mutation(
        "networks: one that converts is judged in float32", "graph/float64.py",
        'if given.get("dtype") is torch.float32:', "if False:",
        (_NETWORKS, "-k", "converting and not onnx"),
    ),
    Mutation(
        "networks: attention in operators that ONNX does not have", "graph/attention.py",
        "with _LOCK, sdpa_kernel(SDPBackend.MATH):", "with _LOCK:",
        (_NETWORKS, "-k", "Transformer and onnx"),
    ),
    Mutation(
        "set-up: a function in another dtype than that of positions", "jacobian/sparse_jacobian.py",
        "expected = _backward(descriptors, positions, v).double()",
        "expected = _backward(descriptors, positions, v)",
        (f"{_SMART}::test_a_function_may_compute_in_another_dtype_than_that_of_the_positions",),
    ),
    Mutation(
        "set-up: a proof sharper than the precision of positions", "jacobian/sparse_jacobian.py",
        "for tensor in (descriptors, positions)", "for tensor in (descriptors,)",
        (f"{_SMART}::test_a_function_may_compute_in_another_dtype_than_that_of_the_positions",),
    ),
    Mutation(
        "exports: several at a time", "artifacts/exporting.py",
        "with _ONE_AT_A_TIME, stopping_tidily(), ordinary_modes():",
        "with stopping_tidily(), ordinary_modes():",
        (f"{_AOTINDUCTOR}::test_one_export_at_a_time",),
    ),
    Mutation(
        "exports: the environment stays as it was changed", "formats/aotinductor.py",
        "for name, value in before.items():", "for name, value in ():",
        (f"{_AOTINDUCTOR}::test_the_environment_comes_back",),
    ),
    Mutation(
        "exports: files stay when the process is terminated", "base/termination.py",
        "    signal.signal(signal.SIGTERM, _stop)\n", "",
        (f"{_AOTINDUCTOR}::test_a_process_that_is_terminated_leaves_nothing",),
    ),
    # Empty and impossible inputs, and numbers that are none.
    Mutation(
        "no frames: a size that is not known is scattered", "jacobian/chain_rule.py",
        "left = rows(values, ref_idx).reshape(x.shape[0], n_blocks, 3)",
        "left = rows(values, ref_idx).reshape(x.shape[0], -1, 3)",
        (f"{_SMART}::test_an_empty_batch",),
    ),
    Mutation(
        "no frames: a size that is not known is gathered", "jacobian/chain_rule.py",
        "right = right.reshape(batch * self.n_atoms, self.width, n_outputs)",
        "right = right.reshape(batch * self.n_atoms, self.width, -1)",
        (f"{_SMART}::test_an_empty_batch",),
    ),
    Mutation(
        "no frames: no box to look at", "graph/derivatives.py",
        ".expand(max(n_frames, 1), 3, 3)", ".expand(n_frames, 3, 3)",
        (f"{_DESCRIPTORS}::test_no_frames",),
    ),
    Mutation(
        "samples: molecules without coefficients", "artifacts/samples.py",
        "return _molecules(shape[0], style, generator)",
        "return torch.from_numpy(generator.integers(low, high, shape))",
        (f"{_VERIFICATION}::test_no_molecule_without_coefficients_is_drawn",),
    ),
    Mutation(
        "probe: values that are no numbers", "artifacts/verification.py",
        '        require_finite(f"{spec.name} of the probe", values)\n', "",
        (f"{_VERIFICATION}::test_values_that_are_no_numbers_are_refused_in_one_line",),
    ),
    Mutation(
        "probe: usual sizes that are no numbers", "artifacts/verification.py",
        'require_finite(f"usual size of {spec.name}", torch.tensor(scale, dtype=torch.float64))',
        "pass",
        (_VERIFICATION, "-k", "usual_size"),
    ),
    Mutation(
        "metadata: null for what is no number", "graph/metadata.py",
        '        _require_finite("metadata", msgspec.to_builtins(self))\n', "",
        (f"{_VERIFICATION}::test_no_number_is_written_that_json_does_not_have",),
    ),
    Mutation(
        "report: an error that is no number is left out", "artifacts/verification.py",
        "return float(np.max(numbers))", "return max(numbers)",
        (f"{_VERIFICATION}::test_the_largest_error_is_no_number_if_one_is_none",
         *_TORCHSCRIPT_ALONE),
    ),
    Mutation(
        "messages: none of an error that has none", "base/validation.py",
        ".strip().splitlines() or [type(error).__name__]", ".strip().splitlines()",
        (_MESSAGES, "-k", "network"),
    ),
    Mutation(
        "messages: none of ONNX Runtime", "runtimes/onnx.py",
        'reason = first_line(error).rpartition(" : ")[2]',
        'reason = str(error).strip().splitlines()[0].rpartition(" : ")[2]',
        (_MESSAGES, "-k", "session"),
    ),
    Mutation(
        "messages: none of compiled code", "runtimes/aotinductor.py",
        "{last_line(error)}", "{str(error).strip().splitlines()[-1]}",
        (_MESSAGES, "-k", "compiled"),
    ),
    Mutation(
        "messages: an empty line of the command line", "cli.py",
        "text = str(text) or type(error).__name__", "text = str(text)",
        ("tests/test_empty_messages.py::test_the_command_line_names_it_too",),
    ),
    # C source.
    Mutation(
        "C source: the digest is not compared", "runtimes/c99.py",
        "if last != DIGEST % hashlib", "if not last.strip() and last != DIGEST % hashlib",
        (f"{_C99}::test_damage_is_noticed",),
    ),
    Mutation(
        "C source: what is no number goes through", "c_source/interface.py",
        'wrong = f"!({name}[i] - {name}[i] == 0)"', 'wrong = f"{name}[i] != {name}[i]"',
        (f"{_C99}::test_a_program_in_c_has_two_of_them_and_the_same_bits",),
    ),
    Mutation(
        "C source: negative indices go through", "c_source/interface.py",
        'wrong = f"({name}[i] < {spec.low} || {name}[i] >= {_end(spec)})"',
        'wrong = f"({name}[i] >= {_end(spec)})"',
        (f"{_C99}::test_a_frozen_dataset_by_index",),
    ),
    Mutation(
        "C source: sums over free sizes end early", "c_source/writer.py",
        'f"({size!s}) / {parts}"', 'f"(({size!s}) - 1) / {parts}"',
        (f"{_FREE_SIZES}::test_one_function_for_all_sizes[sum of one column]",),
    ),
    Mutation(
        "C source: a free axis may be joined anywhere", "c_source/views.py",
        "    _require_leading(x.shape, call.shape)\n", "",
        (f"{_FREE_SIZES}::test_what_needs_to_know_a_size_is_refused_by_name",),
    ),
    Mutation(
        "C source: a joined part begins at the largest size of the first", "c_source/index.py",
        "return cls({expression.text: 1})", "return cls({}, int(expression))",
        (f"{_FREE_SIZES}::test_one_function_for_all_sizes[one after the other]",),
    ),
    Mutation(
        "C source: memory is given away too early", "c_source/slots.py",
        "last[word] = number", "last.setdefault(word, number)",
        (f"{_FREE_SIZES}::test_large_arrays_take_the_place_of_dead_ones",),
    ),
    Mutation(
        "C source: extremes with what an index does not reach", "c_source/arrays.py",
        "if not include_self:", "if include_self:",
        (f"{_FREE_SIZES}::test_one_function_for_all_sizes", "-k", "amax"),
    ),
    Mutation(
        "C source: molecules that have no place go through", "c_source/interface.py",
        "TOLD_BY_LARGEST.get(spec.name, spec.high)", "spec.high",
        (f"{_FUNCTIONAL}::test_what_a_function_in_c_is_told",),
    ),
    Mutation(
        "C source: one molecule too few", "runtimes/c99.py",
        "int(array.max()) + 1", "int(array.max())",
        (f"{_FUNCTIONAL}::test_artifact_of_any_molecule", "-k", "so"),
    ),
    Mutation(
        "C source: a size for its largest value", "c_source/arrays.py",
        "return operand_value(call, number)", "number = int(number)",
        (_FREE_SIZES, "-k", "filled"),
    ),
    Mutation(
        "C source: fused code on one processor alone", "c_source/function.py",
        "arch=x86-64-v3", "arch=haswell",
        (_LIBRARY, "-k", "fused"),
    ),
    Mutation(
        "C source: variances by n", "c_source/moments.py",
        "average(squares, n - correction)", "average(squares, n - 1)",
        (f"{_FREE_SIZES}::test_one_function_for_all_sizes[layer norm]",),
    ),
    Mutation(
        "C source: arrays of a caller are laid out for the largest sizes", "c_source/emitter.py",
        "target = packed(name, value.shape, value.kind)",
        "target = array(name, value.shape, value.kind)",
        (f"{_FREE_SIZES}::test_one_function_for_all_sizes[in a stack]",),
    ),
    Mutation(
        "C source: every frame is the first", "c_source/interface.py",
        '+ {_size(one)} * i")', '+ 0 * i")',
        (f"{_C99}::test_frames_of_a_batch_have_the_bits_of_single_ones",),
    ),
    Mutation(
        "C source: products and sums are contracted", "c_source/function.py",
        'clang="STDC FP_CONTRACT OFF", gcc="off"', 'clang="STDC FP_CONTRACT OFF", gcc="fast"',
        (_EMITTER,),
    ),
    Mutation(
        "C source: double precision is computed in single", "c_source/emitter.py",
        'return "double" if any(', 'return "float" if any(',
        (f"{_EMITTER}::test_of_two_precisions_the_higher_one_counts",),
    ),
    Mutation(
        "C source: flags are divided as integers", "c_source/pointwise.py",
        'return as_real(whole, call.writer.real) if call.kind == "real" else whole', "return whole",
        (f"{_EMITTER}::test_flags_and_integers_become_numbers_before_they_are_divided",),
    ),
    Mutation(
        "C source: eigenvalues in descending order", "c_source/eigenvalues.c",
        "if (values[j] < values[smallest]) smallest = j;",
        "if (values[j] > values[smallest]) smallest = j;",
        (f"{_C99}::test_every_kind_of_descriptor[eigenvalues]",),
    ),
    Mutation(
        "C source: a cache that anyone can write to", "c_source/compiler.py",
        "if found.st_uid != os.getuid() or found.st_mode", "if False and found.st_mode",
        (f"{_C99}::test_a_cache_that_others_can_write_to_is_refused",),
    ),
    Mutation(
        "verification: frames at a jump", "artifacts/geometry.py", "_JUMP = 0.1", "_JUMP = 1e9",
        (f"{_VERIFICATION}::test_a_value_that_jumps_is_compared_beside_the_jump",),
    ),
    Mutation(
        "C source: remainders the other way round", "c_source/pointwise.py",
        'f"{name}({x}, {y})"', 'f"{name}({y}, {x})"',
        (f"{_EMITTER}::test_numbers_are_those_of_float64_and_bits_those_of_every_compiler",),
    ),
    Mutation(
        "C source: parts of arrays one place further", "c_source/views.py",
        "places[dim] = places[dim] + -first", "places[dim] = places[dim] + (1 - first)",
        (f"{_EMITTER}::test_numbers_are_those_of_float64_and_bits_those_of_every_compiler",),
    ),
    Mutation(
        "C source: the last rows are left out", "c_source/interface.py",
        'f"    for (int k = 0; i + k < {size}; ++k) {{"',
        'f"    for (int k = 1; i + k < {size}; ++k) {{"',
        (f"{_C99}::test_a_rescaling_of_any_number_of_coefficients",),
    ),
    Mutation(
        "libraries: the digest is not compared", "runtimes/shared_library.py",
        "if hashlib.sha256(body).hexdigest().encode() != expected:", "if not expected:",
        (f"{_LIBRARY}::test_damage_is_noticed",),
    ),
    Mutation(
        "libraries: a trailer that does not fit", "runtimes/shared_library.py",
        "if start < 0 or offset + length > start", "if start < -(10**12)",
        (f"{_LIBRARY}::test_a_trailer_that_does_not_fit_is_refused",),
    ),
    Mutation(
        "libraries: of any processor", "runtimes/shared_library.py",
        "if metadata.instruction_set != platform.machine():", "if metadata.device != 'cpu':",
        (f"{_LIBRARY}::test_another_processor_is_named",),
    ),
    Mutation(
        "PLUMED: hexadecimal numbers with too few digits", "c_source/plumed.py",
        'f"{value:.9g}"', 'f"{value:.7g}"',
        ("tests/formats/test_plumed_source.py",),
    ),
    # On a GPU.
    Mutation(
        "folded runs: two at the same places", "jacobian/folded_runs.py",
        "return self.high <= other.low or other.high <= self.low", "return True",
        ("tests/jacobian/test_folded_runs.py",),
    ),
    Mutation(
        "pairs by atom: what fills a row up counts", "variables/pair_forms.py",
        "self.pair = torch.full((self.n_atoms, self.width), self.n_pairs)",
        "self.pair = torch.zeros(self.n_atoms, self.width, dtype=torch.int64)",
        ("tests/variables/test_one_frame.py::test_on_a_gpu_pairs_are_gathered_by_atom",),
    ),
]  # fmt: skip
