"""Snakemake's console for a study: what it shows of which event, and how it estimates the time left."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yte
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_volprompt import LogHandler
from snakemake_logger_plugin_volprompt.joblogs import LEFT_OUT, last_lines, last_words, volumes_done
from snakemake_logger_plugin_volprompt.progress import Job, Progress
from snakemake_logger_plugin_volprompt.screen import Screen
from snakemake_logger_plugin_volprompt.slurm import end_in_words
from snakemake_logger_plugin_volprompt.words import cut, duration, jobs_by_rule, listed_labels, share, time_left
from volprompt.logs import LASTING

REPOSITORY = Path(__file__).parents[2]


def run_of(*jobs: tuple[str, float, float], planned: dict[str, int]) -> Progress:
    """A run with finished jobs: rule, start and end in seconds."""
    progress = Progress()
    progress.planned.update(planned)
    for number, (rule, start, end) in enumerate(jobs):
        progress.start(number, Job(rule, rule, start))
        progress.finish(number, end)
    return progress


def test_the_rest_goes_on_at_the_rate_up_to_now() -> None:
    # Two jobs side by side have done 2 of 8 in 10 s: 6 more take 30 s.
    progress = run_of(("segment", 0, 10), ("segment", 0, 10), planned={"segment": 8})
    assert progress.seconds_left(10, {}) == pytest.approx(30)


def test_a_job_weighs_as_much_as_its_rule_takes() -> None:
    # One after the other: 2 + 10 s of work done in 12 s; 2 conversions and 3 segmentations left, 34 s of work.
    progress = run_of(("convert", 0, 2), ("segment", 2, 12), planned={"convert": 3, "segment": 4})
    assert progress.seconds_left(12, {}) == pytest.approx(34)


def test_no_estimate_before_every_rule_is_known() -> None:
    progress = run_of(("convert", 0, 2), planned={"convert": 2, "segment": 1, "all": 1})
    assert progress.seconds_left(2, {}) is None
    progress = run_of(("convert", 0, 2), planned={"convert": 2, "knee_segment": 1})
    assert progress.seconds_left(2, {}) is None
    progress = run_of(("convert", 0, 2), planned={"convert": 2, "own_rule": 2})
    assert progress.seconds_left(2, {}) is None
    assert Progress().seconds_left(2, {}) is None


def test_tables_and_report_count_as_mean_jobs_until_they_are_known() -> None:
    planned = {"convert": 1, "score": 2, "aggregate": 1, "report": 1}
    progress = run_of(("convert", 0, 2), ("score", 2, 6), planned=planned)
    assert progress.seconds_left(6, {}) == pytest.approx(4 + 3 + 3)
    progress.start(9, Job("aggregate", "aggregate", 6))
    progress.finish(9, 15)
    assert progress.seconds_left(15, {}) == pytest.approx(4 + 5)


def test_a_running_job_counts_as_far_as_its_log_says() -> None:
    progress = run_of(("segment", 0, 10), planned={"segment": 3})
    progress.start(7, Job("segment", "segment", 10))
    assert progress.seconds_left(15, {7: 0.5}) == pytest.approx(15)  # 1.5 jobs in 15 s, 1.5 left
    assert progress.seconds_left(15, {}) == pytest.approx(30)  # 1 job in 15 s, 2 left


def test_the_first_job_of_a_rule_promises_what_it_will_take() -> None:
    progress = run_of(planned={"segment": 2})
    progress.start(1, Job("segment", "segment", 0))
    assert progress.seconds_left(30, {}) is None
    assert progress.seconds_left(30, {1: 0.25}) == pytest.approx(30 * 1.75 / 0.25)


def test_a_job_that_waited_in_a_queue_is_not_taken_for_a_faster_one() -> None:
    # Four jobs submitted at once to one node that takes 10 s for each: after two of them 20 s are left.
    progress = run_of(("segment", 0, 10), ("segment", 0, 20), planned={"segment": 4})
    for number in (2, 3):
        progress.start(number, Job("segment", "segment", 0))
    assert progress.seconds_left(20, {}) == pytest.approx(20)


def test_a_failed_job_is_not_waited_for_until_it_is_tried_again() -> None:
    progress = run_of(("segment", 0, 10), planned={"segment": 3})
    progress.start(5, Job("segment", "segment", 10))
    progress.fail(5)
    assert progress.seconds_left(10, {}) == pytest.approx(10)
    progress.start(5, Job("segment", "segment", 10))
    assert progress.seconds_left(10, {}) == pytest.approx(20)
    assert not progress.failed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.2, "about 10 s left"),
        (44, "about 40 s left"),
        (58, "about 1 min left"),
        (734, "about 12 min left"),
        (3590, "about 1 h left"),
        (12_300, "about 3 h 20 min left"),
        (86_400, "about 1 day left"),
        (190_000, "about 2 days 5 h left"),
    ],
)
def test_an_estimate_is_written_no_more_exactly_than_it_is_known(seconds: float | None, text: str) -> None:
    assert time_left(seconds) == text


def test_numbers_as_a_person_reads_them() -> None:
    assert [duration(seconds) for seconds in (8.4, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 5 min"]
    assert share(5, 21) == " 5 of 21  23 %"
    assert share(265, 266) == "265 of 266  99 %"
    assert share(21, 21) == "21 of 21 100 %"
    assert jobs_by_rule({"convert": 3, "all": 1}) == "4 jobs: 3 convert, 1 all"
    assert cut("abcdefgh", 6) == "abc..."


def test_what_a_job_log_says(tmp_path: Path) -> None:
    log = tmp_path / "000.log"
    assert last_lines(str(log), 5) == []
    lines = [f"2026-11-28 15:31:{second:02},000 INFO volume {second} of 30, knee: done" for second in range(20)]
    log.write_text("\n".join(lines) + "\n")
    assert last_lines(str(log), 2) == lines[-2:]
    assert volumes_done(last_lines(str(log), 5)) == (19, 30)
    assert volumes_done(["volume knee: 3 of 40 slices encoded"]) is None
    assert last_words(lines) == "volume 19 of 30, knee: done"
    log.write_text("x" * 100_000 + "\nlast\n")
    assert last_lines(str(log), 2) == ["last"]


def test_the_log_of_an_earlier_attempt_says_nothing(tmp_path: Path) -> None:
    log = tmp_path / "000.log"
    log.write_text("volume 30 of 30\n")
    os.utime(log, (1000, 1000))
    assert last_lines(str(log), 5, since=1000) == ["volume 30 of 30"]
    assert last_lines(str(log), 5, since=1060) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_colours_and_a_line_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    screen = Screen(terminal)
    screen.status("1 of 2 " + "x" * 80)
    assert terminal.getvalue() == f"\r\033[K\033[2m1 of 2 {'x' * 29}...\033[0m\r"
    screen.line("failed", "red")
    assert "\r\033[K\033[31mfailed\033[0m\n" in terminal.getvalue()
    screen.status("")
    assert terminal.getvalue().endswith("\r\033[K")


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_colours_can_be_switched_off(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    terminal = Terminal()
    Screen(terminal).line("failed", "red")
    assert terminal.getvalue() == "failed\n"


def test_a_reader_that_leaves_ends_no_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Screen(Gone())
    screen.line("first")
    screen.line("second")


class Console:
    """A handler that writes to memory, and the events of a run."""

    def __init__(self, stream: io.StringIO, **settings: Any) -> None:
        defaults = {"nocolor": False, "stdout": False, "dryrun": False, "verbose": False, "debug_dag": False}
        self.stream = stream
        self.handler = LogHandler(SimpleNamespace(**{**defaults, **settings}), None)  # type: ignore[arg-type]

    def tell(self, message: str | None = None, level: int = logging.INFO, seconds: float = 0, **values: Any) -> None:
        record = logging.makeLogRecord({"msg": message, "levelno": level, "levelname": logging.getLevelName(level)})
        record.__dict__.update(values, created=1000.0 + seconds)
        self.handler.handle(record)

    def begin(self, **jobs: int) -> None:
        self.tell(event=LogEvent.WORKFLOW_STARTED)
        self.tell("Job stats: ...", event=LogEvent.RUN_INFO, stats={**jobs, "total": sum(jobs.values())})

    def start(
        self,
        number: int,
        rule: str,
        seconds: float = 0,
        message: str | None = None,
        log: str = "",
        asked: dict[str, int] | None = None,
    ) -> None:
        values = {"rule_name": rule, "rule_msg": message, "wildcards": {"shard": "000"}, "log": [log] if log else []}
        values["resources"] = asked or {}
        self.tell("Rule", event=LogEvent.JOB_INFO, jobid=number, seconds=seconds, **values)

    def finish(self, number: int, seconds: float) -> None:
        self.tell("Finished", event=LogEvent.JOB_FINISHED, job_id=number, seconds=seconds)

    def fail(self, number: int, rule: str, seconds: float, *logs: str, message: str | None = None) -> None:
        values = {"rule_name": rule, "rule_msg": message, "log": list(logs)}
        self.tell("Error", logging.ERROR, event=LogEvent.JOB_ERROR, jobid=number, seconds=seconds, **values)

    @property
    def lines(self) -> list[str]:
        """What was written, without the time of day."""
        lines = self.stream.getvalue().splitlines()
        return [line[10:] if line[2:3] == ":" and line[5:6] == ":" else line for line in lines]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Console]:
    monkeypatch.setenv("VOLPROMPT_CONSOLE", "")

    def make(**settings: Any) -> Console:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        return Console(stream, **settings)

    return make


def test_a_line_per_finished_job(console: Callable[..., Console], tmp_path: Path) -> None:
    log = tmp_path / "000.log"
    log.write_text("volume 2 of 2, knee: done\n")
    run = console()
    run.begin(convert=2, all=1)
    run.tell("Select jobs to execute...")
    run.start(1, "convert", log=str(log))
    run.finish(1, seconds=20)
    run.tell(event=LogEvent.PROGRESS, done=1, total=3)
    run.start(2, "convert", seconds=20, message="Convert the volumes of\n shard 001")
    run.finish(2, seconds=40)
    run.start(0, "all", seconds=40)
    run.finish(0, seconds=41)
    run.tell("Complete log(s): " + str(Path.cwd() / ".snakemake" / "log" / "1.log"))
    run.tell("Elapsed time: 0:00:41")
    run.handler.close()
    plan, first, second, third, end = run.lines
    assert plan == "3 jobs: 2 convert, 1 all"
    assert first == "1 of 3  33 %  convert 000: 2 volumes in 20 s; about 40 s left"
    assert second == "2 of 3  66 %  Convert the volumes of shard 001: 20 s; about 20 s left"
    assert third == "3 of 3 100 %  all 000: 1 s"
    assert end.startswith("Done: 3 jobs in ")
    assert end.endswith("Snakemake's own log is .snakemake/log/1.log")


def test_labels_that_are_left_out_are_told_once_for_the_study(console: Callable[..., Console], tmp_path: Path) -> None:
    run = console()
    run.begin(convert=2, score=1)
    for number, told in enumerate(["4 (2 volumes), 7 (1 volume)", "4 (1 volume), 12 (1 volume)"]):
        log = tmp_path / f"{number}.log"
        log.write_text(f"2026-11-28 15:31:20,000 NOTICE {LEFT_OUT}{told}\n")
        run.start(number, "convert", log=str(log))
        run.finish(number, seconds=20)
    run.start(2, "score")
    run.finish(2, seconds=30)
    run.handler.close()
    assert [line for line in run.lines if line.startswith(LEFT_OUT)] == [run.lines[3]]
    assert run.lines[3] == f"{LEFT_OUT}4 (in 3 volumes), 7 (in 1 volume), 12 (in 1 volume)"
    assert listed_labels(dict.fromkeys(range(3), 1), most=2) == "0 (in 1 volume), 1 (in 1 volume), and 1 more"


def test_a_failed_job_is_shown_with_the_end_of_its_log(console: Callable[..., Console], tmp_path: Path) -> None:
    log = tmp_path / "000.log"
    log.write_text("".join(f"line {number}\n" for number in range(50)))
    run = console()
    run.begin(segment=1, all=1)
    run.start(1, "segment", log=str(log))
    failed = "RuleException:\nCommand 'python segment.py' returned non-zero exit status 1."
    run.tell(failed, logging.ERROR, event=LogEvent.ERROR, exception="RuleException")
    run.fail(1, "segment", 5, str(log), message="something else")
    run.tell("Trying to restart job 1.")
    run.tell("Exiting because a job execution failed. Look above for error messages", logging.ERROR)
    message = "WorkflowError:\nAt least one job did not complete successfully."
    run.tell(message, logging.ERROR, event=LogEvent.ERROR, exception="WorkflowError")
    run.handler.close()
    assert run.lines[1:4] == [
        "FAILED: segment 000 after 5 s",
        "    something else",
        f"    {log} ends with",
    ]
    assert run.lines[4:34] == [f"        line {number}" for number in range(20, 50)]
    assert ": 0 of 2 jobs are done, 1 failed." in run.lines[34]
    assert run.lines[35:] == ["The same command goes on from here."]


def test_a_job_that_is_tried_again_says_what_it_asks_for(console: Callable[..., Console]) -> None:
    run = console()
    run.begin(segment=1)
    run.start(1, "segment", asked={"mem_mb": 300, "runtime": 60})
    run.fail(1, "segment", 5, "none.log")
    run.start(1, "segment", seconds=6, asked={"mem_mb": 600, "runtime": 120})
    run.handler.close()
    assert run.lines[3] == "Tried again: segment 000 with 600 MB and 120 minutes"


@pytest.mark.parametrize(
    ("status", "log", "words"),
    [
        ("OUT_OF_MEMORY", "", "OUT_OF_MEMORY, it needed more memory than it had asked for (300 MB)"),
        ("TIMEOUT", "", "TIMEOUT, it ran longer than it had asked for (60 minutes)"),
        ("NODE_FAIL", "", "NODE_FAIL, its node failed"),
        ("CANCELLED", "", "CANCELLED, somebody cancelled it"),
        ("FAILED", "error: Detected 1 oom_kill event in StepId=7.0.", "OUT_OF_MEMORY, it needed more memory "),
        ("FAILED", "slurmstepd: error: Step 7.0 exceeded memory limit (5 > 3), being killed", "OUT_OF_MEMORY, "),
        ("FAILED", "*** JOB 7 ON n1 CANCELLED AT 2026-11-29T16:00:00 DUE TO TIME LIMIT ***", "TIMEOUT, "),
        ("FAILED", "srun: error: n1: task 0: Exited with exit code 1", "FAILED"),
    ],
)
def test_the_cause_that_slurm_tells(
    status: str, log: str, words: str, console: Callable[..., Console], tmp_path: Path
) -> None:
    own, slurms = tmp_path / "000.log", tmp_path / "7.log"
    own.write_text("2026-11-29 16:00:00,000 INFO volume 1 of 2, knee: done\n")
    slurms.write_text(f"{log}\nsrun: done\n")
    run = console()
    run.begin(segment=1)
    run.start(1, "segment", asked={"mem_mb": 300, "runtime": 60})
    message = f"SLURM-job '7' failed, SLURM status is: '{status}'. Detailed failure reason unavailable (...)."
    run.fail(1, "segment", 5, str(own), str(slurms), message=message)
    assert run.lines[2].startswith(f"    Slurm job 7: {words}")
    assert run.lines[3] == f"    {own} ends with"
    assert run.lines[5] == f"    {slurms} ends with"  # the job's own log breaks off
    run.handler.close()


def test_messages_of_the_plugin() -> None:
    lost = "SLURM-job '9' failed due to a node failure, SLURM status is: 'NODE_FAIL'. Failed nodes will be excluded."
    assert end_in_words(lost, [], {}) == "Slurm job 9: NODE_FAIL, its node failed"
    task = "SLURM-job '5_2' failed, SLURM status is: 'TIMEOUT'. Reason: Unknown."
    assert end_in_words(task, [], {}) == "Slurm job 5_2: TIMEOUT, it ran longer than it had asked for"
    assert end_in_words("sbatch failed", ["out of memory"], {}) == "sbatch failed"


def test_the_log_of_slurm_is_left_out_where_the_job_tells_its_end(
    console: Callable[..., Console], tmp_path: Path
) -> None:
    own, slurms = tmp_path / "000.log", tmp_path / "7.log"
    slurms.write_text("srun: error\n")
    for end, left_out in (
        ("2026-11-29 16:00:00,000 ERROR does not fit:\n  5 missing\n", True),
        (f"2026-11-29 16:00:00,000 ERROR does not fit\n2026-11-29 16:00:00,000 INFO {LASTING}\n", True),
        ("2026-11-29 16:00:00,000 ERROR FAILED: volume knee\n2026-11-29 16:00:00,000 INFO volume 1 of 2\n", False),
    ):
        own.write_text(end)
        run = console()
        run.begin(segment=1)
        run.start(1, "segment")
        run.fail(1, "segment", 5, str(own), str(slurms))
        assert (str(slurms) not in "\n".join(run.lines)) is left_out
        run.handler.close()


def test_a_long_list_of_faults_is_shown_as_a_whole(console: Callable[..., Console], tmp_path: Path) -> None:
    log, before = tmp_path / "check.log", "2026-11-28 15:31:20,000 INFO Reading the headers of 50 volumes\n"
    faults = [f"  - knee_{number}: {'cut off ' * 60}" for number in range(50)]
    error = [before.replace("INFO", "ERROR").strip(), *faults, before.strip()]
    log.write_text(40 * before + "\n".join(error) + "\n")
    run = console()
    run.begin(check=1)
    run.start(1, "check", log=str(log))
    run.fail(1, "check", 5, str(log))
    run.handler.close()
    assert run.lines[3:-2] == [f"        {line}" for line in error]


def test_of_an_expected_error_only_the_error_is_shown(console: Callable[..., Console], tmp_path: Path) -> None:
    """What came before it may explain an error that nobody expected; this one explains itself."""
    log, head = tmp_path / "fetch.log", "2026-11-28 15:31:20,000"
    before = f"{head} INFO no answer; trying again"
    for error, shown in (("cannot be downloaded", 2), ("Unexpected error", 3)):
        log.write_text(f"{before}\n{head} ERROR {error}\nmore\n")
        run = console()
        run.begin(fetch_checkpoint=1)
        run.start(1, "fetch_checkpoint", log=str(log))
        run.fail(1, "fetch_checkpoint", 5, str(log))
        run.tell("Cannot restore checkpoints/a.pt: no backup found.", logging.WARNING)
        run.handler.close()
        lines = [before, f"{head} ERROR {error}", "more"][-shown:]
        assert run.lines[3:-2] == [f"        {line}" for line in lines]


def test_errors_and_warnings_of_snakemake_are_shown(console: Callable[..., Console]) -> None:
    run = console()
    run.begin(segment=1)
    killed = "RuleException:\nCommand 'python segment.py' died with <Signals.SIGKILL: 9>."
    run.tell(killed, logging.ERROR, event=LogEvent.ERROR, exception="RuleException")
    for _ in range(2):
        run.tell("No space left", logging.WARNING)
    run.tell("Provided cores: 2", event=LogEvent.RESOURCES_INFO, cores=2)
    assert run.lines[1:] == [*killed.splitlines(), "No space left"]
    run.handler.close()


def test_after_ctrl_c_the_ends_of_jobs_are_no_failures(console: Callable[..., Console], tmp_path: Path) -> None:
    run = console()
    run.begin(segment=2)
    run.start(1, "segment")
    run.tell("Terminating processes on user request, this might take some time.")
    run.tell("RuleException:\nCommand died with SIGINT", logging.ERROR, event=LogEvent.ERROR, exception="RuleException")
    run.fail(1, "segment", 5, str(tmp_path / "none.log"))
    run.handler.close()
    assert run.lines[1] == "Terminating processes on user request, this might take some time."
    assert run.lines[2].endswith(": 0 of 2 jobs are done.")
    assert run.lines[3:] == ["The same command goes on from here."]


def test_without_a_terminal_a_silent_minute_ends_with_a_line(console: Callable[..., Console], tmp_path: Path) -> None:
    log = tmp_path / "000.log"
    log.write_text("2026-11-28 15:31:20,000 INFO volume 3 of 30, knee: 2 of 2 schemes\n")
    run = console()
    run.begin(segment=2)
    run.start(1, "segment", log=str(log))
    run.handler.last_line = 1000
    run.handler._refresh(1030)
    assert len(run.lines) == 1
    run.handler._refresh(1061)
    words = "now segment 000: volume 3 of 30, knee: 2 of 2 schemes"
    assert run.lines[1] == f"0 of 2   0 %  1 job running; segment: 3 volumes done; about 19 min left; {words}"
    run.handler._refresh(1062)
    run.handler.close()


def test_what_comes_before_a_run_looks_as_in_snakemake(console: Callable[..., Console]) -> None:
    run = console()
    run.tell("Assuming unrestricted shared filesystem usage.")
    run.tell("Unlocked working directory.")
    run.tell("WorkflowError:\nThe configuration has 1 fault", logging.ERROR, event=LogEvent.ERROR)
    run.handler.close()
    assert run.lines == ["Unlocked working directory.", "WorkflowError:", "The configuration has 1 fault"]


@pytest.mark.parametrize("setting", ["dryrun", "verbose", "debug_dag"])
def test_dry_runs_and_debugging_look_as_in_snakemake(console: Callable[..., Console], setting: str) -> None:
    run = console(**{setting: True})
    run.begin(segment=1)
    run.start(1, "segment")
    run.handler.close()
    assert run.lines == ["Job stats: ...", "", "Rule"]
    assert os.environ["VOLPROMPT_CONSOLE"] == ""


def test_jobs_leave_progress_to_this_console(console: Callable[..., Console]) -> None:
    console().handler.close()
    assert os.environ["VOLPROMPT_CONSOLE"] == "status"


@pytest.mark.parametrize("name", ["local", "workstation", "slurm"])
def test_a_profile_names_the_console_only_where_it_is_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> dict[str, Any]:
        with (REPOSITORY / "profiles" / name / "config.yaml").open() as profile:
            return yte.process_yaml(profile, require_use_yte=True)

    monkeypatch.delenv("VOLPROMPT_CONSOLE", raising=False)
    installed = settings()
    assert installed["logger"] == "volprompt"
    assert "quiet" not in installed  # the log file keeps everything
    monkeypatch.setenv("VOLPROMPT_CONSOLE", "plain")
    switched_off = settings()
    assert "logger" not in switched_off
    assert switched_off["quiet"] == ["host", "reason"]
    monkeypatch.delenv("VOLPROMPT_CONSOLE")
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    assert settings() == switched_off
    assert switched_off["show-failed-logs"] is True
