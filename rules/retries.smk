# A job is tried again as often as `retries` says, but not where its log says that it would end in the same way. For that
# Snakemake has no setting: `retries` is a number, whatever the fault is.
import os

from volprompt.logs import has_lasting_fault


def stop_vain_attempts(jobs):
    """Let these jobs have no further attempt after a fault that lasts."""
    scheduler = workflow.scheduler
    tell_error = scheduler.error_callback
    # Of an earlier run. A job that is killed before it begins leaves its log as it was.
    before = {log: written(log) for job in jobs for log in job.log}

    def tell_error_once(job):
        logs = [
            log for one in (job.jobs if job.is_group() else [job]) for log in one.log
        ]
        if any(
            has_lasting_fault(log) and written(log) != before.get(log) for log in logs
        ):
            job.attempt = max(job.attempt, job.restart_times + 1)
        tell_error(job)

    scheduler.error_callback = tell_error_once


def written(log):
    """When a log was last written, in nanoseconds; None where there is none."""
    return os.stat(log).st_mtime_ns if os.path.exists(log) else None
