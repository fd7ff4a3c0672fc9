"""The plain way against volprompt, interleaved: python benchmarks/compare.py [--size demo|official|full] [--runs N].

Same weights, volumes, threads and precision. Prints a table and writes it to the folder `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from cases import RESULTS, Case, suite

HERE = Path(__file__).parent
RUNNERS = ("plain", "ours")


def run(runner: str, folder: Path, out: Path, threads: int, precision: str) -> dict[str, Any]:
    """One run in a process of its own; what it printed last."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(HERE / f"{runner}.py"), str(folder), str(out), precision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def agreement(first: Path, second: Path) -> float:
    """The lowest Dice between the masks of two runs."""
    paths = sorted(path.relative_to(first) for path in first.glob("*/*.nii.gz"))
    assert paths == sorted(path.relative_to(second) for path in second.glob("*/*.nii.gz"))
    lowest = 1.0
    for path in paths:
        one, other = (np.asarray(nib.load(root / path).dataobj) > 0 for root in (first, second))
        size = int(one.sum()) + int(other.sum())
        lowest = min(lowest, 2 * int((one & other).sum()) / size if size else 1.0)
    return lowest


def compare(case: Case, runs: int, plain_precision: str | None = None) -> dict[str, Any]:
    """Medians over the runs, and the ratio of each pair; plain_precision: instead of the case's."""
    precisions = {"plain": plain_precision or case.precision, "ours": case.precision}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        case.make(folder)
        found: dict[str, list[dict[str, Any]]] = {runner: [] for runner in RUNNERS}
        for _ in range(runs):
            for runner in RUNNERS:
                found[runner].append(run(runner, folder, folder / runner, case.threads, precisions[runner]))
        lowest = agreement(folder / "plain", folder / "ours")
    row: dict[str, Any] = {"case": case.name, "device": case.device}
    row |= {f"{runner}_precision": precision for runner, precision in precisions.items()}
    for runner, results in found.items():
        for key in results[0]:
            row[f"{runner}_{key}"] = float(np.median([result[key] for result in results]))
    pairs = list(zip(found["plain"], found["ours"], strict=True))
    row["ratio"] = float(np.median([plain["seconds"] / ours["seconds"] for plain, ours in pairs]))
    row["ratio_with_startup"] = float(
        np.median([(a["seconds"] + a["startup"]) / (b["seconds"] + b["startup"]) for a, b in pairs])
    )
    row["lowest_dice"] = lowest
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| case | device, precision | runner | start-up s | seconds | encode s | prompt, track s | write s | slices/s "
        "| peak MB (GPU) | ratio | with start-up | lowest Dice |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for runner in RUNNERS:
            value = {key.removeprefix(f"{runner}_"): each for key, each in row.items()}
            prompt = value.get("prompt", 0.0) + value.get("track", 0.0)
            ends = (
                ["", "", ""]
                if runner == "plain"
                else [f"**{row['ratio']:.2f}**", f"{row['ratio_with_startup']:.2f}", f"{row['lowest_dice']:.4f}"]
            )
            cells = [
                row["case"], f"{row['device']}, {value['precision']}", runner, f"{value['startup']:.2f}",
                f"{value['seconds']:.2f}", f"{value.get('encode', float('nan')):.2f}", f"{prompt:.2f}",
                f"{value['write']:.2f}", f"{value['slices'] / value['seconds']:.2f}",
                f"{value['peak_memory_mb']:.0f} ({value['peak_gpu_memory_mb']:.0f})", *ends,
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare on every case of a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("demo", "official", "full"), default="demo")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--plain-precision", choices=("float32", "bfloat16"), help="instead of that of both")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="*", help="names of cases, instead of all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = []
    for case in suite(given.size, given.device):
        if given.cases and case.name not in given.cases:
            continue
        case.precision = given.precision or case.precision
        case.threads = given.threads
        rows.append(compare(case, given.runs, given.plain_precision))
        print(table(rows[-1:]), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    name = f"compare_{given.size}_{given.device}"
    (given.out / f"{name}.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    (given.out / f"{name}.md").write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
