"""What is known of a run's jobs, and how long the rest will take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Rules that make most of a study's work; a workflow that imports these may set a prefix before each name. Other rules
# have one short job at the end (tables, report, targets). An estimate that waited for those would come too late.
MAIN_RULES = ("fetch_checkpoint", "convert", "extract_prompts", "segment", "score")


@dataclass
class Job:
    """A job that was started."""

    rule: str
    label: str  # what a person reads
    started: float  # seconds since the epoch
    logs: list[str] = field(default_factory=list)
    asked: Mapping[str, Any] = field(default_factory=dict)  # resources


class Progress:
    """Counts the jobs of a run by rule and estimates the time left.

    Times are seconds since the epoch. On a cluster a job counts as started once it is submitted.
    """

    def __init__(self) -> None:
        self.planned: Counter[str] = Counter()
        self.running: dict[int, Job] = {}
        self.failed: dict[int, Job] = {}
        self.finished: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)  # of all finished jobs of a rule together
        self.first_start: float | None = None

    @property
    def total(self) -> int:
        """Number of jobs of the whole run."""
        return self.planned.total()

    @property
    def done(self) -> int:
        """Number of finished jobs."""
        return self.finished.total()

    def start(self, number: int, job: Job) -> bool:
        """A job starts. Returns whether it does so again after it failed."""
        again = self.failed.pop(number, None) is not None
        self.running[number] = job
        if self.first_start is None:
            self.first_start = job.started
        return again

    def finish(self, number: int, now: float) -> Job | None:
        """A job ends well. Returns it, or None where its start was not seen."""
        job = self.running.pop(number, None)
        if job is not None:
            self.finished[job.rule] += 1
            self.seconds[job.rule] += now - job.started
        return job

    def fail(self, number: int) -> Job | None:
        """A job fails. Returns it, or None where its start was not seen."""
        job = self.running.pop(number, None)
        if job is not None:
            self.failed[number] = job
        return job

    def seconds_left(self, now: float, fractions: Mapping[int, float]) -> float | None:
        """Estimate the seconds until the last job, or None where nothing is known of a rule that is still to come.

        Each job weighs as much as the mean job of its rule has taken so far. The rest goes on at the rate of this run
        up to now, which includes how many jobs run side by side, and on a cluster the waiting in the queue.
        fractions: how much of a running job is done, from 0 to 1, by its number; of jobs that tell it.
        """
        failed = Counter(job.rule for job in self.failed.values())
        work_done = work_left = 0.0
        for rule, planned in self.planned.items():
            jobs_left = planned - self.finished[rule] - failed[rule]
            weight = self._mean_seconds(rule, now, fractions)
            if weight is None:
                if jobs_left > 0:
                    return None
                continue
            half_done = sum(fractions.get(number, 0) for number, job in self.running.items() if job.rule == rule)
            work_done += weight * (self.finished[rule] + half_done)
            work_left += weight * max(jobs_left - half_done, 0)
        if self.first_start is None or work_done <= 0 or work_left <= 0:
            return None
        return (now - self.first_start) * work_left / work_done

    def _mean_seconds(self, rule: str, now: float, fractions: Mapping[int, float]) -> float | None:
        """Mean seconds of a rule's finished jobs; before the first one, the best guess or None."""
        if self.finished[rule]:
            return self.seconds[rule] / self.finished[rule]
        if self.planned[rule] == 1 and not rule.endswith(MAIN_RULES):
            return sum(self.seconds.values()) / self.done if self.done else None
        promised = [
            (now - job.started) / fractions[number]
            for number, job in self.running.items()
            if job.rule == rule and fractions.get(number, 0) > 0
        ]
        return sum(promised) / len(promised) if promised else None
