# Commands for this repository; `make help` lists them.
#
#   make train EXP=fedpav_rw ARGS="rounds=10 seed=1"
#
# PYTHON  a Python interpreter. If its environment has torch, this environment is used. Otherwise make creates the virtual
#         environment .venv. pip's variables (PIP_INDEX_URL, ...) apply.
# EXP     an experiment: a name from configs/exp or the path of a YAML file.
# ARGS    further arguments of the command, key=value.
#
#   make compare EXPS="local fedpav fedpav_rw" SEEDS="0 1 2" JOBS=2 ARGS="rounds=10"
#
# EXPS    experiments to compare; append +KEY=VALUE to an experiment to override a key for it. SEEDS: seeds of each.
# JOBS    number of runs that are trained at the same time.
PYTHON ?= python3
EXP ?= fedpav_rw
ARGS ?=
EXPS ?=
SEEDS ?= 0
JOBS ?= 1
export EXPS SEEDS JOBS  # recipes read them as shell variables, so the shell does not interpret special characters in them
VENV ?= .venv

# 1 if PYTHON belongs to an environment with torch that pip may write to
HAS_TORCH := $(shell $(PYTHON) -c 'import os, sys, sysconfig, importlib.util as u; \
  own = sys.prefix != sys.base_prefix or not os.path.exists(sysconfig.get_path("stdlib") + "/EXTERNALLY-MANAGED"); \
  print(int(own and bool(u.find_spec("torch"))))' 2>/dev/null)
ifeq ($(HAS_TORCH),1)
  BIN := $(shell $(PYTHON) -c 'import sys; print(sys.executable)')
  STAMP := .make/installed-$(shell printf '%s' "$(BIN)" | cksum | cut -d' ' -f1)
  CONSTRAIN :=
else
  BIN := $(VENV)/bin/python
  STAMP := $(VENV)/.installed
  CONSTRAIN := -c constraints.txt
endif

.DEFAULT_GOAL := help
.PHONY: help install train compare study reproduce silos-demo test test-fast test-system test-oldest trackers-check test-flower docs release soak soak-silos lint bench \
  gpu-pack gpu-check clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo
	@echo '  make train EXP=fedpav_rw ARGS="rounds=10 seed=1"     PYTHON=/path/to/python uses that environment'

install: $(STAMP)  ## create the environment (once, and again when setup.cfg or constraints.txt change)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'error: $(PYTHON) is missing or older than Python 3.10; name another one with PYTHON=' >&2; exit 2; }
ifneq ($(HAS_TORCH),1)
	@test -x $(BIN) || $(PYTHON) -m venv $(VENV) || \
	  { echo 'error: no virtual environment; on Debian, apt-get install python3-venv' >&2; exit 2; }
endif
	$(BIN) -m pip install --quiet --disable-pip-version-check $(CONSTRAIN) -e '.[dev]'
	@mkdir -p $(dir $(STAMP)) && touch $(STAMP)

train: install  ## run an experiment: EXP=name ARGS="key=value ..."
	@$(BIN) -m fedreid_pl train exp=$(EXP) $(ARGS)

compare: install  ## tabulate experiments over seeds: EXPS="local fedpav" SEEDS="0 1" JOBS=2 ARGS="key=value ..."
	@$(BIN) -m fedreid_pl compare "exps=$$EXPS" "seeds=$$SEEDS" "jobs=$$JOBS" $(ARGS)

study: install  ## rerun the study of docs/results_v1.md: three seeds, some hours on two cores
	@$(BIN) benchmarks/study.py jobs=2 $(ARGS)

ifdef SMALL
reproduce: STUDY := small=true
reproduce: PAGE := runs/study/main-small/study.csv runs/study/main-small/results.md
endif
reproduce: install  ## make docs/results.md from nothing, many hours; SMALL=1: a quick pass, its page under runs/study
	@$(BIN) -m fedreid_pl study main jobs=2 $(STUDY) $(ARGS)
	@$(BIN) benchmarks/results_page.py $(PAGE)

silos-demo: install  ## run three parties and a coordinator on this machine, then compare with a run in one process
	@$(BIN) benchmarks/silos_demo.py $(ARGS)

test: install  ## run the tests that need one process only
	$(BIN) -m pytest -n 2 --dist loadfile -m "not system" $(ARGS)

test-system: install  ## run the tests that start and kill processes, or limit their resources
	$(BIN) -m pytest -n 3 --dist loadfile -m system $(ARGS)

# tests for frequent use during development: arithmetic, protocol and configuration; no experiment is trained
FAST := tests/functional tests/metrics tests/test_config.py tests/federation tests/comparison tests/test_imports.py
test-fast: install  ## run a part of the tests that takes less than a minute
	$(BIN) -m pytest -n 2 --dist loadfile -m "not system" $(FAST) --ignore=tests/federation/server/test_inbox.py \
	  --ignore=tests/federation/test_precision.py $(ARGS)

# the tests that depend most on the versions of torch, Lightning and torchmetrics
VERSIONED := tests/federation/client tests/test_client.py tests/test_training_loss.py tests/metrics tests/models \
  tests/callbacks/test_fedprox.py tests/callbacks/test_scaffold.py tests/callbacks/test_ditto.py
OLDEST := $(shell sed -nE 's/^ *(torch|torchvision|torchmetrics|pytorch-lightning)>=([0-9.]+)$$/\1==\2/p' setup.cfg)

test-oldest:  ## run a subset of the tests with the oldest torch and Lightning of setup.cfg, in .venv-oldest
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' $(OLDEST)
	.venv-oldest/bin/python -m pytest $(VERSIONED) $(ARGS)

TRACKERS := boxmot==25.0.0 deep-sort-realtime==1.3.2 onnxruntime==1.24.3
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))
# a separate environment that also sees the project's packages: torch is not installed twice, and the project's
# environment is unchanged
trackers-check: install  ## feed an exported ONNX file to boxmot and deep-sort-realtime, in .venv-trackers
	@$(BIN) -m venv --clear .venv-trackers
	@$(BIN) -c '$(PURELIB)' > "$$(.venv-trackers/bin/python -c '$(PURELIB)')/project.pth"
	@timeout 150 .venv-trackers/bin/python -m pip install --quiet --disable-pip-version-check $(TRACKERS) 2>/dev/null \
	  || { echo 'the trackers could not be installed; their check is skipped' >&2; exit 0; }; \
	  work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && { $(BIN) tests/trackers/prepare.py "$$work" > "$$work/log" 2>&1 || { cat "$$work/log"; exit 1; }; } && \
	  cd "$$work" && "$(CURDIR)/.venv-trackers/bin/python" "$(CURDIR)/tests/trackers/feed.py" "$$work"

# Flower needs an older protobuf than grpcio-tools and onnx, so it has a separate environment. This environment also sees
# the project's packages and does not change them
FLOWER := $(shell sed -nE 's/^ *(flwr==[0-9.]+)$$/\1/p' setup.cfg)
test-flower: install  ## run an experiment on a SuperLink with two SuperNodes, in .venv-flower
	@$(BIN) -m venv --clear .venv-flower
	@$(BIN) -c '$(PURELIB)' > "$$(.venv-flower/bin/python -c '$(PURELIB)')/project.pth"
	@timeout 400 .venv-flower/bin/python -m pip install --quiet --disable-pip-version-check $(FLOWER) -e . \
	  || { echo '$(FLOWER) could not be installed; its test is skipped' >&2; exit 0; }; \
	  .venv-flower/bin/python -m pytest -p no:xdist tests/silos/test_flower_post.py tests/silos/test_flower.py $(ARGS)

soak: install  ## test reliability: 100 kills at random times, kills of one of two processes, 12,000 bad inputs; some minutes
	$(BIN) tests/reliability/kills.py kills=100 $(ARGS)
	$(BIN) tests/reliability/ranks.py kills=10
	$(BIN) tests/reliability/flood.py count=12000
	$(BIN) tests/reliability/ray_kills.py kills=20

soak-silos: install  ## test a federation across parties: 30 kills, 10 network partitions, 10,000 altered messages; half an hour
	$(BIN) tests/reliability/silo_soak.py kills=30 partitions=10 attacks=10000 $(ARGS)

fuzz: install  ## give every reader 5,000 altered inputs, 100,000 in total with command lines and YAML; up to three hours
	$(BIN) tests/reliability/fuzz.py each=5600 $(ARGS)

PUBLIC_MODULES := import fedreid_pl as f; print("-m fedreid_pl", *sorted({f"-m fedreid_pl.{m}" for m in f._PUBLIC.values()}))
# the public modules of fedreid_pl are checked with mypy --strict
lint: install  ## check style and types
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy
	$(BIN) -m mypy --strict --follow-imports=silent $$($(BIN) -c '$(PUBLIC_MODULES)')

DOCS := mkdocs-material==9.8.2 mkdocstrings-python==2.0.11
# the site is built from the source files, so its environment needs no torch and no installed fedreid-pl
docs:  ## build the documentation site into site/, strictly
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@timeout 150 .venv-docs/bin/python -m pip install --quiet --disable-pip-version-check $(DOCS) 2>/dev/null \
	  || { echo 'mkdocs could not be installed; the site is not built' >&2; exit 0; }; \
	  NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --quiet --strict --clean && echo "the site is in site/index.html"

TWINE := twine==6.2.0
# The tests install the two files into environments with their declared packages only. These are links to the packages of
# the project's environment, so nothing is downloaded
release: install lint docs  ## build wheel and sdist into dist/, check both, and train with both in empty environments
	@test -z "$$(git status --porcelain)" || { echo 'error: commit or remove what git status lists, then release' >&2; exit 2; }
	@rm -rf dist build .venv-release
	$(BIN) -m build --outdir dist . >/dev/null
	@$(BIN) -m venv .venv-release
	@timeout 150 .venv-release/bin/python -m pip install --quiet --disable-pip-version-check $(TWINE) 2>/dev/null \
	  && .venv-release/bin/python -m twine check --strict dist/* \
	  || { .venv-release/bin/python -c 'import twine' 2>/dev/null && exit 1; echo '$(TWINE) could not be installed; its check is skipped' >&2; }
	FEDREID_PL_DIST=dist $(BIN) -m pytest -q tests/test_packaging.py
	@rm -rf .venv-release build && ls -l dist

bench: install  ## measure the ratios of docs/performance.md: ARGS="--quick" or "--only ranking round"
	$(BIN) benchmarks $(ARGS)
	$(BIN) benchmarks/report.py

gpu-pack: install  ## collect wheels for a GPU machine without network, in gpu-pack/: ARGS="--python 3.12"
	$(BIN) benchmarks/gpu_pack.py $(ARGS)

gpu-check:  ## measure on a GPU, in at most eight minutes; set PYTHON to the environment with torch and this package
	$(BIN) benchmarks/gpu_check.py $(ARGS)

clean:  ## remove environments, caches and build results; runs/ stays
	rm -rf $(VENV) .venv-oldest .venv-trackers .venv-flower .make build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
