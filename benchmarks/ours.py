"""The same by volprompt: the function behind the rule `segment`, on the folder of plain.py. Prints timings as JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
from cases import read_case


def main(folder: Path, out: Path, precision: str) -> None:
    """Segment the case's volumes under all of its schemes at once, and write the masks."""
    case = replace(read_case(folder), precision=precision)
    started = time.perf_counter()
    case.segment(folder, out)
    total = time.perf_counter() - started
    runs = pd.read_parquet(out / "run.parquet")
    startup = sum(float(runs.iloc[0][f"seconds_{phase}"]) for phase in ("import", "verify", "build", "load"))
    volumes = runs.drop_duplicates("volume")
    print(
        json.dumps(
            {
                "startup": startup,
                "seconds": total - startup,
                "slices": int(volumes["slices"].sum()),
                "read": float(volumes["seconds_read"].sum()),
                "encode": float(volumes["seconds_encode"].sum()),
                "prompt": float(runs["seconds_prompt"].sum()),
                "write": float(runs["seconds_write"].sum()),
                "peak_memory_mb": float(runs["peak_memory_mb"].max()),
                "peak_gpu_memory_mb": float(runs["peak_gpu_memory_mb"].max()),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
