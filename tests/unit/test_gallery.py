"""The gallery of docs/schemes.md: drawings of the schemes that its lines define."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery", REPOSITORY / "docs" / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_shows_the_gallery(gallery: ModuleType) -> None:
    text = gallery.DOCUMENT.read_text()
    assert gallery.BEGIN + gallery.section() + gallery.END in text, "run `make pictures`"
    names = [next(iter(yaml.safe_load(lines))) for _, lines in gallery.VARIETIES]
    files = {path.name for path in (REPOSITORY / "docs" / "gallery").iterdir()}
    assert files == {f"{name}.png" for name in names}
    assert sum(path.stat().st_size for path in (REPOSITORY / "docs" / "gallery").iterdir()) < 600_000


def test_every_variety_is_a_valid_scheme(gallery: ModuleType) -> None:
    for _, lines in gallery.VARIETIES:
        name = next(iter(yaml.safe_load(lines)))
        found = gallery.schemes(lines)
        assert list(found) == ([f"{name}_{n}" for n in range(1, 6)] if name == "noisy" else [name])


def test_a_drawing_shows_the_prompted_slices(gallery: ModuleType) -> None:
    lines = dict(reversed(pair) for pair in gallery.VARIETIES if pair[1].startswith("several_video"))
    figure = gallery.Knee().draw(next(iter(lines)))
    assert [axes.get_title() for axes in figure.axes] == [f"slice {n}, prompted" for n in (12, 20, 27)]
