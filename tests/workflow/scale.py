"""Time and memory of plans of large studies: `python tests/workflow/scale.py`. Its table stands in docs/cluster.md.

A plan reads the sample sheet and the identities of results, and looks for files without opening them: volumes,
checkpoints and results are empty files. Models, schemes and shards are those of config/config.yaml.
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
from volprompt.files import sha256_of
from volprompt.identity import identity_path, read_identity, signature_of, write_identity
from volprompt.segmentation.masks import mask_path
from volprompt.study.identities import Output, outputs
from volprompt.study.study import Study, read_study
from volprompt.volumes.images.sources import signature_of_source

REPOSITORY = Path(__file__).parents[2]
CATALOGUE = REPOSITORY / "config" / "checkpoints.yaml"
FRAMES = ("frames.nii", "reference.nii.gz")


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
    """Results of the study in the working directory with their identities: empty files, as many as in earnest."""
    config, catalogue = yaml.safe_load(Path("config.yaml").read_text()), read_catalogue(CATALOGUE)
    study = read_study(config, catalogue)
    for checkpoint in study.checkpoints.values():
        file = Path(checkpoint.file)
        file.parent.mkdir(exist_ok=True)
        file.touch()
        study.memory.digest(
            str(file.resolve()), signature_of([file], file.parent), lambda name=file.name: catalogue[name].sha256
        )
    study.memory.save()
    for output in outputs(study):
        for file in files_of(study, output):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        made_from = {name: read_identity(path).digest for name, path in output.inputs.items()}
        made_from |= {name: sha256_of(path) for name, path in output.sources.items()}
        signatures = {name: signature_of_source(path) for name, path in output.sources.items()}
        written = [path for path in files_of(study, output) if identity_path(output.path).parent in path.parents]
        write_identity(output.path, output.settings, made_from, written, signatures)


def files_of(study: Study, output: Output) -> list[Path]:
    """What a job writes, without its identity."""
    path = output.path
    names = [row.volume for row in study.shards.get(path.stem, ())]
    if output.rule == "convert":
        return [path / "volumes.parquet", *(path / f"{name}_{kind}" for name in names for kind in FRAMES)]
    if output.rule == "segment":
        schemes, structures = study.experiments[path.parts[-3]].schemes, study.scored_structures
        masks = [mask_path(path, scheme, name, key) for scheme in schemes for name in names for key in structures]
        return [path / "run.parquet", *masks]
    if output.rule == "score":
        return [path, path.with_name(f"{path.stem}_slices.parquet")]
    if output.rule == "aggregate":
        typeset = [f"{table}.{end}" for table in ("medians", "comparisons") for end in ("csv", "parquet", "md", "tex")]
        plain = ["scores.parquet", "ranks.csv", "decay.csv", "agreement.csv", "acceptable.csv", "propagation.csv"]
        plain += ["cost.csv", "failures.csv"]
        return [path / name for name in (*plain, *typeset)]
    if output.rule == "report":
        return [path / "index.html", path / "figures" / "cost.svg", path.parent / "config.yaml"]
    return [path]


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
