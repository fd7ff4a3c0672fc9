"""The run table: one row per volume and scheme, with times and memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from volprompt import __version__
from volprompt.families import family_of
from volprompt.prompts.schemes import ObjectPrompt, SchemePrompts

RUN_COLUMNS = (
    "volume",
    "scheme",
    "status",
    "stage",
    "reason",
    "slices",
    "prompts",
    "prompts_of",
    "clicks_of",
    "human_prompts",
    "prompted_slices",
    "absent",
    "no_prompt",
    "lacking_negatives",
    "seconds_read",
    "seconds_encode",
    "seconds_prompt",
    "seconds_write",
    "seconds_rounds",
    "seconds",
    "slices_per_second",
)

OF_OBJECT = {"volume": "string", "scheme": "string", "structure": "string"}
CLICK_COLUMNS = {
    **OF_OBJECT,
    "round": "int32",
    "slice": "int32",
    "x": "float32",
    "y": "float32",
    "label": "int32",
}
CONFIDENCE_COLUMNS = {**OF_OBJECT, "slice": "int32", "predicted_iou": "float32", "object_score": "float32"}


class Stopwatch:
    """Seconds spent in named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to the phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def failed_run(volume: str, scheme: str, reason: str, stage: str = "segment") -> dict[str, Any]:
    """A row of the run table for a volume without masks under a scheme; stage: where the fault was found."""
    return {"volume": volume, "scheme": scheme, "status": "failed", "stage": stage, "reason": reason}


def run_row(
    volume: str,
    scheme: str,
    depth: int,
    prompts: Sequence[ObjectPrompt],
    asked: SchemePrompts,
    seconds: Mapping[str, float],
    seconds_rounds: Sequence[float] = (),
    clicked: Sequence[str] = (),
) -> dict[str, Any]:
    """A row of the run table for a volume with masks.

    prompts: those of `asked`, with masks where it has them.
    seconds: by phase.
    seconds_rounds: of each round of a scheme with corrections, as part of the phase `prompt`.
    clicked: the structure of each correction click.

    Reading and encoding are shared by the experiment's schemes, and counted in full for each.
    """
    total, prompts_of = sum(seconds.values()), _prompts_of(prompts)
    return {
        "volume": volume,
        "scheme": scheme,
        "status": "ok",
        "stage": "segment",
        "reason": "",
        "slices": depth,
        "prompts": sum(prompts_of.values()) + len(clicked),
        "prompts_of": json.dumps(prompts_of),
        "clicks_of": json.dumps(Counter(clicked)),
        "human_prompts": human_prompts(prompts) + len(clicked),
        "prompted_slices": json.dumps(_prompted_slices(prompts)),
        "absent": json.dumps(asked.absent),
        "no_prompt": json.dumps(asked.unprompted),
        "lacking_negatives": json.dumps(asked.lacking),
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
        "seconds_rounds": json.dumps([round(value, 3) for value in seconds_rounds]),
        "seconds": total,
        "slices_per_second": depth / total,
    }


def _prompted_slices(prompts: Sequence[ObjectPrompt]) -> dict[str, list[int]]:
    slices: dict[str, list[int]] = {}
    for prompt in prompts:
        slices.setdefault(prompt.structure, []).append(prompt.slice)
    return slices


def human_prompts(prompts: Sequence[ObjectPrompt]) -> int:
    """Return the number of points, boxes and masks that a person would give for these prompts.

    A point that is positive for one object and negative for others is given once.
    """
    points = {(prompt.slice, float(x), float(y)) for prompt in prompts for x, y in prompt.points}
    return len(points) + sum(prompt.count - len(prompt.points) for prompt in prompts)


def _prompts_of(prompts: Sequence[ObjectPrompt]) -> dict[str, int]:
    """Number of points, boxes and masks by structure."""
    counts: dict[str, int] = {}
    for prompt in prompts:
        counts[prompt.structure] = counts.get(prompt.structure, 0) + prompt.count
    return counts


def confidence_rows(predicted_iou: np.ndarray, object_score: np.ndarray) -> pd.DataFrame:
    """How sure the model is of one structure: a row per slice on which something was decoded."""
    slices = np.flatnonzero(~np.isnan(predicted_iou))
    columns = {"predicted_iou": predicted_iou[slices], "object_score": object_score[slices]}
    return pd.DataFrame({"slice": slices, **columns})


def peak_memory() -> dict[str, float]:
    """Peak memory of this process so far in MB, on the host and on the GPU (NaN without one)."""
    import torch

    on_gpu = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else float("nan")
    return {"peak_memory_mb": _peak_on_host(), "peak_gpu_memory_mb": on_gpu}


def _peak_on_host() -> float:
    """In MB. Linux counts a parent's memory into getrusage's figure of its child, but not into VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def run_columns(facts: Mapping[str, Any]) -> list[str]:
    return [*RUN_COLUMNS, "peak_memory_mb", "peak_gpu_memory_mb", *facts]


def package_versions(family: str) -> dict[str, str]:
    """Versions of what makes the masks of a family's models: volprompt, torch, and the family's own packages."""
    packages = ("torch", "torchvision", *family_of(family).packages)
    return {"volprompt": __version__, **{package: version(package) for package in packages}}
