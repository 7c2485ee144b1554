# On a fresh machine, `make train` and `make test` are all that is needed. `make reference` installs
# PyTorch and other libraries to compare with; tests that need them are skipped otherwise.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test lint reference gpu-wheels clean

train: $(VENV)/.installed
	$(BIN)/python -m cifar_jax.main --config configs/quickstart.py --workdir runs/quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

reference: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet -r requirements-reference.txt -r requirements-trackers.txt

# The packages that an image with JAX and PyTorch lacks, for a GPU machine without a network.
gpu-wheels:
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
	  --platform any --platform manylinux_2_28_x86_64 --dest .whl clu ml_collections tensorboardX

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info

$(VENV)/.installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	touch $@
