# Every target sets itself up from nothing: all that has to be there is Python 3.11 or newer.
PYTHON ?= python3
SNAKEMAKE = .venv/bin/snakemake --profile profiles/local
export PYTHONPATH := workflow/scripts

.PHONY: demo test clicks slurm-test bench lint format lock schema gallery clean

# The main job on the embedded default: synthetic knees, small models, every scheme, the report.
demo: .venv/ready demo/volumes/volumes.tsv
	$(SNAKEMAKE) --configfile config/demo.yaml
	@echo
	@cat results/demo/tables/medians.md
	@echo "The report is results/demo/report/index.html"

test: .venv/ready
	.venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# A page in the browser that collects the clicks of a study: make clicks CONFIG=config/mine.yaml ARGS="--structures patella"
CONFIG ?= config/config.yaml
clicks: .venv/ready $(if $(filter config/demo.yaml,$(CONFIG)),demo/volumes/volumes.tsv)
	.venv/bin/python -m volprompt.clicks collect --configfile $(CONFIG) $(ARGS)

# The workflow on a real Slurm of two nodes with two fake GPUs each, on this machine. Needs root; installs Slurm with apt.
slurm-test: .venv/ready
	.venv/bin/python -m pytest tests/slurm

# The packages' own predictors against volprompt, on the demo's models (benchmarks/README.md); some minutes.
bench: .venv/ready
	.venv/bin/python benchmarks/compare.py
	.venv/bin/python benchmarks/ablation.py
	.venv/bin/python benchmarks/growth.py
	.venv/bin/python benchmarks/utilisation.py

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/snakefmt --check Snakefile rules workflow/Snakefile
	.venv/bin/snakemake --lint --configfile tests/workflow/lint.yaml
	.venv/bin/snakemake --lint --snakefile workflow/Snakefile --configfile tests/workflow/lint.yaml

format: .venv/ready
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/snakefmt Snakefile rules workflow/Snakefile

# After a change of pyproject.toml's dependencies, or of the configuration's types.
lock: .venv/uv
	.venv/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev pyproject.toml --output-file requirements.lock

schema: .venv/ready
	.venv/bin/python -c "from volprompt.config import json_schema; print(json_schema(), end='')" > config/schema/config.schema.json

# The README's drawings of schemes and their prompts.
gallery: .venv/ready
	.venv/bin/python docs/gallery.py

clean:
	rm -rf results/demo demo/volumes .snakemake

demo/volumes/volumes.tsv: .venv/ready
	.venv/bin/python -m volprompt.phantom demo/volumes --count 4 --first-seed 100 --shape 40 96 96 --spacing 2.8 1.46 1.46

# The environment: exactly requirements.lock, installed by a uv of its own. Compiled here, once: otherwise every start of
# Python does it again wherever PYTHONDONTWRITEBYTECODE is set, as in many containers, and takes three times as long.
.venv/ready: requirements.lock .venv/uv
	.venv/uv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python requirements.lock
	@touch $@

.venv/uv:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; found ' + sys.version + '. Set PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
