# Every target sets itself up from nothing: all that has to be there is Python 3.11 or newer.
PYTHON ?= python3
SNAKEMAKE = .venv/bin/snakemake --profile profiles/local

.PHONY: help demo test test-all clicks slurm-test bench lint format lock schema pictures rulegraph clean
.DEFAULT_GOAL := help

help: ## this list
	@echo "volprompt: make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "A study of your own runs with $(SNAKEMAKE); see README.md."

# The main job on the embedded default: synthetic knees, small models, every scheme, the report.
demo: .venv/ready demo/volumes/volumes.tsv ## the whole workflow on four synthetic knees and two small models
	@$(SNAKEMAKE) --configfile config/demo.yaml
	@echo
	@grep '^|' results/demo/tables/medians.md
	@echo
	@$(call link,results/demo/report/index.html)

# One process per core; the one that is done first takes over tests of the others.
PYTEST = .venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test: .venv/ready ## the tests, without those that take long
	@$(PYTEST) -m "not slow"

# Simulations and fuzz runs in full; with VOLPROMPT_TEST_ROUNDS=0.05 a twentieth of their rounds.
test-all: .venv/ready ## all tests, simulations and fuzz runs included
	@$(PYTEST)

# make clicks CONFIG=config/mine.yaml ARGS="--structures patella"
CONFIG ?= config/config.yaml
clicks: .venv/ready $(if $(filter config/demo.yaml,$(CONFIG)),demo/volumes/volumes.tsv) ## a page in the browser that collects a study's clicks (CONFIG=..., ARGS=...)
	@.venv/bin/volprompt clicks collect --configfile $(CONFIG) $(ARGS)

slurm-test: .venv/ready ## the tests on a Slurm of two nodes, on this machine; as root, installs Slurm with apt
	@.venv/bin/python -m pytest tests/slurm

bench: .venv/ready ## the packages' own predictors against volprompt; some minutes (benchmarks/README.md)
	.venv/bin/python benchmarks/compare.py
	.venv/bin/python benchmarks/ablation.py
	.venv/bin/python benchmarks/growth.py
	.venv/bin/python benchmarks/utilisation.py
	.venv/bin/python benchmarks/summary.py

lint: .venv/ready ## ruff, mypy, snakefmt and Snakemake's lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/snakefmt --check Snakefile rules workflow/Snakefile
	.venv/bin/snakemake --lint --directory .test
	.venv/bin/snakemake --lint --directory .test --snakefile workflow/Snakefile

format: .venv/ready ## format all code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/snakefmt Snakefile rules workflow/Snakefile

lock: .venv/uv ## requirements.lock, after a change of pyproject.toml's dependencies
	.venv/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev pyproject.toml --output-file requirements.lock

schema: .venv/ready ## the configuration's schema, after a change of its types
	.venv/bin/volprompt schema > config/schema/config.schema.json

pictures: demo ## the documents' pictures, from the demo; needs Chromium
	.venv/bin/python docs/gallery.py
	.venv/bin/python docs/pictures.py

# As the Snakemake workflow catalog asks for it; .test has a configuration for that.
rulegraph: .venv/ready ## docs/rulegraph.svg, after a change of rules; needs `dot` (apt install graphviz)
	.venv/bin/snakemake --directory .test --forceall --rulegraph | dot -Tsvg -Grankdir=LR -o docs/rulegraph.svg

clean: ## remove the demo's volumes and results, and Snakemake's records
	rm -rf results/demo demo/volumes .snakemake

demo/volumes/volumes.tsv: .venv/ready
	@echo "Making four synthetic knees in demo/volumes"
	@.venv/bin/volprompt phantom demo/volumes --count 4 --first-seed 100 --shape 40 96 96 --spacing 2.8 1.46 1.46 > /dev/null

# The environment: exactly requirements.lock, installed by a uv of its own, then this package and its console for
# Snakemake, which the lock does not name and `sync` would remove. uv builds them by itself, so nothing is fetched for them.
# Compiled here, once: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every start of Python would compile what
# it imports again, and take three times as long.
.venv/ready: requirements.lock pyproject.toml console/pyproject.toml .venv/uv
	@.venv/uv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python requirements.lock
	@.venv/uv/bin/uv pip install --quiet --offline --no-deps --python .venv/bin/python --editable . --editable console
	@touch $@

.venv/uv:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; found ' + sys.version + '. Set PYTHON=/path/to/python3.11')"
	@echo "Setting up the environment in .venv: about 7 GB, 1 to 5 minutes"
	@$(PYTHON) -m venv --without-pip .venv
	@$(PYTHON) -m venv .venv/uv
	@.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

# A path as an address that a terminal makes clickable.
link = .venv/bin/python -c "import pathlib, sys; print('The report is', pathlib.Path(sys.argv[1]).resolve().as_uri())" $(1)
