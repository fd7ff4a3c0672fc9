"""What the page says about the study: what was run, on what, with which software, and what went wrong."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from volprompt import METHOD_VERSION, __version__
from volprompt.numbers import number
from volprompt.report.deviations import prompts_in_words
from volprompt.report.shards import StudyDesign
from volprompt.scores.tolerance import tolerance_text
from volprompt.tables.bootstrap import count_subjects
from volprompt.volumes.converted import same_images
from volprompt.volumes.references import is_notice

REPORT_PACKAGES = ("numpy", "pandas", "scipy", "matplotlib")


def study_facts(
    scores: pd.DataFrame,
    volumes: pd.DataFrame,
    runs: pd.DataFrame,
    design: StudyDesign,
    images: Sequence[str] | None,
) -> list[tuple[str, str]]:
    """Return what was run, as pairs of a word and its value.

    scores: the study's score table.
    volumes: the volume tables of all shards.
    runs: the run tables of all jobs.
    design: what the report needs of the configuration.
    images: paths of the images, whose common folder is named; None to name none.
    """
    converted = volumes[volumes["status"] == "ok"]
    scored = scores.loc[scores["status"] == "ok", "volume"].nunique()
    groups = count_subjects(converted["volume"], design.groups)
    subjects = f" of {counted(groups, 'subject')}" if groups < len(converted) else ""
    structures = [
        f"{name} ({labels_in_words(numbers)}{'' if name in design.scored else ', not scored'})"
        for name, numbers in design.labels.items()
    ]
    return [
        (
            "Volumes",
            f"{number(len(volumes), 'count')}{subjects}; {number(len(converted), 'count')} converted, "
            f"{number(scored, 'count')} scored",
        ),
        *([] if images is None else [("Data", common_folder(images))]),
        ("Grid", "; ".join(grids(converted))),
        ("Slices", f"{design.frames.axis}" if isinstance(design.frames.axis, str) else f"axis {design.frames.axis}"),
        ("Structures", ", ".join(structures)),
        ("Surface scores", surface_scores_in_words(scores, design)),
        ("Configurations", str(len(scores[["model", "scheme"]].drop_duplicates()))),
        ("Ran on", "; ".join(f"{device}, {precision}" for device, precision in machines(runs))),
        *(
            [("Configuration", f"config.yaml beside this report's folder, digest {design.configuration}")]
            if design.configuration
            else []
        ),
        ("volprompt", f"{__version__}; methods " + ", ".join(f"{key} {n}" for key, n in METHOD_VERSION.items())),
    ]


# An absolute path of at least two parts.
ABSOLUTE = re.compile(r"(?<![\w.~/-])(?:/[^\s/:;,()'\"]+){2,}/?")


def without_folders(text: str) -> str:
    """Return a text with the last part alone of each absolute path: `…/knee_7.nii.gz`."""
    return ABSOLUTE.sub(lambda found: f"…/{found[0].rstrip('/').rpartition('/')[2]}", text)


def counted(many: int, what: str) -> str:
    """Return `1 volume` or `2 volumes`."""
    return f"{number(many, 'count')} {what}{'' if many == 1 else 's'}"


def machines(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what the masks were made on: device and precision. runs: the run tables of all jobs."""
    return list(runs[["device", "precision"]].dropna().drop_duplicates().itertuples(index=False, name=None))


def surface_scores_in_words(scores: pd.DataFrame, design: StudyDesign) -> str:
    """Return `NSD at 1 mm; the border of the volume counts as surface`."""
    tolerance = tolerance_text(scores)
    borders = {"count": "counts as surface", "ignore": "is no surface"}
    return "; ".join(
        filter(None, [tolerance and f"NSD {tolerance}", f"the border of the volume {borders[design.scores.border]}"])
    )


def labels_in_words(numbers: Sequence[int]) -> str:
    """Return `label 1`, `labels 1, 2`, or `no label` for a structure that is only clicked on."""
    kind = "no label" if not numbers else "label" if len(numbers) == 1 else "labels"
    return f"{kind} {', '.join(map(str, numbers))}".strip()


def common_folder(images: Sequence[str]) -> str:
    """Return the folder that all images have in common."""
    folders = [os.path.dirname(path) for path in images]
    try:
        return os.path.commonpath(folders) or "."
    except ValueError:  # none, or relative beside absolute ones
        return ", ".join(sorted(set(folders))[:3])


def grids(converted: pd.DataFrame) -> list[str]:
    """Describe the grids of the volumes, the commonest first: voxels, spacing in mm, and the number of volumes."""
    if not len(converted):
        return []
    texts = [
        f"{' × '.join(number(n, 'given') for n in row.shape)} voxels of "
        f"{' × '.join(number(mm, 'given') for mm in row.spacing)} mm"
        for row in converted.itertuples()
    ]
    counts = pd.Series(texts).value_counts(sort=True)
    shown = [
        f"{text} ({counted(count, 'volume')})" if len(counts) > 1 else text for text, count in counts.head(3).items()
    ]
    return shown + ([f"and {len(counts) - 3} others"] if len(counts) > 3 else [])


def model_rows(runs: pd.DataFrame, design: StudyDesign) -> list[dict[str, Any]]:
    """Return one row per model: what it is, and the SHA-256 of the checkpoint that made the masks."""
    rows = []
    for name in design.used_models:
        model_runs = runs[runs["model"] == name]
        identity = design.models.get(name, {})
        parameters = model_runs["parameters"].dropna()
        rows.append(
            {
                "model": name,
                "family": identity.get("family", ""),
                "architecture": identity.get("architecture", ""),
                "parameters": int(parameters.iloc[0]) if len(parameters) else None,
                "checkpoints": list(model_runs["checkpoint_sha256"].dropna().unique()),
            }
        )
    return rows


def scheme_rows(design: StudyDesign) -> list[dict[str, Any]]:
    """Return one row per scheme that an experiment uses: in words, as configured, and with which models."""
    rows = []
    for name, scheme in design.schemes.items():
        models = [model for models, names in design.experiments.values() if name in names for model in models]
        if models:
            words, definition = prompts_in_words(scheme), scheme.plain()
            rows.append({"scheme": name, "words": words, "definition": flow(definition), "models": ", ".join(models)})
    return rows


def flow(value: object) -> str:
    """Write a setting as in the configuration, on one line."""
    text = str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000))
    return text.strip().removesuffix("\n...")  # YAML's end of a document that is a single word


def software(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the distinct sets of package versions that made the masks, and those that made this page."""
    of_masks = [json.loads(text) for text in runs["versions"].dropna().unique()]
    here = ", ".join(f"{name} {version(name)}" for name in REPORT_PACKAGES)
    return [
        *(("Masks", ", ".join(f"{name} {release}" for name, release in versions.items())) for versions in of_masks),
        ("Statistics and page", f"Python {platform.python_version()}, {here}"),
    ]


def grouped_failures(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per volume, stage and reason, with the configurations that failed for it."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for row in table.fillna("").itertuples():
        pair = f"{row.model} {row.scheme}".strip()
        rows.setdefault((str(row.volume), str(row.stage), str(row.reason)), []).append(pair)
    return [
        {"volume": volume, "stage": stage, "reason": reason, "where": ", ".join(filter(None, pairs)) or "all"}
        for (volume, stage, reason), pairs in rows.items()
    ]


# Why a structure of a segmented volume has no Dice, by the status in the score table.
WHY_UNDEFINED = {
    "ok": "neither reference nor masks show it",
    "absent": "the reference does not show it",
    "no_prompt": "it, or for scores over all structures one of them, could not be prompted",
    "left_out": "the scheme does not segment it, or one of the structures that it is over",
}


def undefined_scores(scores: pd.DataFrame, scored: Sequence[str]) -> list[dict[str, Any]]:
    """Return which segmented volumes the medians do not rest on: one row per structure, reason and set of volumes.

    scores: the study's score table; scored: names of the scored structures. Volumes that failed as a whole, or have no
    reference, are told elsewhere.
    """
    shown = scores[scores["structure"].isin([*scored, "combined"])]
    lacking = shown[shown["dice"].isna() & shown["status"].isin(list(WHY_UNDEFINED))]
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (structure, status, model, scheme), rows in lacking.groupby(
        ["structure", "status", "model", "scheme"], sort=False
    ):
        key = str(structure), str(status), tuple(sorted(map(str, rows["volume"])))
        found.setdefault(key, []).append(f"{model} {scheme}")
    return [
        {"structure": structure, "why": WHY_UNDEFINED[status], "volumes": list(volumes), "where": ", ".join(pairs)}
        for (structure, status, volumes), pairs in found.items()
    ]


class Remark(NamedTuple):
    """What a reader has to know of a volume that was used all the same; warning: whether to look at it."""

    volume: str
    text: str
    warning: bool


def volume_remarks(volumes: pd.DataFrame, groups: Mapping[str, str]) -> list[Remark]:
    """Return the remarks on converted volumes, warnings first. groups: the subject of each volume that has one."""
    remarks = [
        Remark(str(row.volume), str(text), not is_notice(str(text)))
        for row in volumes.itertuples()
        if row.warnings is not None
        for text in np.atleast_1d(row.warnings)
    ]
    remarks += [Remark(volume, text, True) for volume, text in same_images(volumes, groups)]
    return sorted(remarks, key=lambda remark: not remark.warning)
