# make demo | test | lint: each sets up .venv by itself; Python >= 3.11 and make are all it takes.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

# The first interpreter that is new enough and can make virtual environments. Choose another: make test PYTHON=...
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do if "$$p" -c '$(SUITABLE)' >/dev/null 2>&1; then echo "$$p"; break; fi; done)

# An environment that was made elsewhere and moved here holds wrong paths: the stamp remembers the folder.
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell cat $(STAMP)),$(CURDIR))
$(STAMP): moved
endif
endif

BENCH := .venv-bench
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))
PEERS := opacus==1.6.0 backpack-for-pytorch==1.7.1 unfoldNd==0.2.3 einops==0.8.2 opt_einsum==3.4.0

.PHONY: moved help setup demo test slow bench bench-training gpu lint format docs notebooks wheel clean
.DEFAULT_GOAL := help

moved:
	rm -rf $(VENV)

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/'

setup: $(STAMP)  ## create or refresh .venv

# A .venv that still runs and is new enough is kept and brought up to date; any other is made anew.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '$(SUITABLE)' >/dev/null 2>&1 || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "kvar needs Python >= 3.11 with the venv module (Debian, Ubuntu: the package python3-venv);" >&2; \
			echo "none of $(CANDIDATES) is one. Name yours: make PYTHON=/path/to/python ..." >&2; exit 1; \
		fi; \
		echo "making $(VENV) with $(PYTHON)"; rm -rf $(VENV) && "$(PYTHON)" -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@printf '%s' '$(CURDIR)' > $@

demo: $(STAMP)  ## the main job: measure and reinforce three students, write runs/demo/report.html
	$(BIN)/kvar demo --output runs/demo --overwrite

test: $(STAMP)  ## tests and doctests; more options: make test ARGS="-k returns"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

slow: $(STAMP)  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow $(ARGS)

bench-training: $(STAMP)  ## time training beside TRL, and what the probes cost (minutes, one thread); ARGS=--render: tables only
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training $(ARGS)

bench: $(BENCH)/.installed  ## time the gradient engines beside other libraries; fewer: make bench ARGS=--quick
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -m benchmarks.engines $(ARGS)

# An interpreter whose torch sees a card and which has what kvar needs is used as it is, .venv's first, so that nothing is
# installed over it. Else, where there is a card, `make setup` installs the torch of constraints.txt: from PyPI, for
# Linux, a build for CUDA.
CARD := import accelerate, datasets, hypothesis, pandas, pyarrow, pytest, torch, transformers; assert torch.cuda.is_available()

gpu:  ## on a CUDA card: the tests that need one, then benchmarks/GPU.md (ten minutes); skipped elsewhere
	@python=$$(for p in $(BIN)/python $(CANDIDATES); do if "$$p" -c '$(CARD)' >/dev/null 2>&1; then echo "$$p"; break; fi; done); \
	if [ -z "$$python" ] && ! nvidia-smi >/dev/null 2>&1; then \
		echo "make gpu: skipped, no CUDA device here (nvidia-smi finds none)"; exit 0; \
	fi; \
	if [ -z "$$python" ]; then $(MAKE) setup || exit 1; python=$(BIN)/python; fi; \
	export PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"; \
	"$$python" -m pytest -q -m gpu tests/gpu; failed=$$?; \
	"$$python" -m benchmarks.gpu $(ARGS) && exit $$failed

# This environment and the peers beside it, without their dependencies: BackPACK's would replace torch by a CUDA build.
$(BENCH)/.installed: $(STAMP)
	rm -rf $(BENCH) && $(BIN)/python -m venv $(BENCH)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c '$(PURELIB)')')" \
		> "$$($(BENCH)/bin/python -c '$(PURELIB)')/kvar.pth"
	@$(BENCH)/bin/python -m pip install --quiet --no-deps $(PEERS) && touch $@ \
		|| echo "Opacus and BackPACK could not be installed: they are left out" >&2

lint: $(STAMP)  ## style, types and the direction of imports
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(STAMP)  ## build the pages into build/docs; a warning is an error
	@$(BIN)/python -c 'import furo, myst_parser, sphinx' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

notebooks: $(STAMP)  ## run all notebooks and keep their outputs (minutes); some: make notebooks ARGS="1 4"
	OMP_NUM_THREADS=1 $(BIN)/python -m notebooks.run $(ARGS)

wheel: $(STAMP)  ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean:  ## remove what was built, .venv too; runs stay
	rm -rf $(VENV) $(BENCH) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
