"""The study's tables: everything the jobs wrote, gathered, and the medians in the layout of the paper's table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from volprompt import statistics
from volprompt.errors import VolpromptError
from volprompt.files import atomic, write_table, write_text
from volprompt.logs import logger
from volprompt.volumes import read_volume_table

# What could be found of the paper's results (Yu et al., arXiv 2408.04762), medians over 488 knees of OAI-ZIB.
PUBLISHED = (
    ("combined", 0.9196, "best combined median, a three_points_video configuration"),
    ("tibia", 0.9643, "a tibia median, configuration not named"),
)
SHOWN_REASONS = 10
PUBLISHED_NOTE = "Published by Yu et al. (arXiv 2408.04762) for 488 knees of OAI-ZIB, not measured here"


class FailedVolumes(VolpromptError):
    """More volumes failed than the configuration allows."""


def aggregate(
    *,
    scores: Sequence[str | Path],
    masks: Sequence[str | Path],
    volumes: Sequence[str | Path],
    structures: Sequence[str],
    tables: str | Path,
) -> None:
    """Write scores.parquet, medians.{csv,md,tex}, comparisons.csv, cost.csv and failures.csv into `tables`.

    scores: score tables in the order in which models and schemes are to appear; masks: folders with a run.parquet;
    volumes: folders of converted shards; structures: the scored ones.
    """
    tables = Path(tables)
    whole = pd.concat([pd.read_parquet(path) for path in scores], ignore_index=True)
    runs = read_runs(masks)
    converted = pd.concat([read_volume_table(folder) for folder in volumes], ignore_index=True)
    medians = statistics.medians(whole, runs, structures)
    write_table(whole, tables / "scores.parquet")
    write_csv(medians, tables / "medians.csv")
    write_text(tables / "medians.md", markdown(medians, structures))
    write_text(tables / "medians.tex", latex(medians, structures))
    write_csv(statistics.comparisons(whole), tables / "comparisons.csv")
    write_csv(statistics.cost(runs), tables / "cost.csv")
    write_csv(failures(converted, runs), tables / "failures.csv")
    logger.info("%d volumes, %d configurations\n%s", len(converted), len(medians), markdown(medians, structures))


def read_runs(masks: Sequence[str | Path]) -> pd.DataFrame:
    """The run tables of all jobs as one; jobs without any volume left out."""
    parts = [pd.read_parquet(Path(folder) / "run.parquet") for folder in masks]
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True).reindex(columns=_run_columns(filled))


def _run_columns(parts: Sequence[pd.DataFrame]) -> list[str]:
    wanted = ["model", "scheme", "volume", "status", "stage", "reason", "parameters", "prompts", "seconds"]
    wanted += ["seconds_encode", "seconds_prompt", "slices_per_second", "peak_memory_mb", "peak_gpu_memory_mb"]
    wanted += ["device", "precision", "checkpoint_sha256", "versions"]
    return list(dict.fromkeys([*wanted, *(column for part in parts for column in part.columns)]))


def failures(converted: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """What failed and why: a volume as a whole in conversion, or under one model and scheme."""
    columns = ["volume", "stage", "model", "scheme", "reason"]
    of_volumes = converted[converted["status"] == "failed"].assign(stage="convert", model="", scheme="")
    of_runs = runs[runs["status"] == "failed"]
    return pd.concat([of_volumes[columns], of_runs[columns]], ignore_index=True)


def check_failures(scores: str | Path, failed: str | Path, allowed: float) -> str:
    """Return one line on how the study went.

    allowed: share of the pairs of volume and configuration that may have failed. Raises FailedVolumes above it.
    """
    pairs = pd.read_parquet(scores)[["model", "scheme", "volume", "status"]].drop_duplicates()
    share = float((pairs["status"] == "failed").mean())
    configurations = _count(len(statistics.configurations(pairs)), "configuration")
    count = f"{_count(pairs['volume'].nunique(), 'volume')}, {configurations}"
    reasons = pd.read_csv(failed)
    if share <= allowed:
        return f"{count}, {share:.1%} of the volume-configuration pairs failed"
    distinct = reasons.drop_duplicates("reason")
    shown = [f"  - {row.stage}: {row.reason}" for row in distinct.head(SHOWN_REASONS).itertuples()]
    shown += [f"  - and {len(distinct) - SHOWN_REASONS} more"] if len(distinct) > SHOWN_REASONS else []
    raise FailedVolumes(
        f"{count}: {share:.1%} of the volume-configuration pairs failed; max_failed_fraction allows {allowed:.1%}.\n"
        + "\n".join(shown)
        + f"\nEverything else is done and kept; all reasons are in {failed}. Correct or remove these volumes and run "
        "again, or raise max_failed_fraction."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, atomically."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def markdown(medians: pd.DataFrame, structures: Sequence[str]) -> str:
    """The paper's table in Markdown: configurations in rows, median Dice in columns, the best of each column bold."""
    head, body = layout(medians, structures, lambda text: f"**{text}**")
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---", "---", *["---:"] * (len(head) - 2)], *body]]
    notes = [f"{PUBLISHED_NOTE}: {name} {value} ({what})." for name, value, what in published(structures)]
    return "\n".join([*lines, "", "Median Dice [95 % interval of the median].", *notes]) + "\n"


def latex(medians: pd.DataFrame, structures: Sequence[str]) -> str:
    """The paper's table in LaTeX (package booktabs)."""
    head, body = layout(medians, structures, lambda text: rf"\textbf{{{text}}}")
    rows = [" & ".join(_escaped(cell) for cell in cells) + r" \\" for cells in [head, *body]]
    notes = [f"% {PUBLISHED_NOTE}: {name} {value} ({what})" for name, value, what in published(structures)]
    begin = rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}"
    return "\n".join(
        [*notes, begin, r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}", ""]
    )


def layout(
    medians: pd.DataFrame, structures: Sequence[str], emphasize: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """The paper's table as text cells: head and rows."""
    columns = [*structures, "combined"]
    head = ["Model", "Prompts", "Parameters", *(name.replace("_", " ").capitalize() for name in columns), "n"]
    best = {name: medians[name].max() for name in columns}
    body = []
    for _, row in medians.iterrows():
        cells = [str(row["model"]), str(row["scheme"]), _millions(row["parameters"])]
        for name in columns:
            text = median_text(row[name], row[f"{name}_low"], row[f"{name}_high"])
            cells.append(emphasize(text) if row[name] == best[name] else text)
        body.append([*cells, str(row["n"])])
    return head, body


def median_text(median: float, low: float, high: float) -> str:
    """`0.912 [0.900, 0.920]`, without interval where there is none."""
    if pd.isna(median):
        return "-"
    return f"{median:.3f}" if pd.isna(low) else f"{median:.3f} [{low:.3f}, {high:.3f}]"


def published(structures: Sequence[str]) -> list[tuple[str, float, str]]:
    """The published figures, where the study scores the paper's two bones."""
    return list(PUBLISHED) if {"femur", "tibia"} <= set(structures) else []


def _millions(parameters: object) -> str:
    return "-" if pd.isna(parameters) else f"{int(str(parameters)) / 1e6:.1f} M"


def _escaped(cell: str) -> str:
    return cell.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
