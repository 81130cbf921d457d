# Everything runs from .venv, which is made on first use and made again only when pyproject.toml
# or constraints.txt change. Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 3
TRAIN = $(BIN)/areal-real train configs/real/tiny-cpu.toml --out runs/tiny --overwrite

# One stamp file per kind of install: core runs simulations, real adds SGLang and Megatron-Core, dev
# adds the tests and the docs.
CORE := $(VENV)/.installed-core
REAL := $(VENV)/.installed-real
DEV := $(VENV)/.installed-dev

# Two installs must not change .venv at once, nor one change it under a running command. So when
# any of the goals needs dev, all of them wait for it, also under make -j.
DEV_GOALS := check docs format lint test $(DEV)
REAL_GOALS := demo faults train $(REAL)
WANTED := $(if $(filter $(REAL_GOALS),$(MAKECMDGOALS)),$(REAL),$(CORE))
NEEDS := $(if $(filter $(DEV_GOALS),$(MAKECMDGOALS)),$(DEV),$(WANTED))

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo sim train test check lint bench faults validate figures docs format clean

help: ## list what make can do
	@echo "areal-lab: make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

demo: sim ## both of the next two: the paper's run simulated, then a tiny model really trained
	@$(TRAIN)

sim: $(NEEDS) ## the paper's 1.5B run, synchronous and AReaL, beside the published hours
	@$(BIN)/areal-sim demo --out runs/demo

train: $(NEEDS) ## train a tiny model with SGLang and Megatron-Core on this machine's CPU
	@$(TRAIN)

test: $(DEV) ## run every test (PYTEST_ARGS="-x -k staleness" passes other options)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint ## lint, then run the quick tests
	@$(BIN)/python -m pytest -q -n 2 -m "not slow"

lint: $(DEV) ## lint, format, types and import contracts, without tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports --no-logo

bench: $(NEEDS) ## measure how fast the simulator and the scheduler are
	@$(BIN)/python -m benchmarks

faults: $(NEEDS) ## inject faults into real trainings and check that nothing is lost (20 minutes)
	@$(BIN)/python -m benchmarks.faults --out runs/faults

validate: $(NEEDS) ## predict the recorded real runs from fitted costs, and print the errors
	@$(BIN)/python -m validation

figures: $(NEEDS) ## the paper's tables and figures, simulated, with the error of every cell
	@$(BIN)/python -m paper_figs

docs: $(DEV) ## build the documentation into site/, warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Read it: site/index.html"

format: $(DEV) ## format the code and apply the safe fixes
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

clean: ## remove caches and build products (.venv and runs/ stay)
	@rm -rf build dist site *.egg-info
	@rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "areal-lab needs Python 3.11 or newer, and there is no $(PYTHON)." >&2; \
		echo "Install it, or name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "areal-lab needs Python 3.11 or newer, and $(PYTHON) is older." >&2; \
		echo "Name a newer one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module to make $(VENV) with." >&2; \
		echo "On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV)
	@touch $@

# $(call install,WHAT THE READER IS TOLD,WHAT PIP IS ASKED FOR)
define install
@echo "Installing $(1) into $(VENV). This is done once."
@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e "$(2)"
endef

# torch by itself, so that pip takes the build it is set up for (CPU or CUDA).
define install-torch
@echo "Installing torch, the largest part of the real back ends."
@$(BIN)/python -m pip install -qq --disable-pip-version-check torch==2.13.0
endef

define install-sglang
@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-sglang.txt
endef

$(CORE): pyproject.toml constraints.txt | $(VENV)/.made
	$(call install,areal-lab and the libraries it runs with,.)
	@touch $@

$(REAL): pyproject.toml constraints.txt requirements-sglang.txt | $(VENV)/.made
	$(call install-torch)
	$(call install,areal-lab with SGLang and Megatron-Core,.[real])
	$(call install-sglang)
	@touch $(CORE) $@

$(DEV): pyproject.toml constraints.txt requirements-sglang.txt | $(VENV)/.made
	$(call install-torch)
	$(call install,areal-lab and the tools for its tests and docs,.[dev])
	$(call install-sglang)
	@touch $(CORE) $(REAL) $@
