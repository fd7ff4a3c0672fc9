"""Peak memory of segmentation jobs: python benchmarks/memory.py [MODEL ...] [--device cuda].

Random weights of every published size on few slices of 384 x 384, a process for each. What jobs ask for goes by it:
volprompt/study/memory.py, docs/cluster.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import PUBLISHED_SAM, PUBLISHED_SAM2, Case, demo, official

OURS = Path(__file__).with_name("ours.py")


def cases(device: str, slices: int, threads: int) -> dict[str, Case]:
    """The demo's models on whole volumes, and the published sizes on few slices."""
    settings = {"device": device, "threads": threads}
    found = [demo(family, **settings) for family in ("sam", "sam2")]
    for family, published in {"sam": PUBLISHED_SAM, "sam2": PUBLISHED_SAM2}.items():
        found += [official(name, family, path, slices, **settings) for name, path in published.items()]
    return {case.name: case for case in found}


def measured(case: Case, precision: str) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        case.make(Path(folder))
        command = [sys.executable, str(OURS), folder, f"{folder}/masks", precision]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        weights = Path(str(case.checkpoint)).stat().st_size / 1e6
    figures = (weights, found["peak_memory_mb"], found["peak_gpu_memory_mb"], found["seconds"])
    return f"| {case.name} | {precision} | {case.shape[0]} | " + " | ".join(f"{each:.0f}" for each in figures) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("models", nargs="*")
    given = parser.parse_args()
    every = cases(given.device, given.slices, given.threads)
    print("| model | precision | slices | weights MB | peak MB | peak of the GPU MB | seconds |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in given.models or every:
        for precision in given.precisions:
            print(measured(every[name], precision), flush=True)


if __name__ == "__main__":
    main()
