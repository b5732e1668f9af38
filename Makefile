# From nothing to a ready machine: needs Python 3.11 or newer, pip, and a package index.

SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUDGET ?= full
OUT ?=
# Tests: one process per core, one thread each.
WORKERS ?= auto

# Speed beside the peers; without DATA_DIR on sentences that adjudge fetches itself. BENCH: options that all its programs take.
DATA_DIR ?=
BENCH_OUT ?= runs/bench
ROUNDS ?= 2
BENCH ?=
BENCH_OPTIONS = $(if $(DATA_DIR),--task glue/sst2 --data-dir "$(DATA_DIR)",--task vader/movies) --out $(BENCH_OUT) $(BENCH)

# Evidence: every task of GLUE and SuperGLUE that has labelled rows to judge (glue/mnli judges AX too, superglue/rte AX-b).
GLUE := glue/cola,glue/sst2,glue/mrpc,glue/stsb,glue/qqp,glue/mnli,glue/mnli-mm,glue/qnli,glue/rte,glue/wnli
SUPERGLUE := superglue/boolq,superglue/cb,superglue/copa,superglue/multirc,superglue/record,superglue/rte,superglue/wic,superglue/wsc
TASKS ?= $(GLUE),$(SUPERGLUE)
METHODS ?= zero-shot,few-shot,tfidf,linear,encoder,sft,ppo,grpo
SEEDS ?= 0,1,2
EVIDENCE_OUT ?= runs/evidence

.PHONY: help setup demo bench evidence package docs test lint clean

help:
	@echo "make setup    make $(VENV) with everything in it (again: nothing to do)"
	@echo "make demo     compare seven methods on rated movie sentences, write runs/demo/report.html"
	@echo "              BUDGET=smoke: a tiny one that only shows that everything works"
	@echo "make bench    speed and memory beside the peers: DATA_DIR=GLUE folder, ROUNDS=3; writes docs/results/speed.md"
	@echo "make evidence DATA_DIR=GLUE-AND-SUPERGLUE: all tasks, methods and seeds, and the paper's preset beside; resumes"
	@echo "make docs     build the documentation's site: site/index.html"
	@echo "make package  build the wheel and the source archive, and try the wheel in a fresh environment"
	@echo "make test     lint, format, rooms, types, tests (WORKERS=1: one process)"
	@echo "make lint     lint, format, rooms, types"
	@echo "make clean    remove $(VENV) and what tools left behind; runs/ and the model cache stay"
	@echo "Another Python: make setup PYTHON=python3.12"

setup: $(READY)

# Said in the terminal: large downloads and the installation; the rest of pip's output only when it fails.
$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON) here. Install Python 3.11 or newer, or name one: make setup PYTHON=…" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1); Python 3.11 or newer is needed: make setup PYTHON=python3.12" >&2; exit 1; }
	@if [ ! -x $(BIN)/python ]; then \
		echo "==> making $(VENV) with $$("$(PYTHON)" --version)"; \
		"$(PYTHON)" -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }; \
	fi
	@echo "==> installing adjudge and what it needs into $(VENV) (some minutes the first time; PyTorch is large)"
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]' 2>&1 \
		| tee $(VENV)/pip.log \
		| awk '/^Collecting/ { n++; if (n % 20 == 0) { print "    " n " packages found"; fflush() } } \
			/^ *Downloading .*\(([0-9.]+ GB|[0-9][0-9]+(\.[0-9])? MB)\)/ { print "    " $$1, $$2, $$3, $$4; fflush() } \
			/^Installing collected/ && n { print "    installing " n " packages"; fflush() }' \
		|| { grep -v '^ *\(Using cached\|Requirement already\|Collecting\|Downloading\|Obtaining\)' $(VENV)/pip.log | tail -n 20 >&2; echo "The installation failed; all of pip's output is in $(VENV)/pip.log." >&2; exit 1; }
	@touch $(READY)
	@echo "==> ready: $(BIN)/adjudge"

demo: setup
	@$(BIN)/adjudge demo --budget "$(BUDGET)" $(if $(OUT),--out "$(OUT)")

evidence: setup
	@test -n "$(DATA_DIR)" || { echo "Name the folder with GLUE and SuperGLUE: make evidence DATA_DIR=data" >&2; exit 1; }
	@$(BIN)/adjudge compare --config recipes/evidence.yaml --data-dir "$(DATA_DIR)" --task $(TASKS) --methods $(METHODS) --seeds $(SEEDS) --out "$(EVIDENCE_OUT)" $(EVIDENCE)
	@$(BIN)/adjudge compare --config recipes/evidence.yaml --preset paper --data-dir "$(DATA_DIR)" --task $(TASKS) --methods sft,ppo --seeds $(SEEDS) --out "$(EVIDENCE_OUT)-paper" $(EVIDENCE)

bench: setup
	@echo "==> ours beside the peers (environments: python benchmarks/peers/environments.py)"
	@$(BIN)/python -m benchmarks.run --rounds $(ROUNDS) $(BENCH_OPTIONS)
	@echo "==> share of the matrix-product rate"
	@$(BIN)/python -m benchmarks.product_rate $(BENCH_OPTIONS)
	@echo "==> growth"
	@$(BIN)/python -m benchmarks.growth $(BENCH_OPTIONS)
	@echo "==> what each step gives"
	@$(BIN)/python -m benchmarks.steps --rounds $(ROUNDS) $(BENCH_OPTIONS)
	@$(BIN)/python -m benchmarks.table --out $(BENCH_OUT) --write docs/results/speed.md
	@echo "==> the tables: docs/results/speed.md"

# Isolated from .venv: the wheel is built from the source archive, so that both are known to be complete.
package: setup
	@echo "==> building the source archive and the wheel: dist/"
	@rm -rf build dist
	@$(BIN)/python -m build --outdir dist . >$(VENV)/build.log 2>&1 || { tail -n 20 $(VENV)/build.log >&2; exit 1; }
	@echo "==> installing the wheel elsewhere"
	@$(BIN)/python tools/try_wheel.py dist/*.whl

# tools/ on the path: the extension that writes formulas as MathML lies there.
docs: $(VENV)/.docs
	@echo "==> building the documentation"
	@PYTHONPATH=tools $(BIN)/zensical build --strict --clean
	@echo "==> the site: site/index.html"

$(VENV)/.docs: $(READY)
	@echo "==> installing what builds the documentation"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off -c constraints.txt -e '.[docs]'
	@touch $@

test: lint
	@echo "==> tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: setup
	@echo "==> lint"
	@$(BIN)/ruff check .
	@echo "==> format"
	@$(BIN)/ruff format --check .
	@echo "==> rooms (who may import whom: pyproject.toml, [tool.importlinter])"
	@rooms=$$($(BIN)/lint-imports) || { echo "$$rooms"; exit 1; }
	@echo "==> types"
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
