# `make` lists what can be made. Everything is installed into .venv from locked, hashed requirements.

# Rows of the simulated org, which a night takes in ten ranges.
ROWS ?= 200000
# Where the Dagster UI listens.
PORT ?= 3000
# Nights that are killed at random.
SEEDS ?= 200
# Processes that run tests side by side.
WORKERS ?= 2
# Tried by running them: a version manager may put names on the PATH that start nothing.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 && { echo $$p; break; }; \
	done)

VENV := .venv
BIN := $(VENV)/bin
HAS_UV = command -v uv >/dev/null 2>&1
COMPILE_LOCK = uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links --no-config --quiet

# What the environment says goes before it.
IN_TEN_RANGES = SYNC_ROWS_PER_RANGE=$${SYNC_ROWS_PER_RANGE:-$$(( ($(ROWS) + 9) / 10 > 0 ? ($(ROWS) + 9) / 10 : 1 ))}

# Starting Python must not compile everything anew each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install sync dev test crash-nights lint format bench lock clean

help: ## list what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed ## install what a night needs

sync: $(VENV)/.installed ## one night on the command line; on the simulated org a day passes between two of them
	@if $(BIN)/python -c "$$IS_SIMULATED" 2>/dev/null; then \
		$(BIN)/sync-pipeline org seed --rows $(ROWS) --next-night && $(IN_TEN_RANGES) $(BIN)/sync-pipeline sync; \
	else $(BIN)/sync-pipeline sync; fi

dev: $(VENV)/.installed ## the same night in Dagster, in the browser
	@if $(BIN)/python -c "$$IS_UNUSED" 2>/dev/null; then $(BIN)/sync-pipeline org seed --rows $(ROWS); fi
	@echo "Dagster comes up at http://localhost:$(PORT) and ends with Ctrl-C."
	@export DAGSTER_HOME="$(CURDIR)"; if $(BIN)/python -c "$$IS_SIMULATED" 2>/dev/null; then export $(IN_TEN_RANGES); fi; \
		exec $(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $(PORT)

test: $(VENV)/.tested ## every test
	@$(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/.tested ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.tested ## mend the style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Its peer among the clients of Salesforce is installed with the tests.
bench: ROWS = 2000000
bench: $(VENV)/.tested ## figures beside their targets, 2,000,000 rows by default; ONLY="night peer" for some parts, LARGE=1 for 5 times the rows too
	@$(BIN)/python -m benchmarks --rows $(ROWS) --json build/benchmark.json $(if $(ONLY),--only $(ONLY)) $(if $(LARGE),--large)

crash-nights: $(VENV)/.tested ## kill SEEDS nights at random instants, and see that nothing is lost
	@$(BIN)/python -m sync_pipeline_tests.engine.crash_nights --seeds $(SEEDS)

lock: ## resolve the requirements anew (needs uv)
	@# The largest set first: dagster-postgres decides which release of Dagster all of them are of.
	@$(COMPILE_LOCK) --group postgres --output-file requirements-postgres.lock
	@$(COMPILE_LOCK) --constraint requirements-postgres.lock --output-file requirements.lock
	@$(COMPILE_LOCK) --group postgres --group test --constraint requirements-postgres.lock --output-file requirements-test.lock

clean: ## remove what was installed and cached; nights and Dagster's history stay
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Whether a night would go to the simulated org; wrong settings are told by the night itself.
define IS_SIMULATED
import sys
from sync_pipeline.settings import load_settings
sys.exit(not load_settings().is_simulated)
endef
export IS_SIMULATED

# Whether, besides, there is no simulated org yet.
define IS_UNUSED
import sys
from sync_pipeline.settings import load_settings
settings = load_settings()
sys.exit(not settings.is_simulated or (settings.home / "simulated_org").exists())
endef
export IS_UNUSED

$(BIN)/python:
	@if $(HAS_UV); then uv venv --quiet $(if $(PYTHON),--python $(PYTHON)) $(VENV); \
	elif [ -z "$(PYTHON)" ]; then echo "Python 3.11, 3.12 or 3.13 is needed: install one, or name it with PYTHON=..." >&2; exit 1; \
	elif ! $(PYTHON) -m venv $(VENV); then \
		rm -rf $(VENV); echo "On Debian the package python3-venv is needed, or uv." >&2; exit 1; fi

# $(call install,arguments): with uv, which also byte-compiles only when told, or with pip.
install_with = if $(HAS_UV); then uv pip install --quiet --python $(BIN)/python --compile-bytecode $(1); else \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); fi

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	@$(call install_with,--require-hashes --requirement requirements.lock)
	@$(call install_with,--no-deps --no-build-isolation --editable .)
	@$(BIN)/python -m compileall -q sync_pipeline
	@touch $@

$(VENV)/.tested: requirements-test.lock $(VENV)/.installed
	@$(call install_with,--require-hashes --requirement requirements-test.lock)
	@touch $@
