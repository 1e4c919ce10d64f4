# `make demo` runs the whole workflow once, `make test` tests it. Both install everything they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# uv does not read pip's settings, so a folder of wheels configured for pip is passed on here.
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo up down test suite chaos fuzz lint types bench lock embedded clean
help:
	@echo "make demo    install, then run the whole workflow on the digits"
	@echo "make test    install, then run linter, type checker and tests"
	@echo "make chaos   run the tests that take long, then disturb commands a hundred times and check that they recover"
	@echo "make fuzz    feed malformed input to whatever reads files and requests, for four minutes"
	@echo "make up      start Prefect, MLflow and a worker on 127.0.0.1, and apply the deployments"
	@echo "make down    stop them"
	@echo "make bench   measure training and inference against torch and Keras"
	@echo "make setup   install into $(VENV), as pinned in requirements.lock, with torch for CUDA or CPU"
	@echo "make embedded update the results that a fresh clone can pull"
	@echo "make lock    pin the newest versions that pyproject.toml allows"
	@echo "make clean   remove artifacts and working state; data/ and the MLflow store stay"

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
	@test -d data || dvc pull --quiet $$(sed -n 's/^  remote:/--remote/p' data.dvc) data.dvc  # DVC warns without --remote
	@recursight pipeline

up: setup
	@recursight up

down:
	@test ! -x $(BIN)/recursight || recursight down

test: setup lint
	@$(MAKE) --no-print-directory -j 2 types suite

suite: setup
	pytest -n 2 --dist loadfile --no-loadscope-reorder

# What `make test` leaves out: the other cases of each kind, and kills, outages and clones with whole pipelines, which take
# minutes each. Writes benchmarks/results/chaos.md.
chaos: setup
	pytest -m "chaos or thorough"
	python -m tests.chaos

# For longer: `make fuzz MINUTES=60 SEED=7`.
MINUTES ?= 4
SEED ?= 0
fuzz: setup
	python -m tests.fuzz --minutes $(MINUTES) --seed $(SEED)

lint: setup
	ruff check
	ruff format --check
	lint-imports

types: setup
	mypy

# Includes Keras if it is installed: `pip install -e .[bench]`.
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

# What a fresh clone can pull without a network: the digits, and the outputs of all stages in dvc.lock.
embedded: setup
	dvc repro --quiet
	rm -rf embedded/files
	dvc push --quiet --remote embedded
	git add --force embedded dvc.lock

clean: down
	rm -rf artifacts .recursight .mypy_cache .pytest_cache .ruff_cache
