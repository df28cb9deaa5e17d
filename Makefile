# make demo: from rendered data to a promoted model and a picture. make test: install, lint, type-check, test.
PYTHON ?= python3
BIN := .venv/bin

# The stamp is written last: an installation that failed half-way starts again.
.venv: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), sys.version' || \
		(echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" && exit 2)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: .venv demo demo-long test lint bench clean
demo: .venv
	$(BIN)/das demo

demo-long: .venv
	$(BIN)/das demo --long

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2

bench: .venv
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

clean:
	rm -rf .venv runs
