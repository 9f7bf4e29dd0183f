# M2VSL. `make` alone says what there is; every target sets itself up.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
CORES ?= $(shell nproc)
PRESET ?= quick
DATASET ?= synthetic
DATA_ROOT ?=
SEED ?= 0
SEEDS ?= 0 1 2 3 4
READY := $(VENV)/.ready

export PATH := $(abspath $(VENV)/bin):$(PATH)
export PYTHONUTF8 := 1

RUNS = preset=$(PRESET) dataset=$(DATASET) seed=$(SEED) $(if $(DATA_ROOT),'data_root=$(DATA_ROOT)')
WORKFLOW = snakemake --quiet all --nocolor --nolock --rerun-incomplete --cores $(CORES) $(if $(FRESH),--forceall)
# Snakemake is told to be quiet, errors included: the jobs say themselves what went wrong, and its log holds the rest.
STOPPED = || { echo "stopped; the workflow's own log: $$(ls -t .snakemake/log/*.log | head -n 1)"; exit 1; }

TASKS ?= single duet
FIRST = centre oracle bound m2vsl ez_vsl avgn

.PHONY: book test smoke lab lint bench gpu records golden lock help clean

book: $(READY) ## Run the notebooks, render the book. PRESET=quick DATASET=synthetic|folder DATA_ROOT= SEED=0 FRESH=1 (hours: all rows anew)
	@python book/vendor.py
	$(if $(FRESH),m2vsl run $(PRESET) --fresh --tasks single duet --seeds $(SEEDS) $(if $(DATA_ROOT),--data-root '$(DATA_ROOT)'))
	echo "notebooks: preset $(PRESET), dataset $(DATASET), seed $(SEED)"
	$(WORKFLOW) book --config $(RUNS) $(STOPPED)
	echo "the book: $(CURDIR)/book/_build/html/index.html"

test: lint ## Everything that must hold: style, types, clean notebooks, nbval in the smoke preset, the tests
	@echo "notebooks: nbval, preset smoke"
	$(WORKFLOW) --forceall check --config preset=smoke $(STOPPED)
	python -m pytest

smoke: $(READY) ## Run every notebook in the smoke preset (papermill), without rendering
	@$(WORKFLOW) notebooks --config preset=smoke $(STOPPED)

lab: $(READY) ## JupyterLab on the notebooks
	@jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

lint: $(READY) ## ruff, mypy, notebooks without stray outputs
	@ruff check
	ruff format --check
	mypy
	python book/clean.py --check

bench: $(READY) ## What things cost, ten minutes on two free cores: a record in data/bench (not part of `make test`)
	@python -m pytest tests/bench -q -s --record

gpu: PRESET = gpu
gpu: $(READY) ## On a GPU: all rows at 224 px, M2VSL, EZ-VSL and AVGN first, then Figure 4; goes on where it stopped. SEEDS= TASKS= DATA_ROOT=
	@export M2VSL_WORKERS=$${M2VSL_WORKERS:-$(CORES)}
	rows=(m2vsl run $(PRESET) --tasks $(TASKS) --seeds $(SEEDS))
	"$${rows[@]}" --methods $(FIRST)
	$(if $(DATA_ROOT),"$${rows[@]}" --data-root '$(DATA_ROOT)' --methods $(FIRST))
	"$${rows[@]}"
	$(if $(DATA_ROOT),"$${rows[@]}" --data-root '$(DATA_ROOT)')
	m2vsl ablate --preset $(PRESET) --groups batch --tasks single multi --seeds $(SEEDS)

records: $(READY) ## Make the records under version control anew (preset small; long)
	@m2vsl run small

golden: smoke ## Take the outputs that nbval compares from a smoke run
	@python book/clean.py --from book/_executed/smoke-synthetic

lock: $(READY) ## Resolve requirements.lock anew inside the ranges of pyproject.toml
	@python -m pip install -qq uv
	head -n 2 requirements.lock > $(VENV)/lock
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --quiet \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links |
	    sed -E "s/ ; .*== '3\.12\.\*'.*/ ; python_version >= \"3.12\"/; s/ ; .*< '3\.12'.*/ ; python_version < \"3.12\"/; s/ ; .*'linux'.*//" \
	    >> $(VENV)/lock
	mv $(VENV)/lock requirements.lock

clean: ## Remove what `make book` made (not the environment, not the records)
	@rm -rf book/_build book/_executed .snakemake

help: ## This list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

$(READY): requirements.lock pyproject.toml .ci/setup
	@.ci/setup $(VENV)
	touch $@
