"""Changes that bring back wrong numbers, crashes and refusals of variables and engines."""

from tests.mutations.mutation import Mutation

_DESCRIPTORS = "tests/descriptors/test_descriptors.py"
_CV = "tests/variables/test_collective_variable.py"
_RESTRAINTS = "tests/variables/test_restraints.py"
_SMART = "tests/jacobian/test_smart_derivatives.py"
_MLCOLVAR = "tests/integrations/test_from_mlcolvar.py"
_ENGINE = "tests/engines/test_engine_bias.py"
_OPENMM = "tests/engines/test_openmm.py"
_ASE = "tests/engines/test_ase.py"
_LAMMPS = "tests/engines/test_lammps.py"
_CONTRACTS = "tests/contracts/test_contracts.py"
_EXPORTING = "tests/artifacts/test_exporting.py"
_TRAJECTORY = "tests/artifacts/test_trajectory.py"
_VERIFICATION = "tests/artifacts/test_verification.py"

ENGINES: list[Mutation] = [
    # What engines must know of a file.
    Mutation(
        "boxes: only those of descriptors with a description", "descriptors/box_facts.py",
        "for leaf in _leaves(descriptor) for",
        "for leaf in (_leaves(descriptor) if descriptor.specification() else []) for",
        (f"{_ENGINE}::test_a_fixed_box_counts_whatever_describes_the_descriptors",),
    ),
    Mutation(
        "engine: fractions are looked for in the description", "engines/engine_bias.py",
        "if details.box.fractions:", "if details.descriptors and details.box.fractions:",
        (f"{_ENGINE}::test_a_fixed_box_counts_whatever_describes_the_descriptors",),
    ),
    Mutation(
        "engine: a call has the box of whichever was last", "engines/engine_bias.py",
        "strain + inputs[1].T @", "strain + self._last_box.vectors.T @",
        (_ENGINE, "-k", "another_call"),
    ),
    Mutation(
        "OpenMM: contexts share the parameters", "engines/openmm.py",
        "            return self._bias.evaluate(positions, box, self._parameters(state))\n",
        "            for name, value in self._parameters(state).items():\n"
        "                self._bias.set_parameter(name, value)\n"
        "            return self._bias.evaluate(positions, box)\n",
        (_OPENMM, "-k", "contexts"),
    ),
    Mutation(
        "loading: another file under the same path", "artifacts/loading.py",
        "if digest not in (None, found):", "if False:",
        (_ENGINE, "-k", "replaced"),
    ),
    Mutation(
        "OpenMM: the XML does not say which file", "engines/openmm.py",
        '        self._arguments["digest"] = self._bias.digest\n', "",
        (f"{_OPENMM}::test_a_serialised_force_is_that_of_its_file_alone",),
    ),
    Mutation(
        "OpenMM: a path of whichever folder", "engines/openmm.py",
        '"path": str(Path(path).resolve()),', '"path": str(path),',
        (f"{_OPENMM}::test_a_serialised_force_is_that_of_its_file_alone",),
    ),
    Mutation(
        "ASE: results are kept before they are complete", "engines/ase.py",
        "        results = self._bias_results(atoms)\n",
        "        super().calculate(atoms, properties, system_changes)\n"
        "        results = self.results = self._bias_results(atoms)\n",
        (f"{_ASE}::test_a_calculator_that_failed_is_asked_again",),
    ),
    Mutation(
        "engine: a box at run time makes the whole molecule whole", "engines/engine_bias.py",
        "if self._facts.open:", "if self._facts.open and not self.metadata.periodic:",
        (_ENGINE, "-k", "lattice_translation"),
    ),
    Mutation(
        "boxes: open if all parts are", "descriptors/box_facts.py",
        '"open": not all(part.periodic for part in parts)',
        '"open": not any(part.periodic for part in parts)',
        (_ENGINE, "-k", "lattice_translation"),
    ),
    Mutation(
        "contracts: a box at run time makes the whole molecule whole", "contracts/potential.py",
        "whole=bias.box.open,", "whole=bias.box.open and not bias.periodic,",
        (_CONTRACTS, "-k", "only_a_part"),
    ),
    Mutation(
        "export: atoms change the metadata alone", "artifacts/verification.py",
        "module = module.with_atoms(atoms)", "pass",
        (_EXPORTING, "-k", "other_atoms"),
    ),
    Mutation(
        "export: a length unit changes the metadata alone", "artifacts/exporting.py",
        "if own is not None and LENGTHS.get(own) != LENGTHS[length_unit]:", "if False:",
        (_EXPORTING, "-k", "contradict"),
    ),
    Mutation(
        "export: derivatives per any length", "artifacts/exporting.py",
        '        return f"{units[\'values\']}/{length}" if length else units[name]\n',
        "        return units[name]\n",
        (_EXPORTING, "-k", "contradict"),
    ),
    Mutation(
        "LAMMPS: elements are checked once", "engines/lammps.py",
        "        self._require_elements()\n        cell", "        cell",
        (_LAMMPS, "-k", "change_between_runs"),
    ),
    Mutation(
        "LAMMPS: the boundaries of the first step for ever", "engines/lammps.py",
        "        box = image_lattice(_lattice_vectors(cell), _periodic(cell))\n",
        "        self._pbc = getattr(self, '_pbc', _periodic(cell))\n"
        "        box = image_lattice(_lattice_vectors(cell), self._pbc)\n",
        (_LAMMPS, "-k", "boundaries_that_change"),
    ),
    Mutation(
        "LAMMPS: a periodic box is asked for once", "engines/lammps.py",
        "        self._bias.require_periodic(all(_periodic(cell)))\n", "",
        (_LAMMPS, "-k", "boundaries_that_change"),
    ),
    Mutation(
        "ASE: the atoms of the first call for ever", "engines/ase.py",
        "        self._require_same_system(atoms)\n", "",
        (f"{_ASE}::test_other_atoms_than_the_calculator_was_made_for_are_caught",),
    ),
    Mutation(
        "trajectories: any boundaries", "artifacts/trajectory.py",
        "if require_frame.takes_box and not frame.pbc.all():", "if False:",
        (_TRAJECTORY, "-k", "as_by_engines"),
    ),
    Mutation(
        "trajectories: any elements", "artifacts/trajectory.py",
        "        require_elements(self._own, self._elements, elements)\n", "",
        (_TRAJECTORY, "-k", "as_by_engines"),
    ),
    Mutation(
        "trajectories: any box in place of a fixed one", "artifacts/trajectory.py",
        "for own in self._fixed:", "for own in ():",
        (_TRAJECTORY, "-k", "as_by_engines"),
    ),
    Mutation(
        "checkpoints: the class that has such hyper-parameters",
        "integrations/mlcolvar_checkpoints.py",
        "    if given is None:\n",
        "    if given is None:\n        return _class_of(path, parameters)\n",
        (_MLCOLVAR, "-k", "whose_evaluation"),
    ),
    # Restraints and other energies.
    Mutation(
        "restraints: an angle is a number", "variables/restraints.py",
        "self.is_periodic = any(periods)", "self.is_periodic = False",
        (_RESTRAINTS, "-k", "nearest_image and pt"),
    ),
    Mutation(
        "restraints: files do not tell the periods", "variables/variable.py",
        "periods=tuple(self.periods),", "periods=(None,) * self.n_outputs,",
        (_RESTRAINTS, "-k", "known_or_told"),
    ),
    Mutation(
        "PLUMED: is not told of periods", "engines/plumed.py",
        "        if period is not None:", "        if False:",
        ("tests/engines/test_plumed.py", "-k", "periods"),
    ),
    Mutation(
        "restraints: times in the precision of the rest", "variables/variable.py",
        'return torch.float64 if name == "time" and self.time_unit() else self.dtype',
        "return self.dtype",
        (_RESTRAINTS, "-k", "late_times and pt"),
    ),
    Mutation(
        "restraints: times are rounded before differences", "variables/restraints.py",
        "((time - self.starts) / self.durations)",
        "((time.to(self.centres) - self.starts) / self.durations)",
        (_RESTRAINTS, "-k", "late_times and pt"),
    ),
    Mutation(
        "restraints: a conversion rounds the times", "variables/restraints.py",
        "        self.starts, self.durations = times[:-1], times.diff()\n", "",
        (_RESTRAINTS, "-k", "conversion"),
    ),
    Mutation(
        "engine: places are rounded before differences", "engines/engine_bias.py",
        "            places = places - places[0]\n", "            pass\n",
        (_ENGINE, "-k", "origin"),
    ),
    Mutation(
        "contracts: places are rounded before differences", "contracts/potential.py",
        "            place = place - place[:1]\n", "            pass\n",
        (_CONTRACTS, "-k", "place_nor_time"),
    ),
    Mutation(
        "contracts: times are rounded before differences", "contracts/potential.py",
        "given.append(parameter if is_time else parameter.to(self.precision))",
        "given.append(parameter.to(self.precision))",
        (_CONTRACTS, "-k", "place_nor_time"),
    ),
    Mutation(
        "rotations: unique ones everywhere", "descriptors/optimal_rotation.py",
        "degenerate = flat <= self.degenerate *", "degenerate = flat < -self.degenerate *",
        (_DESCRIPTORS, "-k", "several_rotations"),
    ),
    Mutation(
        "rotations: any vector of several best ones", "descriptors/optimal_rotation.py",
        "largest = torch.argmax(torch.diagonal", "largest = torch.argmin(torch.diagonal",
        (_DESCRIPTORS, "-k", "several_rotations"),
    ),
    # Refusals of what should work.
    Mutation(
        "verification: errors relative to values that vanish", "artifacts/replays.py",
        "_SATURATED * max(scales.values(), default=0.0)", "0.0",
        (_VERIFICATION, "-k", "saturates and (nm or run)"),
    ),
    Mutation(
        "verification: clusters of nm in any unit", "artifacts/geometry.py",
        'self.bond = _BOND * length_factor("nm", str(unit))', "self.bond = _BOND",
        (_VERIFICATION, "-k", "saturates and A-"),
    ),
    Mutation(
        "verification: not at the descriptors of the training", "artifacts/geometry.py",
        "kinds.append(TRAINED)", "pass",
        (_MLCOLVAR, "-k", "of_its_normalisation"),
    ),
    Mutation(
        "verification: not at the user's frames", "artifacts/geometry.py",
        "kinds += [FRAMES, DISPLACED]", "pass",
        ("tests/artifacts/test_frames.py", "-k", "verified_at"),
    ),
    Mutation(
        "derivatives: free sizes become numbers", "graph/derivatives.py",
        "    return by_reverse_mode\n",
        "    def by_vjp(positions: Tensor, *others: Tensor) -> Outputs:\n"
        "        box, parameters = _split(others, periodic)\n"
        "        boxes = [entry.expand(positions.shape[0], 3, 3) for entry in box]\n"
        "        values, back = torch.func.vjp(\n"
        "            lambda *leaves: _apply(function, leaves, parameters), positions, *boxes\n"
        "        )\n"
        "        gradients = [back(seeds[k].expand_as(values)) for k in range(n_outputs)]\n"
        "        return (values, *(torch.stack(entries, dim=1) for entries in zip(*gradients)))\n\n"
        "    return by_vjp\n",
        (_CV, "-k", "any_make and DeepSets and pt and None"),
    ),
    Mutation(
        "tracing: attention as one operator", "graph/tracing.py",
        "with plain_attention():", "if True:",
        (_CV, "-k", "any_make and Transformer and onnx and None"),
    ),
    Mutation(
        "tracing: a scripted network's tensors are not taken", "graph/tracing.py",
        "_allow_non_fake_inputs=True", "_allow_non_fake_inputs=False",
        (_CV, _EXPORTING, "-k", "scripted and pt or a_scripted"),
    ),
    Mutation(
        "rotations: operators that ONNX lacks", "descriptors/optimal_rotation.py",
        "root = (key.detach() * power).sum((1, 2))",
        "root = torch.linalg.eigvalsh(key.detach())[:, 3]",
        (_DESCRIPTORS, "-k", "run_in_onnx and RMSD"),
    ),
    Mutation(
        "ONNX: messages with terminal escapes", "base/validation.py",
        'return _COLOUR.sub("", str(error))', "return str(error)",
        ("tests/formats/test_onnx.py", "-k", "colours"),
    ),
    Mutation(
        "coordination: an atom's distance from itself is looked at", "descriptors/coordination.py",
        "distances = distances.gather(2, self.stand_in.expand(distances.shape))", "pass",
        (_DESCRIPTORS, "-k", "both_groups"),
    ),
    Mutation(
        "pickling: an artifact as its runtime", "artifacts/loading.py",
        "def __reduce__(self)", "def reduced(self)",
        ("tests/artifacts/test_loading.py", "-k", "pickled and pt and not pt2"),
    ),
    Mutation(
        "pickling: an engine's bias without its present parameters", "engines/engine_bias.py",
        "partial(type(self), parameters=self.parameters, **self._arguments)",
        "partial(type(self), **self._arguments)",
        (_ENGINE, _ASE, "-k", "same_bias or pickled_calculator"),
    ),
    Mutation(
        "command line: a file's name ends at an equals sign", "cli.py",
        'name, equals, file = entry.partition("=")',
        'name, equals, file = entry.rpartition("=")',
        ("tests/test_cli.py", "-k", "any_name"),
    ),
    Mutation(
        "export: in the caller's inference mode", "base/modes.py",
        "        stack.enter_context(without_inference_mode())\n", "",
        (_EXPORTING, "-k", "modes and pt"),
    ),
    Mutation(
        "inference mode: what was made in it is not copied", "base/modes.py",
        "return copy.deepcopy(module) if", "return module if",
        (_CV, "-k", "inference"),
    ),
    Mutation(
        "inference mode: nothing is differentiated", "base/modes.py",
        "without_inference_mode() if inference else nullcontext()", "nullcontext()",
        (_CV, "-k", "inference"),
    ),
    Mutation(
        "set-up: in the caller's inference mode", "jacobian/smart_derivatives.py",
        "    @ordinary_modes()\n", "",
        (_SMART, "-k", "inference"),
    ),
    Mutation(
        "variables: tried in the caller's autocast", "variables/collective_variable.py",
        "    @ordinary_modes()\n", "",
        ("tests/variables/test_collective_variable.py", "-k", "callers_autocast"),
    ),
    Mutation(
        "export: half precision", "artifacts/exporting.py",
        "require_floating_dtype(spec.name, spec.torch_dtype)", "pass",
        (_EXPORTING, "-k", "half"),
    ),
    Mutation(
        "pt2: files in whichever TMPDIR", "runtimes/aotinductor.py",
        "named = [place for place in tried if _PLAIN_NAME.fullmatch(place) and "
        "Path(place).is_dir()]",
        "named = [place for place in tried if Path(place).is_dir()]",
        ("tests/formats/test_aotinductor.py", "-k", "space_and_a_quote"),
    ),
    Mutation(
        "box: rounding errors off the axes are an angle", "descriptors/lattice.py",
        "off_axes <= 1e-7 * diagonal.abs().max()", "off_axes == 0",
        ("tests/descriptors/test_boundaries.py", "-k", "off_the_axes"),
    ),
    Mutation(
        "command line: a file of one frame takes no others", "cli.py",
        "    if len(lengths) != 1 or lengths == {0}:\n", "    if True:\n",
        ("tests/test_cli.py", "-k", "one_frame_runs"),
    ),
    Mutation(
        "arrays: those that may only be read are not copied", "base/arrays.py",
        "is_plain = array.flags.writeable and", "is_plain =",
        ("tests/base/test_validation.py", "-k", "any_layout"),
    ),
    Mutation(
        "networks: the caller's own is put into evaluation mode", "graph/evaluation.py",
        "    copied = _uncompiled(copy.deepcopy(_uncompiled(network), copies))\n",
        "    copied = _uncompiled(network)\n",
        (_CV, "-k", "callers_network"),
    ),
    Mutation(
        "atoms: fractions are cut off", "base/atoms.py",
        "return operator.index(atom)  # type: ignore[arg-type]", "return int(atom)",
        (_EXPORTING, "-k", "no_engine_knows"),
    ),
    Mutation(
        "variables: any unit of length", "variables/collective_variable.py",
        "        require_length_unit(length_unit)\n", "",
        (_EXPORTING, "-k", "no_engine_knows"),
    ),
    Mutation(
        "trajectories: the unit box of a PDB file is a box", "artifacts/trajectory.py",
        " or is_unit_box(lattice)", "",
        (_TRAJECTORY, "-k", "unit_box"),
    ),
    Mutation(
        "ASE: the unit box of a PDB file is a box", "engines/ase.py",
        "if periodic.all() and is_unit_box(cell):", "if False:",
        (_ASE, "-k", "wrong_box"),
    ),
    Mutation(
        "inference mode: left with gradients on", "base/modes.py",
        "with torch.inference_mode(False), torch.set_grad_enabled(before):",
        "with torch.inference_mode(False):",
        (_SMART, "-k", "hang_on_no_graph"),
    ),
    Mutation(
        "descriptions: a subclass has that of its base", "descriptors/described.py",
        'vars(type(self)).get("type_name") is None', "self.type_name is None",
        ("tests/descriptors/test_descriptors.py::test_a_subclass_is_not_described_as_its_base",),
    ),
    Mutation(
        "verification: a file for other atoms is not that of its module",
        "artifacts/verification.py",
        'graph_of("reference", reference, metadata.atoms,',
        'graph_of("reference", reference, None,',
        ("tests/contracts/test_contracts.py", "-k", "other_atoms"),
    ),
    Mutation(
        "trajectories: elements of a contract's atoms are not looked at", "artifacts/trajectory.py",
        "self._own, self._elements = list(metadata.atoms or atoms), metadata.elements",
        "self._own, self._elements = list(atoms), None",
        ("tests/artifacts/test_frames.py", "-k", "elements"),
    ),
    Mutation(
        "atoms: those given to what has its own are left out", "artifacts/exporting.py",
        "if graph.atoms is not None and atoms is not None and list(atoms) != list(graph.atoms):",
        "if False:",
        (_EXPORTING, "-k", "any_module"),
    ),
]  # fmt: skip
