# Every target installs what it needs into .venv first; nothing outside this folder is changed.

# `make PYTHON=/path/to/python3 test` chooses the interpreter of a new .venv.
PYTHON ?=
PYTHONS := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11

BIN := .venv/bin
STAMP := .venv/installed
PYTEST_ARGS ?=
# Most tests wait for something most of the time; each process of these has a server of its own.
WORKERS ?= 2
# What `make mutate` tries; all there are if none is named.
PATCHES ?=
# How long `make fuzz` goes on; empty: until Ctrl-C.
SECONDS ?=
# Those that look at STANDPIPE_TEST_LONG.
LONG_TESTS = $(shell grep -rl STANDPIPE_TEST_LONG tests --include='test_*.py')
# A checkout that root used first may have a cache folder that we cannot write.
MYPY_CACHE = $(shell mkdir -p .mypy_cache 2>/dev/null; test -w .mypy_cache && echo .mypy_cache || echo /dev/null)

.DEFAULT_GOAL := help
.PHONY: help install demo run test test-long mutate fuzz lint types layers check schema bench bench-verify clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## install Standpipe and its tools into .venv

demo: $(STAMP) ## show the main job on a loopback network, in ./standpipe-demo
	@$(BIN)/standpipe demo

run: $(STAMP) ## sync from the public network into ./standpipe-data (or STANDPIPE_DATABASE_URL)
	@$(BIN)/standpipe run --upgrade

test: $(STAMP) ## run all tests; PYTEST_ARGS='-k name' for some, WORKERS=0 in one process
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-long: $(STAMP) ## the random and crash tests with far more seeds; takes hours
	@STANDPIPE_TEST_LONG=1 $(BIN)/python -m pytest --timeout 7200 $(PYTEST_ARGS) $(LONG_TESTS)

mutate: $(STAMP) ## take the checks away one by one, and see a test of each fail; takes half an hour
	@$(BIN)/python -m tests.mutations --jobs $(WORKERS) $(PATCHES)

fuzz: $(STAMP) ## fuzz what strangers send until Ctrl-C; SECONDS=600 for a while, TARGETS='cbor node' for some
	@$(BIN)/python -m tests.fuzz.run $(if $(SECONDS),--seconds $(SECONDS)) $(TARGETS)

lint: $(STAMP) ## check form and style
	@$(BIN)/ruff format --no-cache --check .
	@$(BIN)/ruff check --no-cache .

types: $(STAMP) ## check the types
	@$(BIN)/mypy --cache-dir=$(MYPY_CACHE)

layers: $(STAMP) ## check that no module imports upwards
	@$(BIN)/lint-imports --no-cache

check: lint types layers test ## everything that CI checks

schema: $(STAMP) ## rewrite what is generated: tests/sql/schema.sql, docs/reference/*.md
	@$(BIN)/python -m tests.golden

bench: $(STAMP) ## measure the main job beside ceilings of the same run
	@$(BIN)/python -m bench

bench-verify: $(STAMP) ## measure what verifying one commit costs, step by step
	@$(BIN)/python -m bench.verify

clean: ## remove .venv and caches; databases stay
	rm -rf .venv dist .mypy_cache .fuzz

$(STAMP): pyproject.toml
	@if [ -e .venv ] && [ ! -w .venv ]; then \
	  echo "The folder .venv belongs to another user: remove it and run this again." >&2; exit 1; fi
	@for python in $(PYTHONS); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "Python lacks its venv module: install it (Debian, Ubuntu: apt install python3-venv) and run this again." >&2; exit 1; fi; \
	  $(BIN)/python -c '' 2>/dev/null || $$python -m venv --clear .venv; exit; \
	done; \
	echo "Standpipe needs Python 3.11 or newer: install python3 and run this again." >&2; exit 1
	@echo "Installing into .venv …"
	@if ! $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'; then \
	  echo "The packages could not be installed: check the connection to your package index (pip's lines above say more) and run this again." >&2; exit 1; fi
	@touch $(STAMP)
