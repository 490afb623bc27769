# `make` lists what there is. Everything runs in .venv, which is made on first use.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PLUGINS := $(sort $(dir $(wildcard plugins/*/pyproject.toml)))
PROJECTS := core/pyproject.toml $(addsuffix pyproject.toml,$(PLUGINS))

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench docs mutants faults

help:
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(INSTALLED) ## install core, plugins and development tools into .venv

# A machine on which somebody tries this is seldom idle: threads that spin while they wait would make it many times slower.
demo: $(INSTALLED) ## train MobileNetV2 on the CPU with sample data and write its report, in minutes
	@run=demo/run-$$(date +%Y%m%d-%H%M%S) && \
	OMP_WAIT_POLICY=passive $(BIN)/perf train mobilenetv2 --vendor cpu --preset demo --out $$run && \
	$(BIN)/perf report $$run --lang zh --out demo/report.zh.md && \
	$(BIN)/perf report $$run --lang en --out demo/report.en.md && \
	printf '\nreport:  demo/report.zh.md  demo/report.en.md\nrecord:  %s/record.json\n' $$run

test: $(INSTALLED) ## run all tests; PYTEST_ARGS="-m 'not slow'" leaves out the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(INSTALLED) ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy core/src $(addsuffix src,$(PLUGINS))
	$(BIN)/lint-imports --no-cache --no-logo

format: $(INSTALLED) ## put style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## measure speed against plain loops, side by side
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

mutants: $(INSTALLED) ## hold every broken plugin to the contract and print which checks find it
	PYTHONPATH=tests:tests/accelerator $(BIN)/python -m mutants.trial

faults: $(INSTALLED) ## disturb real runs in every known way and print what came of each as a table
	PYTHONPATH=tests:tests/accelerator $(BIN)/python -m faults.table

docs: $(INSTALLED) ## write the generated pages again
	for script in docs/generate_*.py; do $(BIN)/python $$script || exit 1; done

$(INSTALLED): $(PROJECTS) requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo 'chipperf needs Python 3.10 or newer: make PYTHON=/path/to/python3.12'; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || \
	{ echo 'could not make .venv: on Debian and Ubuntu, apt install python3-venv'; exit 1; }
	@echo 'installing into .venv; torch is large: this takes minutes, once'
	$(BIN)/python -m pip install --disable-pip-version-check \
	  -e './core[train]' $(addprefix -e ./,$(PLUGINS)) -r requirements-dev.txt
	@touch $@
