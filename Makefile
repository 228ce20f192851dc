# Every target sets up what it needs in .venv: Python 3.11 or newer, make and a network are enough.
# The set-up is done once and again only after pyproject.toml or uv.lock has changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# `make PYTHON=python3.12 VENV=.venv-3.12 test` works beside the first environment.
PYTHON ?= $(shell python3.11 --version >/dev/null 2>&1 && echo python3.11 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := pyproject.toml uv.lock
# Tests of one file share what they compile, so a file stays in one process; four of these take 20 GB.
PARALLEL := --numprocesses $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 4))') --dist loadfile

# Parallel BLAS inside parallel JAX makes small solves up to 300 times slower on a loaded machine.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1
# JAX keeps what it has compiled, so that only the first run pays for it.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
# uv installs into $(VENV), byte-compiles (else the first import takes 3 s longer) and brings no Python of its own.
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON := $(BIN)/python
export UV_PYTHON_DOWNLOADS := never
export UV_COMPILE_BYTECODE := 1
# Where the system keeps certificates (a company's proxy may have added its own), uv trusts these.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

# What is installed is what uv.lock says, plus what other targets or a person have put there (--inexact).
# An installed uv is used if it is new enough; otherwise pip puts one into the environment.
define sync
@echo "== set-up of $(VENV)"
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
@test -x $(BIN)/uv || uv python find >/dev/null 2>&1 \
	|| $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
@uv=$$(test -x $(BIN)/uv && echo $(BIN)/uv || echo uv); "$$uv" sync --locked --inexact --quiet $(1)
@touch $@
endef

CODE := src tests benchmarks

.PHONY: help setup demo test test-core lint format bench bench-accuracy bench-regret docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 18

setup: $(VENV)/.dev ## create .venv with all that developers need

demo: $(VENV)/.run ## show a model trained, judged and used on a small problem
	$(BIN)/acbo demo

test: lint ## check format, style and types, then run the tests
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest $(PARALLEL)

test-core: $(VENV)/.test ## run what another Python and its newer JAX may break: PYTHON=python3.12 VENV=.venv-3.12
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest $(PARALLEL) tests/core \
		$(addprefix tests/surrogate/test_,bge.py exact.py metrics.py network.py)

lint: $(VENV)/.dev ## check format, style and types
	$(BIN)/black --quiet --check $(CODE) || { $(BIN)/black --check $(CODE); exit 1; }
	$(BIN)/ruff check --quiet $(CODE)
	$(BIN)/mypy

format: $(VENV)/.dev ## put the code into the house's format
	$(BIN)/ruff check --quiet --fix-only $(CODE)
	$(BIN)/black --quiet $(CODE)

bench: $(VENV)/.bench ## measure speed and accuracy against the peers
	$(BIN)/python -m benchmarks

bench-accuracy: $(VENV)/.bench ## compare the shipped network with exact inference, cell by cell; writes docs/accuracy.md and the model's card
	$(BIN)/python -m benchmarks.accuracy --card

bench-regret: $(VENV)/.bench ## compare policies on problems with known optima, which takes hours; writes docs/regret.md
	$(BIN)/python -m benchmarks.regret

docs: $(VENV)/.docs ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

clean: ## remove the environments, caches and built files
	rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis site dist

# One stamp for each set of packages.
$(VENV)/.run: $(LOCK)
	$(call sync,--no-dev)

$(VENV)/.test: $(LOCK)
	$(call sync,--no-dev --group test)

$(VENV)/.dev: $(LOCK)
	$(call sync,--all-extras)

$(VENV)/.bench: $(LOCK)
	$(call sync,--no-dev --group bench --extra scale --extra ray)

$(VENV)/.docs: $(LOCK)
	$(call sync,--no-dev --group docs)
