# Two commands set everything up on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check lock clean

demo: $(VENV)/.run  ## install, generate one picture, say where it is
	$(BIN)/megdt generate "a field of red poppies at sunset" --snr-db 10 --compare --baseline avif --out demo.png

test: $(VENV)/.dev  ## install, then lint, types and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --doctest-modules

# torch comes with what its own build needs, which differs between machines; the rest is pinned.
$(VENV)/.run: requirements/run.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --no-deps -r requirements/run.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	$(PIP) --no-deps -r requirements/dev.lock
	$(BIN)/python -m megdt.runtime.vendor
	touch $@

lock:  ## pin what is installed now
	$(BIN)/python requirements/lock.py

clean:
	rm -rf $(VENV) demo.png demo-compare.png
