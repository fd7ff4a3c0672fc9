"""Medians and comparisons for papers: layout, what is bold or marked, what is quoted from the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from tests.unit.tables.score_tables import NAN

from volprompt.tables.design import TableDesign
from volprompt.tables.typeset import comparisons_latex, comparisons_markdown, latex, markdown, published

BONES = TableDesign(scored=["femur", "tibia"])
OF_STRUCTURE = {
    "low": NAN,
    "high": NAN,
    "undefined": 0,
    "failed": 0,
    "failed_as_0": NAN,
    "standing": "below",
    "same_volumes": True,
}


def row(model: str, scheme: str, *dice: float, best: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A row of the median table with the Dice of femur, tibia and both together; best: which of them are the best."""
    given: dict[str, Any] = {"model": model, "scheme": scheme, "parameters": 38_945_986, "n": 488, "groups": 488}
    given["interval"] = "order statistics"
    for name, value in zip(("femur", "tibia", "combined"), dice, strict=True):
        given |= {name: value, **{f"{name}_{column}": standard for column, standard in OF_STRUCTURE.items()}}
        given[f"{name}_standing"] = "best" if name in best else "below"
    return {**given, **more}


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"parameters": "Int64"})


TWO = table(
    row("sam_vit_b", "box", 0.9, 0.8, 0.85, best=("femur",), femur_low=0.89, femur_high=0.9123),
    row(
        "sam2_tiny", "point_video", 0.7, 0.95, 0.85149, best=("tibia", "combined"), parameters=pd.NA, n=487, groups=243
    ),
)


def test_markdown() -> None:
    lines = markdown(TWO, BONES).splitlines()
    assert lines[:5] == [
        "| Model | Prompts | Parameters | Femur | Tibia | Combined | n | Subjects | Interval |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| sam_vit_b | box | 38.9 M | **0.900 [0.890, 0.912]** | 0.800 | 0.850 | 488 | 488 | exact |",
        "| sam2_tiny | point_video | – | 0.700 | **0.950** | **0.851** | 487 | 243 | exact |",
        "",
    ]
    (note,) = lines[5:]
    assert note == (
        "Median Dice over n volumes of so many subjects [95 % interval of the median]. Interval exact: order "
        "statistics, every volume is of another subject. Bold: the best median over the volumes that all compared "
        "configurations have."
    )


def test_latex() -> None:
    lines = latex(TWO, BONES).splitlines()
    assert lines[0].startswith("% Median Dice over n volumes of so many subjects [95 % interval of the median].")
    assert lines[1:] == [
        r"\begin{tabular}{llrrrrrrr}",
        r"\toprule",
        r"Model & Prompts & Parameters & Femur & Tibia & Combined & n & Subjects & Interval \\",
        r"\midrule",
        r"sam\_vit\_b & box & 38.9 M & \textbf{0.900 [0.890, 0.912]} & 0.800 & 0.850 & 488 & 488 & exact \\",
        r"sam2\_tiny & point\_video & -- & 0.700 & \textbf{0.950} & \textbf{0.851} & 487 & 243 & exact \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_what_is_tied_or_not_compared_is_marked() -> None:
    marked = table(
        row("a", "box", 0.9, 0.8, 0.85, best=("femur", "tibia", "combined"), interval="bootstrap by group"),
        row("b", "box", 0.8, 0.8, 0.99, combined_standing="not compared", tibia_standing="tied"),
        row("c", "box", 0.8, 0.7, 0.7, femur_standing="untested", interval="none"),
    )
    lines = markdown(marked, BONES).splitlines()
    assert lines[2].endswith("| **0.900** | **0.800** | **0.850** | 488 | 488 | by subject |")
    assert lines[3].endswith("| 0.800 | 0.800 ≈ | 0.990 † | 488 | 488 | exact |")
    assert lines[4].endswith("| 0.800 | 0.700 | 0.700 | 488 | 488 | none |")
    for part in ("≈: cannot be told", "†: over too few", "no test can tell", "draws subjects", "fewer than six"):
        assert part in lines[-1]
    assert r"& 0.800 & 0.800 $\approx$ & 0.990 \textdagger{} & 488" in latex(marked, BONES)


def test_failures_as_0_have_a_column_if_anything_failed() -> None:
    failed = table(
        row("a", "box", 0.9, 0.8, 0.85, best=("combined",), combined_failed=3, combined_failed_as_0=0.75),
        row("b", "box", 0.5, 0.5, 0.5, combined_failed_as_0=0.5),
    )
    lines = markdown(failed, BONES).splitlines()
    assert lines[0].endswith("| Combined | Combined, failures as 0 | n | Subjects | Interval |")
    assert lines[2].endswith("| **0.850** | 0.750 | 488 | 488 | exact |")
    assert lines[3].endswith("| 0.500 | 0.500 | 488 | 488 | exact |")
    assert "failures as 0: with volumes that failed" in lines[-1]
    assert r"& \textbf{0.850} & 0.750 & 488 & 488 & exact \\" in latex(failed, BONES)


def test_no_best_median_is_told() -> None:
    other = {f"{name}_standing": "" for name in ("femur", "tibia", "combined")}
    lines = markdown(table(row("a", "box", 0.9, 0.8, 0.85, **other)), BONES).splitlines()
    assert "**" not in lines[2]
    assert "Bold" not in lines[-1]


def test_names_keep_their_case() -> None:
    renamed = TWO.rename(columns=lambda name: name.replace("femur", "L5S1").replace("tibia", "medial_mFC"))
    design = TableDesign(scored=["L5S1", "medial_mFC"])
    assert markdown(renamed, design).startswith("| Model | Prompts | Parameters | L5S1 | medial mFC | Combined | n |")
    assert "& L5S1 & medial mFC & Combined &" in latex(renamed, design)


def test_a_configuration_without_scores() -> None:
    empty = row("a", "point", NAN, NAN, NAN, n=0, groups=0, interval="none")
    lines = markdown(table(empty, row("b", "point", 0.5, NAN, 0.5, best=("femur", "combined"))), BONES).splitlines()
    assert lines[2] == "| a | point | 38.9 M | – | – | – | 0 | 0 | none |"
    assert lines[3] == "| b | point | 38.9 M | **0.500** | – | **0.500** | 488 | 488 | exact |"


@pytest.mark.parametrize(("compare_with", "values"), [("oai-zib", [0.9196, 0.9643]), (None, [])])
def test_published_figures_are_shown_where_they_are_asked_for(compare_with: str | None, values: list[float]) -> None:
    assert [value for _, value, _ in published(compare_with)] == values
    for text in (make(TWO, replace(BONES, compare_with=compare_with)) for make in (markdown, latex)):
        for part in ("0.9196", "0.9643", "arXiv 2408.04762", "not measured here"):
            assert (part in text) is bool(values)


# Comparisons


def compared(**changes: Any) -> dict[str, Any]:
    names = {"model": "sam_b", "scheme": "box", "other_model": "sam_b", "other_scheme": "point", "kind": "schemes"}
    names |= {"structure": "combined", "score": "dice", "interval": "order statistics"}
    numbers = {"median_difference": -0.0123, "low": -0.02, "high": 0.001, "p": 0.0004, "p_holm": 0.0123}
    rest = {"effect_size": -0.456, "n": 488, "groups": 244, "margin": NAN, "p_equivalent_holm": NAN}
    return {**names, **numbers, **rest, **changes}


COMPARED = pd.DataFrame(
    [
        compared(),
        compared(other_model="sam-2", other_scheme="box", kind="models", p=0.006, p_holm=0.06, score="nsd"),
        compared(median_difference=0.1, low=NAN, high=NAN, p=NAN, p_holm=NAN, effect_size=NAN, n=2, interval="none"),
        compared(structure="femur"),
    ]
)


def test_comparisons_in_markdown() -> None:
    lines = comparisons_markdown(COMPARED).splitlines()
    assert lines[:6] == [
        "| Pairs | Model | Prompts | Other model | Other prompts | Score | Median difference | p | p (Holm) "
        "| Effect size | n | Subjects | Interval |",
        "| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| schemes | sam_b | box | sam_b | point | Dice | **−0.0123 [−0.0200, +0.0010]** | < 0.001 | 0.012 | −0.46 "
        "| 488 | 244 | exact |",
        # p is below 0.05 and 0.01, and after the correction neither: not bold, and with its digits.
        "| models | sam_b | box | sam-2 | box | NSD | −0.0123 [−0.0200, +0.0010] | 0.006 | 0.060 | −0.46 | 488 | 244 "
        "| exact |",
        "| schemes | sam_b | box | sam_b | point | Dice | +0.1000 | – | – | – | 2 | 244 | none |",
        "",  # single structures are in the CSV table alone
    ]
    assert "Holm" in lines[-1]


def test_comparisons_in_latex() -> None:
    lines = comparisons_latex(COMPARED).splitlines()
    assert lines[0].startswith("% All structures together")
    assert lines[1] == r"\begin{tabular}{llllllrrrrrrr}"
    assert lines[5] == (
        r"schemes & sam\_b & box & sam\_b & point & Dice & \textbf{$-$0.0123 [$-$0.0200, +0.0010]} & $<$ 0.001 & 0.012 "
        r"& $-$0.46 & 488 & 244 & exact \\"
    )
    assert lines[6].startswith(r"models & sam\_b & box & sam-2 & box & NSD & $-$0.0123 [")
    assert lines[7].endswith(r"& +0.1000 & -- & -- & -- & 2 & 244 & none \\")


def test_equivalence_has_a_column_where_there_is_a_margin() -> None:
    text = comparisons_markdown(pd.DataFrame([compared(margin=0.02, p_equivalent_holm=0.004)]))
    assert text.splitlines()[0].endswith("| Interval | p equivalent (Holm) |")
    assert text.splitlines()[2].endswith("| exact | **0.004** |")
    assert "within 0.02" in text
    assert "no proof of equality" in text


def test_no_comparison_is_a_table_without_rows() -> None:
    assert len(comparisons_markdown(COMPARED.iloc[:0]).splitlines()) == 4
    assert comparisons_latex(COMPARED.iloc[:0]).endswith("\\midrule\n\\bottomrule\n\\end{tabular}\n")


def test_what_latex_would_take_for_a_command_is_escaped() -> None:
    text = latex(table(row("a#1", "50%_{x}$~^&", 0.5, 0.5, 0.5)), BONES)
    assert r"a\#1 & 50\%\_\{x\}\$\textasciitilde{}\textasciicircum{}\& & 38.9 M" in text
