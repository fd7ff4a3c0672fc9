"""Results that the configuration no longer asks for: which there are, and their removal.

A file of a result is known by the identity beside it, a log, a benchmark or a stamp by its place. Everything else was
written by somebody else and stays. Links are not followed, so nothing outside of the results is ever touched.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from volprompt.errors import VolpromptError
from volprompt.files import sha256_of
from volprompt.identity import Identity, identity_path, mark_pruned, read_identity
from volprompt.study.identities import Output, outputs
from volprompt.study.lock import lock_results
from volprompt.study.study import Study
from volprompt.words import at_most, plural

SHOWN = 10
UNASKED_PAGES = "pages that report.volumes does not ask for"
JOB = r"(?P<job>[^/]+/[^/]+/\d+)"
SHARD = r"(?P<job>\d+)"
# Places of results below the folder of results, and what lies there: of which stage it is, and of which job.
RESULTS = {
    "volumes": re.compile(rf"volumes/{SHARD}/.+"),
    "prompts": re.compile(rf"prompts/{SHARD}\.(parquet|json)"),
    "masks": re.compile(rf"masks/{JOB}/.+"),
    "scores": re.compile(rf"scores/{JOB}(_slices|_rounds)?\.(parquet|json)"),
    "volume_pages": re.compile(rf"report/volumes/{SHARD}/.+"),
}
SEARCHED = ("volumes/", "prompts/", "masks/", "scores/", "report/volumes/")
# The stage that each rule makes, by the folders of logs and benchmarks; and that of the stamps of checked headers.
STAGES = {
    "headers": "volumes",
    "convert": "volumes",
    "extract_prompts": "prompts",
    "segment": "masks",
    "score": "scores",
    "volume_pages": "volume_pages",
}
RECORDS = (
    re.compile(rf"(?P<what>logs)/(?P<rule>\w+)/({JOB}|(?P<shard>\d+))\.log"),
    re.compile(rf"(?P<what>benchmarks)/(?P<rule>\w+)/({JOB}|(?P<shard>\d+))\.jsonl"),
    re.compile(rf"\.(?P<what>stamps)/(?P<rule>\w+)/({JOB}|(?P<shard>\d+))"),
)
# Marks in a folder of results: Snakemake's, and what a write leaves that was broken off.
MARK = re.compile(r"\.snakemake_timestamp|\.part-[0-9a-f]{32}-.+")
IN_WORDS = {"volumes": "converted volumes", "volume_pages": "pages of volumes"}
KINDS = ("converted volumes", "prompts", "masks", "scores", "pages of volumes", "logs", "benchmarks", "stamps")


class CannotPrune(VolpromptError):
    """Results that are not there, cannot be held against a run, or cannot be removed."""


@dataclass(frozen=True)
class File:
    """A file below the results: its path from there, with slashes, and its size in bytes."""

    path: str
    bytes: int


@dataclass
class Leftovers:
    """What lies in a folder of results beside what the configuration asks for.

    files: those that can go, by what the configuration no longer has (`model sam1/vit_b`) and by what they are.
    pruned: folders in outputs that stay whose masks can go, by output.
    foreign: paths of files that were written by somebody else, or edited since they were made.
    links: paths of links, which are not followed.
    notes: volumes that are gone from shards that stay.
    """

    results: Path
    files: dict[str, dict[str, list[File]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    pruned: dict[Path, set[str]] = field(default_factory=lambda: defaultdict(set))
    foreign: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def all_files(self) -> list[File]:
        """Every file that can go, identities last in each folder: until then they say what lies beside them."""
        every = [file for kinds in self.files.values() for files in kinds.values() for file in files]
        return sorted(every, key=lambda file: file.path.endswith(".json"))


def require_results(study: Study) -> Path:
    """The folder of a study's results. Raises CannotPrune where it is not there."""
    results = Path(study.settings.results)
    if not results.is_dir():
        raise CannotPrune(f"{results}: there are no results; expected the folder that the configuration names")
    return results


@contextmanager
def held(results: Path) -> Iterator[None]:
    """Hold results against a run. Raises ResultsInUse, and CannotPrune where the file system has no locks."""
    lock = lock_results(results)
    if lock is None:
        raise CannotPrune(
            f"{results} cannot be locked, so that a run may be going on there; nothing was removed. Make sure that "
            "none is, and remove by hand what the command lists without --delete"
        )
    try:
        yield
    finally:
        lock.release()


def find_leftovers(study: Study) -> Leftovers:
    """Look through a study's results for what the configuration no longer asks for."""
    results = Path(study.settings.results)
    found = Leftovers(results)
    wanted = {output.name: output for output in outputs(study)}
    of_outputs: dict[str, list[File]] = defaultdict(list)
    for file in _files_below(results, "", found.links):
        if name := _output_of(file.path):
            of_outputs[name].append(file)
        elif record := _record_of(file.path):
            what, name = record
            if name not in wanted:
                found.files[_what_is_gone(study, name)][what].append(file)
        elif file.path.startswith(SEARCHED):
            found.foreign.append(file.path)
    for name, files in of_outputs.items():
        identity = read_identity(_path_of(results, name))
        if name not in wanted:
            if ours := _sort_out(found, files, name, identity):
                found.files[_what_is_gone(study, name)][_stage(name)] += ours
        elif identity is not None:
            _compare_parts(found, wanted[name], files, identity)
    return found


def _files_below(results: Path, folder: str, links: list[str]) -> Iterator[File]:
    """Every file below a folder of the results; a link is added to `links` where results lie, and not followed."""
    with os.scandir(results / folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{folder}{entry.name}"
            if entry.is_symlink():
                if f"{path}/".startswith(SEARCHED):
                    links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                yield from _files_below(results, f"{path}/", links)
            else:
                yield File(path, entry.stat(follow_symlinks=False).st_size)


def _output_of(path: str) -> str:
    """The name of the output that a file is part of by its place, as in `identities.Output`; empty if of none."""
    for stage, pattern in RESULTS.items():
        if match := pattern.fullmatch(path):
            return f"{stage}/{match['job']}"
    return ""


def _record_of(path: str) -> tuple[str, str] | None:
    """What a log, a benchmark or a stamp is, and of which output; None for any other file."""
    for pattern in RECORDS:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        stage = STAGES.get(match["rule"], match["rule"])
        if stage in RESULTS:
            return match["what"], f"{stage}/{match['job'] or match['shard']}"
    return None


def _path_of(results: Path, name: str) -> Path:
    """Where the output of a name lies."""
    stage, _, job = name.partition("/")
    if stage == "volume_pages":
        return results / "report" / "volumes" / job
    return results / (f"{name}.parquet" if stage in ("prompts", "scores") else name)


def _stage(name: str) -> str:
    stage = name.partition("/")[0]
    return IN_WORDS.get(stage, stage)


def _what_is_gone(study: Study, name: str) -> str:
    """What the configuration no longer has, so that an output of this name is not asked for."""
    _, *parts = name.split("/")
    if len(parts) == 3:
        experiment, model, _ = parts
        if experiment not in study.experiments:
            return f"experiment {experiment}"
        if model not in study.experiments[experiment].models:
            return f"model {experiment}/{model}"
    if parts[-1] not in study.shards:
        return f"shard {parts[-1]}"
    return UNASKED_PAGES


def _sort_out(found: Leftovers, files: Sequence[File], name: str, identity: Identity | None) -> list[File]:
    """Those of an output's files that its identity names and that nobody edited, with the identity itself and marks.

    The others become foreign.
    """
    path = identity_path(_path_of(found.results, name))
    ours = []
    for file in files:
        place = found.results / file.path
        mark = None if identity is None else identity.files.get(str(place.relative_to(path.parent)))
        made_here = mark is not None and mark.fits(place.stat(), partial(sha256_of, place))
        if made_here or MARK.fullmatch(place.name) or (identity is not None and place == path):
            ours.append(file)
        else:
            found.foreign.append(file.path)
    return ours


def _compare_parts(found: Leftovers, output: Output, files: Sequence[File], identity: Identity) -> None:
    """Add what an output that stays holds beside what is asked for: masks of schemes, and files of somebody else."""
    path = identity_path(output.path)
    stored, asked = (settings.get("schemes", {}).keys() for settings in (identity.settings, output.settings))
    of_schemes: dict[str, list[File]] = {scheme: [] for scheme in stored - asked if output.rule == "segment"}
    for file in files:
        name = str((found.results / file.path).relative_to(path.parent))
        if (part := name.partition("/")[0]) in of_schemes:
            of_schemes[part].append(file)
        elif not (name in identity.files or name == path.name or MARK.fullmatch(Path(name).name)):
            found.foreign.append(file.path)
    for scheme, masks in sorted(of_schemes.items()):
        if ours := _sort_out(found, masks, output.name, identity):
            found.pruned[output.path].add(scheme)
            found.files[f"scheme {output.path.parts[-3]}/{scheme}"]["masks"] += ours
    if output.rule == "convert":
        removed = sorted(identity.settings.get("volumes", {}).keys() - output.settings["volumes"].keys())
        found.notes += [f"{volume} (shard {output.path.name})" for volume in removed]


def remove(leftovers: Leftovers) -> None:
    """Remove the files that can go, and folders that are empty then. Schemes are noted in their outputs' identities.

    Raises CannotPrune with those that could not be removed, after all others were.
    """
    for output, schemes in leftovers.pruned.items():
        mark_pruned(output, schemes)
    folders: set[Path] = set()
    faults = []
    for file in leftovers.all_files():
        try:
            (leftovers.results / file.path).unlink(missing_ok=True)
            folders.update(Path(file.path).parents)
        except OSError as error:
            faults.append(f"{file.path} ({error.strerror})")
    for folder in sorted(folders - {Path(".")}, reverse=True):
        with suppress(OSError):  # it holds something
            (leftovers.results / folder).rmdir()
    if faults:
        listed = "\n".join(_listed("These could not be removed, all others were:", faults)[1:])
        raise CannotPrune(f"{leftovers.results}: {listed}\nGet the right to write there, and prune again")


def summary_lines(leftovers: Leftovers, study: Study) -> list[str]:
    """What can go, by what the configuration no longer has, with sizes and a total; then what stays."""
    rows = []
    for gone, kinds in leftovers.files.items():
        files = [file for of_kind in kinds.values() for file in of_kind]
        rows.append((files, f"{gone}: {', '.join(sorted(kinds, key=KINDS.index))}"))
    lines = [f"{leftovers.results}: found what the configuration no longer has", ""]
    rows.sort(key=lambda row: -sum(file.bytes for file in row[0]))
    every = leftovers.all_files()
    for files, text in [*rows, (every, "in total")]:
        lines.append(
            f"  {size_in_words(sum(file.bytes for file in files)):>9}  {plural(len(files), 'file'):>12}  {text}"
        )
    if not every:
        lines = [f"{leftovers.results}: holds nothing that the configuration no longer has"]
    lines += _listed("Written by somebody else, or edited since; they stay:", leftovers.foreign)
    lines += _listed("Links, which are not followed:", leftovers.links)
    lines += _listed(
        "Volumes that are gone from a shard that stays; a run makes it again without them:", leftovers.notes
    )
    still = still_in_the_last_run(leftovers, study)
    return lines + _listed(
        "The last run still had these. If you did not take them out, a file behind --configfile is missing:", still
    )


def still_in_the_last_run(leftovers: Leftovers, study: Study) -> list[str]:
    """Of what the configuration no longer has, that which the effective configuration of the last run has.

    Of a shard this is not known: it counts where the last run had another sample sheet or another number of shards.
    """
    settings = study.settings
    try:
        last = yaml.safe_load((leftovers.results / "config.yaml").read_text(encoding="utf-8"))
        experiments: Mapping[str, Any] = last["experiments"]
        known = {f"experiment {name}" for name in experiments}
        for name, parts in experiments.items():
            known |= {f"model {name}/{model}" for model in parts["models"]}
            known |= {f"scheme {name}/{scheme}" for scheme in parts["schemes"]}
        if (last["volumes"], last["shards"]) != (settings.volumes, settings.shards):
            known |= {gone for gone in leftovers.files if gone.startswith("shard ")}
        if last["report"]["volumes"] == "all":
            known.add(UNASKED_PAGES)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return []
    return [gone for gone in leftovers.files if gone in known]


def _listed(title: str, names: Sequence[str]) -> list[str]:
    return ["", title, *(f"  - {name}" for name in at_most(names, SHOWN))] if names else []


def size_in_words(number: float) -> str:
    """A number of bytes as a person reads it: `812 bytes`, `3.1 kB`, `12.3 GB`."""
    if number < 1000:
        return f"{number:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 1000:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"
