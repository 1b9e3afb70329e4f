# `make test` and `make bench` set up what they need: Python 3.11 or newer, make and a C++ compiler are enough.
# `make test PYTHON=python3.13 TORCH=2.15.0` does the same with another Python and another torch, beside the usual ones.
PYTHON ?= python3
TORCH ?=
VENV := .venv$(TORCH:%=-torch%)$(patsubst %,-%,$(notdir $(filter-out python3,$(PYTHON))))
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
FRAMEWORKS := .venv-frameworks
PYTEST := $(PY) -m pytest --numprocesses auto --maxprocesses 8
# A processor without AVX512: one variable for torch's own kernels, one for oneDNN's. Other machines know neither.
AVX2 := $(if $(filter x86_64 amd64,$(shell uname -m)),ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2)
# These take long, and what they test is not arithmetic.
ANYWHERE := $(patsubst %,benchmarks/test_%.py,archive bring_your_own browser claims cli distributed exponents files \
  gpu_script new on_gpu page papers_claims planning provenance ray references report runner schema session store) \
  distributed test_compile.py test_house.py test_interrupted.py test_walls.py

# The oldest torch, the usual one and the newest, each with another Python.
VERSIONS := python3.11:2.6.0 python3.12:2.14.1 python3.13:2.15.0

.PHONY: test test-avx2 test-versions test-frameworks bench matrix lint format clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH:%=torch==%) --editable '.[bench,docs,test]'
	touch $@

test: $(READY)  ## run the tests
	$(PYTEST) tests $(OPTIONS)

test-avx2: $(READY)  ## run the tests again, but for `ANYWHERE`, as a processor without AVX512 would
	$(AVX2) $(PYTEST) $(ANYWHERE:%=--ignore tests/%)

test-versions:  ## run the tests with other versions of Python and torch; docs/versions.json gets what came out
	for pair in $(VERSIONS); do \
	  $(MAKE) test PYTHON=$${pair%%:*} TORCH=$${pair##*:} OPTIONS='--versions docs/versions.json' || failed=1; \
	done; test -z "$$failed"

matrix: $(READY)  ## run the tests of environments; docs/environments.json gets what came out
	$(PYTEST) tests -m environment --matrix docs/environments.json

$(FRAMEWORKS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[frameworks]'
	touch $@

test-frameworks: $(FRAMEWORKS)/.ready  ## run docs/frameworks, and every member, with the frameworks installed
	$(FRAMEWORKS)/bin/python -m pytest tests/frameworks $(OPTIONS)

bench: $(READY)  ## train a small network with every optimizer; print the table and the report's path
	$(PY) -m benchmarks run quick

lint: $(READY)  ## ruff and mypy
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: $(READY)
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
