# The two commands of the README, each complete on a machine with Python >= 3.10, g++ and make:
#   make demo     trains a CNN on handwritten digits, next to torch.nn
#   make test     runs the test suite
# Both set up .venv and build into it first; run again, they redo only what has changed. ARGS="..." is passed on.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find csrc python -type f \
             \( -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.py' -o -name '*.pyi' -o -name py.typed \))

.PHONY: demo test build bench sanitize lint symbols headers cuda clean

demo: $(VENV)/.built
	$(BIN)/python examples/train_cnn.py $(ARGS)

test: $(VENV)/.built
	PYTHON=$(BIN)/python tools/test.sh $(ARGS)

build: $(VENV)/.built

bench: $(VENV)/.built
	$(BIN)/python -m benchmarks $(ARGS)

# The checks behind .ci/run, one by one.
sanitize: $(VENV)/.requirements
	PYTHON=$(BIN)/python tools/sanitize.sh $(ARGS)

lint: $(VENV)/.built
	PYTHON=$(BIN)/python tools/lint.sh

symbols: $(VENV)/.built
	tools/check_symbols.sh

headers: $(VENV)/.built
	PYTHON=$(BIN)/python tools/check_headers.sh

cuda:
	PYTHON=$(PYTHON) tools/check_cuda.sh

clean:
	rm -rf build dist $(VENV) .cuda-venv python/*.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find python tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/tensorops/*.so

$(VENV)/.requirements: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit(f"tensorops needs Python >= 3.10, $(PYTHON) is {sys.version.split()[0]}")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt
	@touch $@

# The build's decisions and errors are shown as they come; everything else is in the log.
$(VENV)/.built: $(VENV)/.requirements $(SOURCES)
	@echo "building tensorops; the whole log: $(VENV)/build.log"
	@$(BIN)/pip install --disable-pip-version-check -v --no-build-isolation --no-deps --force-reinstall . 2>&1 \
	  | tee $(VENV)/build.log | grep --line-buffered -oE 'tensorops: .*|.* error: .*' \
	  || { tail -n 40 $(VENV)/build.log; exit 1; }
	@touch $@
