"""The tables of medians and comparisons in Markdown and LaTeX, arranged like the paper's table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pandas as pd

from volprompt.columns import CONFIGURATION_COLUMNS, heading_of
from volprompt.numbers import MISSING, number, p_value, with_interval
from volprompt.tables.design import TableDesign
from volprompt.tables.paired_tests import SIGNIFICANT

# Whose published figures can be shown beside a study's: (structure, Dice, what it is). Yu et al. (arXiv 2408.04762)
# give medians over 488 knees; these two are what could be found of them.
PUBLISHED = {
    "oai-zib": (
        ("combined", 0.9196, "best combined median, a three_points_video configuration"),
        ("tibia", 0.9643, "a tibia median, configuration not named"),
    )
}
PUBLISHED_NOTE = "Published by Yu et al. (arXiv 2408.04762) for 488 knees of OAI-ZIB, not measured here"
# What stands behind a median, by how it stands to the best one.
MARKS = {"tied": "≈", "not compared": "†"}
FAILED_AS_0_HEADING = "Combined, failures as 0"
INTERVAL_WORDS = {
    "order statistics": "exact",
    "bootstrap by group": "by subject",
    "none": "none",
}
COMPARISONS_NOTE = (
    "All structures together (`combined`): median difference, the other minus the first [95 % interval]; p of the "
    "Wilcoxon signed-rank test on subjects' mean differences, and after Holm's correction over the pairs of one kind "
    "and score (bold: below 0.05); effect size: matched-pairs rank-biserial correlation. Single structures are in "
    "comparisons.csv."
)


def markdown(medians: pd.DataFrame, design: TableDesign, tolerance: str = "") -> str:
    """Return the medians in Markdown: configurations in rows, median Dice in columns, the best of each column bold.

    medians: the median table.
    design: what of the configuration reaches the tables.
    tolerance: of the NSD, as in `tolerance_text`.
    """
    head, body = median_cells(medians, design.scored, lambda text: f"**{text}**")
    notes = _notes(medians, design, tolerance)
    return _markdown_table(head, body, 2) + "".join(f"\n{note}\n" for note in notes)


def latex(medians: pd.DataFrame, design: TableDesign, tolerance: str = "") -> str:
    """Return the medians in LaTeX (package booktabs), with the notes as comments; arguments as in `markdown`."""
    head, body = median_cells(medians, design.scored, lambda text: rf"\textbf{{{text}}}")
    notes = _notes(medians, design, tolerance)
    return "".join(f"% {note}\n" for note in notes) + _latex_table(head, body, 2)


def comparisons_markdown(compared: pd.DataFrame, tolerance: str = "") -> str:
    """Return the paired comparisons over all structures in Markdown; corrected p-values below 0.05 are bold."""
    head, body = comparison_cells(compared, lambda text: f"**{text}**")
    return _markdown_table(head, body, COMPARISON_NAMES) + f"\n{_comparisons_note(compared, tolerance)}\n"


def comparisons_latex(compared: pd.DataFrame, tolerance: str = "") -> str:
    """Return the paired comparisons over all structures in LaTeX (package booktabs), with the note as a comment."""
    head, body = comparison_cells(compared, lambda text: rf"\textbf{{{text}}}")
    return f"% {_comparisons_note(compared, tolerance)}\n" + _latex_table(head, body, COMPARISON_NAMES)


# The first columns of the comparisons, which are text.
COMPARISON_NAMES = 6


def comparison_cells(compared: pd.DataFrame, emphasize: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    """Return the comparisons over all structures as text: the head and the rows. emphasize: makes a text bold."""
    head = ["Pairs", "Model", "Prompts", "Other model", "Other prompts", "Score"]
    head += ["Median difference", "p", "p (Holm)", "Effect size", "n", "Subjects", "Interval"]
    with_margin = compared["margin"].notna().any()
    head += ["p equivalent (Holm)"] if with_margin else []
    body = []
    for row in compared[compared["structure"] == "combined"].itertuples():
        difference = with_interval(row.median_difference, row.low, row.high, "difference", signed=True)
        cells = [row.kind, row.model, row.scheme, row.other_model, row.other_scheme, SCORE_WORDS[row.score]]
        cells.append(emphasize(difference) if row.p_holm < SIGNIFICANT else difference)
        cells += [p_value(row.p), p_value(row.p_holm), number(row.effect_size, "effect", signed=True)]
        cells += [number(row.n, "count"), number(row.groups, "count"), INTERVAL_WORDS[row.interval]]
        if with_margin:
            p = p_value(row.p_equivalent_holm)
            cells.append(emphasize(p) if row.p_equivalent_holm < SIGNIFICANT else p)
        body.append(cells)
    return head, body


SCORE_WORDS = {"dice": "Dice", "nsd": "NSD"}


def _comparisons_note(compared: pd.DataFrame, tolerance: str) -> str:
    notes = [COMPARISONS_NOTE, *([f"NSD is {tolerance}."] if tolerance else [])]
    if len(margins := compared["margin"].dropna().unique()):
        notes.append(
            "p equivalent: two one-sided tests that the difference lies within "
            f"{number(margins[0], 'given')} (small: it does). "
            "A large p of the signed-rank test is no proof of equality."
        )
    return " ".join(notes)


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
    """Return the medians as text: the head and the rows. emphasize: makes a text bold.

    If anything failed, a further column has the combined median with failures counted as a Dice of 0.
    """
    columns = [*scored, "combined"]
    headings = {column.name: column.heading for column in CONFIGURATION_COLUMNS}
    head = [headings[name] for name in ("model", "scheme", "parameters")]
    with_failures = bool(medians["combined_failed"].any())
    head += [*(heading_of(name) for name in columns), *([FAILED_AS_0_HEADING] if with_failures else [])]
    head += [headings[name] for name in ("n", "groups", "interval")]
    body = []
    for _, row in medians.iterrows():
        cells = [str(row["model"]), str(row["scheme"]), number(row["parameters"], "parameters")]
        cells += [marked(row, name, emphasize) for name in columns]
        cells += [number(row["combined_failed_as_0"], "score")] if with_failures else []
        cells += [number(row["n"], "count"), number(row["groups"], "count"), INTERVAL_WORDS[row["interval"]]]
        body.append(cells)
    return head, body


def marked(row: pd.Series, name: str, emphasize: Callable[[str], str]) -> str:
    """Return a median with its interval: bold if it is the best one, with its mark if it is tied or not compared.

    row: of the median table; name: the structure.
    """
    text = with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], "score")
    standing = row[f"{name}_standing"]
    return emphasize(text) if standing == "best" else " ".join([text, *MARKS.get(standing, "")])


def medians_notes(medians: pd.DataFrame, scored: Sequence[str]) -> str:
    """Return what a reader has to know of the medians as they are."""
    standing = {str(value) for name in [*scored, "combined"] for value in medians[f"{name}_standing"]}
    kinds = set(medians["interval"])
    sentences = {
        "Median Dice over n volumes of so many subjects [95 % interval of the median].": True,
        "Interval exact: order statistics, every volume is of another subject.": "order statistics" in kinds,
        "Interval by subject: bootstrap that draws subjects with all their volumes.": "bootstrap by group" in kinds,
        "Interval none: fewer than six subjects.": "none" in kinds,
        "Bold: the best median over the volumes that all compared configurations have.": "best" in standing,
        f"{MARKS['tied']}: cannot be told from the best (signed-rank test on subjects' mean differences, Holm's "
        "correction).": "tied" in standing,
        "With fewer than six subjects no test can tell configurations apart.": "untested" in standing,
        f"{MARKS['not compared']}: over too few of the volumes to be compared with the others.": "not compared"
        in standing,
        f"{FAILED_AS_0_HEADING}: with volumes that failed counted as a Dice of 0.": medians["combined_failed"].any(),
    }
    return " ".join(sentence for sentence, applies in sentences.items() if applies)


def published(compare_with: str | None) -> list[tuple[str, float, str]]:
    """Return the published figures (structure, Dice, what it is) that a study asks to be compared with."""
    return list(PUBLISHED[compare_with]) if compare_with else []


def _notes(medians: pd.DataFrame, design: TableDesign, tolerance: str) -> list[str]:
    notes = [medians_notes(medians, design.scored)]
    notes += [f"The NSD in medians.csv and medians_long.csv is {tolerance}."] if tolerance else []
    found = published(design.compare_with)
    return notes + [f"{PUBLISHED_NOTE}: {name} {value} ({what})." for name, value, what in found]


# What LaTeX would take for a command, the signs of numbers, and the marks of medians.
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "_%&#${}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    MISSING: "--",
    "∞": r"$\infty$",
    MARKS["tied"]: r"$\approx$",
    MARKS["not compared"]: r"\textdagger{}",
}


def _escape(cell: str) -> str:
    """Escape a cell for LaTeX. Bold cells are numbers, whose braces stay."""
    bold = re.fullmatch(r"\\textbf\{(.*)\}", cell)
    if bold:
        return rf"\textbf{{{_escape(bold[1])}}}"
    return "".join(LATEX.get(character, character) for character in cell)
