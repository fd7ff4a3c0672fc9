"""Snakemake's events, turned into what a person wants to see of a study."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_volprompt.joblogs import (
    LEFT_OUT,
    how_it_ended,
    labels_left_out,
    last_lines,
    last_words,
    tells_its_end,
    volumes_done,
)
from snakemake_logger_plugin_volprompt.progress import Job, Progress
from snakemake_logger_plugin_volprompt.screen import Screen
from snakemake_logger_plugin_volprompt.slurm import end_in_words, request_in_words
from snakemake_logger_plugin_volprompt.words import counted, duration, jobs_by_rule, listed_labels, share, time_left

LOOK_SECONDS = 5  # between two looks at the logs of running jobs
SILENT_SECONDS = 60  # without a terminal: after so long without a line, one says that the run goes on
LOG_LINES = 30  # of a failed job, or more where its error is longer

# Of Snakemake's messages, these are also said on the console; the others are only in its log file.
INTERRUPTED = "Terminating processes on user request"
UNSAID = "Assuming unrestricted shared filesystem usage"  # comes before the run
SHOWN = ("Nothing to be done", INTERRUPTED, "Will exit after finishing")
# Errors that add nothing to what is shown of a failed job. One comes before it: its script ended with an error. The
# others come after it: there was one.
BEFORE_FAILURE = "returned non-zero exit status 1."
AFTER_FAILURE = (
    "Exiting because a job execution failed",
    "At least one job did not complete successfully",
    ": no backup found.",  # of a checkpoint that could not be fetched
)


class LogHandler(LogHandlerBase):
    """One line per finished job, the time left, failures in full. Snakemake's own lines are left to its log file.

    Only a run of jobs is shown in this way. Dry runs, --verbose, reports, faults of the configuration and whatever else
    comes before the first job look as in Snakemake.
    """

    writes_to_stream = True
    writes_to_file = False
    has_filter = False  # Snakemake's own: --quiet, --verbose and --debug-dag mean what they always mean
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.screen = Screen(sys.stdout if self.common_settings.stdout else sys.stderr, self.common_settings.nocolor)
        self.progress = Progress()
        self.volumes: Counter[str] = Counter()  # done by the finished jobs of each rule
        self.left_out: Counter[int] = Counter()  # volumes by label
        self.began: float | None = None
        self.last_line = time.time()
        self.said: set[str] = set()  # messages of Snakemake
        self.interrupted = False  # by Ctrl+C: what jobs then say of their end is no failure
        self.log_file = ""
        self._ended = threading.Event()
        settings = self.common_settings
        self.plain = settings.dryrun or settings.verbose or settings.debug_dag
        if not self.plain:
            # Jobs leave to this console what it reads from their logs: progress, and the error that ends them.
            os.environ["VOLPROMPT_CONSOLE"] = "status"

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, or take note of it."""
        try:
            event = getattr(record, "event", None)
            if event == LogEvent.WORKFLOW_STARTED:
                self.began = record.created
            elif self.plain:
                self._as_snakemake(record)
            elif event == LogEvent.RUN_INFO:
                self._plan(record.stats)  # type: ignore[attr-defined]
            elif event == LogEvent.JOB_INFO:
                self._start(record)
            elif event == LogEvent.JOB_FINISHED:
                self._finish(record)
            elif event == LogEvent.JOB_ERROR:
                self._fail(record)
            elif event in (None, LogEvent.ERROR, LogEvent.GROUP_ERROR):
                self._message(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Say how the run ended."""
        if self.began is not None and self.progress.total and not self._ended.is_set():
            self._ended.set()
            with self.lock:  # type: ignore[union-attr]
                self.screen.status("")
                self._say_end()
        super().close()

    def _plan(self, stats: dict[str, int]) -> None:
        self.began = self.began or time.time()
        self.progress.planned.update({rule: count for rule, count in stats.items() if rule != "total"})
        self._say(jobs_by_rule(self.progress.planned))
        threading.Thread(target=self._watch, daemon=True).start()

    def _start(self, record: logging.LogRecord) -> None:
        job: Any = record
        label = " ".join((job.rule_msg or f"{job.rule_name} {' '.join(map(str, job.wildcards.values()))}").split())
        asked = dict(getattr(job, "resources", {}).items())
        if self.progress.start(job.jobid, Job(job.rule_name, label, record.created, list(job.log), asked)):
            self._say(" ".join(f"Tried again: {label} {request_in_words(asked)}".split()))

    def _finish(self, record: logging.LogRecord) -> None:
        job = self.progress.finish(record.job_id, record.created)  # type: ignore[attr-defined]
        if job is None:
            return
        took = duration(record.created - job.started)
        log = self._log_of(job)
        done = volumes_done(log)
        if done:
            self.volumes[job.rule] += done[0]
            took = f"{counted(done[0], 'volume')} in {took}"
        left = time_left(self.progress.seconds_left(record.created, self._look()[0]))
        self._say(f"{self._count()}  {job.label}: {took}{left and '; '}{left}")
        self.left_out.update(labels_left_out(log))
        if self.left_out and self.progress.finished[job.rule] == self.progress.planned[job.rule]:
            self._say(LEFT_OUT + listed_labels(self.left_out), "yellow")
            self.left_out.clear()
        self._refresh(record.created)

    def _fail(self, record: logging.LogRecord) -> None:
        error: Any = record
        job = self.progress.fail(error.jobid)
        if self.interrupted:
            return
        label, after = (job.label, f" after {duration(record.created - job.started)}") if job else (error.rule_name, "")
        self._say(f"FAILED: {label}{after}", "red")
        # The job's own log comes first; what the cluster keeps of it says nothing new where that one tells the end.
        ends = {path: how_it_ended(path, LOG_LINES, job.started if job else 0) for path in error.log}
        if error.rule_msg:
            others = [line for lines in list(ends.values())[1:] for line in lines]
            self.screen.line(f"    {end_in_words(error.rule_msg, others, job.asked if job else {})}")
        for path, lines in ends.items():
            self.screen.line(f"    {path} {'ends with' if lines else 'is empty or missing'}", "dim")
            for line in lines:
                self.screen.line(f"        {line}")
            if tells_its_end(lines):
                break

    def _message(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Complete log(s): "):
            self.log_file = os.path.relpath(text.removeprefix("Complete log(s): "))
        elif record.levelno >= logging.WARNING:
            told = BEFORE_FAILURE in text or (self.progress.failed and any(phrase in text for phrase in AFTER_FAILURE))
            if not told and not self.interrupted:
                self._say_once(record, text)
        elif self.began is None or text.startswith(SHOWN):
            self.interrupted |= text.startswith(INTERRUPTED)
            self._say_once(record, text)

    def _say_once(self, record: logging.LogRecord, text: str) -> None:
        """Show a message of Snakemake; what it repeats for each job or each second, the first time only."""
        if text not in self.said or record.levelno >= logging.ERROR:
            self._as_snakemake(record)
        self.said.add(text)

    def _as_snakemake(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if text and text != "None" and not text.startswith(UNSAID):
            blank = "\n" if getattr(record, "event", None) == LogEvent.JOB_INFO else ""
            self.screen.line(blank + text, {"WARNING": "yellow", "ERROR": "red"}.get(record.levelname, ""))

    def _say(self, text: str, colour: str = "") -> None:
        self.last_line = time.time()
        self.screen.line(f"{time.strftime('%H:%M:%S')}  {text}", colour)

    def _say_end(self) -> None:
        progress = self.progress
        took = duration(time.time() - (self.began or 0))
        log = f" Snakemake's own log is {self.log_file}" if self.log_file else ""
        if progress.done == progress.total:
            self._say(f"Done: {counted(progress.total, 'job')} in {took}.{log}", "green")
            return
        failed = f", {len(progress.failed)} failed" if progress.failed and not self.interrupted else ""
        self._say(f"Stopped after {took}: {progress.done} of {progress.total} jobs are done{failed}.{log}", "red")
        self.screen.line("The same command goes on from here.")

    def _count(self) -> str:
        return share(self.progress.done, self.progress.total)

    def _log_of(self, job: Job) -> list[str]:
        return last_lines(job.logs[0], LOG_LINES, job.started) if job.logs else []

    def _look(self) -> tuple[dict[int, float], Counter[str], str]:
        """Look at the logs of the running jobs: parts done by job, volumes done by rule, the last words of one job."""
        fractions, volumes, words = {}, Counter(self.volumes), ""
        for number, job in self.progress.running.items():
            lines = self._log_of(job)
            done = volumes_done(lines)
            if done:
                fractions[number] = done[0] / max(done[1], 1)
                volumes[job.rule] += done[0]
            words = words or (f"{job.label}: {last_words(lines)}" if lines else "")
        return fractions, volumes, words

    def _watch(self) -> None:
        """Keep the status up to date until the run ends."""
        while not self._ended.wait(LOOK_SECONDS):
            with self.lock:  # type: ignore[union-attr]
                self._refresh(time.time())

    def _refresh(self, now: float) -> None:
        """Rewrite the terminal's last line; without a terminal write a line after a silent minute."""
        silent = now - self.last_line > SILENT_SECONDS
        if not (self.screen.terminal or silent) or not self.progress.running:
            self.screen.status("")
            return
        fractions, volumes, words = self._look()
        parts = [f"{counted(len(self.progress.running), 'job')} running"]
        rules = {job.rule for job in self.progress.running.values()}
        parts += [f"{rule}: {counted(volumes[rule], 'volume')} done" for rule in sorted(rules) if volumes[rule]]
        left = time_left(self.progress.seconds_left(now, fractions))
        parts += [text for text in (left, words and f"now {words}") if text]
        text = f"{self._count()}  {'; '.join(parts)}"
        if self.screen.terminal:
            self.screen.status(text)
        else:
            self._say(text)
