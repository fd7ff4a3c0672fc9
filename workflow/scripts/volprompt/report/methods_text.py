"""A paragraph on the study's methods, with citations, for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from volprompt import __version__
from volprompt.families import FAMILIES
from volprompt.numbers import number
from volprompt.report.deviations import prompts_in_words
from volprompt.report.facts import counted, grids, labels_in_words, machines
from volprompt.report.shards import StudyDesign
from volprompt.scores.tolerance import tolerance_text
from volprompt.tables.bootstrap import FEWEST, count_subjects

# BibTeX by key: of the families of models that a study has, and those that every text cites.
CITATIONS = {
    "yu2024": ("Yu, Andrew Seohwan and others", "Novel adaptation of video segmentation to 3D MRI: efficient zero-shot "
               "knee segmentation with SAM2", "2024", "arXiv:2408.04762"),
    "molder2021": ("Mölder, Felix and others", "Sustainable data analysis with Snakemake", "2021",
                   "doi:10.12688/f1000research.29032.2"),
    "maierhein2024": ("Maier-Hein, Lena and others", "Metrics reloaded: recommendations for image analysis validation",
                      "2024", "doi:10.1038/s41592-023-02151-z"),
    "kirillov2023": ("Kirillov, Alexander and others", "Segment Anything", "2023", "arXiv:2304.02643"),
    "ravi2024": ("Ravi, Nikhila and others", "SAM 2: Segment Anything in Images and Videos", "2024",
                 "arXiv:2408.00714"),
    "carion2025": ("Carion, Nicolas and others", "SAM 3: Segment Anything with Concepts", "2025", "arXiv:2511.16719"),
    "zhou2025": ("Zhou, Chong and others", "EdgeTAM: On-Device Track Anything Model", "2025", "arXiv:2501.07256"),
}  # fmt: skip
ALWAYS = ("yu2024", "molder2021", "maierhein2024")


def methods_text(scores: pd.DataFrame, volumes: pd.DataFrame, runs: pd.DataFrame, design: StudyDesign) -> str:
    """Return the study's methods in a paragraph, with keys of `bibliography` in brackets.

    scores: the study's score table; volumes: the volume tables of all shards; runs: the run tables of all jobs.
    """
    return " ".join([
        _data(volumes, design), *_models(runs, design), *_schemes(design), _scores(scores), _statistics(scores, design),
        f"The study was run with volprompt {__version__}, a Snakemake workflow [molder2021].",
    ])  # fmt: skip


def bibliography(design: StudyDesign) -> str:
    """Return the works that the text cites, as BibTeX."""
    keys = [*ALWAYS, *_cited_models(design)]
    return "\n".join(_entry(key, *CITATIONS[key]) for key in dict.fromkeys(keys))


def _entry(key: str, authors: str, title: str, year: str, where: str) -> str:
    kind, _, place = where.partition(":")
    last = f"  doi = {{{place}}}," if kind == "doi" else f"  eprint = {{{place}}},\n  archivePrefix = {{arXiv}},"
    return f"@article{{{key},\n  author = {{{authors}}},\n  title = {{{{{title}}}}},\n  year = {{{year}}},\n{last}\n}}"


def _cited_models(design: StudyDesign) -> list[str]:
    keys = dict.fromkeys(_citation_of(design.models.get(name, {})) for name in design.used_models)
    return [key for key in keys if key]


def _citation_of(identity: Mapping[str, Any]) -> str:
    """The key of the work that a model's family is from; empty for one's own. identity: of the model."""
    family = str(identity.get("family", ""))
    return FAMILIES[family].citation if family in FAMILIES else ""


def _data(volumes: pd.DataFrame, design: StudyDesign) -> str:
    converted = volumes[volumes["status"] == "ok"]
    subjects = count_subjects(converted["volume"], design.groups)
    of_subjects = f" of {counted(subjects, 'subject')}" if subjects < len(converted) else ""
    frames = design.frames
    if frames.window:
        low, high = (number(value, "given") for value in frames.window)
        grey = f"a grey-value window from {low} to {high}"
    else:
        grey = "the {:g}th to {:g}th percentile of its grey values".format(*frames.intensity_percentiles)
    structures = ", ".join(
        f"{name} ({labels_in_words(design.labels[name])})" for name in design.scored if name in design.labels
    )
    return (
        f"We segmented {counted(len(converted), 'volume')}{of_subjects} "
        f"({'; '.join(grids(converted)) or 'none converted'}) without training. "
        f"Each volume was taken as {frames.axis} slices of 8 bit over {grey}. Structures: "
        f"{structures}."
    )


def _models(runs: pd.DataFrame, design: StudyDesign) -> list[str]:
    words = []
    for name in design.used_models:
        identity: Mapping[str, Any] = design.models.get(name, {})
        digests = runs.loc[runs["model"] == name, "checkpoint_sha256"].dropna().unique()
        digest = f", checkpoint SHA-256 {digests[0][:12]}" if len(digests) else ""
        key = _citation_of(identity)
        words.append(f"{name} ({identity.get('architecture', '')}{digest}){f' [{key}]' if key else ''}")
    ran = [f"{device} in {precision}" for device, precision in machines(runs)]
    return [f"Models: {'; '.join(words)}."] + ([f"They ran on {', '.join(ran)}."] if ran else [])


def _schemes(design: StudyDesign) -> list[str]:
    used = ((name, design.schemes[name]) for name in design.used_schemes)
    words = [f"{name}: {prompts_in_words(scheme)}{_corrected(scheme)}" for name, scheme in used]
    return ["Prompts were derived from the reference, after [yu2024].", *words]


def _corrected(scheme: Any) -> str:
    if not scheme.corrections:
        return ""
    return (
        f" Up to {scheme.corrections.clicks} rounds of correction followed, each with a click at the deepest point of "
        "the largest error."
    )


def _scores(scores: pd.DataFrame) -> str:
    tolerance = tolerance_text(scores)
    surface = f", the normalized surface Dice ({tolerance})" if tolerance else ""
    return (
        f"Masks were scored against the references by Dice{surface}, the 95 % Hausdorff and the average symmetric "
        "surface distance [maierhein2024]; the combined Dice is over the voxels of all structures."
    )


def _statistics(scores: pd.DataFrame, design: StudyDesign) -> str:
    ok = scores.loc[scores["status"] == "ok", "volume"].unique()
    subjects = count_subjects(ok, design.groups)
    if subjects < FEWEST:
        return f"Values are medians over volumes; with fewer than {FEWEST} subjects no interval or test is given."
    interval = "bootstrap over subjects" if subjects < len(ok) else "order statistics"
    return (
        f"Values are medians over volumes with 95 % intervals ({interval}); configurations were compared by two-sided "
        "Wilcoxon signed-rank tests on subjects, with Holm's correction."
    )
