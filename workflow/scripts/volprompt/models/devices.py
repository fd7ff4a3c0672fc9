"""Where a model runs, in which precision, and whose turn it is on a local GPU."""

from __future__ import annotations

import ctypes
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from volprompt.errors import VolpromptError
from volprompt.logs import logger

if TYPE_CHECKING:
    import torch


class DeviceError(VolpromptError):
    """A device or precision that was asked for and is not there."""


class NoGpu(DeviceError):
    """A machine without a GPU that works."""

    may_heal = True  # on another node


@dataclass(frozen=True)
class Device:
    """The chosen device ('cpu' or 'cuda'), precision ('float32' or 'bfloat16') and the hardware's name.

    attention, compile: see `Inference`.
    """

    kind: str
    precision: str
    name: str
    attention: Literal["auto", "package"] = "auto"
    compile: bool = False

    def torch(self) -> torch.device:
        """The device as torch names it."""
        import torch

        return torch.device(self.kind)


def hide_gpus() -> None:
    """Let this process see no GPU: packages of models use one wherever it is. To be called before torch looks."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def choose_device(device: str, precision: str) -> Device:
    """Resolve the configuration's device and precision, 'auto' included. Raises DeviceError rather than fall back."""
    if device == "cpu":
        hide_gpus()
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise NoGpu(
            "inference.device is 'cuda', and torch finds no CUDA GPU here. Run on a machine with one, request it from "
            "the scheduler (resource gpu), or set inference.device to 'cpu' or 'auto'."
        )
    kind = "cuda" if available and device != "cpu" else "cpu"
    if precision == "auto":
        precision = (
            "bfloat16" if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
        )
        if kind == "cpu" and has_bfloat16():
            logger.info(
                "this processor has bfloat16, in which large models take about half the time of float32 "
                "(inference.precision: bfloat16)"
            )
    name = torch.cuda.get_device_name() if kind == "cuda" else "CPU"
    logger.info("device: %s (%s asked for), precision: %s", name, device, precision)
    return Device(kind, precision, name)


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16."""
    import torch

    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_freed_memory() -> None:
    """Let this process keep the memory of large tensors for the next ones; for jobs on a CPU.

    By default glibc returns it to the kernel, which then clears fresh pages for each new tensor (about a tenth of a
    job's time, benchmarks/README.md). The numbers are those of mallopt(3). Other C libraries are left alone.
    """
    trim_threshold, mmap_max = -1, -4
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them; torch is not imported."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    # CUDA counts from 0 those that are there, whatever the numbers of their device files are (in a container).
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


@contextmanager
def lease_gpu(count: int, poll_seconds: float = 1.0) -> Iterator[None]:
    """Hold `count` of the visible GPUs until the block ends; to be entered before torch is imported.

    Snakemake hands out no device numbers to local jobs, so each GPU has lock files in a folder of this user on this
    node, which the kernel releases when the process dies: one, or as many as VOLPROMPT_JOBS_PER_GPU lets jobs share a
    GPU. Inside an allocation of Slurm the leases are among the allocation's GPUs. Nothing is done without a GPU, or
    where Slurm names none. Raises DeviceError where more GPUs are asked for than are visible, or where
    VOLPROMPT_JOBS_PER_GPU is no positive whole number.
    """
    gpus = visible_gpus()
    if count == 0 or not gpus:
        yield
        return
    allocation = os.environ.get("SLURM_JOB_ID")
    if allocation and "CUDA_VISIBLE_DEVICES" not in os.environ:
        logger.info("Slurm names no GPU; which one is used is left to it")
        yield
        return
    if count > len(gpus):
        raise DeviceError(f"the job asks for {count} GPUs, and {len(gpus)} are visible; lower its resource gpu")
    # Slurm may number the GPUs of every allocation from 0.
    prefix = f"slurm-{allocation}-gpu" if allocation else "gpu"
    jobs_per_gpu = _jobs_per_gpu()
    while (leases := _lease(count, gpus, prefix, jobs_per_gpu)) is None:
        time.sleep(poll_seconds * random.uniform(0.5, 1.5))
    with leases:
        chosen = ", chosen by Slurm" if allocation and len(gpus) == count else ""
        logger.info("holding GPU %s%s", os.environ["CUDA_VISIBLE_DEVICES"], chosen)
        yield


def _jobs_per_gpu() -> int:
    text = os.environ.get("VOLPROMPT_JOBS_PER_GPU", "1")
    if not text.isdecimal() or int(text) == 0:
        raise DeviceError(f"VOLPROMPT_JOBS_PER_GPU is '{text}'; expected a whole number from 1 on")
    return int(text)


def _lease(count: int, gpus: list[str], prefix: str, jobs_per_gpu: int) -> ExitStack | None:
    """All that is asked for, the emptiest GPUs first, or nothing: who waits holds nothing that another waits for."""
    with ExitStack() as leases:
        held: list[str] = []
        for place in range(jobs_per_gpu):
            for gpu in gpus:
                if len(held) < count and gpu not in held and _try_lock(f"{prefix}-{gpu}-{place}.lock", leases):
                    held.append(gpu)
        if len(held) == count:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
            return leases.pop_all()
    return None


def _try_lock(name: str, leases: ExitStack) -> bool:
    folder = Path(tempfile.gettempdir()) / f"volprompt-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        leases.enter_context(FileLock(folder / name.replace("/", "-"), timeout=0))
    except Timeout:
        return False
    return True
