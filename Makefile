# Two commands: `make demo` runs the whole workflow once, `make test` proves it. Both do all set-up by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# uv does not read pip's settings; wheels that pip would take from a folder, uv is told of here.
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo up down test suite chaos lint types bench lock embedded clean
help:
	@echo "make demo    set up, fetch the digits, run the whole workflow"
	@echo "make test    set up, then lint, type check and test"
	@echo "make chaos   every test that takes long; then kill pipelines thirty times, and see what remains"
	@echo "make up      start Prefect, MLflow and a worker on 127.0.0.1, and apply the deployments"
	@echo "make down    stop them"
	@echo "make bench   measure training and inference against torch and Keras"
	@echo "make setup   set up only: $(VENV) with everything pinned in requirements.lock"
	@echo "make embedded renew the results that a fresh clone can pull"
	@echo "make lock    pin the newest versions that pyproject.toml allows"
	@echo "make clean   remove what runs have made; data/ and the MLflow store stay"

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "recursight needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup
	@test -d data || dvc pull --quiet data.dvc
	@recursight pipeline

up: setup
	@recursight up

down:
	@test ! -x $(BIN)/recursight || recursight down

test: setup lint
	@$(MAKE) --no-print-directory -j 2 types suite

suite: setup
	pytest -n 2 --dist loadfile --no-loadscope-reorder

# What `make test` leaves out: the other members of each kind, kills, outages and clones, with whole pipelines: minutes
# each. The table goes to benchmarks/results/chaos.md.
chaos: setup
	pytest -m "chaos or thorough"
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

# torch is pinned by hand, without its platform's CUDA packages: the wheel that the user's platform takes brings its own.
lock: $(VENV)/installed
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra dev --no-annotate --no-header pyproject.toml \
		| grep -vE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==' > requirements.lock.new
	sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml >> requirements.lock.new
	sort -o requirements.lock requirements.lock.new && rm requirements.lock.new

# What a fresh clone can pull without a network: the digits, and every stage's output as dvc.lock has it.
embedded: setup
	dvc repro --quiet
	rm -rf embedded/files
	dvc push --quiet --remote embedded
	git add --force embedded dvc.lock

clean: down
	rm -rf artifacts .recursight .mypy_cache .pytest_cache .ruff_cache
