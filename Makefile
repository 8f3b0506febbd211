# Needs only Python >= 3.11, pip and make: `make demo` runs an example, `make test` runs every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev,quant,detection
STAMP := $(VENV)/.ftkit-ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-all mutations lab docs export format pages readme student address hooks clean zoo bench evidence test-floor test-colab test-newest

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## ?/  make \1\t/' | expand -t 22

setup: $(STAMP)  ## create .venv with the tested versions (once)

$(STAMP): settings.ini setup.py $(CONSTRAINTS)
	@$(PYTHON) tools/announce.py $(VENV)
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -e ".[$(EXTRAS)]" -c $(CONSTRAINTS)
	@touch $@

demo: setup      ## fine-tune bert-mini with five methods: a table and a figure
	@$(BIN)/ftkit demo $(ARGS)

PYTEST = $(RUN) -m pytest tests -q -ra -p no:cacheprovider $(ARGS)

test: setup      ## every page with nbdev's rules, then pytest with a sample of the large sweeps
	@failed=; \
	$(RUN) tools/pages.py test || failed="the pages"; \
	$(PYTEST) --durations=5 || failed="$$failed pytest"; \
	if [ -n "$$failed" ]; then echo "FAILED: $$failed"; exit 1; fi

test-fast: setup ## the form of the pages, the public API, and the loop: a minute or two, for development
	@failed=; \
	$(RUN) tools/pages.py test nbs/training/20_checkpointing.ipynb nbs/training/10_learner.ipynb || failed="the pages"; \
	$(PYTEST) -m fast || failed="$$failed pytest"; \
	if [ -n "$$failed" ]; then echo "FAILED: $$failed"; exit 1; fi

test-all: setup  ## every case of every sweep, mutation tests, and the other versions (an hour or more)
	@failed=; \
	$(MAKE) test ARGS="--all $(ARGS)" || failed="test"; \
	for more in mutations test-floor test-colab test-newest; do $(MAKE) $$more || failed="$$failed $$more"; done; \
	if [ -n "$$failed" ]; then echo "FAILED: $$failed"; exit 1; fi

mutations: setup ## mutation testing: insert faults into a copy of the package; the tests must detect each
	@$(RUN) tools/mutations.py

lab: setup       ## open JupyterLab on the first page
	@$(BIN)/jupyter lab nbs/start/10_quickstart.ipynb

docs: setup      ## check the docs, and render them to _docs/ if Quarto is installed
	@$(RUN) tools/docs.py --build

export: setup    ## write ftkit/ from the notebooks
	@$(BIN)/nbdev_export
	@$(BIN)/ruff format --quiet ftkit

format: setup    ## run ruff on notebooks, modules, tests and tools
	@$(BIN)/ruff check --fix --quiet nbs tests tools setup.py
	@$(RUN) tools/format.py

pages: setup     ## run the pages in place and save their outputs (NBS="nbs/training/10_learner.ipynb" for some)
	@$(RUN) tools/pages.py run $(NBS)

readme: setup    ## write README.md from nbs/index.ipynb
	@$(RUN) tools/readme.py

address: setup   ## update the repository's address (git_url in settings.ini) in all files
	@$(RUN) tools/address.py
	@$(MAKE) --no-print-directory export

student: setup   ## write the student edition to student/: all pages, without hints and answers
	@$(RUN) tools/student.py $(ARGS)

hooks: setup     ## once per clone: install hooks so that git and Jupyter clean notebooks
	@$(BIN)/nbdev_install_hooks

clean: setup     ## clean the notebooks' metadata, and remove build outputs
	@$(BIN)/nbdev_clean
	@rm -rf _proc _docs _site .quarto build dist nbs/nbdev.yml

zoo: setup       ## rebuild the bundled checkpoints (hours on a CPU, minutes on a GPU)
	@$(RUN) tools/pages.py run nbs/zoo --flags "slow gpu net"

bench: setup     ## measure complete jobs against Trainer with peft (hours; ARGS="--repeats 1" for less)
	@$(RUN) tools/bench jobs $(ARGS)

evidence: setup  ## repeat a measurement that pages cite (NAME=methods), or list them
	@$(RUN) tools/bench $(or $(NAME),--list) $(ARGS)

test-floor:      ## every test on the oldest supported versions, in .venv-floor
	@$(MAKE) test VENV=.venv-floor CONSTRAINTS=constraints-floor.txt EXTRAS=dev,detection

test-colab:      ## every test on the versions that Colab preinstalls, in .venv-colab
	@$(MAKE) test VENV=.venv-colab CONSTRAINTS=constraints-colab.txt EXTRAS=dev,detection

test-newest:     ## every test on the newest versions, in .venv-newest (PYTHON=python3.13: numpy 2.5 needs 3.12)
	@$(MAKE) test VENV=.venv-newest CONSTRAINTS=constraints-newest.txt EXTRAS=dev,detection
