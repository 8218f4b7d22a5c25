# Everything a newcomer types. Each target sets up what it needs; python3.11 or newer must be on PATH.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo bench test test-slow check lint types benchmarks wheelhouse clean

demo: .venv/.installed  ## train the synthetic consortium; results in runs/demo
	$(BIN)/fedecg-simulate run configs/demo.toml --out runs/demo

bench: .venv/.installed  ## the table of docs/bench.md: algorithms on splits, 350 studies (two cores: 80 minutes)
	test -f runs/aligned/summary.json || $(BIN)/fedecg-simulate run configs/demo.toml --out runs/aligned --set seed=200 \
		evaluation.comparison=false evaluation.explain=false survival.rounds=0 signals.samples=512
	OMP_NUM_THREADS=1 $(BIN)/fedecg-simulate grid configs/grids/bench.toml --jobs $$(nproc)
	$(BIN)/python docs/bench.py

test: .venv/.installed-dev  ## the tests that every change must pass
	$(BIN)/python -m pytest

test-slow: .venv/.installed-dev  ## long tests: fuzzing, seeds, Ray
	$(BIN)/python -m pytest -m slow --timeout 3600

check: lint types test  ## what CI runs

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

benchmarks: .venv/.installed-dev  ## one JSON line each; run with nothing else on the machine
	for script in benchmarks/[!_]*.py; do $(BIN)/python $$script || exit 1; done

wheelhouse: .venv/bin/python  ## everything to install without an index, readers of vendors' formats too: wheelhouse/
	rm -rf wheelhouse
	$(PIP) wheel --quiet -c constraints.txt -w wheelhouse '.[vendors]'
	cp constraints.txt wheelhouse/

clean:
	rm -rf .venv runs wheelhouse .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("fedecg needs Python 3.11 or newer") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	touch $@
