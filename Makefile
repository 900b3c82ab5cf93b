# The whole tour: `make run` shows a line at work, `make test` proves the rest. Everything lands in .venv; nothing needs root.
# The system's Python where it will do: a distribution builds it with optimisations, which some other ways of getting one do not.
PYTHON ?= $(shell /usr/bin/python3 -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
LOCKS := deploy/requirements
NODE := deploy/clients/node
SECONDS ?=
export PYTHONDONTWRITEBYTECODE = 1

SEEDS ?= 300
FIRST ?= 1

.PHONY: run test test-slow test-faults sim lint bench lock package clean
.DELETE_ON_ERROR:

# One virtual environment; a stamp for each set of locked dependencies. The locks are complete, hence --no-deps.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(LOCKS)/run.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r $(LOCKS)/run.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Without a CPU build of torch to be had, training is not there, its tests are left out with a word, and the rest stands.
$(VENV)/.dev: $(LOCKS)/dev.txt $(LOCKS)/train.txt $(VENV)/.run
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r $(LOCKS)/dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r $(LOCKS)/train.txt || echo "no CPU build of torch here"
	@touch $@

# What the Node clients need, where there is npm; elsewhere their tests are left out with a word.
$(NODE)/node_modules: $(NODE)/package-lock.json
	@command -v npm >/dev/null && npm ci --prefix $(NODE) --no-audit --no-fund --silent && touch $@ || echo "no Node here: its clients are not tested"

run: $(VENV)/.run
	$(BIN)/inspector demo $(if $(SECONDS),--for $(SECONDS))

test: $(VENV)/.dev $(NODE)/node_modules
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# What real processes do under real faults: one row after the other, and a table of them in out/faults (INSPECTOR_FAULT_RUNS: runs of each).
test-faults: $(VENV)/.dev $(NODE)/node_modules
	$(BIN)/python -m tests.faults --out out/faults

# The gate's core in simulated time.
sim: $(VENV)/.dev
	$(BIN)/python -m tests.sim --first $(FIRST) --seeds $(SEEDS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.run
	$(BIN)/inspector bench

# New versions of everything, hashed, without a word about where they came from; torch stays in its own file, see there.
LOCK = $(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe --no-header
lock: $(VENV)/.dev
	$(LOCK) --all-build-deps --extra desk --extra fast --extra bridges -o $(LOCKS)/run.txt pyproject.toml
	$(LOCK) -c $(LOCKS)/run.txt --extra desk --extra fast --extra bridges --extra gentl --extra cluster --extra train --extra dev -o $(LOCKS)/dev.txt pyproject.toml
	sed -i "/^torch==/,/# via/d" $(LOCKS)/dev.txt

package: $(VENV)/.dev
	deploy/package/build.sh $(BIN)

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
