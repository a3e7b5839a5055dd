# finetui needs make and Python 3.11, 3.12 or 3.13; everything else is installed into .venv from constraints.txt.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
READY_TO_DEVELOP := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# Test processes at once, two more than there are processors for it, since many tests wait for other processes. Each
# is told to use few threads, since several of them train. The order of files is that of tests/conftest.py.
COUNT := nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2
JOBS ?= $(shell n=$$($(COUNT)); echo $$(( n > 6 ? 8 : n + 2 )))
PYTEST := OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# `import ensurepip` leaves out Pythons that cannot make a virtual environment; running it leaves out version
# managers' stand-ins for versions that are not installed.
FIND_PYTHON = for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  if "$$python" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
	  then echo "$$python"; break; fi; \
	done

.PHONY: help install demo test test-all test-naps check format bench bundle clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo      install, then fine-tune the bundled model and show what it learnt'
	@echo 'make install   make .venv with everything finetui needs to run'
	@echo 'make test      the tests;   make test-all   the slow ones too'
	@echo 'make test-naps the tests, while their processes and threads nap at random, as on a loaded machine'
	@echo 'make check     style, types and the import rule;   make format   put the style right'
	@echo 'make bench     speed, memory and terminal traffic, measured'
	@echo 'make bundle    pack every wheel for a machine without a network; TORCH=cu130 takes that build of torch'
	@echo 'make clean     remove .venv and caches'

install: $(READY)

# Status 4 says that the app was left while the demo went on, which is no error.
demo: $(READY)
	@$(BIN)/finetui demo || test $$? -eq 4

test: $(READY_TO_DEVELOP)
	$(PYTEST)

test-all: $(READY_TO_DEVELOP)
	$(PYTEST) -m 'slow or not slow' --hypothesis-profile drawn

# Share of places and seconds in the mean: see tests/naps/sitecustomize.py.
NAPS ?= 0.12,0.02
test-naps: $(READY_TO_DEVELOP)
	NAPS=$(NAPS) PYTHONPATH=tests/naps $(PYTEST)

check: $(READY_TO_DEVELOP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY_TO_DEVELOP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY_TO_DEVELOP)
	@for script in tests/benchmarks/*.py; do \
	  printf '\n== %s\n' "$$script"; PYTHONPATH=tests $(BIN)/python "$$script" || exit 1; \
	done
	$(BIN)/python tests/benchmarks/training/compare.py

# This platform and Python; where wheels come from is up to pip's configuration.
bundle: $(READY)
	@$(BIN)/python -m engine.airgap.bundle $(if $(TORCH),--torch $(TORCH)) $(if $(INTO),--into $(INTO))

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then \
	  echo 'finetui needs Python 3.11, 3.12 or 3.13 with its venv module, and none was found.' >&2; \
	  echo '  fix: install one (on Debian or Ubuntu: apt install python3 python3-venv), or make PYTHON=/path/to/it' >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(READY): $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing what finetui needs, which takes some minutes the first time ...'
	@$(PIP) -e .
	@touch $@

$(READY_TO_DEVELOP): $(READY)
	@echo 'Installing the tools for tests and checks ...'
	@$(PIP) -e '.[dev]'
	@touch $@
