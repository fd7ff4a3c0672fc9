"""Plots show the numbers of their tables."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from volprompt.palette import structure_colours
from volprompt.report import agreement_plot, correction_plots, decay_plot, plots
from volprompt.report.plot_style import Look, Models, add_legend_of, inline_svg, write_figure

ORDER = [("a", "point"), ("a", "box"), ("b", "point")]
SCHEMES = Look(["point", "box", "video"])
MODELS = Models(["a", "b"])


def labels(figure: Figure, index: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[index].get_yticklabels()]


def test_every_volume_is_a_point_and_its_median_a_tick() -> None:
    rows = [("a", "point", 0.5), ("a", "point", 0.9), ("a", "point", 0.7), ("b", "point", 0.8), ("a", "box", np.nan)]
    scores = pd.DataFrame(rows, columns=["model", "scheme", "dice"]).assign(structure="femur")
    axes = plots.distributions(scores, "femur", ORDER, SCHEMES).axes[0]
    assert labels(axes.figure) == ["a  point", "a  box", "b  point"]
    drawn = [points.get_offsets()[:, 0].tolist() for points in axes.collections]
    assert drawn == [[0.5, 0.9, 0.7], [], [0.8]]
    # Three volumes have a median and no box; one has neither; the line between the models is the other one.
    lines = [line.get_xdata() for line in axes.lines]
    assert [list(x) for x in lines if list(x) != [0, 1]] == [[0.7, 0.7]]


def test_dice_along_training_is_in_the_order_of_the_steps() -> None:
    rows = [("run_200", "point", 0.7), ("run_1000", "point", 0.9), ("run_50", "point", 0.5), ("other", "point", 0.1)]
    medians = pd.DataFrame(rows, columns=["model", "scheme", "combined"]).assign(
        combined_low=np.nan, combined_high=np.nan
    )
    steps = {"run_50": 50, "run_200": 200, "run_1000": 1000}
    (line,) = plots.training(medians, steps, SCHEMES).axes[0].lines
    assert line.get_xydata().tolist() == [[50, 0.5], [200, 0.7], [1000, 0.9]]


def test_differences_are_named_in_the_order_of_the_subtraction() -> None:
    table = pd.DataFrame(
        {
            "model": ["a", "a"],
            "scheme": ["point", "point"],
            "other_model": ["a", "b"],
            "other_scheme": ["box", "point"],
            "kind": ["schemes", "models"],
            "structure": "combined",
            "score": "dice",
            "median_difference": [0.1, -0.2],
            "low": [0.05, np.nan],
            "high": [0.15, np.nan],
        }
    )
    figure = plots.differences(table, "schemes")
    assert labels(figure) == ["a: box − point"]
    zero, interval, median = figure.axes[0].lines
    assert list(zero.get_xdata()) == [0, 0]
    assert list(interval.get_xdata()) == [0.05, 0.15]
    assert list(median.get_xdata()) == [0.1]
    assert median.get_markerfacecolor() != "white"
    figure = plots.differences(table, "models")
    assert labels(figure) == ["point: b − a"]
    _, median = figure.axes[0].lines  # no interval is drawn where there is none
    assert median.get_markerfacecolor() == "white"
    # With the baseline, rows of which some share its model or scheme read alike.
    figure = plots.differences(table.assign(kind="baseline"), "baseline")
    assert labels(figure) == ["a box − a point", "b point − a point"]


def test_a_legend_is_read_row_by_row() -> None:
    figure = Figure(figsize=(8, 2), layout="constrained")
    names = ["one", "two", "three", "four", "five", "six"]
    add_legend_of(figure, [Line2D([], [], label=name) for name in names])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    boxes = {text.get_text(): text.get_window_extent() for text in legend.get_texts()}
    assert sorted(boxes, key=lambda name: (-round(boxes[name].y0), boxes[name].x0)) == names


def test_titles_of_panels_end_within_the_figure() -> None:
    order = [("sam2_hiera_base_plus", scheme) for scheme in ("point", "point_video", "three_points_video")]
    table = pd.DataFrame(order, columns=["model", "scheme"])
    scores = table.assign(structure="combined", dice=[0.7, 0.8, 0.9], predicted_iou=[0.6, 0.7, 0.8])
    found = correction_plots.confidence(scores, table.assign(measure="predicted_iou", look_below=0.7), order)
    found.draw_without_rendering()
    ends = [panel.get_tightbbox().x1 for panel in found.axes]
    starts = [panel.get_window_extent().x0 for panel in found.axes]
    assert all(end <= start for end, start in zip(ends, [*starts[1:], found.bbox.x1], strict=True))


def decay_table(slice_mm: float = 2.0) -> pd.DataFrame:
    rows = [("forward", 1, 2.0, 0.9), ("forward", 2, 4.0, 0.8), ("prompted", 0, 0.0, 0.95), ("reverse", 1, 2.0, 0.7)]
    table = pd.DataFrame(rows, columns=["direction", "distance", "distance_mm", "dice_by_mm"])
    known = [0.85, np.nan, 0.9, np.nan]
    return table.assign(low_by_mm=known, high_by_mm=known, model="a", scheme="video", structure="femur").assign(
        volumes_by_mm=[8, 4, 9, 5], slice_mm=slice_mm, bin_mm=2.0
    )


def test_reverse_distances_lie_left_of_the_prompted_slice() -> None:
    figure = decay_plot.decay(decay_table(), ["femur", "tibia"], SCHEMES, MODELS)
    curve, certain, sparse, _ = figure.axes[0].lines
    assert list(curve.get_xdata()) == [-2, 0, 2, 4]
    assert list(curve.get_ydata()) == [0.7, 0.95, 0.9, 0.8]
    assert len(figure.axes) == 2  # no panel for a structure without rows
    # Without an interval: open markers, and the thin line alone.
    np.testing.assert_equal(certain.get_ydata(), [np.nan, 0.95, 0.9, np.nan])
    assert (list(sparse.get_xdata()), sparse.get_markerfacecolor()) == ([-2, 4], "white")
    assert curve.get_linewidth() < certain.get_linewidth()
    assert "too few subjects for an interval" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_slices_are_a_second_axis_where_all_volumes_share_a_spacing() -> None:
    (above,) = decay_plot.decay(decay_table(), ["femur"], SCHEMES, MODELS).axes[0].child_axes
    assert above.get_xlabel() == "Slices"
    figure = decay_plot.decay(decay_table(), ["femur"], SCHEMES, MODELS)
    figure.draw_without_rendering()
    assert np.divide(figure.axes[0].get_xlim(), figure.axes[0].child_axes[0].get_xlim()).tolist() == [2, 2]
    assert not decay_plot.decay(decay_table(slice_mm=np.nan), ["femur"], SCHEMES, MODELS).axes[0].child_axes


def test_propagation_and_ranks_follow_their_rows() -> None:
    table = pd.DataFrame(
        {"model": ["a"], "scheme": ["point"], "structure": ["combined"], "dice": [0.8], "dice_where_present": [0.85]}
    ).assign(dice_prompted=np.nan, over_propagation=0.1, over_propagation_worst=0.5)
    left, right = plots.propagation(table, ORDER).axes
    marks = [line.get_xdata()[0] for line in left.lines if line.get_marker() in ("o", "s", "*")]
    np.testing.assert_equal(marks, [0.8, 0.85, np.nan])
    assert [list(line.get_xdata()) for line in right.lines] == [[0.1, 0.5], [0.1], [0.5]]
    ranked = pd.DataFrame(
        {
            "model": ["a", "b", "b"],
            "scheme": ["point", "box", "point"],
            "rank": [2.0, 1.0, np.nan],
            "rank_low": [1, 1, 0],
        }
    ).assign(rank_high=[2.0, 2.0, np.nan], first_share=[0.25, 0.75, 0.0])
    figure = plots.ranks(ranked, SCHEMES)
    assert labels(figure) == ["b  box", "a  point"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["first in 75.0 %", "first in 25.0 %"]
    assert figure.axes[0].get_xticks().tolist() == [1, 2]
    many = pd.DataFrame({"model": list("abcdefghijkl"), "rank": np.arange(1.0, 13)}).assign(
        scheme="box", rank_low=1, rank_high=12.0, first_share=0.0
    )
    assert plots.ranks(many, SCHEMES).axes[0].get_xticks().tolist() == [1, 5, 10]  # the best one is named


def test_undominated_configurations() -> None:
    seconds = np.array([1.0, 2.0, 3.0, 2.0, 4.0])
    gain = np.array([0.5, 0.7, 0.6, 0.8, 0.8])
    assert plots.undominated(seconds, gain) == [0, 3]
    assert plots.undominated(np.empty(0), np.empty(0)) == []


def test_looks_differ_in_more_than_colour() -> None:
    look = Look([f"model{index}" for index in range(8)])
    for kind in ("color", "marker", "linestyle"):
        assert len({str(of[kind]) for of in look.of.values()}) == 8


def test_names_are_shown_as_they_stand(tmp_path: Path) -> None:
    name = "$x_1$ <b>&"
    scores = pd.DataFrame({"model": [name], "scheme": ["point"], "structure": ["s"], "dice": [0.5]})
    figure = plots.distributions(scores, "s", [(name, "point")], Look(["point"]))
    drawn = write_figure(figure, tmp_path, "plot", formats=["pdf", "png"])
    assert "$x_1$ &lt;b&gt;&amp;" in drawn
    assert (tmp_path / "plot.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"plot.svg", "plot.pdf", "plot.png"}


def test_files_for_print_are_the_same_every_time(tmp_path: Path) -> None:
    scores = pd.DataFrame({"model": ["a"], "scheme": ["point"], "structure": ["s"], "dice": [0.5]})
    written = []
    for name in ("first", "second"):
        figure = plots.distributions(scores, "s", [("a", "point")], Look(["point"]))
        (tmp_path / name).mkdir()
        write_figure(figure, tmp_path / name, "plot", formats=["pdf", "png"])
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert len(written[0]) == 3
    assert written[0] == written[1]


def test_an_inline_figure_has_a_name_and_no_repeating_identifier(tmp_path: Path) -> None:
    tables = [pd.DataFrame({"model": ["a"], "scheme": ["point"], "structure": ["s"], "dice": [x]}) for x in (0.5, 0.6)]
    figures = [plots.distributions(table, "s", ORDER, SCHEMES) for table in tables]
    texts = [
        inline_svg(write_figure(figure, tmp_path, name), "Two &amp; more")
        for name, figure in zip(("one", "two"), figures, strict=True)
    ]
    identifiers = [set(re.findall(r' id="([^"]*)"', text)) for text in texts]
    assert not identifiers[0] & identifiers[1]
    for text, found in zip(texts, identifiers, strict=True):
        assert text.startswith('<svg role="img" aria-label="Two &amp; more"')
        assert {
            name for name in re.findall(r"#([\w-]+)[\")]", text) if not re.fullmatch("[0-9a-fA-F]{6}", name)
        } <= found


def test_volumes_that_agree_are_drawn_by_structure() -> None:
    scores = pd.DataFrame({"volume_mm3": [1100.0, 2500.0, 9.0], "reference_mm3": [900.0, 3000.0, np.nan]}).assign(
        model="a", scheme="point", structure=["femur", "tibia", "femur"], status="ok"
    )
    table = pd.DataFrame({"structure": ["femur", "tibia"], "bias_ml": [0.2, -0.5], "low_ml": [np.nan, -1.0]}).assign(
        model="a", scheme="point", high_ml=[np.nan, 0.5]
    )
    axes = agreement_plot.agreement(scores, table, [("a", "point")], structure_colours(["femur", "tibia"])).axes
    assert [panel.get_visible() for panel in axes] == [True, False, False]
    zero, femur, bias, tibia, other_bias, low, high = axes[0].lines
    assert (femur.get_xdata().tolist(), femur.get_ydata().tolist()) == ([1.0], [pytest.approx(0.2)])
    assert (tibia.get_xdata().tolist(), tibia.get_ydata().tolist()) == ([2.75], [-0.5])
    heights = [line.get_ydata()[0] for line in (zero, bias, other_bias, low, high)]
    assert heights == [0, 0.2, -0.5, -1.0, 0.5]
    assert (low.get_linestyle(), low.get_color()) == ("--", tibia.get_color())
