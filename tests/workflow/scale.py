"""Time and memory of plans of large studies: `python tests/workflow/scale.py`. Its table stands in docs/cluster.md.

A plan reads the sample sheet and looks for files, and opens none of them: volumes, checkpoints and results are empty
files. Models, schemes and shards are those of config/config.yaml.
"""

from __future__ import annotations

import contextlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from volprompt.checkpoints.catalogue import read_catalogue
from volprompt.study.study import read_study

REPOSITORY = Path(__file__).parents[2]


def make_study(folder: Path, volumes: int, shards: int) -> None:
    """The paper's study with other numbers of volumes and shards."""
    settings = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    settings.update(results="results", checkpoints="checkpoints", volumes="volumes.tsv", clicks="clicks.csv")
    settings["shards"] = shards
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "data").mkdir()
    sheet, clicks = ["volume\timage\treference"], ["volume,structure,slice,x,y"]
    for number in range(volumes):
        name = f"knee_{number:04d}"
        files = [f"data/{name}_{kind}.nii.gz" for kind in ("image", "labels")]
        for file in files:
            (folder / file).touch()
        sheet.append("\t".join([name, *files]))
        clicks.append(f"{name},patella,80,190,120")
    (folder / "volumes.tsv").write_text("\n".join(sheet) + "\n")
    (folder / "clicks.csv").write_text("\n".join(clicks) + "\n")


def make_results() -> None:
    """Empty results of the study in the working directory, in the order in which the stages would write them."""
    settings = yaml.safe_load(Path("config.yaml").read_text())
    study = read_study(settings, read_catalogue(REPOSITORY / "config" / "checkpoints.yaml"))
    results = Path("results")
    jobs = [(e, m, s) for e, parts in study.experiments.items() for m in parts.models for s in study.shards]
    typeset = [f"{table}.{end}" for table in ("medians", "comparisons") for end in ("csv", "parquet", "md", "tex")]
    tables = ["scores.parquet", *typeset, "ranks.csv", "decay.csv", "propagation.csv", "cost.csv", "failures.csv"]
    for stage in (
        [Path(checkpoint.file) for checkpoint in study.checkpoints.values()],
        [results / "volumes" / shard / "volumes.parquet" for shard in study.shards],
        [results / "prompts" / f"{shard}.parquet" for shard in study.shards],
        [results.joinpath("masks", *job, "run.parquet") for job in jobs],
        [results.joinpath("scores", e, m, s + end) for e, m, s in jobs for end in (".parquet", "_slices.parquet")],
        [results / "tables" / name for name in tables],
        [results / "report" / "index.html", results / "report" / "figures" / "cost.svg"],
        [results / "complete.txt"],
    ):
        time.sleep(0.05)
        for file in stage:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def plan(folder: Path, *arguments: str) -> tuple[str, float]:
    """What a run prints, and its seconds."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--profile"]
    command += [str(REPOSITORY / "profiles" / "local"), "--configfile", "config.yaml", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout + done.stderr, seconds


def main() -> None:
    print("| volumes | shards | jobs | dry run | plan without a change | memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for volumes, shards in ((488, 16), (4880, 16), (4880, 160)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_study(folder, volumes, shards)
            fresh, first = plan(folder, "--dry-run", "--quiet", "reason")
            with contextlib.chdir(folder):
                make_results()
            plan(folder, "--touch", "--cores", "1")
            unchanged, second = plan(folder, "--dry-run")
            assert "Nothing to be done" in unchanged, unchanged[-3000:]
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            jobs = re.findall(r"^total +(\d+)$", fresh, re.MULTILINE)[0]
            print(f"| {volumes} | {shards} | {jobs} | {first:.1f} s | {second:.1f} s | {memory:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
