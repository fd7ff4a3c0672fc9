"""Snakemake's own report: the study's tables, page and figures with labels and captions."""

import base64
import json
from pathlib import Path
from typing import Any

from tests.workflow.small_study import Study

LABELS = {
    "medians": "Medians",
    "comparisons": "Paired comparisons",
    "ranks": "Ranks",
    "decay": "Decay by distance",
    "agreement": "Agreement of volumes",
    "acceptable": "Acceptable slices",
    "propagation": "Propagation",
    "cost": "Cost",
    "failures": "Failed volumes",
}


def embedded(page: str, name: str) -> Any:
    """A value that the report's page keeps for its scripts."""
    return json.JSONDecoder().raw_decode(page.rpartition(f"var {name} = ")[2])[0]


def test_tables_in_the_report(finished: Study, tmp_path: Path) -> None:
    run = finished.run("--report", str(tmp_path / "report.html"))
    assert run.code == 0, run.text
    page = (tmp_path / "report.html").read_text()
    results = embedded(page, "results")
    shown = {path for parts in embedded(page, "categories")["Tables"].values() for path in parts}
    for table, label in LABELS.items():
        path = f"results/tables/{table}.csv"
        assert path in shown
        assert results[path]["labels"] == {"table": label}
        caption = results[path]["caption"]
        assert caption.startswith("<p>")
        assert "system-message" not in caption  # what docutils leaves where it cannot read a caption
        content = base64.b64decode(results[path]["data_uri"].partition("base64,")[2])
        assert content == (finished.folder / path).read_bytes()


def test_page_and_figures_in_the_report(finished: Study, tmp_path: Path) -> None:
    run = finished.run("--report", str(tmp_path / "report.html"))
    assert run.code == 0, run.text
    text = (tmp_path / "report.html").read_text()
    results, categories = embedded(text, "results"), embedded(text, "categories")
    pages = {path for parts in categories["Report"].values() for path in parts}
    assert pages == {"results/report/index.html"}
    figures = {path for parts in categories["Figures"].values() for path in parts}
    drawn = sorted((finished.folder / "results" / "report" / "figures").glob("*.svg"))
    assert figures == {path.relative_to(finished.folder).as_posix() for path in drawn}
    for path in pages | figures:
        assert results[path]["caption"].startswith("<p>")
        assert "system-message" not in results[path]["caption"]  # what docutils leaves of a caption it cannot read
    assert {results[path]["labels"]["figure"] for path in figures} == {path.stem for path in drawn}
