# Two commands: `make demo` runs the whole workflow once, `make test` proves it. Both do all set-up by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# uv does not read pip's settings: this passes on the folder of wheels that pip would use.
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo up down test chaos lint types bench lock embedded clean
help:
	@echo "make demo    set up, fetch the digits, run the whole workflow"
	@echo "make test    set up, then lint, type check and test"
	@echo "make chaos   kill pipelines thirty times, and see what remains"
	@echo "make up      start Prefect, MLflow and a worker on 127.0.0.1, and apply the deployments"
	@echo "make down    stop them"
	@echo "make bench   measure training and inference against torch and Keras"
	@echo "make setup   set up only: $(VENV) with everything pinned in requirements.lock, and torch for CUDA or CPU"
	@echo "make embedded renew the results that a fresh clone can pull"
	@echo "make lock    pin the newest versions that pyproject.toml allows"
	@echo "make clean   remove what runs have made; data/ and the MLflow store stay"

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock requirements.torch.lock deploy/install-torch.sh pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' \
		|| { echo "recursight needs Python 3.11 to 3.14; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@deploy/install-torch.sh $(BIN)/python
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup
	@test -d data || dvc pull --quiet data.dvc
	@recursight pipeline

up: setup
	@recursight up

down:
	@test ! -x $(BIN)/recursight || recursight down

test: setup lint types
	pytest -n 2 --dist loadfile

# Kills, outages and clones, with whole pipelines: minutes each. The table goes to benchmarks/results/chaos.md.
chaos: setup
	pytest -m chaos
	python -m tests.chaos

lint: setup
	ruff check
	ruff format --check
	lint-imports

types: setup
	mypy

# Keras takes part where `pip install -e .[bench]` has put it.
bench: setup
	python -m benchmarks

# torch has a lock of its own, without hashes: which wheel it is, with or without packages for CUDA, depends on the machine.
PIN := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-annotate --no-header pyproject.toml
WITHOUT_TORCH := awk '/^[a-z0-9]/ { keep = !/^(torch|triton|nvidia-|cuda-)/ } keep'
lock: $(VENV)/installed
	$(PIN) --upgrade --extra dev --output-file requirements.all >/dev/null
	$(WITHOUT_TORCH) requirements.all > requirements.lock
	sed -n 's/^\(torch==[0-9.]*[0-9]\).*/\1/p' requirements.all | sort -u > requirements.torch.lock
	$(PIN) --extra production --constraint requirements.all | $(WITHOUT_TORCH) > requirements.production.lock
	rm requirements.all

# What a fresh clone can pull without a network: the digits, and every stage's output as dvc.lock has it.
embedded: setup
	dvc repro --quiet
	rm -rf embedded/files
	dvc push --quiet --remote embedded
	git add --force embedded dvc.lock

clean: down
	rm -rf artifacts .recursight .mypy_cache .pytest_cache .ruff_cache
