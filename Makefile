PYTHON ?= python3
BIN = .venv-test/bin

.PHONY: check test schemathesis bench demo proto

check: $(BIN)/ruff ## lint and types
	$(BIN)/ruff check .
	$(BIN)/mypy --strict taskd

test: $(BIN)/ruff ## all tests, on a real PostgreSQL
	$(BIN)/python -m pytest

schemathesis: $(BIN)/ruff ## the OpenAPI document against the server, for a quarter of an hour; the short form is a test
	SCHEMATHESIS_EXAMPLES=1000 $(BIN)/python -m pytest -s tests/openapi

bench: $(BIN)/ruff ## the measurements behind docs/decisions
	$(BIN)/python -m bench.layout

proto: ## the code in taskd/v1, from proto/
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install -q '$(shell sed -n "s/^ *\(grpcio-tools==.*\)/\1/p" setup.cfg)' \
		'$(shell sed -n "s/^ *\(mypy-protobuf==.*\)/\1/p" setup.cfg)'
	PATH="$$PWD/.venv-proto/bin:$$PATH" .venv-proto/bin/python -m grpc_tools.protoc -I proto \
		--python_out=. --mypy_out=. proto/taskd/v1/*.proto
	PATH="$$PWD/.venv-proto/bin:$$PATH" .venv-proto/bin/python -m grpc_tools.protoc -I proto \
		--grpc_python_out=. --mypy_grpc_out=. proto/taskd/v1/taskd.proto

demo: $(BIN)/ruff ## the server with an embedded PostgreSQL and sample handlers
	$(BIN)/taskd demo

$(BIN)/ruff: setup.cfg
	$(PYTHON) -m venv .venv-test
	$(BIN)/pip install -q -e '.[embedded,test,lint]'
	touch $@
