# `make` lists what there is. Everything runs in .venv, which is made on first use; with VERSIONS=lowest, in .venv-lowest.

PYTHON ?= python3
# Of what the projects require: newest, or lowest, the lowest that they allow and that has wheels for this Python.
VERSIONS := newest
$(if $(filter $(VERSIONS),newest lowest),,$(error VERSIONS is newest or lowest, not '$(VERSIONS)'))
VENV := .venv$(addprefix -,$(filter-out newest,$(VERSIONS)))
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.demo
# Package index with builds of torch for the CPU alone, for `make demo`: a fraction of the size of the ordinary ones.
TORCH_INDEX :=
PLUGINS := $(sort $(dir $(wildcard plugins/*/pyproject.toml)))
PROJECTS := core/pyproject.toml $(addsuffix pyproject.toml,$(PLUGINS))
INSTALL_newest = $(BIN)/python -m pip install --disable-pip-version-check
# pip installs the newest only.
INSTALL_lowest = $(INSTALL_newest) uv && \
	$(BIN)/uv pip install --python $(BIN)/python --resolution lowest-direct --no-build

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench card docs site mutants faults

help:
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(INSTALLED) ## install core, plugins and development tools into .venv

# A machine on which somebody tries this is rarely idle: threads that spin while they wait would make it many times slower.
demo: $(DEMO) ## train MobileNetV2 on the CPU and write its report, in minutes; TORCH_INDEX=URL is an index of CPU builds of torch
	@echo 'training MobileNetV2 on the CPU with sample data, until it meets its target: minutes'
	@run=demo/run-$$(date +%Y%m%d-%H%M%S) && \
	OMP_WAIT_POLICY=passive $(BIN)/perf train mobilenetv2 --vendor cpu --preset demo --out $$run && \
	$(BIN)/perf report $$run --quiet --lang zh --out demo/report.zh.md && \
	$(BIN)/perf report $$run --quiet --lang en --out demo/report.en.md && \
	printf 'reports: demo/report.zh.md  demo/report.en.md\n'

# Two processes more than the two cores that are asked for: tests that wait for a time-out leave theirs to others.
# Without bytecode, each of the hundreds of processes would compile what it imports.
test: $(INSTALLED) ## run all tests; PYTEST_ARGS="-m 'not slow'" leaves out the slow ones
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

SPELLED := README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md Makefile pyproject.toml \
	changelog.d docs docker core/README.md core/src plugins tests benchmarks card

lint: $(INSTALLED) ## check style, types, spelling, the direction of imports, the hosted workflow and the Dockerfiles
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy core/src $(addsuffix src,$(PLUGINS)) benchmarks card
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/codespell -D - -D docs/words.txt $(SPELLED)
	$(BIN)/zizmor --offline --no-progress --strict-collection .github
	$(BIN)/hadolint docker/*

format: $(INSTALLED) ## correct style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## measure speed beside plain loops and limits, into build/benchmarks.md; BENCH_ARGS="limits start_up"
	OMP_WAIT_POLICY=passive $(BIN)/python benchmarks/run_all.py $(BENCH_ARGS)

card: $(INSTALLED) ## make the checks that need an accelerator, in 9 minutes; CARD_ARGS="--vendor NAME"
	$(BIN)/python card/card.py $(CARD_ARGS)

mutants: $(INSTALLED) ## check every broken plugin against the contract; GENERATED_ARGS="--only perf_seed --sample 20" for a part
	PYTHONPATH=tests:tests/accelerator $(BIN)/python -m mutants.trial
	PYTHONPATH=tests:tests/accelerator $(BIN)/python -m mutants.generated_trial $(GENERATED_ARGS)

faults: $(INSTALLED) ## disturb real runs in every known way and print the results as a table
	PYTHONPATH=tests:tests/accelerator $(BIN)/python -m faults.table

docs: $(INSTALLED) ## regenerate the generated pages, then build the site
	for script in docs/generate_*.py; do $(BIN)/python $$script || exit 1; done
	$(MAKE) site

site: $(INSTALLED) ## build the documentation as a site into build/docs/site; a dead link or missing translation fails
	$(INSTALL_newest) --quiet -r docs/requirements.txt
	$(BIN)/python docs/build_site.py build/docs

define VENV_MADE
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
{ echo 'chipperf needs Python 3.10 or newer: make PYTHON=/path/to/python3.12'; exit 1; }
@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
{ echo 'could not make $(VENV): on Debian and Ubuntu, apt install python3-venv'; exit 1; }
endef

$(INSTALLED): $(PROJECTS) requirements-dev.txt
	$(VENV_MADE)
	@echo 'installing into $(VENV); torch is large: this takes minutes, once'
	$(INSTALL_$(VERSIONS)) -e './core[train]' $(addprefix -e ./,$(PLUGINS)) -r requirements-dev.txt
	@touch $@

# Into the same place as `make setup`, which then adds the rest. The sizes are those of torch 2.14 for Linux.
ORDINARY := 3.1 GB to download and 5.7 GB on disk, most of it CUDA; TORCH_INDEX=URL names an index of builds for the CPU
$(DEMO): core/pyproject.toml
	$(VENV_MADE)
	@mkdir -p demo
	@$(BIN)/python -c 'import torch' 2>/dev/null && echo 'looking whether $(VENV) has what training needs' || \
	printf '%s\n' 'installing torch and chipperf into $(VENV), once: 5 to 10 minutes; pip writes to demo/install.log' \
	'$(if $(TORCH_INDEX),torch comes from $(TORCH_INDEX): 0.3 GB to download,$(ORDINARY))'
	@{ $(if $(TORCH_INDEX),$(INSTALL_newest) --index-url $(TORCH_INDEX) torch torchvision &&) \
	$(INSTALL_newest) -e './core[train]'; } >demo/install.log 2>&1 || \
	{ tail -n 20 demo/install.log; echo 'the installation failed; demo/install.log has all of it'; exit 1; }
	@touch $@
