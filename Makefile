# Everything happens in .venv; it is made anew where it is missing and installed again where pyproject.toml changes.
# `make demo` needs the plain install only; `make test` adds the tools and the trainer.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install dev demo test test-long check clean

help: ## this list
	@echo "deblurd, for research use only"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

install: $(VENV)/.plain ## deblurd in .venv
dev: $(VENV)/.dev ## deblurd, its tools and its trainer in .venv

demo: $(VENV)/.plain ## scan a virtual slide and show what came of it
	$(BIN)/deblurd demo

test: check ## all checks and all tests but the long ones
	$(BIN)/pytest -m "not long"

test-long: $(VENV)/.dev ## faults, calibration and systemd in real time, for a quiet machine
	$(BIN)/pytest -m long

check: $(VENV)/.dev ## style, types and the rules between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove .venv, caches and builds
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks
	find deblurd tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo 'deblurd needs Python 3.11, 3.12 or 3.13, and "$(PYTHON)" is not one: name one, as in: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.plain: pyproject.toml | $(VENV)/.python
	@echo "installing deblurd into $(VENV)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.python
	@echo "installing deblurd, its tools and its trainer into $(VENV)"
	$(PIP) --editable '.[dev,train]'
	@touch $(VENV)/.plain $@
