"""Overlays show masks, outlines and prompts where they are."""

from __future__ import annotations

import io
from dataclasses import replace
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
from volprompt.report.borders import border_path
from volprompt.report.drawing import (
    Panel,
    Slice,
    Window,
    draw_box,
    draw_inset,
    draw_panel,
    draw_points,
    free_corner,
    inset_window,
    most_different,
    overlay,
    panel_letters,
    png,
    shown_window,
)

SIZE = (20, 30)


def block(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[rows, columns] = True
    return mask


FEMUR, TIBIA = block(slice(2, 8), slice(3, 12)), block(slice(12, 18), slice(3, 12))
FRAME = np.full(SIZE, 100, dtype=np.uint8)
BOTH = {"femur": FEMUR, "tibia": TIBIA}
COLOURS = structure_colours(["femur", "tibia", "patella"])


def shown(reference: dict[str, np.ndarray], spacing: tuple[float, float] = (1.0, 1.0)) -> Slice:
    return Slice(FRAME, reference, spacing, "IP", 20)


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
    draw_panel(drawn, shown(BOTH), Panel("m", {}, prompts), COLOURS)
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
    draw_panel(drawn, shown(BOTH), panel, COLOURS)
    picture, femur, tibia = drawn.images
    np.testing.assert_array_equal(picture.get_array(), FRAME)
    for layer, mask, colour in ((femur, FEMUR, COLOURS["femur"]), (tibia, TIBIA, COLOURS["tibia"])):
        np.testing.assert_array_equal(np.asarray(layer.get_array())[..., 3] > 0, mask)
        np.testing.assert_allclose(np.asarray(layer.get_array())[mask][0, :3], to_rgb(colour))
    assert drawn.get_title() == "model\nscheme"


@pytest.mark.parametrize("value", [False, True])
def test_a_reference_without_outline(value: bool) -> None:
    mask = np.full(SIZE, value)
    overlay(shown({"femur": mask}), [[Panel("m", {"femur": mask}, [])]], COLOURS)


def test_grid_of_panels() -> None:
    panels = [[Panel(f"{model}\n{scheme}", BOTH, [prompt((7, 4, 1))]) for scheme in "ab"] for model in "xyz"]
    figure = overlay(shown(BOTH), [*panels, panels[0][:1]], COLOURS)
    titles = [drawn.get_title() for drawn in figure.axes]
    assert titles == ["x\na", "x\nb", "y\na", "y\nb", "z\na", "z\nb", "x\na", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["femur: predicted", "tibia: predicted", "reference"]


def test_height_and_width_of_a_pixel() -> None:
    figure = overlay(shown({"femur": FEMUR}, (2.0, 1.0)), [[Panel("m", {"femur": FEMUR}, [])]], COLOURS)
    assert figure.axes[0].get_aspect() == 2.0


def test_an_object_that_is_not_scored_has_a_colour_of_its_own() -> None:
    patella = ObjectPrompt("patella", 5, np.array([[5, 5]], dtype=np.float32), np.array([1]))
    figure = overlay(shown({"femur": FEMUR}), [[Panel("m", {}, [patella])]], COLOURS)
    (star,) = (mark for mark in figure.axes[0].collections if isinstance(mark, PathCollection))
    assert to_rgb(star.get_facecolor()[0][:3]) == to_rgb(COLOURS["patella"])


def test_a_configuration_that_failed_has_no_masks() -> None:
    figure = overlay(shown({"femur": FEMUR}), [[Panel("m (failed)", {}, [])]], COLOURS)
    assert len(figure.axes[0].images) == 1


def test_more_structures_than_colours() -> None:
    masks = {f"bone{index}": FEMUR for index in range(len(STRUCTURE_COLOURS) + 2)}
    figure = overlay(shown(masks), [[Panel("m", masks, [])]], structure_colours(masks))
    assert len(figure.axes[0].images) == 1 + len(masks)


def test_a_picture_file(tmp_path: Path) -> None:
    drawn = overlay(shown({"femur": FEMUR}), [[Panel("m", {"femur": FEMUR}, [])]], COLOURS)
    content = png(drawn, dots_per_inch=50)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 50
        assert len(picture.getcolors(maxcolors=1 << 16) or []) > 2


# The figure for print


def texts(drawn: matplotlib.axes.Axes) -> list[str]:
    return [text.get_text() for text in drawn.texts]


def test_three_panels_in_a_row_as_wide_as_a_page() -> None:
    figure = overlay(shown(BOTH), [[Panel(str(number), BOTH, []) for number in range(7)]], COLOURS)
    assert [drawn.get_title() for drawn in figure.axes] == ["0", "1", "2", "3", "4", "5", "6", "", ""]
    assert [drawn.get_title(loc="left") for drawn in figure.axes] == ["a", "b", "c", "d", "e", "f", "g", "", ""]
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(180)
    figure.draw_without_rendering()
    written = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in written) >= 7


def test_letters_of_many_panels() -> None:
    assert panel_letters(28)[24:] == ["y", "z", "aa", "ab"]
    assert len(set(panel_letters(100))) == 100


def test_the_first_panel_tells_where_the_slice_is() -> None:
    first, second = overlay(shown(BOTH), [[Panel("m", BOTH, []), Panel("n", BOTH, [])]], COLOURS).axes
    # y grows downwards to inferior, x to the right to posterior.
    assert texts(first) == ["slice 20", "S", "I", "A", "P", "5 mm"]
    assert texts(second) == []
    # Columns 3 to 11 and rows 2 to 17, with 8 % of 15 mm and a pixel around: 13 columns of 1 mm; 10 mm are too much.
    left, right = first.get_xlim()
    (bar,) = [line for line in first.lines if line.get_transform() == first.transAxes]
    assert np.ptp(bar.get_xdata()) * (right - left) == pytest.approx(5)


def test_the_region_around_masks_and_prompts() -> None:
    prompts = [prompt((28, 1, 1))]
    # The margin is 8 % of 25 mm, and one pixel; the slice ends at row 0 and column 30.
    assert shown_window(shown(BOTH), [Panel("m", {}, prompts)]) == Window((0, 20), (0, 30))
    assert shown_window(shown({"femur": FEMUR}), [Panel("m", {}, [])]) == Window((0, 10), (1, 14))
    # At least a quarter of the slice, 5 rows and 8 columns, around a single click.
    click = Panel("m", {}, [prompt((15, 10, 1))])
    empty = np.zeros(SIZE, dtype=bool)
    assert shown_window(shown({"femur": empty}), [click]) == Window((8, 13), (12, 20))
    assert shown_window(shown({"femur": empty}), [Panel("m", {}, [])]) == Window((0, 20), (0, 30))


def test_the_inset_shows_where_most_pixels_are_wrong() -> None:
    region = Window((0, 20), (0, 30))
    # 16 % of 30 mm: 5 pixels on a side. The prediction has a block of 4 by 5 pixels too many.
    wrong = {"femur": FEMUR | block(slice(10, 14), slice(20, 25)), "tibia": TIBIA}
    window = most_different(shown(BOTH), [Panel("m", wrong, []), Panel("n", BOTH, [])], region)
    assert window is not None
    assert window.rows[0] <= 10 < 14 <= window.rows[1]
    assert window.columns[0] <= 20 < 25 <= window.columns[1]
    assert (np.ptp(window.rows), np.ptp(window.columns)) == (5, 5)
    assert most_different(shown(BOTH), [Panel("m", BOTH, [])], region) is None
    # What no score counts is not wrong.
    ignored = replace(shown(BOTH), ignored=block(slice(10, 14), slice(20, 25)))
    assert most_different(ignored, [Panel("m", wrong, [])], region) is None
    # Where the reference does not show the tibia at all, all of it is wrong.
    absent = {"femur": FEMUR, "tibia": np.zeros(SIZE, dtype=bool)}
    window = most_different(shown(absent), [Panel("m", BOTH, [])], region)
    assert window == Window((12, 17), (3, 8))
    assert (
        most_different(shown({"femur": np.zeros(SIZE, dtype=bool)}), [Panel("m", {"femur": FEMUR}, [])], region) is None
    )


def test_insets_lie_where_they_hide_least() -> None:
    region, middle = Window((0, 20), (0, 30)), Window((8, 11), (12, 15))
    for rows, columns, expected in (
        (slice(10, 20), slice(0, 30), "upper right"),
        (slice(0, 10), slice(0, 30), "lower right"),
        (slice(0, 20), slice(15, 30), "upper right"),
    ):
        assert free_corner(shown({"femur": block(rows, columns)}), [], region, middle) == expected
    # What is magnified is not hidden, even where masks are then; slice number and bar give way if nothing else is left.
    tibia = shown({"tibia": TIBIA})
    assert free_corner(tibia, [], region, Window((1, 6), (22, 27))) == "lower right"
    assert free_corner(shown({"femur": block(slice(10, 20), slice(0, 30))}), [], region, Window((2, 5), (25, 28))) == (
        "lower right"
    )
    assert free_corner(tibia, [], region, Window((4, 16), (18, 30))) == "upper left"
    wrong = {"femur": FEMUR | block(slice(10, 14), slice(20, 25)), "tibia": TIBIA}
    figure = overlay(shown(BOTH), [[Panel("m", wrong, []), Panel("n", BOTH, [])]], COLOURS)
    assert [len(drawn.child_axes) for drawn in figure.axes] == [1, 1]
    limits = {(drawn.child_axes[0].get_xlim(), drawn.child_axes[0].get_ylim()) for drawn in figure.axes}
    assert len(limits) == 1


@pytest.mark.parametrize("corner", ["upper right", "lower right", "upper left", "lower left"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0)])
def test_insets_lie_over_the_pixels_that_are_told(corner: str, spacing: tuple[float, float]) -> None:
    region, magnified = Window((0, 20), (0, 30)), Window((8, 12), (12, 18))
    drawn = Figure(layout="constrained").subplots()
    seen, panel = shown(BOTH, spacing), Panel("m", BOTH, [])
    draw_panel(drawn, seen, panel, COLOURS)
    region.show(drawn)
    draw_inset(drawn, seen, panel, COLOURS, magnified, corner)
    drawn.figure.draw_without_rendering()
    (inset,) = drawn.child_axes
    (left, top), (right, bottom) = drawn.transData.inverted().transform(inset.bbox.corners()[[1, 2]])
    told = inset_window(seen, region, magnified, corner)
    assert (told.rows[0] - 0.5, told.columns[0] - 0.5) == pytest.approx((top, left), abs=1)
    assert (told.rows[1] - 0.5, told.columns[1] - 0.5) == pytest.approx((bottom, right), abs=1)


def test_outlines_run_along_the_sides_of_pixels() -> None:
    mask = np.array([[1, 1, 0], [0, 1, 0]], dtype=bool)
    lines = border_path(mask).vertices.reshape(-1, 2, 2).tolist()
    level = [[[-0.5, -0.5], [1.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]], [[0.5, 1.5], [1.5, 1.5]]]
    upright = [[[-0.5, -0.5], [-0.5, 0.5]], [[0.5, 0.5], [0.5, 1.5]], [[1.5, -0.5], [1.5, 1.5]]]
    assert sorted(lines) == sorted(level + upright)
    assert len(border_path(np.zeros((2, 3), dtype=bool)).vertices) == 0
