# make venv        set up .venv: everything under constraints.txt, and libsndfile without root
# make quickstart  set up, then train a small model on embedded data and show what it learned
# make test        set up, then run the whole test suite
# make test-long   set up, then run the tests that take minutes: kills at random moments, fuzzing, large files
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export FAIRSEQ2_EXTENSION_TRACE := 1

.PHONY: venv quickstart test test-long clean

venv: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v[:2] <= (3, 12) else "Python 3.10 to 3.12 is needed, but $(PYTHON) is %d.%d. Name another: make $(MAKECMDGOALS) PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/python -m lexalcm.installation
	@touch $(STAMP)

quickstart: venv
	$(BIN)/fairseq2 lcm quickstart

test: venv
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-long: venv
	$(BIN)/python -m pytest -m long -n auto --maxprocesses 4 --dist load

clean:
	rm -rf $(VENV) build dist *.egg-info
