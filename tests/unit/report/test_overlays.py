"""The pictures of the example volume: which there are, and what scores do not count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.viewed_study import Study

from volprompt.report.gallery import Gallery, draw_overlays
from volprompt.report.overlays import read_example


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("viewed"), volumes=["a"])


@pytest.mark.parametrize(
    ("volume", "best", "names"),
    [
        ("a", ("m", "clicks"), ["best", "overlay_e"]),
        ("a", None, ["overlay_e"]),
        ("unknown", ("m", "clicks"), []),
        (None, None, []),
    ],
)
def test_the_best_configuration_has_a_picture_of_its_own(
    study: Study, tmp_path: Path, volume: str | None, best: tuple[str, str] | None, names: list[str]
) -> None:
    gallery = Gallery(tmp_path, tmp_path, "", [])
    draw_overlays(gallery, volume, study.shards, study.design, best)
    assert list(gallery.elements) == names
    if "best" in names:
        assert "Prompts and masks of m with clicks on slice" in gallery.elements["best"]


def test_pixels_that_no_score_counts_are_those_of_the_ignored_labels(study: Study) -> None:
    example = read_example("a", study.shards, replace(study.design, ignored=[3]))
    assert example is not None
    assert example.shown.ignored is not None
    assert (example.shown.ignored == example.shown.reference["tibia"]).all()
    without = read_example("a", study.shards, study.design)
    assert without is not None
    assert without.shown.ignored is None
