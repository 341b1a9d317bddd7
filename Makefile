# make demo    install into .venv, run the four hospitals, write the report
# make test    the tests          make check   lint, types, import rules
# make whole   tests that take whole trainings and processes; CI runs a quarter of them, another one with each commit
# make audit   what takes minutes: mutants of the privacy code, attacks on trained models, 200 settings of the accountant;
#              PART=3/10 before either runs a tenth, the fourth
# make torture kills, disk faults, flipped bits, odd files, commands, settings and replies, with a table; SHARE=0.1 a tenth,
#              KINDS="kills flips" some of them, SEED=7 others of each
#              LOCKED=1 before any of them: the packages of .ci/requirements.lock, with their hashes, as CI installs them
# make bench   timings, e.g. WORKLOADS=tabular ROUNDS=5 DEVICE=cuda; make clean   forget the virtual environment
.PHONY: demo test whole audit torture check bench clean
PYTHON ?= python3
WORKLOADS ?= tabular,small,cifar,sequence
ROUNDS ?= 5
PART ?= 0/1
LOCKED_TORCH := 2.13.0
SHARE ?= 1
SEED ?= 0
KINDS ?=
DEVICE ?= cpu
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
INSTALLED := .venv/$(if $(LOCKED),locked,installed)

demo: $(INSTALLED)
	$(BIN)/fedsim run hospital-heart

# Two workers on two cores: more threads than that wait for each other.
test whole audit torture: export OMP_NUM_THREADS ?= 1

# Tests start hundreds of processes: each would compile all sources again where Python is told to keep nothing.
test whole audit torture: export PYTHONDONTWRITEBYTECODE :=

test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow and not whole"

whole: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal -m "whole and not slow" --part $(PART)

audit: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal -m slow --part $(PART) tests

torture: $(INSTALLED)
	$(BIN)/python -m tests.torture --seed $(SEED) --share $(SHARE) $(KINDS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(INSTALLED) benchmarks/.venv-pfl/installed benchmarks/.venv-drjax/installed benchmarks/.venv-ray/installed
	$(BIN)/python benchmarks/rounds.py --workloads $(WORKLOADS) --rounds $(ROUNDS) --device $(DEVICE)

# The peers' packages clash with ours: each has an environment of its own.
benchmarks/.venv-pfl/installed: benchmarks/peers/pfl.txt
	$(PYTHON) -m venv $(@D) && $(@D)/bin/pip install --quiet --disable-pip-version-check -r $< && touch $@

benchmarks/.venv-drjax/installed: benchmarks/peers/drjax.txt
	$(PYTHON) -m venv $(@D) && $(@D)/bin/pip install --quiet --disable-pip-version-check -r $< && touch $@

benchmarks/.venv-ray/installed: benchmarks/peers/flower_ray.txt
	$(PYTHON) -m venv $(@D) && $(@D)/bin/pip install --quiet --disable-pip-version-check -r $< && touch $@

clean:
	rm -rf .venv benchmarks/.venv-pfl benchmarks/.venv-drjax benchmarks/.venv-ray

# Debian and Ubuntu keep the venv module in a package of its own; it is installed where it is missing.
define VENV
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "expected Python 3.11 or newer, got `$(PYTHON) --version`; try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "installing python3-venv"; SUDO=`[ $$(id -u) = 0 ] || echo sudo`; \
		     $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(1) .venv
endef

.venv/installed: pyproject.toml
	$(call VENV)
	$(PIP) --editable ".[dev]"
	rm -f .venv/locked
	touch $@

.venv/locked: pyproject.toml .ci/requirements.lock
	$(call VENV,--clear)
	$(PIP) "torch==$(LOCKED_TORCH)"
	$(PIP) --require-hashes --no-deps -r .ci/requirements.lock
	$(PIP) --no-deps --editable .
	$(BIN)/pip check
	touch .venv/installed $@
