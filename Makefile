# With only Python >= 3.11, pip and make: `make demo` shows the kit at work, `make test` runs every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev,quant,detection
STAMP := $(VENV)/.ftkit-ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lab docs export pages readme clean zoo bench test-floor test-colab

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## ?/  make \1\t/' | expand -t 22

setup: $(STAMP)  ## make .venv with the tested versions (once)

$(STAMP): settings.ini setup.py $(CONSTRAINTS)
	@$(PYTHON) tools/announce.py $(VENV)
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -e ".[$(EXTRAS)]" -c $(CONSTRAINTS)
	@touch $@

demo: setup      ## fine-tune bert-mini five ways: a table and a picture
	@$(BIN)/ftkit demo $(ARGS)

test: setup      ## every test: the pages by nbdev's rules, then pytest
	@failed=; \
	$(RUN) tools/pages.py test || failed="the pages"; \
	$(RUN) -m pytest tests -q -ra -p no:cacheprovider --durations=5 $(ARGS) || failed="$$failed pytest"; \
	if [ -n "$$failed" ]; then echo "FAILED: $$failed"; exit 1; fi

lab: setup       ## JupyterLab on the first page
	@$(BIN)/jupyter lab nbs/start/10_quickstart.ipynb

docs: setup      ## the docs: checked, and rendered to _docs/ where Quarto is installed
	@$(RUN) tools/docs.py --build

export: setup    ## write ftkit/ from the notebooks
	@$(BIN)/nbdev_export

pages: setup     ## run the pages in place and keep their outputs (NBS="nbs/10_core.ipynb" for some)
	@$(RUN) tools/pages.py run $(NBS)

readme: setup    ## write README.md from nbs/index.ipynb
	@$(RUN) tools/readme.py

clean: setup     ## clean the notebooks' metadata, and remove what was built
	@$(BIN)/nbdev_clean
	@rm -rf _proc _docs _site .quarto build dist nbs/nbdev.yml

zoo: setup       ## make the bundled checkpoints again (hours on a CPU, minutes on a GPU)
	@$(RUN) tools/pages.py run nbs/zoo --flags "slow gpu net"

bench: setup     ## measure whole jobs against Trainer with peft (hours; ARGS="--repeats 1" for less)
	@$(RUN) tools/bench $(ARGS)

test-floor:      ## every test on the oldest versions that are promised, in .venv-floor
	@$(MAKE) test VENV=.venv-floor CONSTRAINTS=constraints-floor.txt EXTRAS=dev,detection

test-colab:      ## every test on what Colab preinstalls, in .venv-colab
	@$(MAKE) test VENV=.venv-colab CONSTRAINTS=constraints-colab.txt EXTRAS=dev,detection
