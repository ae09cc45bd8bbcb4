# Each target does all of its own set-up.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test test-gpu test-oldest test-slow lint docs clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

demo: $(READY)  ## The whole job on the embedded pool: table, results.json, report.html, models.
	$(BIN)/hf-mdft demo --output-dir demo-output

test: $(READY) lint  ## Everything but the slow tests.
	$(BIN)/pytest --numprocesses auto --dist worksteal

test-gpu: $(READY)  ## What needs an accelerator.
	$(BIN)/pytest -m gpu tests/test_gpu.py

test-slow: $(READY)  ## Every class of transformers, whole studies, two processes through accelerate launch.
	$(BIN)/pytest -m slow

test-oldest:  ## The same with the oldest versions that are admitted, in an environment of its own.
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints-oldest.txt)"
	$(VENV)-oldest/bin/pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt --editable ".[test]"
	$(VENV)-oldest/bin/pytest --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(READY)  ## Tables of docs from the code, figure from docs/results.md.
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/figures.py

clean:
	rm -rf $(VENV) $(VENV)-oldest demo-output
