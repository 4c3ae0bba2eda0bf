# Everything a newcomer needs: `make demo` and `make test` do all their own set-up on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint docs bench clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/fgdiag inspect demo > /dev/null
	touch $@

demo: install
	$(BIN)/fgdiag demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	PYTHONPATH=probes:apps $(BIN)/lint-imports

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

bench: install
	$(BIN)/python tests/benchmarks/run.py

clean:
	rm -rf .venv build dist site
