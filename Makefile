# make run        the whole study on embedded defaults; MODEL=DIR-OR-HUB-ID and CORPUS=DIR choose others
# make test       the tests; make test-slow the longer ones (processes, browser, wheel); make test-deep full sizes
# make bench      training beside other trainers (up to 25 minutes); CORPUS=DIR names the transcripts
# make install    their shared part; TORCH="torch==…" chooses another build

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A choice of torch is remembered until another one is named (TORCH= goes back to the pinned one).
CHOICE := $(VENV)/.torch
TORCH ?= $(shell cat $(CHOICE) 2>/dev/null)
MODEL ?=
CORPUS ?=
ARGS ?=

.PHONY: install run test test-slow test-deep bench lint types clean FORCE
.DEFAULT_GOAL := install

STAMP := $(VENV)/.installed

install: $(STAMP)

$(CHOICE): FORCE
	@mkdir -p $(VENV)
	@[ -e $@ ] && [ "$$(cat $@)" = "$(TORCH)" ] || printf '%s' "$(TORCH)" > $@

$(STAMP): setup.py pyproject.toml constraints.txt $(CHOICE)
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@sed "$(if $(TORCH),/^torch==/d;/^triton==/d)" constraints.txt > $(VENV)/constraints.txt
	@echo "Installing cbtrain and its dependencies into $(VENV) (a few minutes the first time) ..."
	$(BIN)/pip install --quiet --disable-pip-version-check $(or $(TORCH),torch) -c $(VENV)/constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]" -c $(VENV)/constraints.txt
	@touch $(STAMP)

run: install
	@$(BIN)/cbtrain run $(if $(MODEL),"model.path=$(MODEL)") $(if $(CORPUS),"corpus.path=$(CORPUS)") $(ARGS)

# A test process a core, one thread each: on few cores this takes half the time of one with all threads.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 8 ] && echo 8 || echo $$n)
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile

test: install
	@$(PYTEST) -m "not slow and not deep" --durations 10 $(ARGS)

test-slow: install
	@$(PYTEST) -m "slow and not deep" --durations 20 $(ARGS)

test-deep: install
	@$(PYTEST) -m "deep or hypothesis" --hypothesis-profile many --durations 20 $(ARGS)

bench: install
	@CORPUS="$(CORPUS)" $(BIN)/python launch/benchmark.py train $(ARGS)

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install
	@rm -rf build && $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/typecheck .
	@cp -r launch/benchmarks build/typecheck/
	@cd build/typecheck && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p cbtrain -p benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
