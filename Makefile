# make demo    real input to verified artifacts, in Python and C++
# make openmm-demo   a trained CV pulls alanine dipeptide in OpenMM, from Python and from C++
# make graph-demo    a network over a graph of atoms restrains NaCl in water, from Python and from C++
# make test    all tests, Python and C++
# make check   formatting, lint, types, and which package may import which
# make bench   all timings, side by side with their peers and limits
# make hunt    ten minutes of modules, shapes, strides, formats and modes drawn at random
# make guard   ratios of timings that must not get worse, in a few minutes
#
# Each makes its own environment in .venv. Settings: PYTHON (an interpreter, 3.11 or later),
# PIP_ARGS (e.g. an index with CPU builds of torch), JOBS, MINUTES (of the hunt).

PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
MINUTES ?= 10
VENV := .venv
BIN := $(VENV)/bin
BUILD := build/cpp_demo
CPP_FILES = $(shell git ls-files '*.hpp' '*.cpp')
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

CONFIGURE = $(BIN)/cmake -S cpp_demo -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
  -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python --log-level=WARNING

# The tests write many .pt2 files; PyTorch asks openssl whether headers have changed.
KEEP_HEADERS = OFCV_PRECOMPILE_HEADERS=$(shell command -v openssl)

.PHONY: demo openmm-demo graph-demo test check format bench guard hunt cpp-demo cpp-tests clean

demo: cpp-demo
	$(BIN)/python -m export_scripts.demo --cpp-demo $(BUILD)/ofcv_demo --output demo_output

openmm-demo: cpp-demo
	$(BIN)/python -m export_scripts.openmm_example --program $(BUILD)/openmm/ofcv_openmm --output demo_output/openmm

graph-demo: cpp-demo
	$(BIN)/python -m export_scripts.graph_demo --program $(BUILD)/openmm/ofcv_openmm --output demo_output/graph

test: cpp-tests
	$(KEEP_HEADERS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
	$(KEEP_HEADERS) $(BIN)/ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure

check: $(VENV)/test.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

format: $(VENV)/test.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP_FILES)

bench: cpp-tests
	$(BIN)/python -m benchmarks.md_step
	$(BIN)/python -m benchmarks.training_batch --large
	$(BIN)/python -m benchmarks.smart_derivatives
	$(BIN)/python -m benchmarks.mlcolvar_models
	$(BIN)/python -m benchmarks.rescaling
	$(BIN)/python -m benchmarks.openmm_overhead --program $(BUILD)/openmm/ofcv_openmm
	$(BIN)/python -m benchmarks.graph --program $(BUILD)/ofcv_demo
	$(BIN)/python -m benchmarks.cuda

guard: cpp-tests
	$(BIN)/python -m benchmarks.guard

hunt: $(VENV)/test.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hunt --minutes $(MINUTES)

cpp-demo: $(VENV)/demo.installed
	$(CONFIGURE)
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS) --target ofcv_demo ofcv_density ofcv_openmm

cpp-tests: $(VENV)/test.installed
	$(CONFIGURE)
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS)

$(VENV)/demo.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what the demo needs into $(VENV) (a minute or two)"
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/test.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what the tests need into $(VENV) (a minute or two)"
	$(INSTALL) -e '.[test,check]'
	@touch $@ $(VENV)/demo.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "PYTHON: expected 3.11 or later, got $$($(PYTHON) --version)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build demo_output
