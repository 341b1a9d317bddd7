# make demo    install into .venv, run the four hospitals, write the report
# make test    the tests          make check   lint, types, import rules
# make bench   timings            make clean   forget the virtual environment
.PHONY: demo test check bench clean
PYTHON ?= python3
BIN := .venv/bin

demo: .venv/installed
	$(BIN)/fedsim run hospital-heart

test: .venv/installed
	$(BIN)/pytest -n 2

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: .venv/installed
	$(BIN)/python benchmarks/rounds.py

clean:
	rm -rf .venv

# Debian and Ubuntu keep the venv module in a package of its own; it is installed where it is missing.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "expected Python 3.11 or newer, got `$(PYTHON) --version`; try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "installing python3-venv"; SUDO=`[ $$(id -u) = 0 ] || echo sudo`; \
		     $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
