"""The report's page in a browser: a small simulated study, opened as a reader would."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Visit, barriers
from tests.conftest import MadeOnce
from tests.workflow.simulated_study import STAMP, Simulated, simulate

from volprompt.files import write_table
from volprompt.numbers import number
from volprompt.palette import (
    GREY,
    GRID,
    INK,
    LACKING,
    OUTLINE,
    PALE,
    SCHEME_COLOURS,
    STRUCTURE_COLOURS,
    SURPLUS,
    WARNING,
    shades,
)
from volprompt.report import page as page_module

VOLUMES = 40
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>$x_1$"


@pytest.fixture(scope="module")
def study(made_once: MadeOnce) -> Simulated:
    """With its report; not to be changed."""

    def make(folder: Path) -> None:
        simulated = simulate(folder, volumes=VOLUMES, shards=2)
        simulated.aggregate()
        simulated.report(print_formats=["pdf"])
        (folder / "study.pickle").write_bytes(pickle.dumps(simulated))

    folder = made_once("simulated", make)
    return replace(pickle.loads((folder / "study.pickle").read_bytes()), folder=folder)


@pytest.fixture(scope="module")
def report(study: Simulated) -> Path:
    return study.folder / "report" / "index.html"


@pytest.fixture(scope="module")
def combined(study: Simulated) -> pd.DataFrame:
    """The rows that the table shows at first, the worst on top."""
    scores = pd.read_parquet(study.folder / "tables" / "scores.parquet")
    return scores[scores["structure"] == "combined"].sort_values("dice", na_position="last", kind="stable")


Open = Callable[..., Visit]


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#scores-table tbody tr > :nth-child({number})").all_inner_texts()


def heading(page: Page, name: str):
    return page.locator("#scores-table thead th").filter(has=page.get_by_role("button", name=name, exact=True))


def test_every_section_has_a_place_in_the_navigation(report: Path, visit: Open) -> None:
    page = visit(report).page
    targets = [link.get_attribute("href") for link in page.locator("nav.sections a").all()]
    sections = [f"#{section.get_attribute('id')}" for section in page.locator("main > section").all()]
    assert targets == sections
    levels = [int(tag[1]) for tag in page.locator("h1, h2, h3").evaluate_all("all => all.map(e => e.tagName)")]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_keeps_people_from_the_page(
    report: Path, visit: Open, width: int, scheme: Literal["light", "dark"]
) -> None:
    assert barriers(visit(report, width).page, scheme) == []


def test_pictures_have_descriptions(report: Path, visit: Open) -> None:
    page = visit(report).page
    pictures = page.locator("figure svg, figure img").all()
    # Three distributions, three of differences, decay, propagation, agreement, ranks, confidence, cost, effort.
    assert len(pictures) == 13
    assert all(picture.get_attribute("aria-label") or picture.get_attribute("alt") for picture in pictures)
    identifiers = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(identifiers) == len(set(identifiers))


def test_the_table_starts_with_the_worst_volumes(report: Path, visit: Open, combined: pd.DataFrame) -> None:
    page = visit(report).page
    assert column(page, 1)[0] == combined["volume"].iloc[0]
    assert column(page, 5) == [f"{value:.3f}" for value in combined["dice"][:50]]
    # As in the table of medians, an error says in which direction it goes.
    assert column(page, 11) == [number(value, "share", signed=True) for value in combined["volume_error"][:50]]
    expect(heading(page, "Dice")).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("#scores-count")).to_have_text(f"Rows 1 to 50 of {len(combined)}")


def test_sorting_by_click_and_by_keyboard(report: Path, visit: Open, combined: pd.DataFrame) -> None:
    page = visit(report).page
    heading(page, "Dice").get_by_role("button").click()
    expect(heading(page, "Dice")).to_have_attribute("aria-sort", "descending")
    best = combined.sort_values("dice", ascending=False, na_position="last", kind="stable")
    assert column(page, 5)[0] == f"{best['dice'].iloc[0]:.3f}"
    heading(page, "Volume").get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(heading(page, "Volume")).to_have_attribute("aria-sort", "ascending")
    expect(heading(page, "Dice")).to_have_attribute("aria-sort", "none")
    assert column(page, 1) == sorted(combined["volume"])[:50]
    page.keyboard.press("Space")
    assert column(page, 1) == sorted(combined["volume"], reverse=True)[:50]


def test_missing_values_come_last_in_both_directions(report: Path, visit: Open) -> None:
    page = visit(report).page
    for _ in range(2):
        heading(page, "Dice, prompted slice").get_by_role("button").click()
        assert column(page, 7)[0] != "–"
        page.locator("#page-last").click()
        assert column(page, 7)[-1] == "–"
        page.locator("#page-first").click()


def test_filters(report: Path, visit: Open) -> None:
    page = visit(report).page
    page.locator("#filter-text").fill("KNEE_0007")
    expect(page.locator("#scores-count")).to_have_text("Rows 1 to 18 of 18")
    page.locator("#filter-model").select_option("sam_vit_b")
    page.locator("#filter-structure").select_option("")
    assert sorted(zip(column(page, 3), column(page, 4), strict=True)) == [
        (scheme, structure) for scheme in ("box", "point") for structure in ("combined", "femur", "tibia")
    ]
    page.locator("#filter-scheme").select_option("point_video")
    expect(page.locator("#scores-count")).to_have_text("No row matches.")
    page.locator("#filter-reset").click()
    expect(page.locator("#scores-count")).to_have_text(f"Rows 1 to 50 of {18 * VOLUMES}")


def test_pages_of_the_table(report: Path, visit: Open, combined: pd.DataFrame) -> None:
    page = visit(report).page
    expect(page.locator("#page-previous")).to_be_disabled()
    page.locator("#page-next").click()
    assert column(page, 5) == [f"{value:.3f}" for value in combined["dice"][50:100]]
    page.locator("#page-last").click()
    rest = len(combined) % 50 or 50
    assert len(column(page, 1)) == rest
    expect(page.locator("#page-next")).to_be_disabled()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_does_not_scroll_sideways(report: Path, visit: Open, width: int) -> None:
    page = visit(report, width).page
    for details in page.locator("details").all():
        details.evaluate("e => { e.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What is wider than the page can be scrolled to with the keyboard.
    wide = page.locator(".scroll").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.tabIndex)"
    )
    assert set(wide) <= {0}
    assert wide or width > 390
    if width > 390:  # a table of the paper's eighteen configurations is not cut in its last column
        for name in ("medians", "cost"):
            tables = page.locator(f"#{name} .scroll:has(table)")
            assert tables.count()
            assert tables.evaluate_all("all => all.every(e => e.scrollWidth <= e.clientWidth)")


def test_the_keyboard_reaches_the_content(report: Path, visit: Open) -> None:
    page = visit(report).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#answer"
    page.keyboard.press("Enter")
    assert page.url.endswith("#answer")


def test_print(report: Path, visit: Open, tmp_path: Path) -> None:
    page = visit(report).page
    page.emulate_media(media="print")
    expect(page.locator("nav.sections")).to_be_hidden()
    expect(page.locator("#filters")).to_be_hidden()
    assert all(section.is_visible() for section in page.locator("main > section").all())
    # Tables that the screen folds away are printed.
    expect(page.get_by_role("group", name="All comparisons").locator("table")).to_be_visible()
    assert page.locator(".stamp").evaluate("e => getComputedStyle(e).position") == "fixed"  # so on every sheet
    expect(page.locator(".stamp")).to_have_text(STAMP)
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")


def test_figures_for_print_are_the_same_every_time(study: Simulated, report: Path, tmp_path: Path) -> None:
    folder = report.parent / "figures"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {Path(name).suffix for name in first} == {".svg", ".pdf"}
    assert len(first) == 2 * 13
    study.report(page=tmp_path / "index.html")  # in print formats: test_plots.py
    drawn = {name: content for name, content in first.items() if name.endswith(".svg")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == drawn
    assert all(STAMP.encode() in content for content in drawn.values())


def test_names_from_outside_are_only_shown(tmp_path: Path, visit: Open) -> None:
    simulated = simulate(tmp_path, volumes=12, shards=1, experiments=["sam1"])
    for path in [*tmp_path.rglob("*.parquet")]:
        table = pd.read_parquet(path)
        table["volume"] = table["volume"].replace("knee_0003", HOSTILE)
        if "source" in table:
            table["source"] = f"data/{HOSTILE}/" + table["volume"] + ".nii.gz"
        if "reason" in table:
            fails = (table["volume"] == HOSTILE) & (table.get("scheme", "point") == "point")
            table.loc[fails, ["status", "reason"]] = "failed", f"cannot read {HOSTILE}"
        write_table(table, path)
    simulated.aggregate()
    page = visit(simulated.report(title=f"Study {HOSTILE}", description=HOSTILE)).page
    assert page.locator("h1").inner_text() == f"Study {HOSTILE}"
    page.locator("#filter-text").fill("alert(1)")
    assert set(column(page, 1)) == {HOSTILE}
    assert HOSTILE in page.locator("#failed").inner_text()
    assert page.locator("img").count() == 0
    assert page.locator("script:not([type])").count() == 1


def test_infinite_distances_are_the_largest(tmp_path: Path, visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "draw_plots", lambda *arguments: None)  # they take seconds; distances are in none
    simulated = simulate(tmp_path, volumes=2, shards=1, experiments=["sam1"])
    simulated.aggregate()
    scores = pd.read_parquet(tmp_path / "tables" / "scores.parquet")
    lost = scores.index[scores["structure"] == "combined"][:2]
    scores.loc[lost, "hd95_mm"] = float("inf")
    write_table(scores, tmp_path / "tables" / "scores.parquet")
    page = visit(simulated.report(stamp="")).page
    distances = heading(page, "HD95 (mm)").get_by_role("button")
    place = 1 + page.locator("#scores-table thead th").all_inner_texts().index(distances.inner_text())
    distances.click()
    ascending = column(page, place)
    distances.click()
    assert column(page, place) == ascending[::-1]
    assert [text == "∞" for text in ascending] == [False] * (len(ascending) - 2) + [True] * 2


def test_a_small_study_says_what_is_missing(tmp_path: Path, visit: Open) -> None:
    simulated = simulate(tmp_path, volumes=2, shards=1, experiments=["sam1"])
    simulated.aggregate()
    tables = tmp_path / "tables"
    for name in ("ranks", "decay", "propagation"):
        (tables / f"{name}.csv").unlink()
    empty = pd.read_csv(tables / "comparisons.csv").head(0)
    empty.to_csv(tables / "comparisons.csv", index=False)
    page = visit(simulated.report(stamp="")).page
    said = {
        name: page.locator(f"#{name} > p").first.inner_text() for name in ("differences", "ranks", "decay", "masks")
    }
    assert said == {
        "differences": "There is no pair of configurations to compare.",
        "ranks": "Ranks need at least two configurations that share volumes; there are none here.",
        "decay": "No scheme that prompts one slice was scored, so there is no propagation to follow.",
        "masks": "There is no volume with masks to show.",
    }
    assert page.locator(".stamp").count() == 0
    # Two volumes give no interval.
    assert not re.search(r"\[0\.\d", page.locator("#medians table").first.inner_text())


def test_published_figures_are_marked(report: Path, visit: Open) -> None:
    page = visit(report).page
    rows = page.locator("#medians tfoot tr").all_inner_texts()
    assert len(rows) == 2
    assert all("not measured here" in row for row in rows)
    assert "0.920" in rows[0]
    assert "0.964" in rows[1]


def test_headings_are_explained(report: Path, visit: Open) -> None:
    page = visit(report).page
    terms = page.locator("#glossary dt").all_inner_texts()
    headings = page.locator("table.sortable thead th").evaluate_all("all => all.map(cell => cell.dataset.heading)")
    assert set(terms) <= {*headings, "Area (Dice)", "Area (NSD)"}
    cell = page.locator('#differences th[data-heading="Effect size"]').first
    assert cell.get_attribute("title") == "matched-pairs rank-biserial correlation; 1: the first is always better"


# Colours


def test_a_colour_stands_for_one_thing(report: Path, study: Simulated) -> None:
    """Figures of configurations have the colours of schemes (with shades for models), those of structures theirs."""
    kinds = [STRUCTURE_COLOURS, SCHEME_COLOURS, (SURPLUS, LACKING), (INK, GREY, PALE, GRID)]
    assert len({colour for kind in kinds for colour in kind}) == sum(map(len, kinds))
    schemes = SCHEME_COLOURS[: len(study.design.used_schemes)]
    models = len(study.design.used_models)
    shaded = {shade for colour in (*schemes, INK) for shade in shades(colour, models)}
    of_figure = {
        "distributions": schemes,
        "ranks": schemes,
        "cost": schemes,
        "effort": schemes,
        "decay": shaded,
        "agreement": list(study.design.colours.values()),
        "propagation": [SURPLUS],
        "differences": [],
        "confidence": [],
    }
    neutral = {INK, GREY, PALE, GRID, OUTLINE, WARNING}  # the last one: the stamp
    for path in (report.parent / "figures").glob("*.svg"):
        allowed = neutral | set(of_figure[path.stem.partition("_")[0]])
        drawn = {text.upper() for text in re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", path.read_text())}
        assert drawn <= allowed, path.name


# The first screen


@pytest.mark.parametrize("width", [1280, 390])
def test_the_answer_is_on_the_first_screen(report: Path, study: Simulated, visit: Open, width: int) -> None:
    page = visit(report, width).page
    sentence = page.locator("p.answer")
    medians = pd.read_csv(study.folder / "tables" / "medians.csv")
    best = medians.loc[medians["combined"].idxmax()]
    assert f"{best['model']} with {best['scheme']}" in sentence.inner_text()
    assert f"{best['combined']:.3f}" in sentence.inner_text()
    place = sentence.bounding_box()
    assert place is not None
    assert place["y"] + place["height"] < 700
    tiles = [text.replace("\n", " ") for text in page.locator(".tiles li").all_inner_texts()]
    assert f"{VOLUMES} volumes scored" in tiles
    assert "18 configurations" in tiles
    page.locator(".tiles a").last.click()
    expect(page.get_by_role("heading", name="Where this study departs from the paper")).to_be_in_viewport()


# Of every table whose first screen shows names alone: what it is. The first cell that is no name is its value.
NARROW = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const hidden = [];
  for (const table of document.querySelectorAll(".scroll > table")) {
    const cells = [...(table.tBodies[0]?.rows[0]?.cells ?? [])].filter((cell) => cell.offsetWidth);
    const value = cells.find((cell) => cell.tagName === "TD" && !cell.classList.contains("text"));
    if (!value) continue;
    const screen = table.parentElement.getBoundingClientRect(), own = value.getBoundingClientRect();
    const seen = value.classList.contains("prose") ? own.left + 60 : own.right; // of prose, its beginning
    if (seen > screen.right + 1) hidden.push(`${table.parentElement.ariaLabel}: ${Math.round(seen - screen.right)}`);
  }
  return hidden;
}"""


def test_every_row_has_a_cell_for_each_heading(report: Path, visit: Open) -> None:
    counts = """all => all.map(table => new Set([...table.rows].map(
        row => [...row.cells].reduce((count, cell) => count + cell.colSpan, 0))).size)"""
    assert set(visit(report).page.locator("main table").evaluate_all(counts)) == {1}


@pytest.mark.parametrize("width", [1280, 390])
def test_headings_can_be_hit(report: Path, visit: Open, width: int) -> None:
    page = visit(report, width).page
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    sizes = page.locator("thead button").evaluate_all("all => all.map(e => [e.offsetWidth, e.offsetHeight])")
    assert min(min(size) for size in sizes if size != [0, 0]) >= 24


def test_every_table_shows_a_value_on_a_narrow_screen(report: Path, visit: Open) -> None:
    page = visit(report, 390).page
    assert page.locator(".scroll > table").count() > 10
    assert page.evaluate(NARROW) == []


# Words of names and texts in cells that begin on one line and end on another; names may break where they say so.
BROKEN = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const broken = new Set(), range = document.createRange();
  for (const cell of document.querySelectorAll(".scroll > table tbody :is(th, td.text)")) {
    if (cell.querySelector("code")) continue; // digests
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      for (const { 0: word, index } of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {
        range.setStart(texts.currentNode, index);
        range.setEnd(texts.currentNode, index + word.length);
        if (cell.offsetWidth && new Set([...range.getClientRects()].map((box) => box.top)).size > 1) broken.add(word);
      }
    }
  }
  return [...broken];
}"""


def test_no_word_is_broken_on_a_narrow_screen(report: Path, visit: Open) -> None:
    assert visit(report, 390).page.evaluate(BROKEN) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_every_section_can_be_chosen_without_scrolling_sideways(report: Path, visit: Open, width: int) -> None:
    page = visit(report, width).page
    boxes = page.locator("nav.sections a").evaluate_all("all => all.map(e => e.getBoundingClientRect().toJSON())")
    assert all(box["left"] >= 0 and box["right"] <= width and box["height"] >= 24 for box in boxes)
    assert page.locator("nav.sections ul").evaluate("e => e.scrollWidth - e.clientWidth") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_a_hard_volume_opens_its_scores(report: Path, visit: Open, combined: pd.DataFrame, width: int) -> None:
    page = visit(report, width).page
    hardest = combined.groupby("volume")["dice"].mean().sort_values(kind="stable").index[0]
    link = page.locator("#answer table tbody th a").first
    assert link.inner_text() == hardest
    link.click()
    assert page.url.endswith(f"#volume={hardest}")
    expect(page.locator("#scores-count")).to_have_text("Rows 1 to 18 of 18")
    assert set(column(page, 1)) == {hardest}
    expect(page.locator("#single-head")).to_be_in_viewport()


def test_an_address_opens_a_volume(report: Path, visit: Open) -> None:
    page = visit(report).page
    page.evaluate("location.hash = '#volume=knee_0003'")
    expect(page.locator("#scores-count")).to_have_text("Rows 1 to 18 of 18")


# Tables


def medians_column(page: Page, number: int) -> list[str]:
    return page.locator(f"#medians table >> nth=0 >> tbody tr > :nth-child({number})").all_inner_texts()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_table_sorts(report: Path, visit: Open, width: int) -> None:
    page = visit(report, width).page
    head = page.locator("#medians table").first.get_by_role("button", name="Combined", exact=True)
    place = 1 + page.locator("#medians table >> nth=0 >> thead th").all_inner_texts().index("Combined")
    head.click()
    values = [float(text.split()[0]) for text in medians_column(page, place)]
    assert values == sorted(values)
    head.focus()
    page.keyboard.press("Enter")
    values = [float(text.split()[0]) for text in medians_column(page, place)]
    assert values == sorted(values, reverse=True)
    page.locator("#medians table").first.get_by_role("button", name="Model", exact=True).click()
    models = medians_column(page, 1)
    assert models == sorted(models, key=lambda name: name.replace("_", " "))  # as a reader of English sorts


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> str:
    """What a page writes into the clipboard, kept in the page itself."""
    return "navigator.clipboard.writeText = async (text) => { window.copied = text; }"


def test_tables_are_copied(report: Path, visit: Open, copied: str) -> None:
    page = visit(report).page
    page.evaluate(copied)
    bar = page.locator("#medians .copies").first
    rows = {}
    for name in ("Markdown", "LaTeX", "CSV"):
        bar.get_by_role("button", name=name).click()
        expect(bar.get_by_role("status")).to_have_text(f"{name} copied")
        rows[name] = page.evaluate("window.copied").splitlines()
    shown = medians_column(page, 1)
    assert [row.split(" | ")[0] for row in rows["Markdown"][2:]] == [f"| {name}" for name in shown]
    assert rows["Markdown"][1].startswith("| --- | --- | ---: |")
    assert rows["LaTeX"][0] == r"\begin{tabular}{llrrrrrrr}"
    assert rows["LaTeX"][3:4] == [r"\midrule"]
    assert rows["LaTeX"][4].startswith(shown[0].replace("_", r"\_"))
    assert len(rows["CSV"]) == len(shown) + 1
    assert rows["CSV"][0].startswith("Model,Prompts,")
    assert '"' in rows["CSV"][1]  # an interval has a comma


def test_the_methods_text_is_copied(report: Path, visit: Open, copied: str) -> None:
    page = visit(report).page
    page.evaluate(copied)
    page.get_by_role("button", name="Copy text").click()
    assert page.evaluate("window.copied").startswith(f"We segmented {VOLUMES} volumes")
    page.get_by_role("button", name="Copy BibTeX").click()
    assert page.evaluate("window.copied").startswith("@article{yu2024,")


# Dark


def test_a_dark_screen(report: Path, visit: Open) -> None:
    page = visit(report).page
    page.emulate_media(color_scheme="dark")
    colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert colours == ["rgb(20, 25, 30)", "rgb(230, 235, 240)"]
    figure = page.locator("figure .scroll").first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert figure == "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 37, 48)"


# Paths


@pytest.mark.parametrize("paths", ["show", "hide"])
def test_paths_are_left_out_on_request(
    tmp_path: Path, visit: Open, monkeypatch: pytest.MonkeyPatch, paths: str
) -> None:
    monkeypatch.setattr(page_module, "draw_plots", lambda *arguments: None)
    simulated = simulate(tmp_path, volumes=2, shards=1, experiments=["sam1"])
    for path in [*tmp_path.rglob("*.parquet")]:
        table = pd.read_parquet(path)
        if "source" in table:
            table["source"] = "/private/knees/" + table["volume"] + ".nii.gz"
            table["warnings"] = [["the header of /private/knees/a.nii.gz is odd"]] * len(table)
        if "reason" in table:
            fails = (table["volume"] == "knee_0001") & (table.get("scheme", "point") == "point")
            table.loc[fails, ["status", "reason"]] = "failed", "cannot read /private/knees/b.nii.gz"
        write_table(table, path)
    simulated.aggregate()
    page = visit(simulated.report(stamp="", paths=paths)).page
    assert ("/private" in page.content()) == (paths == "show")
    assert "b.nii.gz" in page.locator("#failed").inner_text()


# Points


@pytest.mark.parametrize("width", [1280, 700])
def test_a_point_names_and_opens_its_volume(report: Path, visit: Open, combined: pd.DataFrame, width: int) -> None:
    """The worst volume of the first configuration, found where the figure's axes put it."""
    page = visit(report, width).page
    first = combined[(combined["model"] == "sam_vit_b") & (combined["scheme"] == "point")].iloc[0]
    holder = page.locator("[data-points]").first
    holder.scroll_into_view_if_needed()
    place = page.evaluate(
        """([holder, value]) => {
          const points = JSON.parse(holder.dataset.points), frame = holder.querySelector("svg").getBoundingClientRect();
          const [left, top, width, height] = points.box;
          const across = (value - points.x[0]) / (points.x[1] - points.x[0]);
          const down = (0 - points.y[1]) / (points.y[0] - points.y[1]);
          return [frame.left + frame.width * (left + width * across), frame.top + frame.height * (top + height * down)];
        }""",
        [holder.element_handle(), float(first["dice"])],
    )
    page.mouse.move(*place)
    expect(page.locator(".hint")).to_have_text(f"{first['volume']}: {first['dice']:.3f} (sam_vit_b, point)")
    page.mouse.click(*place)
    expect(page).to_have_url(re.compile(f"#volume={first['volume']}$"))
    expect(page.locator("#scores-table tbody tr").last).to_contain_text(str(first["volume"]))  # the filter comes after
    assert set(column(page, 1)) == {first["volume"]}


def test_points_lie_where_the_page_thinks(report: Path, visit: Open) -> None:
    """The axes that the page is told of are those of the figure: their ends are the ends of its grid lines."""
    page = visit(report).page
    holder = page.locator("[data-points]").first
    box = page.evaluate("holder => JSON.parse(holder.dataset.points).box", holder.element_handle())
    size = [float(value) for value in str(holder.locator("svg").get_attribute("viewBox")).split()][2:]
    patch = re.findall(r"M ([\d.]+) ([\d.]+)", str(holder.locator("svg g path").nth(1).get_attribute("d")))[0]
    assert float(patch[0]) / size[0] == pytest.approx(box[0], abs=0.002)
    assert float(patch[1]) / size[1] == pytest.approx(box[1] + box[3], abs=0.002)


def test_rows_link_the_pages_of_their_volumes(tmp_path: Path, visit: Open) -> None:
    simulated = simulate(tmp_path, volumes=6, shards=1, experiments=["sam1"])
    simulated.aggregate()
    page = visit(simulated.report(stamp="", volumes="all", compare_with=None)).page
    # This study does not reproduce the paper: no number of departures on the first screen, and no table that is open.
    assert "departures" not in page.locator(".tiles").inner_text()
    assert page.get_by_text("this study was not configured to reproduce it").is_hidden()
    (shard,) = simulated.shards
    names = column(page, 1)
    links = page.locator("#scores-table a.own").evaluate_all("all => all.map(link => link.getAttribute('href'))")
    assert links == [f"volumes/{shard}/{name.split()[0].removesuffix('↗')}.html" for name in names]
    assert "needs the folder of this report" in page.locator("p.note").filter(has_text="A heading sorts").inner_text()
