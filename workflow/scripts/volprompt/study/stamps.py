"""Stamps tell Snakemake which outputs are not what the configuration asks for.

Each job has a stamp among its inputs. Planning gives the stamp of an output that has to be made again the present time,
and every other stamp a time long past. So the decision is ours, whatever became of Snakemake's own records, and its
edges, targets and flags mean what they always do. An output is newer than its stamp where it was just edited, or where
it lies in the future; it is made older then. A stamp in the future would not do: Snakemake ends a run in which a job's
output is older than an input.

The stamp of a shard that has to be converted comes from the check of headers instead, which has a stamp in its turn. So
conversions wait for the check, and it is a job only where there is one to wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from volprompt.errors import VolpromptError
from volprompt.files import atomic
from volprompt.logs import NOTICE, logger
from volprompt.study.identities import Ledger, Output, outputs
from volprompt.study.study import Study
from volprompt.words import at_most

FOLDER = ".stamps"
UNCHECKED = "headers"  # in this folder: stamps of the stamps that the check of headers makes
# Seconds since 1970: older than any output.
LONG_PAST = 1
# Seconds by which an input has to be newer than an output on every file system.
APART = 2
SHOWN = 10


class UnwritableResults(VolpromptError):
    """A folder of results in which nothing can be noted."""


class FutureInputs(VolpromptError):
    """Images, references or checkpoints that were changed later than now."""


def stamp_of(study: Study, output: Output) -> Path:
    """Where the stamp of an output lies."""
    return Path(study.settings.results) / FOLDER / output.name


def compare(study: Study) -> Iterator[tuple[Output, list[str]]]:
    """Each output of the study with its faults, see `Ledger.faults`; digests that were computed are remembered."""
    ledger = Ledger(study.memory)
    for output in outputs(study):
        yield output, ledger.faults(output)
    study.memory.save()


def write_stamps(study: Study) -> list[str]:
    """Compare every output with what the configuration asks for, set its stamp, and log what is made again and why.

    Returns the names of the shards that have to be converted. Raises UnwritableResults and FutureInputs.
    """
    again: list[str] = []
    to_convert: list[str] = []
    needed: list[str] = []
    renewed: set[str] = set()  # shards that are segmented again in any case
    for output, faults in compare(study):
        stamp = stamp_of(study, output)
        checked = faults and output.rule == "convert"
        # A run from which somebody left out the check converts all the same.
        write_stamp(stamp, output.path, faults, age=APART if checked else 0)
        if checked:
            shard = output.path.name
            to_convert.append(shard)
            write_stamp(Path(study.settings.results) / FOLDER / UNCHECKED / shard, stamp, faults)
        if faults or (output.rule == "segment" and output.path.name in renewed):
            needed += _files_from_outside(study, output)
        if faults and output.rule in ("convert", "extract_prompts"):
            renewed.add(output.path.stem)
        if faults and output.path.exists():
            again.append(f"{output.name}: {'; '.join(faults)}")
    if again:
        logger.log(NOTICE, "Results that are not what is asked for are made again:\n%s", _listed(again))
    _refuse_the_future(needed)
    return to_convert


def _files_from_outside(study: Study, output: Output) -> list[str]:
    """The files that a job reads and no job makes."""
    if output.rule == "convert":
        return study.sources(study.shards[output.path.name])
    if output.rule == "segment":
        return study.checkpoints[output.path.parent.name].files()
    return []


def _refuse_the_future(files: list[str]) -> None:
    """Snakemake fails a job whose inputs are newer than what it made, once its work is done. Raises FutureInputs."""
    now = time.time()
    times = {file: os.lstat(file).st_mtime for file in dict.fromkeys(files) if os.path.lexists(file)}
    if found := [f"{file}: {datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}" for file, at in times.items() if at > now]:
        raise FutureInputs(
            f"These were changed later than now ({datetime.fromtimestamp(now):%Y-%m-%d %H:%M:%S}), so that no result "
            f"would be newer. Give them the present time (`touch -h FILE`), set the clock, or wait.\n{_listed(found)}"
        )


def _listed(items: list[str]) -> str:
    return "\n".join(f"  - {item}" for item in at_most(items, SHOWN))


def write_stamp(stamp: Path, output: Path, faults: list[str], age: float = 0) -> None:
    """Make a stamp newer than its output, with the faults as its text, or old where there are none.

    age: of a new stamp in seconds. Raises UnwritableResults.
    """
    now = time.time()
    at = now - age
    newest = _no_newer_than(at - APART if faults else now, output)
    if not faults and stamp.exists() and stamp.stat().st_mtime == LONG_PAST:
        return
    try:
        with atomic(stamp) as new:  # and not in place: the time of a file can be set by its owner alone
            # Snakemake takes an input whose checksum it has on record for unchanged, however new it is.
            text = "\n".join([*faults, f"seen at {time.time_ns()}", ""]) if faults else ""
            new.write_text(text, encoding="utf-8")
            at = max(at, newest + 1) if faults else LONG_PAST
            os.utime(new, (at, at))
    except OSError as error:
        raise UnwritableResults(
            f"{stamp.parent} cannot be written ({error.strerror}), and planning notes there which results are not what "
            "is asked for. Get the right to write, or give this study another folder with `results:`."
        ) from None


def _no_newer_than(latest: float, output: Path) -> float:
    """Give what is newer of an output the time `latest`. Returns the newest time that it has then; 0 without any.

    It can lie in the future, where a copy came from another time zone, or a clock was set back. Of a folder, what
    Snakemake may look at: the folder, what lies in it, and its own files of times; of a file also those of its name.
    """
    inside = (*output.glob("*"), *output.glob("*/.snakemake_timestamp"))
    beside = output.parent.glob(f"{output.stem}*")
    newest = 0.0
    for file in {output, *(inside if output.is_dir() else beside)}:
        if not os.path.lexists(file):
            continue
        if file.lstat().st_mtime > latest:
            with suppress(PermissionError):  # a colleague's
                os.utime(file, (latest, latest), follow_symlinks=False)
        newest = max(newest, file.lstat().st_mtime)
    return newest
