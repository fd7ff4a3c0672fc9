"""How much of the hardware is used: python benchmarks/utilisation.py [--device cuda --size full].

The share of the measured matrix-product peak that encoder and tracking reach (their operations as
`torch.utils.flop_counter` counts them), and how much of a job's time the GPU is busy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cases import TINY, Case, demo, official
from torch.utils.flop_counter import FlopCounterMode

from volprompt.models.engine import segment_volumes


def matmul_peak(device: str, precision: str, side: int) -> float:
    """Operations per second of a large matrix product."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    best = min(timed(lambda: left @ right, device) for _ in range(10))
    return 2 * side**3 / best


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds until the device has done the work."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def shares(case: Case, folder: Path, peak: float) -> None:
    """Print the shares of encoder and tracking."""
    model, volume, schemes = case.load(folder)
    tracked = {name: given for name, given in volume.prompts.items() if schemes[name].predictor == "video"}
    volume = replace(volume, prompts=tracked)
    batch = 8 if case.device == "cuda" else 1

    def encode() -> None:
        with model.inference():
            for start in range(0, len(volume.frames), batch):
                model.encode(volume.frames[start : start + batch])

    def track() -> list:
        return segment_volumes(model, [volume], schemes, batch)

    measured = [counted(encode, case.device), counted(track, case.device)]
    (encoding, encoding_seconds), (both, both_seconds) = measured
    measured.append((both - encoding, both_seconds - encoding_seconds))
    for name, (operations, spent) in zip(("encoder", "encoder and tracking", "tracking"), measured, strict=True):
        print(f"| {case.name} | {name} | {operations / 1e12:.3f} | {spent:.2f} | {operations / spent / peak:.0%} |")


def counted(work: Callable[[], Any], device: str) -> tuple[float, float]:
    """Operations and seconds of some work."""
    work()
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops(), timed(work, device)


def busy(case: Case, folder: Path) -> None:
    """Print the share of a whole job's time in which the GPU computes."""

    def job() -> None:
        case.segment(folder, folder / "masks")

    if case.device != "cuda":
        print(f"{case.name}: {timed(job, case.device):.1f} s for {case.volumes} volumes; the busy share needs a GPU")
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        spent = timed(job, "cuda")
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    covered, until = 0.0, float("-inf")
    for start, end in spans:
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    first, last = spans[0][0], max(end for _, end in spans)
    between = (last - first) / 1e6
    print(
        f"{case.name}: GPU busy {covered / (last - first):.0%} of the {between:.1f} s from its first to its last kernel"
    )
    print(f"(the job of {case.volumes} volumes with start-up: {spent:.1f} s)")


def main() -> None:
    """Print peak, shares and the busy share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("demo", "full"), default="demo")
    given = parser.parse_args()
    precision = "bfloat16" if given.device == "cuda" else "float32"
    settings: dict[str, Any] = {"device": given.device, "precision": precision}
    if given.size == "demo":
        case = demo("sam2", volumes=2, shape=(20, 96, 96), spacing=(5.6, 1.46, 1.46), **settings)
    else:
        case = official("sam2.1_hiera_tiny", "sam2", TINY, None, volumes=8, **settings)
    peak = matmul_peak(given.device, precision, 8192 if given.device == "cuda" else 1024)
    print(f"matrix product: {peak / 1e12:.2f} Tflop/s ({given.device}, {precision})\n")
    print("| case | part | Tflop | seconds | share of the peak |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        case.make(Path(temporary))
        shares(case, Path(temporary), peak)
        print()
        busy(case, Path(temporary))


if __name__ == "__main__":
    main()
