# `make test` and `make bench` set up what they need: Python 3.11 or newer, make and a C++ compiler are enough.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: test bench lint format clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[bench,docs,test]'
	touch $@

test: $(READY)  ## run the tests
	$(PY) -m pytest --numprocesses auto --maxprocesses 8

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
