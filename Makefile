# `make test` and `make bench` set up what they need: Python 3.11 or newer, make and a C++ compiler are enough.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PYTEST := $(PY) -m pytest --numprocesses auto --maxprocesses 8
# A processor without AVX512: one variable for torch's own kernels, one for oneDNN's. Other machines know neither.
AVX2 := $(if $(filter x86_64 amd64,$(shell uname -m)),ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2)
# These take long, and what they test is not arithmetic.
ANYWHERE := cli ray report runner

.PHONY: test test-avx2 bench lint format clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[bench,docs,test]'
	touch $@

test: $(READY)  ## run the tests
	$(PYTEST)

test-avx2: $(READY)  ## run the tests again, but for `ANYWHERE`, as a processor without AVX512 would
	$(AVX2) $(PYTEST) $(ANYWHERE:%=--ignore tests/benchmarks/test_%.py)

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
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
