# Everything happens in a virtual environment of its own, .venv, made from constraints.txt.
# Needs Python 3.11 or newer (PYTHON=python3.12 make ... chooses another) and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

.PHONY: help demo test browser docs papers dist lint types bench faults kill mutants house clean

help:
	@echo "make demo    train a GAN on real digits, audit it, write its report (about two minutes on 2 cores, after the install)"
	@echo "make test    lint, types, README's code, all tests (10 minutes on 2 cores)"
	@echo "make browser opens the report in headless Chromium (skipped where there is none)"
	@echo "make docs    these pages and the reference of the API as a site, in site/ (half a minute after the install)"
	@echo "make dist    wheel and sdist in dist/, each installed into an empty environment and tried (minutes; needs a network)"
	@echo "make papers  the page of the papers' claims, docs/papers.md, from the records in docs/papers"
	@echo "make bench   steps, audits and solvers against their rivals, interleaved; writes docs/bench.md (three quarters of an hour)"
	@echo "make faults  damaged files for every reader, and kills among several processes (five minutes)"
	@echo "make kill    at least 200 kills of a training process, each resumed and compared"
	@echo "make mutants faults planted in the mathematics one at a time: do the tests notice? (hours; goes on where it stopped)"
	@echo "make house   sizes, circles and private imports of the source, counted"
	@echo "make clean   remove the environment, the demo's run and the site"

$(VENV)/user: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "equilibrist needs Python 3.11 or newer: PYTHON=python3.11 make ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/developer: $(VENV)/user
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/docs: $(VENV)/user
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

demo: $(VENV)/user
	@rm -rf $(RUN)
	$(BIN)/equilibrist run digits-sngan --dir $(RUN) --device cpu --threads 1 --audit
	@echo "Open it in a browser: $(CURDIR)/$(RUN)/report.html"

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not browser"

browser: $(VENV)/developer
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open it in a browser: $(CURDIR)/site/index.html"

dist: $(VENV)/developer
	$(BIN)/python benchmarks/distributions.py

lint: $(VENV)/developer
	$(BIN)/ruff check .

types: $(VENV)/developer
	$(BIN)/mypy

bench: $(VENV)/developer
	mkdir -p runs; rm -f runs/bench.jsonl
	export EQUILIBRIST_BENCH=runs/bench.jsonl; status=0; for one in compiled_steps training_step solver_steps public_solvers own_losses audit_spectrum audit_cost listening wiring_check convolutions start_time scale_curves gpu_steps; do $(BIN)/python benchmarks/$$one.py || status=1; done; $(BIN)/python benchmarks/bench_page.py runs/bench.jsonl; exit $$status

faults: $(VENV)/developer
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz_readers.py --inputs 100000
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rank_campaign.py --kills 10

kill: $(VENV)/developer
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kill_campaign.py --kills 200

mutants: $(VENV)/developer
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	$(BIN)/python benchmarks/mutants.py

house: $(VENV)/developer
	$(BIN)/python benchmarks/house.py

papers: $(VENV)/user
	$(BIN)/equilibrist papers report

clean:
	rm -rf $(VENV) runs/demo site
