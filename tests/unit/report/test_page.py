"""What the page is made of: its facts, its compact table, its numbers as text."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from volprompt.palette import NAMED, SURPLUS
from volprompt.report import facts, rendering
from volprompt.report.rendering import TEMPLATES, page_environment
from volprompt.report.sources import Sources
from volprompt.report.volume_table import compact, volume_table
from volprompt.volumes.references import keep_structures


def test_the_table_of_volumes_holds_every_row_at_its_place() -> None:
    rows = [
        ("m", "b", "v2", "femur", 0.123456, "ok"),
        ("m", "b", "v1", "combined", 1.0, "ok"),
        ("m", "a", "v1", "femur", np.nan, "failed"),
        ("m", "a", "v1", "union", 0.5, "ok"),
    ]
    scores = pd.DataFrame(rows, columns=["model", "scheme", "volume", "structure", "dice", "status"]).assign(nsd=np.nan)
    table = volume_table(scores, ["femur"])
    assert table["configurations"] == [("m", "b"), ("m", "a")]
    assert table["volumes"] == ["v1", "v2"]
    assert table["structures"] == ["combined", "femur"]
    # (configuration * 2 volumes + volume) * 2 structures + structure
    assert [table["statuses"][i] if i >= 0 else None for i in table["status"]] == [
        *("ok", None, None, "ok"),
        *(None, "failed", None, None),
    ]
    (dice,) = table["columns"]  # a column without any value is left out
    assert dice["heading"] == "Dice"
    assert dice["values"] == [1, None, None, 0.12346, None, None, None, None]


def test_halves_are_rounded_as_in_every_other_number() -> None:
    """The page's `toFixed` takes the upper one of two that are as near, Python the even one."""
    assert compact(np.array([0.8125, 0.0625, 0.1875, 0.68746]), 3) == [0.812, 0.062, 0.188, 0.68746]
    assert compact(np.array([0.625, 1.125]), 2) == [0.62, 1.12]


def test_compact_numbers() -> None:
    found = compact(np.array([0.5, 12.3456789, 0.000126, 3.0, np.nan, np.inf, 0.832498]), 3)
    # The last one is 0.832, and from 0.83250 would be 0.833.
    assert found == [0.5, 12.34568, 0.00013, 3, None, "inf", 0.832498]
    assert isinstance(found[3], int)


def test_failures_of_one_volume_and_reason_are_one_row() -> None:
    rows = [
        ("v1", "convert", "", "", "not 3D"),
        ("v2", "segment", "m", "a", "no point"),
        ("v2", "segment", "m", "b", "no point"),
        ("v2", "segment", "m", "c", "no memory"),
    ]
    table = pd.DataFrame(rows, columns=["volume", "stage", "model", "scheme", "reason"])
    assert facts.grouped_failures(table) == [
        {"volume": "v1", "stage": "convert", "reason": "not 3D", "where": "all"},
        {"volume": "v2", "stage": "segment", "reason": "no point", "where": "m a, m b"},
        {"volume": "v2", "stage": "segment", "reason": "no memory", "where": "m c"},
    ]
    assert facts.grouped_failures(pd.DataFrame()) == []


def test_volumes_on_which_a_median_does_not_rest() -> None:
    def rows(scheme: str, volume: str, **statuses: str) -> list[dict[str, object]]:
        return [
            {
                "model": "m",
                "scheme": scheme,
                "volume": volume,
                "structure": structure,
                "status": status,
                "dice": 0.9 if status == "ok" else float("nan"),
            }
            for structure, status in statuses.items()
        ]

    scores = pd.DataFrame(
        [
            *rows("point", "b", femur="absent", tibia="ok", combined="ok"),
            *rows("point", "a", femur="absent", tibia="no_prompt", combined="no_prompt"),
            *rows("box", "a", femur="absent", tibia="ok", combined="ok"),
            *rows("box", "b", femur="absent", tibia="ok", combined="ok"),
            *rows("box", "c", femur="failed", tibia="failed", combined="failed"),
            *rows("box", "d", femur="no_reference", tibia="no_reference", combined="no_reference"),
        ]
    )
    found = [list(row.values()) for row in facts.undefined_scores(scores, ["femur", "tibia"])]
    of_all = "it, or for scores over all structures one of them, could not be prompted"
    assert found == [
        ["femur", "the reference does not show it", ["a", "b"], "m point, m box"],
        ["tibia", of_all, ["a"], "m point"],
        ["combined", of_all, ["a"], "m point"],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (facts.flow("nearest"), "nearest"),
        (facts.flow(True), "true"),
        (facts.flow([{"fraction": 0.3}, "middle"]), "[{fraction: 0.3}, middle]"),
        (facts.counted(1, "volume"), "1 volume"),
        (facts.counted(1234, "volume"), "1,234 volumes"),
        (facts.labels_in_words([1, 2]), "labels 1, 2"),
        (facts.labels_in_words([]), "no label"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("femur", "Femur"),
        ("tibial_cartilage", "Tibial cartilage"),
        ("L5S1", "L5S1"),
        ("left_ACL", "left ACL"),
        ("", ""),
    ],
)
def test_names_keep_their_case_in_headings(name: str, heading: str) -> None:
    template = rendering.page_environment().from_string("{{ name | heading }}")
    assert template.render(name=name) == heading


def test_the_folder_that_images_share() -> None:
    assert facts.common_folder(["data/a/x.nii", "data/b/y.nii"]) == "data"
    assert facts.common_folder(["x.nii", "y.nii"]) == "."
    assert facts.common_folder(["/data/x.nii", "b/y.nii"]) == "/data, b"


def test_texts_name_sources_where_they_are_now() -> None:
    rows = [("v1", "old/a.nii", "old/a"), ("v2", "/old/b.nii", "")]
    converted = pd.DataFrame(rows, columns=["volume", "source", "reference"])
    moved = Sources(converted, {"v1": ["new/a.nii", "new/a"], "v2": ["/old/b.nii", ""]})
    assert moved.image("v1", "old/a.nii") == "new/a.nii"
    assert moved.text("v1", "old/a.nii: odd; (old/a) and old/a/1.dcm, not xold/a.nii or old/a.nii.gz") == (
        "new/a.nii: odd; (new/a) and new/a/1.dcm, not xold/a.nii or old/a.nii.gz"
    )
    assert moved.text("v2", "/old/b.nii: odd") == "/old/b.nii: odd"
    assert moved.text("v3", "old/a.nii") == "old/a.nii"
    assert Sources(converted, {}).image("v1", "old/a.nii") == "old/a.nii"


def test_texts_name_results_where_the_study_has_them() -> None:
    converted = pd.DataFrame({"volume": ["v"], "source": ["a.nii"], "reference": [""]})
    local = ".snakemake/storage/fs/data/old_results/results/masks/e/m/000/box/v_mask.nii.gz: was edited"
    sources = Sources(converted, {}, "results")
    assert sources.text("v", f"/tmp/job/{local}") == "results/masks/e/m/000/box/v_mask.nii.gz: was edited"
    assert (
        sources.text("v", f"no mask ({local}) of v")
        == "no mask (results/masks/e/m/000/box/v_mask.nii.gz: was edited) of v"
    )
    assert sources.text("v", "results/masks/v: gone") == "results/masks/v: gone"
    assert Sources(converted, {}).text("v", local) == local


def test_grids_are_counted() -> None:
    one = {"shape": [40, 96, 96], "spacing": [2.8, 1.46, 1.46]}
    other = {"shape": [2, 3, 4], "spacing": [1.0, 1.0, 1.0]}
    text = "40 × 96 × 96 voxels of 2.8 × 1.46 × 1.46 mm"
    assert facts.grids(pd.DataFrame([one, one])) == [text]
    assert facts.grids(pd.DataFrame([other, one, one])) == [
        f"{text} (2 volumes)",
        "2 × 3 × 4 voxels of 1 × 1 × 1 mm (1 volume)",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/knees", "…/knees"),
        ("cannot read /data/knees/7/image.nii.gz: empty", "cannot read …/image.nii.gz: empty"),
        ("'/a/b/c' and (/d/e/)", "'…/c' and (…/e)"),
        ("results/masks/a.nii is relative", "results/masks/a.nii is relative"),
        ("3/4 of /tmp, 1/2/3, https://a.b/c/d", "3/4 of /tmp, 1/2/3, https://a.b/c/d"),
    ],
)
def test_paths_without_their_folders(text: str, shown: str) -> None:
    assert facts.without_folders(text) == shown


# Remarks


def test_what_was_done_as_configured_is_no_warning() -> None:
    """Many studies leave labels out of every volume; a structure that is empty may be a mistake."""
    label_map = np.array([[[1, 2, 4]]])
    _, made, _ = keep_structures(label_map, {"femur": [1], "tibia": [3]}, "labels.nii")
    table = pd.DataFrame({"volume": ["b", "a", "c"], "status": "ok", "sha256": ["1", "1", "2"]})
    table["warnings"] = [made, ["labels.nii: resampled to the nearest voxel of image.nii: from here to there"], None]
    remarks = facts.volume_remarks(table, {})
    assert [(remark.volume, remark.warning) for remark in remarks] == [
        *(("b", True), ("b", True)),
        *(("b", False), ("a", False)),
    ]
    assert remarks[0].text == "labels.nii: structure 'tibia' (labels [3]) is empty"
    assert "same image as a" in remarks[1].text


# Colours


def test_pages_have_the_colours_of_the_palette() -> None:
    """The viewer names its colours, and the page's style sheet holds all that it names."""
    for path in (*(TEMPLATES / "viewer").glob("*.js"), TEMPLATES / "viewer.css"):
        text = path.read_text()
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgba?\(\d", text), path.name
        for name in re.findall(r"\bpalette\.([a-z]+)", text):
            assert name in {*NAMED, "channels", "faint", "js", "py"}, path.name
    names = re.search(r"const names = \[(.*)\]", (TEMPLATES / "viewer" / "palette.js").read_text())
    assert names is not None
    assert set(re.findall(r'"(\w+)"', names[1])) <= set(NAMED)
    assert f"--surplus: {SURPLUS};" in page_environment().from_string("{{ palette() }}").render()
