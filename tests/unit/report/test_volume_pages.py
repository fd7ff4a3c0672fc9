"""Pages of single volumes: which there are, what they show, and the lines for other programs."""

from __future__ import annotations

import ast
import copy
import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from tests.viewed_study import Study

from volprompt.files import write_table
from volprompt.report.volume_pages import page_of, write_volume_pages
from volprompt.segmentation.masks import mask_path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Volumes `a` and `b` have masks; the segmentation of `c` failed."""
    study = Study(tmp_path_factory.mktemp("viewed"), volumes=["a", "b", "c"])
    failed = study.scores["volume"] == "c"
    study.scores.loc[failed, "status"] = "failed"
    study.scores.loc[failed, "dice"] = float("nan")
    return study


def written(study: Study, folder: Path, **settings: str) -> dict[str, str]:
    """The pages by file name."""
    write_table(study.scores, study.folder / "scores.parquet")
    (shard,) = study.shards
    scores = [study.folder / "scores.parquet"]
    write_volume_pages(shard=shard, scores=scores, design=study.design, folder=folder, **settings)
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_a_volume_with_masks_has_a_page_with_all_configurations(study: Study, tmp_path: Path) -> None:
    pages = written(study, tmp_path)
    assert list(pages) == ["a.html", "b.html"]
    views = json.loads(re.search(r'id="views-data">(.*?)</script>', pages["b.html"], re.DOTALL)[1])
    assert [view["name"] for view in views["volumes"]] == ["b"]
    assert [(entry["scheme"], entry["roles"]) for entry in views["configurations"]] == [
        ("box", {"volume": 0}),
        ("clicks", {"volume": 0}),
    ]
    assert [entry["views"][0]["dice"]["combined"] for entry in views["configurations"]] == [0.95, 0.95]
    assert 'href="../../index.html#volume=b"' in pages["b.html"]


def test_the_lines_name_files_that_exist(study: Study, tmp_path: Path) -> None:
    page = written(study, tmp_path)["b.html"]
    image = str(study.folder / "1_image.nii")
    femur, tibia = (str(mask_path(study.masks, "box", "b", name)) for name in ("femur", "tibia"))
    assert lines(page) == [
        ["itksnap", "-g", image, "-s", femur],
        ["Slicer", "--python-code", slicer_code(image, femur, tibia)],
    ]
    assert all(Path(path).exists() for path in (image, femur, tibia))
    assert "No such line opens" not in page


def lines(page: str) -> list[list[str]]:
    """The arguments of the lines of a page, as a shell takes them."""
    return [shlex.split(html.unescape(line)) for line in re.findall(r"<pre tabindex=\"0\">(.*?)</pre>", page)]


def slicer_code(image: str, *masks: str) -> str:
    return "; ".join([f'slicer.util.loadVolume("{image}")', *(f'slicer.util.loadSegmentation("{m}")' for m in masks)])


@pytest.mark.parametrize("source", ["series", "series.zip", "a.mgz", "a.hdr", "IM0001", "it's a $series"])
def test_a_source_that_other_programs_read_otherwise_gives_way_to_the_frames(
    study: Study, tmp_path: Path, source: str
) -> None:
    moved = replace(study.design, sources={"b": [str(tmp_path / source), ""]})
    if "." not in source:
        (tmp_path / source).mkdir()
    write_table(study.scores, study.folder / "scores.parquet")
    scores = [study.folder / "scores.parquet"]
    write_volume_pages(shard=study.shards[0], scores=scores, design=moved, folder=tmp_path / "pages")
    page = (tmp_path / "pages" / "b.html").read_text()
    frames = str(study.folder / "volumes" / "000" / "b_frames.nii")
    masks = [str(mask_path(study.masks, "box", "b", name)) for name in ("femur", "tibia")]
    assert Path(frames).exists()
    assert lines(page) == [
        ["itksnap", "-g", frames, "-o", *masks],
        ["Slicer", "--python-code", slicer_code(frames, *masks)],
    ]
    assert "No such line opens" in page


@pytest.mark.parametrize("name", ["it's a $knee.nii.gz", 'say "knee".nrrd', "knee.mha"])
def test_a_source_that_moved_is_named_where_it_is_now(study: Study, tmp_path: Path, name: str) -> None:
    moved = replace(study.design, sources={"b": [f"elsewhere/{name}", ""]})
    write_table(study.scores, study.folder / "scores.parquet")
    scores = [study.folder / "scores.parquet"]
    write_volume_pages(shard=study.shards[0], scores=scores, design=moved, folder=tmp_path)
    first, second = lines((tmp_path / "b.html").read_text())
    assert first[:3] == ["itksnap", "-g", f"elsewhere/{name}"]
    assert ast.literal_eval(second[2].partition("loadVolume")[2].partition(";")[0]) == f"elsewhere/{name}"


@pytest.mark.parametrize("source", ["b.nii.gz", "b.mgz"])
def test_results_are_named_where_the_study_has_them(study: Study, tmp_path: Path, source: str) -> None:
    """A job that reads them from storage has copies elsewhere, which are gone when the page is read."""
    stored = copy.copy(study)
    stored.design = replace(study.design, results="results/knees", sources={"b": [source, ""]})
    page = written(stored, tmp_path)["b.html"]
    masks = [
        f"results/knees/masks/e/m/{study.masks.name}/box/b_label-{name}_mask.nii.gz" for name in ("femur", "tibia")
    ]
    image = source if source == "b.nii.gz" else "results/knees/volumes/000/b_frames.nii"
    first, second = lines(page)
    assert first[-1] in masks
    assert second[2] == slicer_code(image, *masks)
    assert str(study.folder) not in page


def test_paths_can_be_left_out(study: Study, tmp_path: Path) -> None:
    page = written(study, tmp_path, paths="hide")["b.html"]
    assert "b_label-femur_mask.nii.gz" in page
    assert str(study.folder) not in page


def test_a_volume_without_a_mask_of_one_configuration_shows_the_other(study: Study, tmp_path: Path) -> None:
    own = (study.scores["volume"] == "b") & (study.scores["scheme"] == "box")
    status = study.scores["status"].copy()
    study.scores.loc[own, "status"] = "failed"
    try:
        pages = written(study, tmp_path)
    finally:
        study.scores["status"] = status
    views = json.loads(re.search(r'id="views-data">(.*?)</script>', pages["b.html"], re.DOTALL)[1])
    assert [entry["scheme"] for entry in views["configurations"]] == ["clicks"]
    assert "/clicks/b_label-femur" in pages["b.html"]


def test_schemes_that_the_study_no_longer_has_are_left_out(study: Study, tmp_path: Path) -> None:
    """Their rows stay in the tables of scores."""
    reduced = replace(
        study.design, schemes={"clicks": study.design.schemes["clicks"]}, experiments={"e": (["m"], ["clicks"])}
    )
    write_table(study.scores, study.folder / "scores.parquet")
    scores = [study.folder / "scores.parquet"]
    write_volume_pages(shard=study.shards[0], scores=scores, design=reduced, folder=tmp_path)
    views = json.loads(re.search(r'id="views-data">(.*?)</script>', (tmp_path / "a.html").read_text(), re.DOTALL)[1])
    assert [entry["scheme"] for entry in views["configurations"]] == ["clicks"]


def test_a_volume_without_masks_says_so(study: Study, tmp_path: Path) -> None:
    (shard,) = study.shards
    write_table(study.scores, study.folder / "scores.parquet")
    scores = [study.folder / "scores.parquet"]
    nowhere = replace(shard, masks={key: str(tmp_path / "nowhere") for key in shard.masks})
    write_volume_pages(shard=nowhere, scores=scores, design=study.design, folder=tmp_path / "pages")
    page = (tmp_path / "pages" / "a.html").read_text()
    assert "There is nothing to show" in page
    assert "<pre" not in page


def test_where_a_page_lies() -> None:
    assert page_of("results/volumes/003", "knee_a") == "volumes/003/knee_a.html"
