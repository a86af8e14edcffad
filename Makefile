# karez: two commands do everything on a fresh machine: `make run` and `make test`.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=
COMPAT = .compat-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ROOM ?=
MEMBER = rank_runtime generation_change membership run session
COMMA = ,
SPACE = $(subst ,, )
LIVE = src/karez/server/controllers/* src/karez/serving/replica_* src/karez/training/controller/* \
	$(subst $(SPACE),$(COMMA),$(strip $(foreach name,$(MEMBER),src/karez/runtime/$(name).py)))

.DEFAULT_GOAL := help

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F':.*?## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Install everything into .venv

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[node,fast,openvino,trace,s3,sweep,dev]'
	@touch $@

run: setup ## Start a cloud, tune a real model through two kills, chat with it (ARGS=--once exits)
	$(BIN)/karez demo $(ARGS)

test: check unit stories ## All checks, fast tests and stories: under 15 minutes on two cores

check: setup ## Style, types, room borders
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

unit: setup ## Fast tests: under a minute
	$(BIN)/pytest -q --tier fast -n 2 --dist loadfile $(ARGS)

stories: setup ## One or two per promise, on real Ray, PostgreSQL, engines, hosts and a whole cloud
	$(BIN)/pytest -q --tier story -n 2 --dist loadfile $(ARGS)
	$(BIN)/pytest -q --tier alone $(ARGS)

deep: setup ## What takes longer, of all rooms or one (ROOM=contracts)
	$(BIN)/pytest -q --tier deep tests/$(ROOM) $(ARGS) || test $$? = 5  # 5: the room has none

cover: setup ## Coverage of what runs live by its fast tests: at least 80% of each part
	$(BIN)/coverage run --source=src/karez -m pytest -q --tier fast $(addprefix tests/,sim server training runtime drivers serving core)
	@set -f; for part in $(LIVE); do echo "== $$part"; $(BIN)/coverage report --include="$$part" --fail-under=80 | tail -1 || exit 1; done

fmt: setup ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Benchmarks, side by side with named peers: a table and JSON each
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

chaos: setup ## 216 schedules of faults, 50 kills of a live gang, 100 kills of control: an hour
	KAREZ_TEST_SCHEDULES=216 $(BIN)/pytest -q tests/contracts/test_fuzz.py
	$(BIN)/karez chaos run --ranks 4 --faults kill:50 --seed 1
	KAREZ_TEST_TRANSITIONS=1,2,3,4,5,6,7,8 $(BIN)/pytest -q tests/contracts/test_transitions.py
	KAREZ_TEST_KILLS=50 $(BIN)/pytest -q tests/contracts/test_control.py

proof: setup ## All migrated scripts on the emulated NPU, and a fault in each
	KAREZ_TEST_SCRIPTS=all $(BIN)/pytest -q tests/migration tests/equivalence

mindspore: ## MindSpore 2.10 in an environment of its own (2.8 GB), for tests of checkpoints
	@test -x .mindspore/bin/python || $(PYTHON) -m venv .mindspore
	.mindspore/bin/python -m pip install --quiet --disable-pip-version-check mindspore==2.10.0

release: ## Fold changes/ into CHANGELOG.md and set the version: VERSION=x.y.z
	@$(PYTHON) tools/release.py "$(VERSION)"

compat: ## Fast tests on another Python, without torch and Ray: PYTHON=python3.13
	@test -d "$(COMPAT)" || $(PYTHON) -m venv "$(COMPAT)"
	@$(COMPAT)/bin/python tools/compat.py requirements > $(COMPAT)/requirements.txt
	$(COMPAT)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r $(COMPAT)/requirements.txt
	PYTHONPATH=src $(COMPAT)/bin/python tools/compat.py imports
	PYTHONPATH=src $(COMPAT)/bin/python -m pytest -q --tier fast tests/core tests/scheduling tests/cli tests/store tests/simulation $(ARGS)

clean: ## Remove what was made here
	rm -rf $(VENV) .compat-* .mindspore build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info

.PHONY: help setup run test check unit stories deep cover fmt bench chaos proof mindspore release compat clean
