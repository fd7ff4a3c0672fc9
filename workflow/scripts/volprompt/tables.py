"""The study's tables: everything the jobs wrote, gathered, and the medians in the layout of the paper's table."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from volprompt import METHOD_VERSION, __version__, failure_modes, statistics
from volprompt.errors import VolpromptError
from volprompt.files import atomic, table_metadata, write_table, write_text
from volprompt.logs import logger
from volprompt.volumes import read_volume_table

# What could be found of the paper's results (Yu et al., arXiv 2408.04762), medians over 488 knees of OAI-ZIB.
PUBLISHED = (
    ("combined", 0.9196, "best combined median, a three_points_video configuration"),
    ("tibia", 0.9643, "a tibia median, configuration not named"),
)
SHOWN_REASONS = 10
NAMES = ("volume", "model", "scheme", "other_model", "other_scheme", "structure")
PUBLISHED_NOTE = "Published by Yu et al. (arXiv 2408.04762) for 488 knees of OAI-ZIB, not measured here"
MEDIANS_NOTE = (
    "Median Dice [95 % interval of the median from its order statistics]. Bootstrap intervals, by subject where "
    "subjects are given, are in medians.csv."
)
COMPARISONS_NOTE = (
    "Combined Dice: median difference, the other minus the first [95 % interval]; p of the Wilcoxon signed-rank test, "
    "and after Holm's correction over all pairs (bold: below 0.05); effect size: matched-pairs rank-biserial "
    "correlation."
)


class FailedVolumes(VolpromptError):
    """More volumes failed than the configuration allows."""


def aggregate(
    *,
    scores: Sequence[str | Path],
    slices: Sequence[str | Path],
    masks: Sequence[str | Path],
    volumes: Sequence[str | Path],
    structures: Sequence[str],
    image_schemes: Collection[str],
    groups: Mapping[str, str],
    tables: str | Path,
) -> None:
    """Write the study's tables into `tables`.

    scores.parquet; medians and comparisons as CSV, Parquet, Markdown and LaTeX; ranks.csv, decay.csv,
    failure_modes.csv, cost.csv and failures.csv.

    scores: score tables in the order in which models and schemes are to appear; slices: the slice tables; masks:
    folders with a run.parquet; volumes: folders of converted shards; structures: the scored ones; image_schemes: names
    of the schemes that are prompted on every slice; groups: the group (subject) of each volume that has one.
    """
    tables = Path(tables)
    whole = pd.concat([pd.read_parquet(path) for path in scores], ignore_index=True)
    runs = read_runs(masks)
    converted = pd.concat([read_volume_table(folder) for folder in volumes], ignore_index=True)
    medians = statistics.medians(whole, runs, structures, groups)
    compared = statistics.comparisons(whole, groups)
    write_table(whole, tables / "scores.parquet", score_metadata(scores))
    for name, table in (("medians", medians), ("comparisons", compared)):
        write_csv(table, tables / f"{name}.csv")
        write_table(table, tables / f"{name}.parquet", own_metadata())
    write_text(tables / "medians.md", markdown(medians, structures))
    write_text(tables / "medians.tex", latex(medians, structures))
    write_text(tables / "comparisons.md", comparisons_markdown(compared))
    write_text(tables / "comparisons.tex", comparisons_latex(compared))
    write_csv(statistics.ranks(whole, groups), tables / "ranks.csv")
    write_csv(failure_modes.decay(read_tracked_slices(slices), groups), tables / "decay.csv")
    write_csv(failure_modes.failure_modes(whole, structures, image_schemes), tables / "failure_modes.csv")
    write_csv(statistics.cost(runs, whole), tables / "cost.csv")
    write_csv(failures(converted, runs), tables / "failures.csv")
    logger.info("%d volumes, %d configurations\n%s", len(converted), len(medians), markdown(medians, structures))


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a CSV table of this stage: names are text, also those that look like a number or say NA."""
    return pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])


def own_metadata() -> dict[str, str]:
    """What made a table of this stage."""
    return {"tool": "volprompt", "version": __version__, "aggregate_method_version": str(METHOD_VERSION["aggregate"])}


def score_metadata(paths: Sequence[str | Path]) -> dict[str, str]:
    """The metadata of all score tables beside this stage's own; where they differ, every value, in order, by `; `."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for key, value in table_metadata(path).items():
            found.setdefault(key, []).append(value)
    return {key: "; ".join(dict.fromkeys(values)) for key, values in found.items()} | own_metadata()


def read_tracked_slices(paths: Sequence[str | Path]) -> pd.DataFrame:
    """The rows of the slice tables that have a distance to a prompted slice: those of video schemes."""
    columns = ["model", "scheme", "volume", "structure", "distance", "intersection", "predicted", "reference"]
    parts = [pd.read_parquet(path, columns=columns) for path in paths]
    tracked = [part[part["distance"].notna()] for part in parts]
    filled = [part for part in tracked if len(part)] or tracked[:1]
    return pd.concat(filled, ignore_index=True)


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


def check_failures(scores: str | Path, failed: str | Path, allowed: float, skip_invalid: bool = False) -> str:
    """Return one line on how the study went.

    allowed: share of the pairs of volume and configuration that may have failed; skip_invalid: whether volumes that
    could not be converted are left out of the count. Raises FailedVolumes above the share, or where no volume is left.
    """
    pairs = pd.read_parquet(scores)[["model", "scheme", "volume", "status"]].drop_duplicates()
    reasons = read_csv(failed)
    invalid = set(reasons.loc[reasons["stage"] == "convert", "volume"]) if skip_invalid else set()
    pairs = pairs[~pairs["volume"].isin(invalid)]
    if pairs.empty and invalid:
        raise FailedVolumes(f"All {len(invalid)} volumes were skipped; the reasons are in {failed}.")
    share = float((pairs["status"] == "failed").mean())
    configurations = _count(len(statistics.configurations(pairs)), "configuration")
    count = f"{_count(pairs['volume'].nunique(), 'volume')}, {configurations}"
    if share <= allowed:
        skipped = f"; {len(invalid)} more skipped as invalid" if invalid else ""
        return f"{count}, {share:.1%} of the volume-configuration pairs failed{skipped}"
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
    notes = [f"{PUBLISHED_NOTE}: {name} {value} ({what})." for name, value, what in published(structures)]
    return _markdown_table(head, body, 2) + "\n".join(["", MEDIANS_NOTE, *notes]) + "\n"


def latex(medians: pd.DataFrame, structures: Sequence[str]) -> str:
    """The paper's table in LaTeX (package booktabs)."""
    head, body = layout(medians, structures, lambda text: rf"\textbf{{{text}}}")
    notes = [f"% {PUBLISHED_NOTE}: {name} {value} ({what})" for name, value, what in published(structures)]
    return "".join(f"{note}\n" for note in notes) + _latex_table(head, body, 2)


def comparisons_markdown(compared: pd.DataFrame) -> str:
    """The paired comparisons in Markdown; differences whose corrected p-value is below 0.05 are bold."""
    head, body = comparisons_layout(compared, lambda text: f"**{text}**")
    return _markdown_table(head, body, 4) + f"\n{COMPARISONS_NOTE}\n"


def comparisons_latex(compared: pd.DataFrame) -> str:
    """The paired comparisons in LaTeX (package booktabs)."""
    return _latex_table(*comparisons_layout(compared, lambda text: rf"\textbf{{{text}}}"), 4)


def comparisons_layout(compared: pd.DataFrame, emphasize: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    """The comparisons as text cells: head and rows."""
    head = [
        "Model",
        "Prompts",
        "Other model",
        "Other prompts",
        "Median difference",
        "p",
        "p (Holm)",
        "Effect size",
        "n",
    ]
    body = []
    for row in compared.itertuples():
        difference = median_text(row.median_difference, row.low, row.high)
        cells = [row.model, row.scheme, row.other_model, row.other_scheme]
        cells.append(emphasize(difference) if row.p_holm < 0.05 else difference)
        cells += [p_text(row.p), p_text(row.p_holm), "-" if pd.isna(row.effect_size) else f"{row.effect_size:.2f}"]
        body.append([*cells, str(row.n)])
    return head, body


def p_text(p: float) -> str:
    """`0.031`, or `< 0.001`; `-` where there is none."""
    if pd.isna(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], names: int) -> str:
    """A table whose first `names` columns are text and the others numbers."""
    rule = [*["---"] * names, *["---:"] * (len(head) - names)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [head, rule, *body])


def _latex_table(head: Sequence[str], body: Sequence[Sequence[str]], names: int) -> str:
    rows = [" & ".join(_escaped(cell) for cell in cells) + r" \\" for cells in [head, *body]]
    begin = rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(head) - names)}}}"
    return "\n".join([begin, r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}", ""])


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
    escaped = cell.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escaped.replace("<", "$<$"))
