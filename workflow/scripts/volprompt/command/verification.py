"""Whether a finished study holds: what its results were made from, their bytes, and what follows from them again."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from volprompt.errors import VolpromptError
from volprompt.files import read_table, sha256_of
from volprompt.identity import Identity, changed_files, identity_path
from volprompt.scores.shard import score_masks
from volprompt.study.identities import Ledger, Output, outputs
from volprompt.study.study import Study
from volprompt.tables.aggregate import aggregate
from volprompt.tables.design import TableDesign
from volprompt.volumes.images.sources import readable_sha256

SHOWN = 5


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


def verify(study: Study, sample: int | None, seed: int) -> Iterator[Check]:
    """Ask everything that can be asked of a finished study, the cheap questions first.

    sample: how many volumes of models are scored again, drawn with this seed; None for all.
    """
    every = list(outputs(study))
    ledger = Ledger(study.memory)
    yield check_identities(every, ledger)
    yield check_files(every, ledger)
    yield check_sources(every, ledger)
    yield check_checkpoints(study, every, ledger)
    yield check_scores(study, every, sample, seed)
    yield check_tables(study, every)


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


def check_scores(study: Study, every: Sequence[Output], sample: int | None, seed: int) -> Check:
    """Whether masks and references give the scores that are stored, one volume of one model at a time."""
    pairs = [
        (output, str(volume))
        for output in every
        if output.rule == "score" and output.path.exists()
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


def check_tables(study: Study, every: Sequence[Output]) -> Check:
    """Whether the stored scores give the tables that are stored."""
    check = Check("tables that follow from the scores")
    by_rule: dict[str, list[Output]] = defaultdict(list)
    for output in every:
        by_rule[output.rule].append(output)
    (tables,) = by_rule["aggregate"]
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


def summary_lines(study: Study, checks: Sequence[Check]) -> list[str]:
    """What was looked at and what does not hold, in one screen."""
    volumes = sum(len(rows) for rows in study.shards.values())
    lines = [f"{study.settings.results}: {volumes} volumes, {len(study.configurations)} configurations", ""]
    counts = [f"{check.looked_at - len(check.faults)} of {check.looked_at}" for check in checks]
    width = max(len(count) for count in counts)
    for check, count in zip(checks, counts, strict=True):
        lines.append(f"  {count:>{width}}  {check.what}" + (f" ({check.note})" if check.note else ""))
        lines += [f"  {'':{width}}    - {fault}" for fault in check.faults[:SHOWN]]
        if len(check.faults) > SHOWN:
            lines.append(f"  {'':{width}}    - and {len(check.faults) - SHOWN} more")
    faults = sum(len(check.faults) for check in checks)
    return [*lines, "", "Everything that was looked at holds." if not faults else f"{faults} things do not hold."]
