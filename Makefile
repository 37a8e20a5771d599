# make demo    the whole method on the embedded world, offline; writes runs/demo/report.html
# make check   formatter, linter, types, fast tests: before each commit
# make test    everything, with coverage: what continuous integration runs
# make clean   remove what these made, except runs/
#
# Each makes .venv first if it is missing or older than the pinned versions.
# PYTHON=python3.12 make ... chooses the interpreter (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# three processes of one thread each, since tests of servers and browsers wait much; what a file's
# tests share is made once
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# most of what is installed is never imported: Python compiles what is, and keeps it
export PYTHONDONTWRITEBYTECODE :=
PIP := --quiet --no-compile -c constraints.txt

.PHONY: demo check test lint browser clean

demo: $(INSTALLED)
	$(BIN)/instil demo --out runs/demo
	@echo
	@echo "The report: runs/demo/report.html"

check: lint
	$(PYTEST) -q -m "not slow and not browser" --hypothesis-profile quick

test: lint browser
	$(PYTEST) --durations=60 --cov=instil --cov-report=term:skip-covered

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The browser tests skip, and say why, where there is no chromium.
browser:
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing chromium for the browser tests"; \
		apt-get install -y -qq chromium >/dev/null 2>&1 \
			|| { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 \
			|| echo "chromium could not be installed; the browser tests will skip"; \
	fi

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP) torch
	$(BIN)/python -m pip install $(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist src/*.egg-info .coverage .coverage.* htmlcov
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
