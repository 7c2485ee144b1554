# On a fresh machine, `make train` and `make test` are all that is needed. `make reference` installs
# PyTorch and other libraries to compare with; tests that need them are skipped otherwise.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles modules when it first imports them, unless PYTHONDONTWRITEBYTECODE is set. Compiling
# all of them takes pip as long as the rest of the installation.
INSTALL := $(BIN)/python -m pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

# The lock file for this system and Python, if there is one; otherwise requirements.txt. The variable
# is expanded when it is used, after the environment has been created.
SYSTEM = $(shell $(BIN)/python -c "import sys, sysconfig; \
  print(sysconfig.get_platform(), 'py{}.{}'.format(*sys.version_info), sep='-')")
REQUIREMENTS = $(or $(wildcard requirements-lock/$(SYSTEM).txt),requirements.txt)

.PHONY: train test test-slow lint reference lock gpu-wheels clean

train: $(VENV)/.installed
	$(BIN)/python -m cifar_jax.main --config configs/quickstart.py --workdir runs/quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# The tests that start several processes, train for long or run large networks; `.ci/run` runs both.
test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

reference: $(VENV)/.installed-test
	$(INSTALL) -r requirements-reference.txt -r requirements-trackers.txt \
	  -r requirements-transfer.txt -r requirements-search.txt

# Updates the lock files to the newest versions in the ranges. Needs uv (`pip install uv`).
lock:
	for version in 3.11 3.12; do \
	  UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --upgrade --generate-hashes \
	    --no-emit-index-url --annotation-style line --python-version $$version \
	    --python-platform x86_64-manylinux_2_28 requirements.txt \
	    --output-file requirements-lock/linux-x86_64-py$$version.txt || exit 1; \
	done

# The packages that an image with JAX and PyTorch lacks, for a GPU machine without a network.
gpu-wheels:
	rm -rf .whl
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
	  --platform any --platform manylinux_2_28_x86_64 --dest .whl clu ml_collections tensorboardX

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt $(wildcard requirements-lock/*) pyproject.toml | $(BIN)/python
	$(INSTALL) --upgrade pip
	$(INSTALL) -r $(REQUIREMENTS)
	$(INSTALL) --no-deps --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(INSTALL) -r requirements-test.txt
	touch $@
