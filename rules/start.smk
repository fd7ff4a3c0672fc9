# Before the first job the results are locked against a second run, and all faulty files are reported at once. Only
# volumes that are about to be converted are checked.
import os

from snakemake.logging import logger

from volprompt.logs import logging_to_console
from volprompt.study.lock import lock_results

HELD = []


def lock_before_start():
    """Hold the results until this process ends. Raises WorkflowError."""
    try:
        with logging_to_console("start"):
            HELD.append(lock_results(STUDY.settings.results))
    except VolpromptError as error:
        raise WorkflowError(str(error)) from None


def check_before(jobs):
    """Check the headers of the volumes of the shards that these jobs convert, if any. Raises WorkflowError."""
    # Told by what the jobs write, since a workflow that uses this one as a module may rename the rules.
    written = {os.path.normpath(path) for job in jobs for path in job.output}
    ours = {
        row.volume
        for shard, rows in STUDY.shards.items()
        for row in rows
        if os.path.normpath(f"{STUDY.settings.results}/volumes/{shard}") in written
    }
    if not ours:
        return
    try:
        from volprompt.study.check import check_sheet
    except ImportError as error:
        logger.warning(f"Headers are not checked before the start: {error}")
        return

    settings = STUDY.settings
    try:
        with logging_to_console("check"):
            check_sheet(
                [row.plain() for row in STUDY.volumes if row.volume in ours],
                settings.frames.axis,
                settings.references.resample,
                settings.on_invalid,
                f"{settings.results}/check/faults.tsv",
                whole=len(ours) == len(STUDY.volumes),
            )
    except VolpromptError as error:
        raise WorkflowError(str(error)) from None


def prepare():
    """What comes before the first job of a real run."""
    lock_before_start()
    check_before(workflow.dag.needrun_jobs())
    stop_vain_attempts(workflow.dag.needrun_jobs())


def prepared(hook):
    """A hook of Snakemake with ours before it."""

    def prepare_and_start(log):
        prepare()
        hook(log)

    return prepare_and_start


onstart:
    prepare()


# Snakemake runs the outermost `onstart:` alone. Where this is a module, ours goes before that one.
AS_MODULE = not workflow.modifier.is_main_snakefile()
if AS_MODULE and workflow.modifier.avail_rulename("convert"):
    workflow._onstart = prepared(workflow._onstart)
