# make serve   start the service            make check   format, lint, types, import contracts
# make test    run the whole suite          make lock    pin the requirements again
# make bench   measure into loadtest/RESULTS.md; PARTS=a,b picks some

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
# `serve` passes these, and what is passed wins over the service's own variables: so they come first.
HOST ?= $(or $(LLM_AUCTION_HTTP__HOST),127.0.0.1)
PORT ?= $(or $(LLM_AUCTION_HTTP__PORT),8000)
STATE_DIR ?= $(or $(LLM_AUCTION_STATE_DIR),state)
PYTHON ?= python3.11
PARTS ?= a,b,c,d,e,f
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin

.PHONY: serve align load test check format bench lock clean
.DELETE_ON_ERROR:

serve: .venv/cpu.done
	@exec $(BIN)/llm-auction serve --host $(HOST) --port $(PORT) --state-dir $(STATE_DIR)

align: .venv/align.done
	@echo "Ready: .venv/bin/llm-auction simulate, evaluate and align; --help tells more."

load: .venv/load.done
	@echo "Ready: $(BIN)/locust -f loadtest/chat.py, $(BIN)/python -m loadtest.soak; --help tells more."

test: .venv/dev.done
	$(BIN)/python -m pytest

check: .venv/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/dev.done
	$(BIN)/python -m loadtest.bench --part $(PARTS) --state-dir $(STATE_DIR)

format: .venv/dev.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# `cpu` is what serving needs, `align` adds what simulation and training need, `dev` also what tests
# and checks need. The CPU build of torch is on PyTorch's own index, unless pip already knows a place
# that has it.
.venv/%.done: requirements/%.lock pyproject.toml | .venv
	@case $* in gpu*) others="$(filter-out .venv/gpu%,$(wildcard .venv/*.done))" ;; \
		*) others="$(wildcard .venv/gpu*.done)" ;; esac; [ -z "$$others" ] || { echo \
		"Packages for CPUs and for GPUs do not go into one .venv, and here is $$others:" \
		"take another checkout, or run make clean first."; exit 1; }
	@echo "Installing $$(grep -c == $<) packages of requirements/$*.lock; minutes the first time."
	@torch=$$(grep '^torch==.*+cpu$$' $< || true); [ -z "$$torch" ] \
		|| $(BIN)/pip install --quiet --no-deps "$$torch" 2>/dev/null \
		|| $(BIN)/pip install --no-deps --index-url $(TORCH_INDEX) "$$torch"
	@$(BIN)/pip install --no-deps -r $< | awk -v all="$$(grep -c == $<)" ' \
		/^(Collecting|Requirement)/ { printf "\r  %3d/%d %-60.60s", ++n, all, $$0; fflush() } \
		/^Installing/ { printf "\r  %-70s\n", "unpacking (a minute or two)"; fflush() }'
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv:
	@command -v $(PYTHON) >/dev/null || { echo "Needs $(PYTHON); PYTHON=... names another"; exit 1; }
	@$(PYTHON) -m venv .venv

# A GPU needs most of what pyproject.toml leaves out of the other locks, so its locks do not look
# there. Those of a kind share one .venv: each keeps to those before it, so that none replaces what
# another installed.
lock:
	compile() { uv pip compile pyproject.toml --python-version 3.11 --quiet --no-annotate --no-header \
		--no-emit-find-links "$${@:2}" -o requirements/$$1.lock; }; \
	compile cpu --extra cpu --extra otel; \
	compile gpu --extra gpu --extra otel --no-config; \
	compile gpu-align --extra gpu --extra otel --extra smollm --extra simulation --extra align \
		--extra load --no-config -c requirements/gpu.lock \
		--override <(printf "%s; python_version < '3'\n" llm llama-cpp-python); \
	shared=(-c requirements/cpu.lock); \
	compile align --extra cpu --extra simulation --extra align "$${shared[@]}"; \
	shared+=(-c requirements/align.lock); \
	compile load --extra cpu --extra load "$${shared[@]}"; \
	shared+=(-c requirements/load.lock); \
	compile dev --extra cpu --extra otel --extra simulation --extra align --extra dev "$${shared[@]}"

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
