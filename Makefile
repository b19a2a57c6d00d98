PYTHON ?= python3
BIN = .venv-test/bin

.PHONY: check test schemathesis bench demo proto lock audit

check: $(BIN)/ruff ## lint and types
	$(BIN)/ruff check .
	$(BIN)/mypy --strict taskd

test: $(BIN)/ruff ## all tests, on a real PostgreSQL
	$(BIN)/python -m pytest

schemathesis: $(BIN)/ruff ## the OpenAPI document against the server, for a quarter of an hour; the short form is a test
	SCHEMATHESIS_EXAMPLES=1000 $(BIN)/python -m pytest -s tests/openapi

bench: $(BIN)/ruff ## taskd beside its peers, into docs/benchmarks.md: all rows; wants wrk
	$(BIN)/pip install -q -e '.[embedded,bench]'
	$(BIN)/python -m bench.against all --write

bench-%: $(BIN)/ruff ## one of them, as bench-rest
	$(BIN)/pip install -q -e '.[embedded,bench]'
	$(BIN)/python -m bench.against $* --write

proto: ## the code in taskd/v1, from proto/
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install -q '$(shell sed -n "s/^ *\(grpcio-tools==.*\)/\1/p" setup.cfg)' \
		'$(shell sed -n "s/^ *\(mypy-protobuf==.*\)/\1/p" setup.cfg)'
	PATH="$$PWD/.venv-proto/bin:$$PATH" .venv-proto/bin/python -m grpc_tools.protoc -I proto \
		--python_out=. --mypy_out=. proto/taskd/v1/*.proto
	PATH="$$PWD/.venv-proto/bin:$$PATH" .venv-proto/bin/python -m grpc_tools.protoc -I proto \
		--grpc_python_out=. --mypy_grpc_out=. proto/taskd/v1/taskd.proto

lock: ## requirements.lock, from setup.cfg: the newest that go together, each file by its hash
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q pip-tools pip-audit
	{ sed '/^[^#]/,$$d' requirements.lock; .venv-lock/bin/pip-compile -q --generate-hashes --strip-extras --extra redis \
		--upgrade --no-header --no-emit-find-links --no-emit-index-url --output-file - setup.cfg; } > .venv-lock/made
	cp .venv-lock/made requirements.lock

audit: ## whether anything in requirements.lock is known to be weak, by the advisories of PyPI
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q pip-tools pip-audit
	.venv-lock/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

demo: $(BIN)/ruff ## the server with an embedded PostgreSQL and sample handlers
	$(BIN)/taskd demo

$(BIN)/ruff: setup.cfg
	$(PYTHON) -m venv .venv-test
	$(BIN)/pip install -q -e '.[embedded,test,lint]'
	touch $@
