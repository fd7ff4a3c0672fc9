"""The workflow through `snakemake --profile slurm` on a real Slurm: `make slurm-test`."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pytest
from tests.slurm.cluster import Cluster
from tests.workflow.small_study import REPOSITORY, Study, new_study

from volprompt.logs import LASTING

# As the profile says, only more impatient.
IMPATIENT = ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "1"]
IMPATIENT += ["--latency-wait", "20", "--max-jobs-per-timespan", "100/1s"]
SUBMITTED = re.compile(r"has been submitted with SLURM jobid (\d+)")
FIELDS = ["JobID", "State", "AllocTRES", "ReqMem", "TimelimitRaw", "NodeList", "Start", "End", "Comment"]
ONE_MODEL = {"sam1": {"models": ["small_sam"], "schemes": ["point"]}}
BOTH_MODELS = {**ONE_MODEL, "sam2": {"models": ["small_sam2"], "schemes": ["point"]}}
# A run in which nothing moves for so many seconds hangs; how long it takes is the machine's affair. Slurm looks at time
# limits once a minute.
STILL_SECONDS = 240
Found = TypeVar("Found")


class Driver:
    """A running `snakemake --profile slurm` on a study, in the console that is asked for."""

    def __init__(self, cluster: Cluster, study: Study, *arguments: str, console: str = "plain") -> None:
        self.cluster, self.study = cluster, study
        self.printed = study.folder / "driver.txt"
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--directory", str(study.folder)]
        command += ["--configfile", str(study.folder / "config.yaml"), *IMPATIENT, *arguments]
        with self.printed.open("a") as output:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**cluster.environment, "VOLPROMPT_CONSOLE": console},
                stdout=output,
                stderr=output,
                start_new_session=True,
                # Where the tests run in the background, a shell has made them ignore Ctrl+C, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_for_job(self, rule: str, *but: str) -> str:
        """The number of a running job of a rule, other than those of `but`, once there is one."""

        def job() -> str | None:
            for line in self.cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%i|%k").splitlines():
                number, _, comment = line.partition("|")
                if comment.startswith(f"rule_{rule}") and number not in but:
                    return number
            assert self.process.poll() is None, f"no job of {rule}: {self.text}"
            return None

        return self.wait_until(job, f"a job of {rule}")

    def end(self) -> int:
        """Wait until the run has ended; its exit status."""
        self.wait_until(lambda: self.process.poll() is not None, "the end of the run")
        return self.process.returncode

    def finish(self) -> str:
        """Wait for a run that succeeds; what it printed."""
        assert self.end() == 0, self.text
        return self.text

    def wait_until(self, found: Callable[[], Found | None], what: str) -> Found:
        """What `found` returns, once it does, as long as anything moves."""
        seen, since = self.state(), time.monotonic()
        while not (result := found()):
            time.sleep(0.5)
            if (now := self.state()) != seen:
                seen, since = now, time.monotonic()
            assert time.monotonic() - since < STILL_SECONDS, f"waiting for {what}, and nothing moves: {self.text}"
        return result

    def state(self) -> tuple[object, ...]:
        """What differs as long as the run moves: what is printed and logged, and the states of its jobs."""
        logs = [*(self.study.folder / ".snakemake").rglob("*.log"), *(self.study.folder / "results").rglob("*.log")]
        sizes = []
        for path in [self.printed, *sorted(logs)]:
            with contextlib.suppress(FileNotFoundError):
                sizes.append((path, path.stat().st_size))
        return self.cluster.run("squeue", "-h", "-t", "all", "-o", "%i %T", check=False), sizes

    @property
    def text(self) -> str:
        return self.printed.read_text()

    @property
    def logged(self) -> str:
        """Snakemake's own log of every run on the study, whatever the console shows."""
        files = (self.study.folder / ".snakemake" / "log").glob("*.log")
        return "".join(file.read_text() for file in sorted(files))

    def accounted(self, rule: str) -> list[dict[str, str]]:
        """What accounting holds of the study's jobs of a rule, every attempt, once it has heard of the ends of all."""
        runs = set(re.findall(r"SLURM run ID: (\S+)", self.logged))
        submitted = set(SUBMITTED.findall(self.logged))
        assert runs
        command = ["sacct", "-X", "-P", "-D", "--name", ",".join(runs), "-o", ",".join(FIELDS)]

        def jobs() -> list[dict[str, str]] | None:
            rows = list(csv.DictReader(self.cluster.run(*command).splitlines(), delimiter="|"))
            ended = {row["JobID"] for row in rows if row["End"] != "Unknown"}
            return rows if submitted <= ended else None

        rows = self.wait_until(jobs, "the accounting database")
        return [row for row in rows if row["Comment"].startswith(f"rule_{rule}_")]


def keep_volumes(study: Study, count: int) -> None:
    """Reduce a study to its first volumes."""
    rows = (study.folder / "volumes.tsv").read_text().splitlines(keepends=True)
    (study.folder / "volumes.tsv").write_text("".join(rows[: 1 + count]))


def megabytes(job: dict[str, str]) -> int:
    """The memory that a job asked for."""
    return int(job["ReqMem"].removesuffix("M"))


def busiest(jobs: list[dict[str, str]]) -> dict[str, int]:
    """The largest number of jobs that ran at a time, by node."""
    changes = []
    for job in jobs:
        start, end = (datetime.fromisoformat(job[key]) for key in ("Start", "End"))
        changes += [(start, 1, job["NodeList"]), (end, -1, job["NodeList"])]
    now: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for _, change, node in sorted(changes):  # ends before starts within one second
        now[node] += change
        peak[node] = max(peak[node], now[node])
    return peak


def masks(study: Study) -> dict[str, str]:
    """A digest of every mask, uncompressed: gzip writes the time into a file."""
    folder = study.folder / "results" / "masks"
    files = sorted(folder.rglob("*.nii.gz"))
    return {
        str(file.relative_to(folder)): hashlib.sha256(gzip.decompress(file.read_bytes())).hexdigest() for file in files
    }


def send(sent: signal.Signals, number: str) -> None:
    """Send a signal to every process that has the job's number in its environment, once there is one."""
    deadline = time.monotonic() + 120
    while not (found := processes_of(number)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found, f"job {number} has no process"
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, sent)


def processes_of(number: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"SLURM_JOB_ID={number}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """Starts drivers, and ends them where a test fails."""
    started: list[Driver] = []

    def start(cluster: Cluster, study: Study, *arguments: str, console: str = "plain") -> Driver:
        started.append(Driver(cluster, study, *arguments, console=console))
        return started[-1]

    yield start
    for driver in started:
        driver.process.kill()
        driver.process.wait()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Three shards of one volume each, and two models."""
    made = new_study(tmp_path)
    made.configure(shards=4)
    return made


def test_a_whole_study_with_lost_jobs(
    cluster: Cluster, study: Study, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    keep_volumes(study, 2)
    local = study.copy_to(tmp_path / "local")
    driver = drive(cluster, study)
    hanging = driver.wait_for_job("segment")
    send(signal.SIGSTOP, hanging)
    cluster.run("scontrol", "update", f"JobId={hanging}", "TimeLimit=1")
    cancelled = driver.wait_for_job("segment", hanging)
    cluster.run("scancel", cancelled)
    killed = driver.wait_for_job("segment", hanging, cancelled)
    send(signal.SIGKILL, killed)
    with ThreadPoolExecutor() as pool:  # Slurm takes a minute or two until it ends the hanging job
        alone = pool.submit(local.run, "--until", "aggregate")
        driver.finish()
        run = alone.result()
    jobs = driver.accounted("segment")

    # One GPU per job, two jobs at a time on a node of two GPUs; its cores and memory would do for four
    assert len(jobs) == 4 + 3
    for job in jobs:
        assert "gres/gpu=1" in job["AllocTRES"].split(","), job
    assert max(busiest(jobs).values()) == 2
    logs = [file.read_text() for file in (study.folder / "results" / "logs" / "segment").rglob("*.log")]
    assert len(logs) == 4
    assert all(re.search(r"GPU [01], chosen by Slurm", text) for text in logs), logs

    # Jobs out of time, cancelled and killed ran again and asked for more
    lost = {job["JobID"]: job for job in jobs if job["State"] != "COMPLETED"}
    assert set(lost) == {hanging, cancelled, killed}
    assert lost[hanging]["State"] == "TIMEOUT"
    assert lost[cancelled]["State"].startswith("CANCELLED")
    for job in lost.values():
        (again,) = [one for one in jobs if one["Comment"] == job["Comment"] and one["JobID"] != job["JobID"]]
        assert job["TimelimitRaw"] == ("1" if job["JobID"] == hanging else "60")
        assert (megabytes(again), again["TimelimitRaw"]) == (2 * megabytes(job), "120")

    # The local run has the same results
    assert run.code == 0, run.text
    assert masks(study) == masks(local) != {}
    tables = [pd.read_parquet(one.folder / "results" / "tables" / "scores.parquet") for one in (study, local)]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))  # all but times
    assert study.plan() == {}


def test_an_ended_driver_and_a_node_that_goes_down(
    cluster: Cluster, study: Study, drive: Callable[..., Driver]
) -> None:
    keep_volumes(study, 1)
    study.configure(experiments=ONE_MODEL)
    first = drive(cluster, study, "--until", "segment")
    first.wait_for_job("segment")
    first.process.send_signal(signal.SIGINT)
    assert first.end() != 0
    assert cluster.run("squeue", "-h", "-t", "RUNNING,PENDING").strip() == "", "the jobs of an ended run are cancelled"
    finished = {
        job["Comment"]
        for rule in ("convert", "extract_prompts", "segment")
        for job in first.accounted(rule)
        if job["State"] == "COMPLETED"
    }
    assert len(finished) >= 2

    second = drive(cluster, study, "--until", "segment")
    running = second.wait_for_job("segment")
    node = cluster.run("squeue", "-h", "-j", running, "-o", "%N").strip()
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        for number in cluster.run("squeue", "-h", "-t", "PENDING", "-o", "%i").split():
            cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")  # Slurm would wait two minutes
        second.finish()
    finally:
        cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
    attempts = [job for rule in ("convert", "extract_prompts", "segment") for job in second.accounted(rule)]
    for comment in finished:
        assert [job["State"] for job in attempts if job["Comment"] == comment] == ["COMPLETED"]
    assert {job["State"] for job in attempts if job["JobID"] == running} & {"NODE_FAIL", "REQUEUED"}
    assert len(masks(study)) == 2
    planned = study.run("--dry-run", "--until", "segment")
    assert (planned.code, planned.jobs) == (0, {})


def with_a_wrong_checkpoint(study: Study) -> None:
    """Leave one volume and two models, of which one has the checkpoint of the other."""
    keep_volumes(study, 1)
    models = study.config["models"]
    models["small_sam2"]["checkpoint"] = "models/small.pth"
    study.configure(experiments=BOTH_MODELS, models=models)


def test_a_fault_that_heals_and_one_that_does_not(cluster: Cluster, study: Study, drive: Callable[..., Driver]) -> None:
    with_a_wrong_checkpoint(study)
    memory = "300 + 12000 * (attempt - 1) if wildcards.model == 'small_sam' else 4000"
    report = ["--slurm-efficiency-report", "--slurm-efficiency-report-path", str(study.folder)]
    too_little = ["--set-resources", "segment:gpu=1", f"segment:mem_mb={memory}"]
    options = ["--slurm-status-command", "sacct", "--until", "segment", *report, *too_little]
    driver = drive(cluster, study, *options, console="volprompt")
    assert driver.end() != 0
    segment = driver.accounted("segment")
    healing = [job for job in segment if "sam1" in job["Comment"]]
    (lasting,) = (job for job in segment if "sam2" in job["Comment"])
    assert [(job["ReqMem"], job["State"]) for job in healing] == [("300M", "FAILED"), ("12300M", "COMPLETED")]
    assert lasting["State"] == "FAILED"
    assert len(masks(study)) == 2

    # Both are shown with what is known of them
    text = driver.text
    killed = f"Slurm job {healing[0]['JobID']}: OUT_OF_MEMORY, it needed more memory than it had asked for (300 MB)"
    assert killed in text, text
    assert re.search("Tried again: Segment sam1/small_sam, shard 00. with 12300 MB and 120 minutes", text), text
    assert text.count("does not fit sam2 architecture") == 1, text
    assert text.count(LASTING) == 1
    assert text.count("Tried again: ") == 1
    (efficiency,) = study.folder.glob("efficiency_report_*.csv")
    assert pd.read_csv(efficiency)["RuleName"].str.contains("rule_segment").sum() >= 2


def test_without_accounting(study: Study, drive: Callable[..., Driver]) -> None:
    with_a_wrong_checkpoint(study)
    with Cluster(accounting=False) as cluster:
        driver = drive(cluster, study, "--until", "segment")
        assert driver.end() != 0
    assert len(SUBMITTED.findall(driver.text)) == 4, driver.text
    assert len(masks(study)) == 2
    _, shown, log = driver.text.partition("Logfile results/logs/segment/sam2/small_sam2/")
    assert shown
    assert "does not fit sam2 architecture" in log
    assert LASTING in log
