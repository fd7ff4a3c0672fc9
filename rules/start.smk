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


def locked(hook):
    """A hook of Snakemake with ours before it."""

    def lock_and_start(log):
        lock_before_start()
        hook(log)

    return lock_and_start


onstart:
    lock_before_start()


# Snakemake runs the outermost `onstart:` alone. Where this is a module, ours goes before that one.
AS_MODULE = not workflow.modifier.is_main_snakefile()
if AS_MODULE and workflow.modifier.avail_rulename("convert"):
    workflow._onstart = locked(workflow._onstart)
