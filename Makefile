# `make demo` and `make test` need nothing but make and Python 3.11 or newer; they set up .venv by themselves.

# Tests start hundreds of processes; without compiled modules each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A file's tests share what they made and stay in one process; eight processes are done when the longest file is.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile --max-worker-restart 0

.PHONY: demo test check long install clean

demo: install  ## cost, train, export, evaluate, predict, bench on handwritten digits; ends with demo/report.html
	$(BIN)/smallcnn demo --out demo

test: check  ## everything CI runs: lint, types, import contracts, tests on every core
	$(BIN)/python -m pytest $(PARALLEL)

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

long: install  ## the tests that take minutes: base install in a fresh environment, a run killed many times, the demo
	$(BIN)/python -m pytest -m long

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smallcnn needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,import,compile,compress,heif,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo runs
