"""Whether a study holds: what its results were made from, their bytes, and what follows from them again."""

from __future__ import annotations

import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from volprompt.command import CONFIGURATION
from volprompt.errors import VolpromptError
from volprompt.files import read_table, sha256_of
from volprompt.identity import Identity, changed_files, identity_path
from volprompt.scores.shard import score_masks
from volprompt.study.identities import Ledger, Output, outputs, setting_differences
from volprompt.study.study import Study
from volprompt.tables.aggregate import aggregate
from volprompt.tables.design import TableDesign
from volprompt.volumes.images.sources import readable_sha256
from volprompt.words import at_most, plural

SHOWN = 5
# What rules make, in the words of people: those with many jobs, and those with one.
JOBS = {
    "convert": "converted volumes",
    "extract_prompts": "prompts",
    "segment": "masks",
    "score": "scores",
    "volume_pages": "pages of volumes",
}
SINGLE = {"aggregate": "tables", "report": "report", "all": "complete.txt"}


@dataclass
class Check:
    """One question to a study, and its answer.

    what: the things that were looked at, in the plural.
    note: what else a reader has to know.
    looked_at: how many things.
    faults: a text for each one that does not hold.
    """

    what: str
    note: str = ""
    looked_at: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, faults: Sequence[str]) -> None:
        """Count one more thing, with what is wrong with it."""
        self.looked_at += 1
        if faults:
            self.faults.append(f"{name}: {'; '.join(faults)}")


def made_and_missing(study: Study) -> tuple[list[Output], list[Output]]:
    """The results that were made, whatever is wrong with them now, and those that were not made yet."""
    made: list[Output] = []
    missing: list[Output] = []
    for output in outputs(study):
        there = output.path.exists() or identity_path(output.path).exists()
        (made if there else missing).append(output)
    return made, missing


def verify(
    study: Study, made: Sequence[Output], missing: Sequence[Output], sample: int | None, seed: int
) -> Iterator[Check]:
    """Ask everything that can be asked of the results that were made, the cheap questions first.

    made, missing: see `made_and_missing`; sample: how many volumes of models are scored again, drawn with this seed;
    None for all.
    """
    ledger = Ledger(study.memory)
    yield check_identities(made, ledger)
    yield check_files(made, ledger)
    yield check_sources(made, ledger)
    yield check_checkpoints(study, made, ledger)
    yield check_scores(study, made, ledger, sample, seed)
    yield check_tables(study, made, missing, ledger)


def check_identities(every: Sequence[Output], ledger: Ledger) -> Check:
    """Whether each result was made from what the configuration asks for."""
    check = Check("results made from what the configuration asks for")
    for output in every:
        check.add(output.name, ledger.faults(output))
    return check


def _with_identities(every: Sequence[Output], ledger: Ledger) -> Iterator[tuple[Output, Identity]]:
    """Give the results that have an identity; `check_identities` reports the others."""
    for output in every:
        identity = ledger.identity(output.path)
        if identity is not None:
            yield output, identity


def check_files(every: Sequence[Output], ledger: Ledger) -> Check:
    """Whether each file of the results has the bytes that were written, whatever its time of modification."""
    check = Check("files of results with the bytes that were written")
    for output, identity in _with_identities(every, ledger):
        faults = changed_files(identity, identity_path(output.path).parent, trust_times=False)
        check.looked_at += len(identity.files)
        check.faults += [f"{output.name}: {fault}" for fault in faults]
    return check


def check_sources(every: Sequence[Output], ledger: Ledger) -> Check:
    """Whether each image and reference has the bytes that were read."""
    check = Check("images and references with the bytes that were read")
    for output, identity in _with_identities(every, ledger):
        for name, source in output.sources.items():
            same = readable_sha256(source) == identity.made_from.get(name)
            check.add(name, [] if same else [f"{source} has other bytes"])
    return check


def check_checkpoints(study: Study, every: Sequence[Output], ledger: Ledger) -> Check:
    """Whether each checkpoint has the bytes that the masks were made with; one that is not there is left out."""
    check = Check("checkpoints with the bytes that the masks were made with")
    used: dict[str, set[str]] = defaultdict(set)
    for output, identity in _with_identities(every, ledger):
        if output.rule == "segment" and "checkpoint" in identity.settings:
            digest = identity.settings["checkpoint"].get("sha256")  # known once weights were loaded
            used[study.checkpoints[output.path.parent.name].file].update(filter(None, [digest]))
    for file, digests in used.items():
        if digests and Path(file).is_file():
            check.add(file, [] if digests == {sha256_of(file)} else ["it has other bytes"])
    return check


def _made_with_other_settings(output: Output, ledger: Ledger) -> bool:
    """Whether the settings differ that `check_identities` reports, so that what follows from them differs too."""
    identity = ledger.identity(output.path)
    return identity is not None and bool(setting_differences(output.rule, identity.settings, output.settings))


def check_scores(study: Study, every: Sequence[Output], ledger: Ledger, sample: int | None, seed: int) -> Check:
    """Whether masks and references give the scores that are stored, one volume of one model at a time.

    Scores that were made with other settings than asked for, or whose masks are missing, are left out.
    """
    pairs = [
        (output, str(volume))
        for output in every
        if output.rule == "score" and output.path.exists() and all(path.exists() for path in output.inputs.values())
        if not _made_with_other_settings(output, ledger)
        for volume in sorted({row.volume for row in study.shards[output.path.stem]})
    ]
    chosen = pairs if sample is None or sample >= len(pairs) else random.Random(seed).sample(pairs, sample)
    note = "" if len(chosen) == len(pairs) else f"a sample of {len(pairs)}; --all takes every one"
    check = Check("volumes of a model that are scored the same again", note)
    volumes_of: dict[Path, tuple[Output, list[str]]] = {}
    for output, volume in chosen:
        volumes_of.setdefault(output.path, (output, []))[1].append(volume)
    for output, volumes in volumes_of.values():
        for volume, fault in _score_again(output, volumes).items():
            check.add(f"{output.name}, volume {volume}", fault)
    return check


def _score_again(output: Output, volumes: Sequence[str]) -> dict[str, list[str]]:
    """What differs between stored and repeated tables of scores, slices and rounds, by volume."""
    experiment, model = output.path.parts[-3:-1]
    schemes, labels = output.settings["schemes"], output.settings["structures"]
    surfaces = output.settings["scores"]
    try:
        stored = [read_table(path) for path in score_tables(output.path)]
        again = score_masks(
            output.inputs["volumes"],
            output.inputs["masks"],
            (experiment, model),
            schemes,
            labels,
            surfaces["surface_tolerance_mm"],
            ignored=output.settings.get("ignored", ()),
            border=surfaces["border"],
            only=volumes,
        )
    except (VolpromptError, OSError, KeyError, ValueError) as error:
        return {volume: [str(error)] for volume in volumes}
    faults: dict[str, list[str]] = {volume: [] for volume in volumes}
    for before, now, place in zip(stored, again, ([], ["slice"], ["round"]), strict=True):
        wanted = before[before["scheme"].isin(list(schemes))]
        keys = ["volume", "scheme", "structure", *place]
        for volume in volumes:
            tables = [table[table["volume"] == volume].set_index(keys).sort_index() for table in (wanted, now)]
            faults[volume] += _different_cells(*tables)
    return faults


def score_tables(scores: Path) -> tuple[Path, Path, Path]:
    """The tables of scores, slices and rounds of a job. scores: the first of them, which stands for the job."""
    slices, rounds = (scores.with_name(f"{scores.stem}_{kind}.parquet") for kind in ("slices", "rounds"))
    return scores, slices, rounds


def _different_cells(stored: pd.DataFrame, again: pd.DataFrame) -> list[str]:
    """The first cell in which two tables of scores differ, as a text; none where they are equal."""
    if not stored.index.equals(again.index):
        of = f" by {again.index.names[-1]}"
        return [f"{len(stored)} rows{of} are stored, {len(again)} come out"]
    for column in again.columns:
        before, now = stored[column], again[column]
        unequal = ~((before == now).fillna(False) | (before.isna() & now.isna())).astype(bool)
        if unequal.any():
            place = unequal.idxmax()
            scheme, structure, *number = place[1:]
            where = "/".join([scheme, structure, *(f"{again.index.names[-1]} {part}" for part in number)])
            return [f"{column} of {where} is {before[place]}, and {now[place]} comes out"]
    return []


def check_tables(study: Study, made: Sequence[Output], missing: Sequence[Output], ledger: Ledger) -> Check:
    """Whether the stored scores give the tables that are stored.

    Not asked where scores or tables are missing, or where the tables were made with other settings than asked for.
    """
    check = Check("tables that follow from the scores")
    by_rule: dict[str, list[Output]] = defaultdict(list)
    for output in made:
        by_rule[output.rule].append(output)
    if {"convert", "segment", "score", "aggregate"} & {output.rule for output in missing}:
        check.note = "not compared: results are missing"
        return check
    (tables,) = by_rule["aggregate"]
    if _made_with_other_settings(tables, ledger):
        check.note = "not compared: they were made with other settings"
        return check
    scores, slices, rounds = zip(*(score_tables(output.path) for output in by_rule["score"]), strict=True)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder)
        try:
            aggregate(
                scores=scores,
                slices=slices,
                rounds=rounds,
                masks=[output.path for output in by_rule["segment"]],
                volumes=[output.path for output in by_rule["convert"]],
                design=TableDesign(**study.table_design),
                tables=again,
            )
        except (VolpromptError, OSError, KeyError, ValueError) as error:
            check.add("tables", [f"cannot be made again: {error}"])
            return check
        for path in sorted(path for path in again.iterdir() if path.name != "identity.json"):
            check.add(path.name, [] if _same_table(tables.path / path.name, path) else ["other values come out"])
    return check


def _same_table(stored: Path, again: Path) -> bool:
    if not stored.exists():
        return False
    if stored.suffix == ".parquet":
        return read_table(stored).equals(read_table(again))
    return stored.read_bytes() == again.read_bytes()


def missing_lines(
    study: Study, made: Sequence[Output], missing: Sequence[Output], configfiles: Sequence[str]
) -> list[str]:
    """Say that a study was not run yet, or not to its end, what is missing, and what to type.

    configfiles: those that the command was called with.
    """
    files = "" if list(configfiles) == [CONFIGURATION] else f" --configfile {' '.join(configfiles)}"
    run = f"  snakemake --profile profiles/local{files}"
    results = study.settings.results
    if not made:
        return [
            f"{results}: this study has not been run yet (or with other files behind --configfile). To run it:",
            run,
        ]
    if {output.rule for output in missing} == {"all"}:
        return [
            f"{results}: too many volumes failed (see tables/failures.csv), or the run was stopped. To go on:",
            run,
            "",
        ]
    lacking, all_ = (Counter(output.rule for output in some) for some in (missing, [*made, *missing]))
    words = [f"{name} ({lacking[rule]} of {all_[rule]})" for rule, name in JOBS.items() if lacking[rule]]
    words += [name for rule, name in SINGLE.items() if lacking[rule]]
    return [f"{results}: this study is not finished. Missing: {', '.join(words)}. To go on:", run, ""]


def summary_lines(study: Study, checks: Sequence[Check]) -> list[str]:
    """What was looked at and what does not hold, in one screen."""
    volumes = sum(len(rows) for rows in study.shards.values())
    size = f"{plural(volumes, 'volume')}, {plural(len(study.configurations), 'configuration')}"
    lines = [f"{study.settings.results}: {size}", ""]
    counts = [f"{check.looked_at - len(check.faults)} of {check.looked_at}" for check in checks]
    width = max(len(count) for count in counts)
    for check, count in zip(checks, counts, strict=True):
        lines.append(f"  {count:>{width}}  {check.what}" + (f" ({check.note})" if check.note else ""))
        lines += [f"  {'':{width}}    - {fault}" for fault in at_most(check.faults, SHOWN)]
    faults = sum(len(check.faults) for check in checks)
    do_not_hold = f"{plural(faults, 'thing')} {'does' if faults == 1 else 'do'} not hold."
    lines += ["", do_not_hold if faults else "Everything that was looked at holds."]
    return [*lines, "The next run makes again what the first count lacks."] if checks[0].faults else lines
