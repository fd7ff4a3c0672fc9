"""What configurations and experiments cost, worked out by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from tests.unit.tables.score_tables import NAN, ran, scored

from volprompt.tables.cost import cost, experiment_cost


def phases(read: float = 0.0, encode: float = 1.0, prompt: float = 0.5, write: float = 0.25) -> dict[str, float]:
    return {"seconds_read": read, "seconds_encode": encode, "seconds_prompt": prompt, "seconds_write": write}


def described(**more: Any) -> dict[str, Any]:
    rest = {"peak_memory_mb": 1.0, "peak_gpu_memory_mb": NAN, "device": "CPU", "precision": "float32"}
    return {"prompts": 4, "human_prompts": 2, "slices_per_second": 2.0, **phases(), **rest, **more}


def test_cost_is_the_median_over_volumes_and_the_peak_of_memory() -> None:
    done = ran("m", "point", [3.0, 5.0, 100.0], **described()).assign(
        prompts=[1, 4, 100],
        human_prompts=[1, 2, 100],
        seconds_encode=[1.0, 2.0, 90.0],
        seconds_prompt=[0.1, 0.5, 9.0],
        slices_per_second=[1.0, 7.0, 40.0],
        peak_memory_mb=[100, 300, 200],
        peak_gpu_memory_mb=[70, 50, 60],
    )
    failed = ran("m", "point", [1000.0], **described(status="failed", peak_memory_mb=999, prompts=999))
    scores = pd.concat([scored("m", "point", [0.5, 0.7, NAN]), scored("m", "point", [0.1], "femur")])
    (row,) = cost(pd.concat([done, failed]), scores).to_dict("records")
    assert row["dice"] == pytest.approx(0.6)
    assert (row["model"], row["scheme"], row["volumes"], row["parameters"]) == ("m", "point", 3, 1000)
    assert (row["prompts_per_volume"], row["human_prompts_per_volume"]) == (4, 2)
    assert (row["seconds_per_volume"], row["seconds_encode"], row["seconds_prompt"]) == (5.0, 2.0, 0.5)
    assert (row["slices_per_second"], row["peak_memory_mb"], row["peak_gpu_memory_mb"]) == (7.0, 300, 70)
    assert (row["seconds_shared"], row["seconds_own"]) == (2.0, 0.75)
    assert (row["device"], row["precision"]) == ("CPU", "float32")


def test_what_an_experiments_schemes_share_is_counted_once() -> None:
    """Two volumes under two schemes: reading and encoding take 2 and 3 s, the schemes 1 and 4 s each."""
    first = phases(read=0.5, encode=1.5, prompt=0.75, write=0.25)
    second = phases(read=1.0, encode=2.0, prompt=3.5, write=0.5)
    parts = [
        ran("m", scheme, [0.0, 0.0]).assign(**{name: [first[name], second[name]] for name in first})
        for scheme in ("point", "box")
    ]
    (row,) = experiment_cost(pd.concat([*parts, ran("m", "point", [0.0], status="failed", **phases())])).to_dict(
        "records"
    )
    assert (row["experiment"], row["model"], row["schemes"], row["volumes"]) == ("e", "m", 2, 2)
    assert (row["seconds_shared"], row["seconds_own"], row["seconds"]) == (5.0, 10.0, 15.0)
    assert row["seconds_apart"] == 20.0
