# `make demo` and `make test` each set up everything that they need on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick check generated oldest clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.test check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Under three minutes: lint, types, and what a change most likely breaks.
QUICK := tests/test_imports.py tests/test_kinds.py tests/test_graph.py tests/test_api.py tests/test_report.py \
         tests/language tests/passes tests/diagram tests/codegen tests/specs/test_invalid.py \
         tests/specs/test_published.py tests/contract/test_streams.py tests/contract/test_declared.py \
         tests/contract/test_components.py
SLOWER := a_wrong or test_free_names or test_standalone or test_pickles or test_linear

quick: $(VENV)/.test check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(QUICK) -k "not ($(SLOWER))"

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The oldest version of every range in pyproject.toml, in an environment of its own.
OLDEST := .venv-oldest
OLDER := tests/test_cli.py tests/test_api.py tests/language tests/kernels/test_plain.py tests/codegen/test_shorten.py \
         tests/codegen/test_standalone.py

oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 $(OLDER) -k "not ruff"

$(OLDEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	sed -n 's/.*"\([a-z][a-z-]*\)>=\([0-9.]*\)[";].*/\1==\2/p' pyproject.toml | grep -v -e setuptools -e ruff -e mypy -e build \
	    > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/pip install -q --disable-pip-version-check -r $(OLDEST)/oldest.txt
	$(OLDEST)/bin/pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

generated: $(VENV)/.demo
	$(BIN)/python examples/regenerate.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that nothing else can choose a larger build of it
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[cpu]'
	sh .ci/graphviz
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(VENV)/.demo
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
