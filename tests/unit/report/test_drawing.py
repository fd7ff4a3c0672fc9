"""Overlays show masks, outlines and prompts where they are."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from volprompt.palette import STRUCTURE_COLOURS, structure_colours
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.report.drawing import Panel, draw_box, draw_panel, draw_points, overlay, png

SIZE = (20, 30)


def block(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[rows, columns] = True
    return mask


FEMUR, TIBIA = block(slice(2, 8), slice(3, 12)), block(slice(12, 18), slice(3, 12))
FRAME = np.full(SIZE, 100, dtype=np.uint8)
COLOURS = structure_colours(["femur", "tibia", "patella"])


def prompt(*points: tuple[float, float, int], box: tuple[float, ...] | None = None) -> ObjectPrompt:
    coordinates = np.array([point[:2] for point in points], dtype=np.float32).reshape(-1, 2)
    labels = np.array([point[2] for point in points], dtype=np.int32)
    return ObjectPrompt("femur", 5, coordinates, labels, None if box is None else np.array(box, dtype=np.float32))


def axes() -> matplotlib.axes.Axes:
    return Figure().subplots()


def test_points_are_marked_where_they_are() -> None:
    drawn = axes()
    given = prompt((7.5, 4.0, 1), (8.0, 15.0, 0))
    draw_points(drawn, given, "red", positive=True, size=100)
    draw_points(drawn, given, "red", positive=False, size=100)
    positive, negative = drawn.collections
    assert positive.get_offsets().tolist() == [[7.5, 4.0]]
    assert negative.get_offsets().tolist() == [[8.0, 15.0]]
    assert len(positive.get_paths()[0].vertices) != len(negative.get_paths()[0].vertices)  # two kinds of mark


def test_no_negative_point_lies_over_a_positive_one() -> None:
    femur, tibia = (7.5, 4.0), (8.0, 15.0)
    prompts = [
        ObjectPrompt("femur", 5, np.array([femur, tibia], dtype=np.float32), np.array([1, 0])),
        ObjectPrompt("tibia", 5, np.array([tibia, femur], dtype=np.float32), np.array([1, 0])),
    ]
    drawn = axes()
    draw_panel(drawn, FRAME, {"femur": FEMUR, "tibia": TIBIA}, Panel("m", {}, prompts), COLOURS, 1.0)
    marks = [mark for mark in drawn.collections if isinstance(mark, PathCollection)]
    places = [tuple(mark.get_offsets()[0]) for mark in marks]
    on_top = dict(zip(places, marks, strict=True))
    assert places == [tibia, femur, femur, tibia]
    assert to_rgb(on_top[femur].get_facecolor()[0][:3]) == to_rgb(COLOURS["femur"])
    assert to_rgb(on_top[tibia].get_facecolor()[0][:3]) == to_rgb(COLOURS["tibia"])
    assert min(mark.get_zorder() for mark in marks[2:]) > max(mark.get_zorder() for mark in marks[:2])


def test_a_box_runs_around_its_outermost_pixels() -> None:
    drawn = axes()
    draw_box(drawn, prompt(box=(3, 2, 11, 7)), "red")
    # Pixel centres at whole numbers: the box of pixels 3 to 11 and 2 to 7 reaches half a pixel further.
    (rectangle,) = drawn.patches
    assert rectangle.get_bbox().extents.tolist() == [2.5, 1.5, 11.5, 7.5]
    assert not rectangle.get_fill()
    draw_box(drawn, prompt((7.5, 4.0, 1)), "red")
    assert len(drawn.patches) == 1


def test_masks_are_filled_in_the_colour_of_their_structure() -> None:
    drawn = axes()
    panel = Panel("model\nscheme", {"femur": FEMUR, "tibia": TIBIA}, [])
    draw_panel(drawn, FRAME, {"femur": FEMUR, "tibia": TIBIA}, panel, COLOURS, 1.0)
    picture, femur, tibia = drawn.images
    np.testing.assert_array_equal(picture.get_array(), FRAME)
    for layer, mask, colour in ((femur, FEMUR, COLOURS["femur"]), (tibia, TIBIA, COLOURS["tibia"])):
        np.testing.assert_array_equal(np.asarray(layer.get_array())[..., 3] > 0, mask)
        np.testing.assert_allclose(np.asarray(layer.get_array())[mask][0, :3], to_rgb(colour))
    assert drawn.get_title() == "model\nscheme"


@pytest.mark.parametrize("value", [False, True])
def test_a_reference_without_outline(value: bool) -> None:
    mask = np.full(SIZE, value)
    draw_panel(axes(), FRAME, {"femur": mask}, Panel("m", {"femur": mask}, []), COLOURS, 1.0)


def test_grid_of_panels() -> None:
    reference = {"femur": FEMUR, "tibia": TIBIA}
    panels = [[Panel(f"{model}\n{scheme}", reference, [prompt((7, 4, 1))]) for scheme in "ab"] for model in "xyz"]
    figure = overlay(FRAME, reference, [*panels, panels[0][:1]], COLOURS, 1.0)
    titles = [drawn.get_title() for drawn in figure.axes]
    assert titles == ["x\na", "x\nb", "y\na", "y\nb", "z\na", "z\nb", "x\na", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["femur: predicted", "tibia: predicted", "reference"]


def test_height_and_width_of_a_pixel() -> None:
    figure = overlay(FRAME, {"femur": FEMUR}, [[Panel("m", {"femur": FEMUR}, [])]], COLOURS, 2.0)
    assert figure.axes[0].get_aspect() == 2.0


def test_an_object_that_is_not_scored_has_a_colour_of_its_own() -> None:
    patella = ObjectPrompt("patella", 5, np.array([[5, 5]], dtype=np.float32), np.array([1]))
    figure = overlay(FRAME, {"femur": FEMUR}, [[Panel("m", {}, [patella])]], COLOURS, 1.0)
    (star,) = (mark for mark in figure.axes[0].collections if isinstance(mark, PathCollection))
    assert to_rgb(star.get_facecolor()[0][:3]) == to_rgb(COLOURS["patella"])


def test_a_configuration_that_failed_has_no_masks() -> None:
    figure = overlay(FRAME, {"femur": FEMUR}, [[Panel("m (failed)", {}, [])]], COLOURS, 1.0)
    assert len(figure.axes[0].images) == 1


def test_more_structures_than_colours() -> None:
    masks = {f"bone{index}": FEMUR for index in range(len(STRUCTURE_COLOURS) + 2)}
    figure = overlay(FRAME, masks, [[Panel("m", masks, [])]], structure_colours(masks), 1.0)
    assert len(figure.axes[0].images) == 1 + len(masks)


def test_a_picture_file(tmp_path: Path) -> None:
    content = png(
        overlay(FRAME, {"femur": FEMUR}, [[Panel("m", {"femur": FEMUR}, [])]], COLOURS, 1.0), dots_per_inch=50
    )
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 50
        assert len(picture.getcolors(maxcolors=1 << 16) or []) > 2
