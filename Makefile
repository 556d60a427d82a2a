# Every target makes .venv first when it is missing or older than the dependency files.
PYTHON ?= python3
# Where torch itself comes from, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu for the small CPU-only build.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --prefer-binary -c constraints.txt
RUN_DIR := runs/quickstart-$(shell date +%Y%m%d-%H%M%S)
FAST := not slow and not chaos and not gpu

.PHONY: quickstart test test-all lint docs
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "metaopt needs Python >= 3.11, found " + sys.version.split()[0] + " (choose another: make PYTHON=python3.12)")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a few minutes)"
	@$(PIP) --only-binary :all: $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(PIP) --only-binary :all: -e '.[dev,baselines,data]'
	@touch $@

quickstart: $(VENV)/.installed
	@$(BIN)/metaopt train quickstart --workers 2 --run-dir $(RUN_DIR)
	@$(BIN)/metaopt evaluate $(RUN_DIR)/artifact celo2-base --suite quick --out $(RUN_DIR)/report

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup -m "$(FAST)"

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup -m "not gpu"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.docs: $(VENV)/.installed
	@$(PIP) --only-binary :all: 'mkdocs>=1.6' 'mkdocs-material>=9.5'
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict --site-dir build/site
