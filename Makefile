# Each target makes what it needs under .venv; python3 (3.10 or newer) and make are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.NOTPARALLEL:
.PHONY: demo test test-all test-portable test-long test-soak test-suites soak bench lint docs clean

demo: $(VENV)/.base
	$(BIN)/vaurien --demo

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(ARGS)

# What takes many seconds each.
test-long: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal -m long $(ARGS)

# Then the core of them once more, as where there is no timerfd, pidfd, /proc, SIGHUP, ...
PORTABLE := tests/flow tests/handlers tests/laws tests/net $(wildcard tests/relay) tests/test_process.py \
	tests/test_client.py tests/cli/test_command_line.py tests/cli/test_extremes.py \
	tests/cli/test_signals.py tests/cli/test_summary.py tests/cli/test_ctl.py

test-all: test test-long test-portable test-soak test-suites

test-portable: $(VENV)/.test
	PYTHONPATH=tests/portable$${PYTHONPATH:+:$$PYTHONPATH} \
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(PORTABLE) $(ARGS)

# All handlers and toxics at random, for a minute; for ten: make soak. ARGS are pytest's.
test-soak: $(VENV)/.test
	$(BIN)/python -m pytest -m soak tests/attacks $(ARGS)

# Clients of Toxiproxy as they are published, with what they bring to be run.
test-suites: $(VENV)/.test
	$(BIN)/python -m pytest -m suite tests/e2e/suites $(ARGS)

soak: export SOAK := $(or $(SOAK),600)
soak: test-soak

bench: $(VENV)/.base
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint examples/container/Dockerfile
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.base: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON); install Python 3.10 or newer, or name yours: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Vaurien needs Python 3.10 or newer, and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments (it has no ensurepip); on Debian and Ubuntu: apt-get install python3-venv; or name another: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --quiet --editable . --config-settings editable_mode=compat
	@touch $@

# One group of development requirements each, from [dependency-groups] in pyproject.toml.
$(VENV)/.test $(VENV)/.docs: $(VENV)/.%: $(VENV)/.base
	$(PIP) --group $*
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --group lint
	@touch $@
