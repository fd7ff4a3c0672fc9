"""The tables of medians and comparisons in Markdown and LaTeX, arranged like the paper's table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pandas as pd

from volprompt.columns import CONFIGURATION_COLUMNS, heading_of

# What could be found of the paper's results (Yu et al., arXiv 2408.04762), medians over 488 knees of OAI-ZIB.
PUBLISHED = (
    ("combined", 0.9196, "best combined median, a three_points_video configuration"),
    ("tibia", 0.9643, "a tibia median, configuration not named"),
)
PUBLISHED_NOTE = "Published by Yu et al. (arXiv 2408.04762) for 488 knees of OAI-ZIB, not measured here"
MEDIANS_NOTE = (
    "Median Dice [95 % interval of the median from its order statistics]. Bootstrap intervals, by subject where "
    "subjects are given, are in medians.csv."
)
NSD_NOTE = "The NSD in medians.csv is {}."
COMPARISONS_NOTE = (
    "Combined Dice: median difference, the other minus the first [95 % interval]; p of the Wilcoxon signed-rank test, "
    "and after Holm's correction over all pairs (bold: below 0.05); effect size: matched-pairs rank-biserial "
    "correlation."
)


def markdown(medians: pd.DataFrame, scored: Sequence[str], tolerance: str = "") -> str:
    """Return the medians in Markdown: configurations in rows, median Dice in columns, the best of each column bold.

    medians: the median table; scored: names of the scored structures; tolerance: of the NSD, as in `tolerance_text`.
    """
    head, body = median_cells(medians, scored, lambda text: f"**{text}**")
    notes = [NSD_NOTE.format(tolerance)] if tolerance else []
    notes += [f"{PUBLISHED_NOTE}: {name} {value} ({what})." for name, value, what in published(scored)]
    return _markdown_table(head, body, 2) + "\n".join(["", MEDIANS_NOTE, *notes]) + "\n"


def latex(medians: pd.DataFrame, scored: Sequence[str], tolerance: str = "") -> str:
    """Return the medians in LaTeX (package booktabs); arguments as in `markdown`."""
    head, body = median_cells(medians, scored, lambda text: rf"\textbf{{{text}}}")
    notes = [f"% {NSD_NOTE.format(tolerance)}"] if tolerance else []
    notes += [f"% {PUBLISHED_NOTE}: {name} {value} ({what})" for name, value, what in published(scored)]
    return "".join(f"{note}\n" for note in notes) + _latex_table(head, body, 2)


def comparisons_markdown(compared: pd.DataFrame) -> str:
    """Return the paired comparisons in Markdown; differences with a corrected p-value below 0.05 are bold."""
    head, body = comparison_cells(compared, lambda text: f"**{text}**")
    return _markdown_table(head, body, 4) + f"\n{COMPARISONS_NOTE}\n"


def comparisons_latex(compared: pd.DataFrame) -> str:
    """Return the paired comparisons in LaTeX (package booktabs)."""
    return _latex_table(*comparison_cells(compared, lambda text: rf"\textbf{{{text}}}"), 4)


def comparison_cells(compared: pd.DataFrame, emphasize: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    """Return the comparisons as text: the head and the rows. emphasize: makes a text bold."""
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
    """Return `0.031`, or `< 0.001`; `-` if there is none."""
    if pd.isna(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], names: int) -> str:
    """Return a table whose first `names` columns are text and the others numbers."""
    rule = [*["---"] * names, *["---:"] * (len(head) - names)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [head, rule, *body])


def _latex_table(head: Sequence[str], body: Sequence[Sequence[str]], names: int) -> str:
    rows = [" & ".join(_escape(cell) for cell in cells) + r" \\" for cells in [head, *body]]
    begin = rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(head) - names)}}}"
    return "\n".join([begin, r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}", ""])


def median_cells(
    medians: pd.DataFrame, scored: Sequence[str], emphasize: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """Return the medians as text: the head and the rows. emphasize: makes a text bold."""
    columns = [*scored, "combined"]
    headings = {column.name: column.heading for column in CONFIGURATION_COLUMNS}
    head = [headings[name] for name in ("model", "scheme", "parameters")]
    head += [*(heading_of(name) for name in columns), headings["n"]]
    best = {name: medians[name].max() for name in columns}
    body = []
    for _, row in medians.iterrows():
        cells = [str(row["model"]), str(row["scheme"]), _as_millions(row["parameters"])]
        for name in columns:
            text = median_text(row[name], row[f"{name}_low"], row[f"{name}_high"])
            cells.append(emphasize(text) if row[name] == best[name] else text)
        body.append([*cells, str(row["n"])])
    return head, body


def median_text(median: float, low: float, high: float) -> str:
    """Return `0.912 [0.900, 0.920]`, without the interval if there is none."""
    if pd.isna(median):
        return "-"
    return f"{median:.3f}" if pd.isna(low) else f"{median:.3f} [{low:.3f}, {high:.3f}]"


def published(scored: Sequence[str]) -> list[tuple[str, float, str]]:
    """Return the published figures (structure, Dice, what it is) if the study scores the paper's two bones."""
    return list(PUBLISHED) if {"femur", "tibia"} <= set(scored) else []


def _as_millions(parameters: object) -> str:
    return "-" if pd.isna(parameters) else f"{int(str(parameters)) / 1e6:.1f} M"


def _escape(cell: str) -> str:
    escaped = cell.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escaped.replace("<", "$<$"))
