# Every target sets up what it needs: .venv holds exactly what requirements.lock says (skipped when nothing changed).
PYTHON ?= python3
BIN := .venv/bin
export PYTHONNOUSERSITE := 1

.DEFAULT_GOAL := help
.PHONY: help setup book html test lint run bench sync readme lock clean

help:  ## show this list
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):[^#]*## /  make \1|/' \
	  | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup:  ## make or mend .venv (the other targets do it by themselves)
	@$(PYTHON) tools/setup_env.py

book: setup  ## run the chapters at quick scale and build the book into _build/html
	@$(BIN)/python tools/build_book.py book

html: setup  ## build the book from the committed outputs, running nothing
	@$(BIN)/python tools/build_book.py html

test: setup  ## run every test
	@$(BIN)/python -m pytest $(ARGS)

lint: setup  ## check style and the pairing of the chapters' two files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tools/build_book.py check

# full scale where chapters/params/ says what that is; ARGS come later and win
run: setup  ## run one chapter at full scale: make run CHAPTER=stripe [ARGS="-p d 10"]
	@test -n "$(CHAPTER)" || { echo 'run: expected a chapter, got none; for example: make run CHAPTER=stripe' >&2; exit 2; }
	@$(BIN)/python -m geocompress run $(CHAPTER) \
	  $(addprefix -f ,$(wildcard chapters/params/$(CHAPTER)-paper.yaml)) $(ARGS)

bench: setup  ## run the short benchmarks, nothing beside them: make bench [ARGS=--full]
	@cd bench && for script in [!_.]*.py; do test $$script = common.py || ../$(BIN)/python $$script $(ARGS) || exit 1; done

sync: setup  ## run the chapters and rewrite the committed notebooks (the only target that does)
	@$(BIN)/python tools/build_book.py sync $(CHAPTER)

readme: book  ## draw the README's figure from the published rows and write its table of figures and seconds
	@$(BIN)/python tools/readme.py

lock: setup  ## choose the newest allowed versions again and write requirements.lock
	@{ echo '# Exact versions and hashes for Python 3.11 to 3.13 on any system; written by `make lock`, not by hand.'; \
	  UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --all-extras --no-header --upgrade pyproject.toml; } > requirements.lock.tmp \
	&& mv requirements.lock.tmp requirements.lock

clean:  ## remove what was built (.venv and published results stay)
	rm -rf _build
