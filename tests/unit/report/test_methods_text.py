"""The methods text: what it says follows from the study's own settings."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from volprompt.families import FAMILIES
from volprompt.report.methods_text import CITATIONS, bibliography, methods_text
from volprompt.report.shards import StudyDesign
from volprompt.settings.config import Frames
from volprompt.settings.schemes import Scheme

DESIGN: dict[str, Any] = {
    "labels": {"femur": [1], "tibia": [3, 4], "patella": []},
    "scored": ["femur", "tibia"],
    "schemes": {
        "box": Scheme(predictor="image", box=True),
        "corrected": Scheme(predictor="video", slice="largest", box=True, corrections={"clicks": 5}),
    },
    "experiments": {"all": (["vit", "three"], ["box", "corrected"])},
    "models": {
        "vit": {"family": "sam", "architecture": "vit_b"},
        "three": {"family": "sam3", "architecture": "sam3"},
    },
}


def text(volumes: int = 8, **changes: Any) -> str:
    names = [f"v{number}" for number in range(volumes)]
    grid = {"shape": [np.array([160, 384, 384])] * volumes, "spacing": [[0.7, 0.4, 0.4]] * volumes}
    table = pd.DataFrame({"volume": names, "status": "ok", **grid})
    scores = pd.DataFrame({"volume": names, "status": "ok", "structure": "femur", "tolerance_mm": 1.0})
    runs = pd.DataFrame(
        {"model": ["vit"], "checkpoint_sha256": ["a" * 64], "device": ["H200"], "precision": ["bfloat16"]}
    )
    return methods_text(scores, table, runs, StudyDesign(**{**DESIGN, **changes}))


def test_what_was_done() -> None:
    said = text()
    assert said.startswith(
        "We segmented 8 volumes (160 × 384 × 384 voxels of 0.7 × 0.4 × 0.4 mm) without training. Each volume was taken "
        "as sagittal slices of 8 bit over the 0.5th to 99.5th percentile of its grey values. Structures: femur (label "
        "1), tibia (labels 3, 4)."
    )
    assert f"vit (vit_b, checkpoint SHA-256 {'a' * 12}) [kirillov2023]; three (sam3) [carion2025]." in said
    assert "They ran on H200 in bfloat16." in said
    assert "box: Per structure a tight box of the reference, on every slice" in said
    assert "Up to 5 rounds of correction followed" in said
    assert "(order statistics)" in said


def test_what_depends_on_the_study() -> None:
    assert "a grey-value window from −160 to 240" in text(frames=Frames(window=(-160, 240)))
    groups = {f"v{number}": f"s{number // 2}" for number in range(14)}
    assert "14 volumes of 7 subjects" in text(14, groups=groups)
    assert "(bootstrap over subjects)" in text(14, groups=groups)
    assert "with fewer than 6 subjects no interval or test is given" in text(5)


def test_every_work_that_is_cited_is_listed() -> None:
    entries = set(re.findall(r"@article\{(\w+),", bibliography(StudyDesign(**DESIGN))))
    assert entries == set(re.findall(r"\[(\w+\d{4})\]", text()))
    assert entries < set(CITATIONS)
    assert "ravi2024" not in entries


def test_every_family_of_this_project_is_cited() -> None:
    assert {family.citation for family in FAMILIES.values()} <= set(CITATIONS)
    assert len({family.citation for family in FAMILIES.values()}) == len(FAMILIES)
