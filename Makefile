# On a fresh machine these need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: run test test-all lint bench clean

run: $(VENV)/.installed
	$(BIN)/luigi --module tasks FullPipeline

# One process more than cores, since some tests wait; at most five.
WORKERS = $(shell $(PYTHON) -c "import os; print(min(4, os.cpu_count()) + 1)")
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# Every behaviour once; test-all tries it in all cases.
test: $(VENV)/.installed-test
	$(BIN)/python -m tests.compile_numba
	$(PYTEST) -m "not exhaustive"

test-all: $(VENV)/.installed-test
	$(BIN)/python -m tests.compile_numba
	$(PYTEST) --durations 20

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy --no-error-summary

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.warp
	$(BIN)/python -m benchmarks.extraction
	$(BIN)/python -m benchmarks.fast_rcnn

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# Tests and benchmarks run with known versions.
$(VENV)/.installed-%: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .hypothesis
