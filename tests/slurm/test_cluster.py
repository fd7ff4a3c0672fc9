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
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from tests.slurm.cluster import Cluster
from tests.workflow.small_study import REPOSITORY, Study, new_study

# As the profile says, only more impatient.
IMPATIENT = ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "1"]
IMPATIENT += ["--latency-wait", "20", "--max-jobs-per-timespan", "100/1s"]
FIELDS = ["JobID", "State", "AllocTRES", "ReqMem", "TimelimitRaw", "NodeList", "Start", "End", "Comment"]
ONE_MODEL = {"sam1": {"models": ["small_sam"], "schemes": ["point"]}}


class Driver:
    """A running `snakemake --profile slurm` on a study."""

    def __init__(self, cluster: Cluster, study: Study, *arguments: str) -> None:
        self.cluster, self.study = cluster, study
        self.printed = study.folder / "driver.txt"
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--directory", str(study.folder)]
        command += ["--configfile", str(study.folder / "config.yaml"), *IMPATIENT, *arguments]
        with self.printed.open("a") as output:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=cluster.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # Where the tests run in the background, a shell has made them ignore Ctrl+C, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_for_job(self, rule: str, *but: str) -> str:
        """The number of a running job of a rule, other than those of `but`, once there is one."""
        deadline = time.monotonic() + 180
        while self.process.poll() is None and time.monotonic() < deadline:
            for line in self.cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%i|%k").splitlines():
                number, _, comment = line.partition("|")
                if comment.startswith(f"rule_{rule}") and number not in but:
                    return number
            time.sleep(0.2)
        raise AssertionError(f"no job of {rule}: {self.text}")

    def finish(self) -> str:
        """Wait for a run that succeeds; what it printed."""
        assert self.process.wait(300) == 0, self.text
        return self.text

    @property
    def text(self) -> str:
        return self.printed.read_text()


def keep_volumes(study: Study, count: int) -> None:
    """Reduce a study to its first volumes."""
    rows = (study.folder / "volumes.tsv").read_text().splitlines(keepends=True)
    (study.folder / "volumes.tsv").write_text("".join(rows[: 1 + count]))


def accounted(cluster: Cluster, study: Study, rule: str) -> list[dict[str, str]]:
    """What accounting holds of a study's jobs of one rule, of every attempt."""
    runs = set(re.findall(r"SLURM run ID: (\S+)", (study.folder / "driver.txt").read_text()))
    assert runs
    for _ in range(40):  # the database lags behind by some seconds
        if not cluster.run("squeue", "-h"):
            break
        time.sleep(0.5)
    time.sleep(6)
    printed = cluster.run("sacct", "-X", "-P", "-D", "--name", ",".join(runs), "-o", ",".join(FIELDS))
    rows = csv.DictReader(printed.splitlines(), delimiter="|")
    return [row for row in rows if row["Comment"].startswith(f"rule_{rule}_")]


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
    deadline = time.monotonic() + 30
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

    def start(cluster: Cluster, study: Study, *arguments: str) -> Driver:
        started.append(Driver(cluster, study, *arguments))
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
    driver.finish()
    jobs = accounted(cluster, study, "segment")

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
        assert (job["ReqMem"], job["TimelimitRaw"]) == ("12000M", "1" if job["JobID"] == hanging else "60")
        assert (again["ReqMem"], again["TimelimitRaw"]) == ("24000M", "120")

    # The local run has the same results
    run = local.run()
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
    assert first.process.wait(120) != 0
    assert cluster.run("squeue", "-h", "-t", "RUNNING,PENDING").strip() == "", "the jobs of an ended run are cancelled"
    finished = {
        job["Comment"]
        for rule in ("convert", "extract_prompts", "segment")
        for job in accounted(cluster, study, rule)
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
    attempts = [job for rule in ("convert", "extract_prompts", "segment") for job in accounted(cluster, study, rule)]
    for comment in finished:
        assert [job["State"] for job in attempts if job["Comment"] == comment] == ["COMPLETED"]
    assert {job["State"] for job in attempts if job["JobID"] == running} & {"NODE_FAIL", "REQUEUED"}
    assert len(masks(study)) == 2
    planned = study.run("--dry-run", "--until", "segment")
    assert (planned.code, planned.jobs) == (0, {})


def test_out_of_memory_as_the_accounting_database_tells_it(
    cluster: Cluster, study: Study, drive: Callable[..., Driver]
) -> None:
    keep_volumes(study, 1)
    study.configure(experiments=ONE_MODEL)
    too_little = ["--set-resources", "segment:gpu=1", "segment:mem_mb=300 + 12000 * (attempt - 1)"]
    text = drive(cluster, study, "--slurm-status-command", "sacct", "--until", "segment", *too_little).finish()
    assert len(re.findall("has been submitted with SLURM jobid", text)) == 3 + 1
    first, second = accounted(cluster, study, "segment")
    assert (first["ReqMem"], first["State"]) == ("300M", "FAILED")
    assert (second["ReqMem"], second["State"]) == ("12300M", "COMPLETED")
    assert len(masks(study)) == 2


def test_without_accounting(study: Study, drive: Callable[..., Driver]) -> None:
    keep_volumes(study, 1)
    study.configure(experiments=ONE_MODEL)
    with Cluster(accounting=False) as cluster:
        text = drive(cluster, study, "--until", "segment").finish()
    assert len(re.findall("has been submitted with SLURM jobid", text)) == 3
    assert len(masks(study)) == 2
