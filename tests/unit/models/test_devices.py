"""The choice of a device, and the lease of a GPU among processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from volprompt.models import devices
from volprompt.models.devices import DeviceError, choose_device, lease_gpu, visible_gpus

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")

# Holds a GPU for a moment. A file per GPU, which must not be there yet, stands for the GPU's memory.
USE = """
import os, sys, time
from volprompt.models.devices import lease_gpu
with lease_gpu(int(sys.argv[1]), poll_seconds=0.02):
    held = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    files = [f"used-{gpu}" for gpu in held]
    for file in files:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    time.sleep(0.2)
    for file in files:
        os.remove(file)
print(*held)
"""
CHOOSE = """
import os
from volprompt.models.devices import choose_device
choose_device("{}", "auto")
print(os.environ["CUDA_VISIBLE_DEVICES"])
"""
HOLD = """
import os, time
from volprompt.models.devices import lease_gpu
with lease_gpu(1, poll_seconds=0.02):
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(60)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of processes on a machine with two GPUs."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "CUDA"))}
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    return {
        **environment,
        "TMPDIR": str(tmp_path / "tmp"),
        "CUDA_VISIBLE_DEVICES": "0,1",
    }


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen]]:
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def start(started: list[subprocess.Popen], environment: dict[str, str], *command: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started.append(process)
    return process


def result(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return output.strip()


def line(process: subprocess.Popen) -> str:
    """The first line that a process prints, once it is there."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


# Device and precision


@without_cuda
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_cuda_that_is_not_there_is_an_error(precision: str) -> None:
    with pytest.raises(DeviceError, match="no CUDA GPU here"):
        choose_device("cuda", precision)


@without_cuda
def test_auto_without_cuda_is_the_cpu() -> None:
    device = choose_device("auto", "auto")
    assert (device.kind, device.precision, device.name) == ("cpu", "float32", "CPU")


def test_the_cpu_where_it_is_asked_for() -> None:
    assert choose_device("cpu", "auto").precision == "float32"
    assert choose_device("cpu", "bfloat16").precision == "bfloat16"
    assert choose_device("cpu", "auto").torch() == torch.device("cpu")


def test_the_cpu_alone_hides_every_gpu(machine: dict[str, str]) -> None:
    """Before torch looks: the packages of models put tensors on a GPU wherever torch sees one."""
    hidden, left = (
        subprocess.run(
            [sys.executable, "-c", CHOOSE.format(device)], env=machine, capture_output=True, text=True, check=True
        ).stdout.strip()
        for device in ("cpu", "auto")
    )
    assert (hidden, left) == ("", "0,1")


def test_bfloat16_is_recommended_once_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda: True)
    with caplog.at_level("INFO"):
        assert choose_device("cpu", "auto").precision == "float32"
        assert caplog.text.count("inference.precision: bfloat16") == 1
        choose_device("cpu", "float32")
        choose_device("cpu", "bfloat16")
    assert caplog.text.count("inference.precision: bfloat16") == 1


@pytest.mark.parametrize(("listed", "gpus"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("2, 0", ["2", "0"])])
def test_visible_gpus(monkeypatch: pytest.MonkeyPatch, listed: str, gpus: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == gpus


def test_gpus_are_counted_from_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # In a container with the machine's fourth and sixth GPU; the other files are no GPUs.
    for name in ("nvidia3", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("volprompt.models.devices.Path", lambda _: tmp_path)
    assert visible_gpus() == ["0", "1"]


# Lease


def test_a_gpu_has_one_holder(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    for _ in range(6):
        start(processes, machine, USE, "1")
    held = [result(process) for process in processes]
    assert set(held) == {"0", "1"}


def test_jobs_with_one_and_with_two_gpus(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    for count in ("1", "2", "1"):
        start(processes, machine, USE, count)
    assert result(processes[1]) in ("0 1", "1 0")
    assert {result(processes[0]), result(processes[2])} <= {"0", "1"}


def test_the_gpu_of_a_killed_process_is_free_again(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    machine["CUDA_VISIBLE_DEVICES"] = "1"
    holder = start(processes, machine, HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "1\n"
    waiting = start(processes, machine, USE, "1")
    time.sleep(0.5)
    assert waiting.poll() is None
    holder.kill()
    assert result(waiting) == "1"


def test_jobs_with_two_gpus_do_not_wait_for_each_other(
    machine: dict[str, str], processes: list[subprocess.Popen]
) -> None:
    for _ in range(5):
        start(processes, machine, USE, "2")
    assert {result(process) for process in processes} <= {"0 1", "1 0"}


def test_many_processes_and_killed_ones(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    machine["CUDA_VISIBLE_DEVICES"] = "0,1,2,3"
    holders = [start(processes, machine, HOLD) for _ in range(4)]
    assert sorted(line(holder) for holder in holders) == ["0", "1", "2", "3"]
    waiting = [start(processes, machine, USE, "1") for _ in range(12)]
    time.sleep(1)
    assert [process.poll() for process in waiting] == [None] * 12
    waiting.pop().kill()  # one that waits
    for holder in holders[:3]:
        holder.kill()
    assert {result(process) for process in waiting} <= {"0", "1", "2", "3"}
    assert holders[3].poll() is None


def test_jobs_share_a_gpu_where_they_may(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    machine["VOLPROMPT_JOBS_PER_GPU"] = "2"
    first = [start(processes, machine, HOLD) for _ in range(2)]
    assert sorted(line(holder) for holder in first) == ["0", "1"], "an empty GPU comes first"
    second = [start(processes, machine, HOLD) for _ in range(2)]
    assert sorted(line(holder) for holder in second) == ["0", "1"]
    fifth = start(processes, machine, HOLD)
    time.sleep(0.5)
    assert fifth.poll() is None
    first[0].kill()
    assert line(fifth) in ("0", "1")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
def test_jobs_per_gpu_that_is_no_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("VOLPROMPT_JOBS_PER_GPU", value)
    with pytest.raises(DeviceError, match=r"VOLPROMPT_JOBS_PER_GPU is .*; expected a whole number"), lease_gpu(1):
        pass


@pytest.mark.parametrize(("listed", "count"), [("1", "1"), ("0,1", "2")])
def test_what_slurm_has_chosen_is_taken_by_one_job_at_a_time(
    machine: dict[str, str], processes: list[subprocess.Popen], listed: str, count: str
) -> None:
    machine.update(SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES=listed)
    for _ in range(3):
        start(processes, machine, USE, count)
    assert [result(process) for process in processes] == [listed.replace(",", " ")] * 3


def test_nothing_happens_where_slurm_names_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("volprompt.models.devices.visible_gpus", lambda: ["0", "1"])
    with lease_gpu(1):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_lease_inside_an_allocation(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    # Each of two allocations on one node has two GPUs, which Slurm numbers from 0 in both.
    for allocation in ("7", "8"):
        machine["SLURM_JOB_ID"] = allocation
        holders = [start(processes, dict(machine), HOLD) for _ in range(2)]
        assert sorted(line(holder) for holder in holders) == ["0", "1"]


@pytest.mark.parametrize("listed", ["", "0,1"])
def test_nothing_happens_where_no_gpu_is_asked_for_or_there(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    with lease_gpu(0 if listed else 1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == listed


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(DeviceError, match="asks for 3 GPUs, and 2 are visible"), lease_gpu(3):
        pass


def test_names_of_parts_of_gpus(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    # CUDA before version 11.4 names the parts of a GPU with slashes.
    machine["CUDA_VISIBLE_DEVICES"] = "MIG-GPU-8932f937/1/0,GPU-5c89"
    holder = start(processes, machine, HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "MIG-GPU-8932f937/1/0\n"
    second = start(processes, machine, HOLD)
    assert second.stdout is not None
    assert second.stdout.readline() == "GPU-5c89\n"


def test_the_lease_loads_no_torch(machine: dict[str, str], processes: list[subprocess.Popen]) -> None:
    lease = "from volprompt.models.devices import lease_gpu"
    program = f"import sys\n{lease}\nwith lease_gpu(1): print('torch' in sys.modules)"
    assert result(start(processes, machine, program)) == "False"
