# Two commands matter: `make book` builds the book, `make test` proves it. Each sets up its own environment first.
PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PORT ?= 8000
VENV := .venv
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
RUN := $(VENV)/bin/python

# One thread for each process: the chapters and the tests run side by side, one on every core.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
# pip compiles nothing (half the set-up time); Python keeps what it compiles on first use.
export PYTHONDONTWRITEBYTECODE :=
export JUPYTER_PREFER_ENV_PATH := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: book lab site-check test test-fast lint bench serve clean distclean help

book: $(READY) ## run the chapters that changed and build the HTML
	$(RUN) book/build.py --jobs $(JOBS)

lab: $(READY) ## open the chapters in JupyterLab (LAB="--no-browser --port=8899" passes options on)
	$(RUN) -m jupyterlab $(LAB) chapters

site-check: $(READY) ## look at every built page in headless Chromium
	@test -e _build/html/index.html || { echo "Nothing is built yet: run 'make book' first."; exit 1; }
	$(RUN) book/site_check.py --jobs $(JOBS)

test: $(READY) ## run the unit tests and every notebook
	$(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-fast: $(READY) ## run the laws and unit tests that take no second each
	$(RUN) -m pytest tests/laws tests/units -m "not slow" -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(READY) ## check style and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: $(PEERS) ## run every script in benchmarks/, one after the other, beside other libraries
	@set -e; found=; for script in benchmarks/*.py; do \
	    [ -e "$$script" ] || continue; found=yes; echo "== $$script"; $(RUN) "$$script"; \
	done; [ "$$found" ] || echo "There is no script in benchmarks/ yet: nothing was measured."

serve: ## show the built book at http://localhost:8000 (PORT=… changes it)
	@test -e _build/html/index.html || { echo "Nothing is built yet: run 'make book' first."; exit 1; }
	@echo "Open http://localhost:$(PORT) (stop with Ctrl-C)"
	@$(PYTHON) -m http.server --directory _build/html --bind 127.0.0.1 $(PORT)

clean: ## delete everything that was built, keep the environment
	rm -rf _build book/_generated build dist .pytest_cache .ruff_cache
	find . -name $(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## delete the environment as well
	rm -rf $(VENV)

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

# The mark is set last: a set-up that was cut short starts again from an empty environment.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 book")'
	$(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the pinned packages into $(VENV); this takes a few minutes."
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[book,site,test]"
	@touch $(READY)

$(PEERS): $(READY)
	@echo "Installing the libraries to compare with; this takes a few minutes."
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[bench]"
	@touch $(PEERS)
