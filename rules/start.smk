# Before the first job the results are locked against a second run.
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


def prepare():
    """What comes before the first job of a real run."""
    lock_before_start()
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
