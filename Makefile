# Every target is one step of the README; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PORT ?= 8080
PYTHON ?= python3
TEMPLATE := template/python-fastapi
BIN := .venv/bin
SOURCES := $(TEMPLATE) functions deploy bench tests

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(if $(filter-out 0,$(BROKERS)),.venv) ## Start the embedded OpenFaaS with every function of stack.yml (PORT=8080; BROKERS=1 adds Kafka, NATS, Redis)
	@.ci/install $(if $(filter-out 0,$(BROKERS)),brokers,venv)
	@exec $(if $(filter-out 0,$(BROKERS)),$(BIN)/python -m deploy.brokers -- )$(PYTHON) $(TEMPLATE)/local up --port $(PORT)

test: .venv ## Run every test (ARGS="-k cached" picks)
	@.ci/install test
	$(BIN)/pytest -n 2 $(ARGS)

lint: .venv ## Check style
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

format: .venv ## Mend style
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

typecheck: .venv ## Check types
	$(BIN)/mypy $(TEMPLATE)/base/faasbase $(TEMPLATE)/index.py $(TEMPLATE)/base/image deploy bench tests
	MYPYPATH=$(TEMPLATE)/local $(BIN)/mypy $(TEMPLATE)/local
	for handler in $(TEMPLATE)/function functions/*; do \
	  rm -rf build/types && mkdir -p build/types && cp -r $$handler build/types/function && touch build/types/function/__init__.py; \
	  MYPYPATH=build/types $(BIN)/mypy -p function; done

check: lint typecheck test ## All that CI runs

images: .venv ## Build the images of the base, every function and a new one, and report on them
	@.ci/install images
	$(BIN)/python -m deploy.images $(ARGS)

e2e: .venv ## Build images and run them as Kubernetes does (ARGS as above)
	@.ci/install images
	$(BIN)/pytest -n 2 --dist loadfile tests/e2e $(ARGS)

soak: .venv ## Kill consumers under load, let a million messages wait, stream two gigabytes
	@.ci/install test
	EVENTS_SOAK=1 $(BIN)/pytest tests/test_events_kafka_ends.py tests/test_events_kafka_memory.py
	STORAGE_STREAM_MIB=2048 $(BIN)/pytest tests/test_storage_s3_costs.py

deploy: ## Build, push and deploy every function with faas-cli
	faas-cli up -f stack.yml

lock: .venv ## Renew the pinned and hashed requirements, of all extras together
	$(BIN)/python -m deploy.locks

outdated: .venv ## Tell what lock would change, and what keeps newer versions out
	@$(BIN)/python -m deploy.locks outdated

bench: .venv ## Measure cache and events beside bare clients and peers (build/bench)
	@.ci/install test
	@$(BIN)/pip install -q --require-hashes -r bench/requirements.txt
	@$(BIN)/python -m bench.cache $(ARGS)
	@$(BIN)/python -m bench.events $(ARGS)

bench-images: .venv ## Compare image size, start and memory with the official template's shape
	@$(BIN)/python -m bench.images
clean: ## Remove what the other targets made
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv: tests/requirements.txt $(TEMPLATE)/base/pyproject.toml
	@.ci/install venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --require-hashes -r tests/requirements.txt
	$(BIN)/pip install -q --no-deps -e $(TEMPLATE)/base
	@touch .venv

.PHONY: help up test lint format typecheck check images e2e soak deploy lock outdated bench bench-images clean
