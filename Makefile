# `make` alone lists the targets. Every target creates .venv on first use (about 6 GB, mostly
# torch), and again only when pyproject.toml, constraints.txt or this file changes.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
STEP   := $(PYTHON) make/step.py
# On all cores, which pip does not. Without it, and with PYTHONDONTWRITEBYTECODE set, each process of the tests would
# begin by compiling torch or diffusers. Some packages ship files that are no Python; those are passed over.
COMPILE := $(STEP) "Compile it" sh -c '"$$0"/bin/python -m compileall -qq -j 0 "$$0"/lib || true'

# A test file is one unit: its fixtures are made once. More than four processes would wait for the longest file.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

# mkdocs-material prints an advertisement otherwise.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 24

demo: $(READY) ## the whole method on the embedded birds; prints where to look (about 5 minutes)
	@$(BIN)/sgdmix demo

test: $(READY) ## run every test and every example of the docs
	@$(BIN)/pytest $(SIDE_BY_SIDE)

check: $(READY) ## lint, formatting, types and import rules
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## format the code (ruff)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: site/index.html ## build the documentation into site/
	@echo "The documentation is in site/index.html"

serve: $(READY) ## show the documentation at http://127.0.0.1:8000, as it is written
	@$(BIN)/mkdocs serve --quiet

base: $(READY) ## train the embedded base model (about 45 minutes on two cores)
	@$(BIN)/python -m make.base

saliency: $(READY) ## train the built-in saliency network: PHOTOGRAPHS="DIR..." ENCODER=FILE (over an hour)
	@$(BIN)/python -m make.saliency $(PHOTOGRAPHS) --encoder $(ENCODER)

clean: ## remove what the targets made, the environment too
	rm -rf .venv .venv-* .base site demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

site/index.html: $(READY) mkdocs.yml README.md CHANGELOG.md $(shell find docs sgdmix_albu -type f -not -name '*.pyc')
	@$(STEP) "Build the documentation" $(BIN)/mkdocs build --strict

# The stamp is written last and removed first: an environment without it was interrupted, and is made afresh.
$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@[ -e $@ ] || $(STEP) "Create .venv" $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@$(STEP) "Install sgdmix-albu and what it needs" $(BIN)/python -m pip install \
	    --disable-pip-version-check --no-input --no-compile --progress-bar off -c constraints.txt -e '.[dev,diffusion,docs,ray]'
	@$(COMPILE) .venv
	@touch $@

-include make/*.mk

.PHONY: help demo test check format docs serve base saliency clean
