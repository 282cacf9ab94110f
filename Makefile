# Two commands set everything up on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

.PHONY: demo test check lock clean

demo: $(VENV)/.run  ## install, generate one picture, say where it is
	$(BIN)/megdt generate "a field of red poppies at sunset" --snr-db 10 --compare --out demo.png

test: $(VENV)/.dev  ## install, then lint, types and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --doctest-modules

$(VENV)/.run: requirements/run.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/run.lock
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	$(PIP) -r requirements/dev.lock
	touch $@

lock: $(VENV)/.dev  ## pin what is installed now
	$(BIN)/python requirements/lock.py

clean:
	rm -rf $(VENV) demo.png demo-compare.png
