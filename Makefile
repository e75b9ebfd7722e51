# Daily work. `make demo` and `make test` need nothing but Python 3.11+ and the package registries.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
URI    ?= s3://lake/raw/sample.csv
GIB    ?= 20
# Tests start hundreds of processes: compiled modules are kept, also where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help setup demo test test-long check docs bench bench-gateway loadtest load-sample-data lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## Make the virtual environment from the lock file
$(READY): requirements.lock pyproject.toml hatch_build.py $(wildcard libs/ingestcore/machine_code/*.c)
	@echo "==> virtual environment ($$($(PYTHON) --version))"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lock:  ## Resolve pyproject.toml into requirements.lock (hashes, no hosts)
	uv pip compile --universal --generate-hashes --all-extras --no-emit-index-url --no-header --quiet -o requirements.lock pyproject.toml

docs:  ## Draw tables of docs/ and schemas of specs from the code
	@$(BIN)/python -m ingestcore.pages

clean:  ## Remove what the targets made (the virtual environment stays)
	rm -rf .ingest .devstack .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench-report

check: $(READY)  ## Formatting, types, layers, unit and contract tests (under a minute)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary libs services
	@$(BIN)/lint-imports --no-cache > .lint-imports.log || { cat .lint-imports.log; exit 1; }
	@rm -f .lint-imports.log
	@$(BIN)/pytest -n 2 --dist worksteal -m "not long" tests/unit tests/contract

test: check  ## All tests but the long ones, on real Kafka, S3 and Redis
	@# The longest files first, else one worker ends alone with one of them.
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder tests/faults tests/e2e tests/integration -m "not long"

test-long: $(READY)  ## The long ones: 1 GB end to end under kills, freezes and resets; random faults; 10 million keys
	@$(BIN)/pytest -n 2 --dist worksteal tests/unit -m hypothesis --hypothesis-profile thorough
	@$(BIN)/pytest tests --ignore=tests/faults -m long
	@$(BIN)/pytest tests/faults -m long

bench: $(READY)  ## What the whole chain costs: CPU of every process, MB/s, memory; JSON and a chart in bench-report/
	@$(BIN)/python -m ingestcore.bench

bench-gateway: $(READY)  ## What the webhook gateway costs: events per CPU second, latencies, seconds to Postgres; JSON and a table
	@$(BIN)/python -m ingestcore.bench.gateway

K6 := $(or $(shell command -v k6),.tools/k6)
.tools/k6:
	@echo "==> k6 (needs Go)"
	@GOBIN=$(CURDIR)/.tools go install go.k6.io/k6@v1.8.1

loadtest: $(READY) $(K6)  ## k6: 1,000 signed events a second for a minute; fails where p95 is above 100 ms or a post is refused
	@$(BIN)/python -m ingestcore.bench.loadtest loadtests/webhooks.js --k6 $(K6)

load-sample-data: $(READY)  ## Put the synthetic CSV of the benchmark into S3: make load-sample-data URI=s3://bucket/raw/sample.csv GIB=20
	@$(BIN)/python -m connectors.bench.sample_data $(URI) --gib $(GIB)

demo: $(READY)  ## The main jobs on embedded servers: 200 MB of CSV to Parquet, a burst of webhooks to Postgres
	@$(BIN)/ingest demo
