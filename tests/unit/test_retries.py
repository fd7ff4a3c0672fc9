"""Which failed jobs are tried again; tests/workflow/test_console.py sees it in a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from volprompt.logs import LASTING

RULES = Path(__file__).parents[2] / "rules" / "retries.smk"
FAULT = f"2026-11-29 16:00:00,000 INFO {LASTING}\n"


@dataclass
class Job:
    """Of a job of Snakemake what the rules look at."""

    log: list[str]
    attempt: int = 1
    restart_times: int = 2
    jobs: list[Job] = field(default_factory=list)

    def is_group(self) -> bool:
        return bool(self.jobs)

    @property
    def is_tried_again(self) -> bool:
        """As `JobScheduler._handle_error` of Snakemake decides."""
        return self.restart_times > self.attempt - 1


def run_of(*jobs: Job) -> Any:
    """The scheduler of a run that is about to start these jobs."""
    told: list[Job] = []
    scheduler = SimpleNamespace(error_callback=told.append, told=told)
    rules: dict[str, Any] = {"workflow": SimpleNamespace(scheduler=scheduler)}
    exec(RULES.read_text(), rules)
    rules["stop_vain_attempts"](iter(jobs))
    return scheduler


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "000.log"


def test_a_fault_that_lasts_ends_a_job(log: Path) -> None:
    job = Job([str(log)])
    scheduler = run_of(job)
    log.write_text(FAULT)
    scheduler.error_callback(job)
    assert scheduler.told == [job]
    assert not job.is_tried_again


def test_any_other_fault_is_tried_again(log: Path) -> None:
    job = Job([str(log)])
    scheduler = run_of(job)
    scheduler.error_callback(job)  # killed before it had a log
    log.write_text("2026-11-29 16:00:00,000 ERROR Unexpected error\n")
    scheduler.error_callback(job)
    assert scheduler.told == [job, job]
    assert (job.attempt, job.is_tried_again) == (1, True)


def test_the_log_of_an_earlier_run_says_nothing(log: Path) -> None:
    log.write_text(FAULT)
    job = Job([str(log)])
    scheduler = run_of(job)
    scheduler.error_callback(job)
    assert job.is_tried_again
    status = log.stat()
    os.utime(log, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # written again, by this run
    scheduler.error_callback(job)
    assert not job.is_tried_again


def test_a_group_of_jobs_is_not_tried_again_because_of_one(log: Path) -> None:
    other = log.with_name("001.log")
    group = Job([], jobs=[Job([str(other)]), Job([str(log)])])
    scheduler = run_of(*group.jobs)
    scheduler.error_callback(group)
    assert group.is_tried_again
    log.write_text(FAULT)
    scheduler.error_callback(group)
    assert not group.is_tried_again
