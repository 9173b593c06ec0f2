# Everything a reader or contributor does starts here; `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The Python that makes the virtual environment (3.11 or newer), for instance: make book PYTHON=python3.12
PYTHON ?= python3
# The parameter set of `make rerun`: smoke (about a minute a study), standard (2 CPU cores), full (one GPU)
SET ?= standard
# Only for `make lock`
UV ?= uv
TORCH ?= 2.13.0

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PAGE := _build/html/index.html

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup simulate book html rerun status test unit bench lint lock clean distclean

help: ## Show this list
	@echo "make TARGET, where TARGET is one of"
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 14

setup: $(READY) ## Make the virtual environment .venv and install everything (the other targets do it too)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)."; \
	  echo "Install one and name it: make $(or $(MAKECMDGOALS),book) PYTHON=/path/to/python3.12"; exit 1; } >&2
	@echo "Setting up $(VENV) (some minutes the first time)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; } >&2
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

simulate: $(READY) ## Add Pythia 8 to generate events with (wheels for Linux and recent macOS; GPL)
	@$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-simulate.lock

book: $(READY) ## Run the studies that have no published run, then build the book from the published runs
	@$(BIN)/sbilib publish --missing --set standard
	@$(MAKE) --no-print-directory html

html: $(READY) ## Build the book from the published runs, running nothing
	@$(BIN)/jupyter-book build . --all -n -W --keep-going --quiet
	@echo "The book is ready. Open it in a browser: file://$(CURDIR)/$(PAGE)"

rerun: $(READY) ## Run every study anew and publish it: make rerun SET=smoke|standard|full
	@$(BIN)/sbilib publish --all --set $(SET)

status: $(READY) ## Say which published runs are current or stale, and why
	@$(BIN)/sbilib status

test: $(READY) ## Run all tests: units, every study at `smoke`, and the build of the book
	@$(BIN)/python -m pytest

unit: $(READY) ## Run only the quick tests
	@$(BIN)/python -m pytest -m "not study and not book"

bench: $(READY) ## Measure speed and accuracy side by side with other libraries
	@$(BIN)/python -m pip install --quiet --requirement benchmarks/requirements.txt
	@for file in benchmarks/[a-z]*.py; do \
	  echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py); done

lint: $(READY) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Pins everything but the CUDA libraries: pip adds those itself if the torch it finds needs them.
lock: ## Pin every dependency anew in requirements.lock (needs uv)
	@mkdir -p .cache && echo 'torch==$(TORCH)' > .cache/constraints.txt
	@{ echo '# Every package of the book, its tests and tools, at one version. Made by `make lock`; do not edit.'; \
	  echo '# The CUDA libraries are left out on purpose: pip adds them if the build of torch it finds needs them.'; \
	  $(UV) pip compile pyproject.toml --constraint .cache/constraints.txt --extra book --extra test \
	    --universal --python-version 3.11 --no-annotate --no-header --quiet \
	    | grep -Ev '^(nvidia-|cuda-|triton)'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## Remove what was built, but neither .venv nor the checkpoints of trainings
	@rm -rf _build out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv and the checkpoints of trainings too
	@rm -rf $(VENV) .cache
