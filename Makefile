PYTHON ?= python3
BIN := .venv/bin

.PHONY: help train test lint clean

help:
	@echo "make train   make .venv, install, train the default experiment on the built-in data"
	@echo "make test    make .venv, install, check the style, run the tests"
	@echo "make clean   remove .venv and caches (outputs/ stays)"

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 to 3.13 is needed: make PYTHON=python3.12' if not (3, 11) <= sys.version_info < (3, 14) else 0)"
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

train: .venv/installed
	$(BIN)/detlab train experiment=shapes

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf .venv .pytest_cache .ruff_cache
