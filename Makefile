# The one entrance. Everything is written inside the checkout: .venv (and .venvs for further interpreters), .cache, dist.
# `make demo` and `make test` work alone, each from a fresh clone; a second run reuses what fits (tools/environment.py).

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint suite bench soak vm-test lock clean distclean venv venv-test

SHELL := /bin/sh
VENV := .venv/bin
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
# pytest keeps the test files as it has rewritten them: writing them anew costs each of its processes 4 of 6 s.
unexport PYTHONDONTWRITEBYTECODE
# Three workers on two cores: a third of its time a test waits for processes. A file's tests stay in one worker, as a file
# shares its pool, and the files come in their order, the heavy ones first: by their number of tests, xdist's own order, the
# longest would come last and alone. PYTEST_WORKERS=0 runs all in one process.
PYTEST_WORKERS ?= 3
PYTEST := $(VENV)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder
OPTIONS ?=

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

venv:
	@python=$$(tools/find-python) && "$$python" tools/environment.py .venv build runtime demo --project

venv-test:
	@python=$$(tools/find-python) && "$$python" tools/environment.py .venv build runtime demo suite test --project

demo: venv  ## classify real scans in a sandbox, then try to break out of it
	@$(VENV)/python examples/demo.py

test: venv-test  ## linters, types, layers, all tests; on further interpreters and as an unprivileged uid the fast part
	@$(VENV)/python tools/elsewhere.py beside $(PYTEST) $(OPTIONS)

suite: venv-test  ## all tests on the main interpreter only (OPTIONS="-k word" goes to pytest)
	$(PYTEST) $(OPTIONS)

lint: venv-test  ## ruff, mypy --strict, import-linter
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-logo

bench: venv  ## calls, payloads, starts and memory beside the bare socket and the peers, 15 minutes (OPTIONS=--quick: 3)
	@python=$$(tools/find-python) && "$$python" tools/environment.py .venvs/bench bench --project
	.venvs/bench/bin/python bench/run.py --plots .cache/bench $(OPTIONS)

soak: venv-test  ## the sampled tests in full: 1,000 killed workers, 2 million compared filter decisions, the corpus in each tier
	PYPROC_SOAK=1000 $(VENV)/python -m pytest tests/integration -k "killed_workers or interrupt" --timeout 3000
	PYPROC_SOAK=1 $(VENV)/python -m pytest tests/integration/test_missing_layers.py -k lower_tier --timeout 3000
	PYPROC_SOAK=1 $(VENV)/python -m pytest tests/adversarial/escapes/test_seccomp_alone.py --timeout 3000
	PYPROC_SOAK=2000000 $(VENV)/python -m pytest tests/unit/sandbox --timeout 3000

vm-test: venv  ## the sandbox, control groups and AppArmor in an emulated machine with a Debian kernel; needs qemu, half an hour
	@$(VENV)/python tools/vm_test.py $(OPTIONS)

lock:  ## renew the hash-pinned requirement files (needs uv and the network)
	requirements/lock

clean:  ## what was built and measured; keeps the downloaded packages
	rm -rf .venv .venvs dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## the downloaded packages too
	rm -rf .cache
