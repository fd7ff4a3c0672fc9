"""What the report's viewer shows: which volumes, which part of them, where prompts lie, and in how many bytes."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jinja2 import Environment
from PIL import Image
from tests.viewed_study import CLICKS, FEMUR, SHAPE, SPACING, TIBIA, Study, masks

from volprompt.palette import structure_colours
from volprompt.report import views
from volprompt.report.meshes import surface
from volprompt.report.packing import encode_mask, encode_surface, frames_sheet, shrink
from volprompt.report.pictures import fullest_place, mirrored, slice_dices
from volprompt.report.shards import ShardFiles, StudyDesign
from volprompt.report.shown import Level, Region, shown_size, shown_slices
from volprompt.report.views import characters, chosen_volumes, volume_views
from volprompt.settings.schemes import Scheme


def scores(*rows: tuple[str, float, str]) -> pd.DataFrame:
    """Combined scores of one configuration from (volume, Dice, status)."""
    table = pd.DataFrame(rows, columns=["volume", "dice", "status"])
    return table.assign(experiment="e", model="m", scheme="s", structure="combined")


def decoded_mask(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """Undo `encode_mask`, one run after the other."""
    content = zlib.decompress(base64.b64decode(text))
    planes = np.frombuffer(content, np.uint8).reshape(4, -1).astype(int)
    runs = planes[0] + 256 * planes[1] + 256**2 * planes[2] + 256**3 * planes[3]
    flat = [k % 2 == 1 for k, length in enumerate(runs) for _ in range(length)]
    return np.array(flat, dtype=bool).reshape(shape)


# ---- which volumes


def test_worst_median_and_best() -> None:
    table = scores(("d", 0.9, "ok"), ("a", 0.7, "ok"), ("b", 0.5, "ok"), ("c", 0.8, "ok"), ("e", 0.6, "ok"))
    assert chosen_volumes(table) == {("e", "m", "s"): {"worst": "b", "median": "a", "best": "d"}}


def test_of_equal_volumes_the_first_by_name_and_of_two_middle_ones_the_lower() -> None:
    table = scores(("d", 0.9, "ok"), ("b", 0.9, "ok"), ("c", 0.5, "ok"), ("a", 0.5, "ok"))
    assert chosen_volumes(table)["e", "m", "s"] == {"worst": "a", "median": "c", "best": "b"}


def test_failed_and_undefined_volumes_are_not_chosen() -> None:
    nan = float("nan")
    table = scores(("a", nan, "failed"), ("b", nan, "ok"), ("c", 0.4, "ok"), ("d", nan, "no_reference"))
    assert chosen_volumes(table)["e", "m", "s"] == {"worst": "c", "median": "c", "best": "c"}
    assert chosen_volumes(scores(("a", nan, "failed"))) == {}


def test_without_any_reference_one_example_is_shown() -> None:
    nan = float("nan")
    table = scores(("b", nan, "no_reference"), ("a", nan, "failed"), ("c", nan, "no_reference"))
    assert chosen_volumes(table)["e", "m", "s"] == {"example": "b"}


def test_other_rows_than_combined_do_not_count() -> None:
    table = pd.concat([scores(("a", 0.5, "ok"), ("b", 0.7, "ok")), scores(("b", 0.1, "ok")).assign(structure="femur")])
    assert chosen_volumes(table)["e", "m", "s"]["worst"] == "a"


# ---- which part, and where things lie on it


def test_places_are_shares_of_the_cropped_sides() -> None:
    region = Region((0, 1), rows=(5, 15), columns=(10, 30))
    # The first pixel's centre lies half a pixel from the edge: 0.5 / 20 and 0.5 / 10.
    assert region.place(10, 5) == (0.025, 0.05)
    assert region.place(29, 14) == (0.975, 0.95)
    assert region.place(9.5, 4.5) == (0, 0)  # the outer edge of the first pixels
    assert region.place(29.5, 14.5) == (1, 1)


def test_cropping_and_shrinking_keep_a_prompt_on_its_structure() -> None:
    mask = np.zeros((1, 40, 60), dtype=bool)
    mask[0, 12:20, 30:42] = True  # centre of mass at x 35.5, y 15.5
    region = Region((0, 1), rows=(8, 32), columns=(20, 56))  # 24 x 36 pixels, shown as 12 x 18
    small = shrink(region.crop(mask), (12, 18))
    y, x = np.nonzero(small[0])
    place_x, place_y = region.place(35.5, 15.5)
    assert x.mean() == place_x * 18 - 0.5
    assert y.mean() == place_y * 12 - 0.5


def test_a_pixel_is_set_where_half_of_it_is() -> None:
    mask = np.zeros((1, 2, 6), dtype=bool)
    mask[0, :, 0] = True  # half of the first
    mask[0, 0, 2] = True  # a quarter of the second
    mask[0, :, 4:] = True  # all of the third
    assert shrink(mask, (1, 3)).tolist() == [[[True, False, True]]]
    assert shrink(mask, (2, 6)).tolist() == mask.tolist()


def test_shown_pixels_are_square_unless_the_frame_has_no_more() -> None:
    # 100 pixels of 1 mm by 50 pixels of 2 mm are 100 mm by 100 mm.
    assert shown_size(100, 50, (1.0, 2.0), 40) == (40, 40)
    assert shown_size(100, 50, (1.0, 2.0), 384) == (100, 50)
    assert shown_size(100, 40, (1.0, 1.0), 50) == (50, 20)


def test_shown_slices() -> None:
    assert shown_slices((3, 8), [], 10) == [3, 4, 5, 6, 7]
    assert shown_slices((0, 101), [], 5) == [0, 25, 50, 75, 100]
    assert shown_slices((0, 101), [33], 6) == [0, 25, 33, 50, 75, 100]
    assert len(shown_slices((0, 160), [80, 81], 24)) <= 24


def test_frames_lie_side_by_side() -> None:
    frames = np.zeros((5, 16, 16), dtype=np.uint8)
    for index in range(5):
        frames[index] = 50 * index
    sheet = frames_sheet(frames, (16, 16), quality=90)
    assert sheet.columns == 3  # of 2 rows
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.data))).convert("L")).astype(int)
    assert picture.shape == (32, 48)
    middles = [picture[16 * (k // 3) + 8, 16 * (k % 3) + 8] for k in range(5)]
    np.testing.assert_allclose(middles, [0, 50, 100, 150, 200], atol=4)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((2, 3, 4), dtype=bool),
        np.ones((2, 3, 4), dtype=bool),
        np.arange(24).reshape(2, 3, 4) % 5 < 2,
        np.arange(24).reshape(2, 3, 4) > 20,
    ],
)
def test_masks_as_run_lengths(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decoded_mask(encode_mask(mask), mask.shape), mask)


def test_long_runs() -> None:
    mask = np.zeros((2, 300, 300), dtype=bool)
    mask[1, 299, 299] = True
    content = zlib.decompress(base64.b64decode(encode_mask(mask)))
    # 179999 zeros and a one: 179999 = 2 * 65536 + 191 * 256 + 31.
    assert list(content) == [31, 1, 191, 0, 2, 0, 0, 0]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("RIP", True),  # sagittal, the front to the left: the eye looks from the patient's left, slices go right
        ("AIL", False),  # coronal, the patient's right to the left: the eye is in front, slices come forward
        ("SPL", True),  # axial, seen from below: slices go up, away
        ("LIP", False),
    ],
)
def test_which_way_slices_go(axes: str, expected: bool) -> None:
    assert mirrored(axes) is expected


def test_surface_for_the_page() -> None:
    mask = np.zeros((6, 10, 12), dtype=bool)
    mask[1:5, 2:8, 3:9] = True
    whole = surface(mask, (2.0, 1.0, 1.0), cell_mm=1.0)
    assert whole is not None
    coded = encode_surface(whole, whole, origin=[1.0, 0.5, 0.0], cell=0.5)
    assert coded is not None
    content = zlib.decompress(base64.b64decode(coded["data"]))
    n, m = coded["vertices"], coded["triangles"]
    assert len(content) == 6 * n + 6 * m + n
    planes = np.frombuffer(content[: 6 * n], np.uint8).reshape(3, 2, n).astype(int)
    steps = np.cumsum(planes[:, 0] + 256 * planes[:, 1], axis=1) % 65536
    # Along the slices the box reaches from 0.5 * 2 to 4.5 * 2 mm, along y from 1.5 to 7.5, along x from 2.5 to 8.5.
    np.testing.assert_allclose(steps.min(axis=1) / 10, [1 - 1, 1.5 - 0.5, 2.5], atol=0.06)
    np.testing.assert_allclose(steps.max(axis=1) / 10, [9 - 1, 7.5 - 0.5, 8.5], atol=0.06)
    assert set(np.frombuffer(content[-n:], np.int8)) == {0}  # the reference itself


def test_dice_of_slices() -> None:
    predicted, reference = np.zeros((2, 3, 1, 8), dtype=bool)
    predicted[0, 0, :2] = reference[0, 0, 1:4] = True  # 2 * 1 / (2 + 3)
    predicted[2, 0, 0] = True  # nothing there in the reference
    bits = {"femur": np.packbits(predicted, axis=-1), "tibia": np.packbits(reference, axis=-1)}
    other = {"femur": np.packbits(reference, axis=-1), "tibia": np.packbits(reference, axis=-1)}
    found = slice_dices(bits, other, ["femur", "tibia"], ["femur", "tibia"], [0, 1, 2])
    # The tibia is found exactly: 3 of 3 pixels on slice 0. Together 2 * (1 + 3) / (5 + 6).
    assert found == [[0.727, 0.4, 1.0], [None, None, None], [0.0, 0.0, None]]
    assert slice_dices(bits, {}, ["femur"], ["femur"], [0]) == []
    # A tracked structure that is not scored, and one that no reference shows: neither is part of the first column.
    assert slice_dices(bits, other, ["femur", "tibia"], ["femur"], [0, 2]) == [[0.4, 0.4, 1.0], [0, 0, None]]
    bare = {"femur": other["femur"]}
    assert slice_dices(bits, bare, ["femur", "tibia"], ["femur"], [0, 2]) == [[0.4, 0.4, None], [0, 0, None]]


# ---- a study on disk


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


def test_colours_follow_the_configurations_order_and_not_what_is_scored(study: Study) -> None:
    design = replace(study.design, labels={"patella": [5], **study.design.labels})
    made = volume_views(study.scores[study.scores["scheme"] == "box"], study.shards, design)
    assert made is not None
    colours = structure_colours(["patella", "femur", "tibia"])
    assert made["structures"] == [{"name": name, "colour": colours[name]} for name in ("femur", "tibia")]


def test_views_of_a_study(study: Study) -> None:
    made = volume_views(study.scores, study.shards, study.design)
    assert made is not None
    assert [s["name"] for s in made["structures"]] == ["femur", "tibia"]
    assert {c["scheme"] for c in made["configurations"]} == {"box", "clicks"}
    for configuration in made["configurations"]:
        assert configuration["ranked"] == 3
        of_role = {role: configuration["views"][k] for role, k in configuration["roles"].items()}
        names = {role: made["volumes"][view["volume"]]["name"] for role, view in of_role.items()}
        assert names == {"worst": "c", "median": "b", "best": "a"}
        assert [of_role[role]["dice"]["combined"] for role in ("worst", "median", "best")] == [0.9, 0.95, 1.0]
    assert len(made["volumes"]) == 3  # each once, for both configurations


def test_the_shown_part(study: Study) -> None:
    made = volume_views(study.scores, study.shards, study.design)
    assert made is not None
    volume = next(v for v in made["volumes"] if v["name"] == "a")
    # Both boxes: slices 5 to 14 and two more to each side; y 10 to 49, x 12 to 35. The margin is 15 % of 40 pixels.
    assert volume["slices"] == list(range(3, 17))
    assert volume["size"] == [40 + 2 * 6, 24 + 2 * 6]
    assert volume["extent_mm"] == [14 * SPACING[0], 52 * SPACING[1], 36 * SPACING[2]]
    assert volume["outside_mm"] == [[4 * SPACING[1]] * 2, [6 * SPACING[2]] * 2]
    mask = decoded_mask(volume["reference"][0], (14, 52, 36))
    expected = np.zeros(SHAPE, dtype=bool)
    expected[FEMUR] = True
    np.testing.assert_array_equal(mask, expected[3:17, 4:56, 6:42])
    view = next(c for c in made["configurations"] if c["scheme"] == "clicks")["views"][-1]
    # Only slices that both structures share can be prompted; the one nearest the middle is 10.
    assert {prompt["slice"] for prompt in view["prompts"]} == {10}
    assert volume["slices"][view["start"]] == 10
    femur = view["prompts"][0]
    positive = [(35 + 12) / 2, (25 + 10) / 2]
    negative = [(33 + 14) / 2, (49 + 30) / 2]
    shares = [[(x + 0.5 - 6) / 36, (y + 0.5 - 4) / 52] for x, y in (positive, negative)]
    np.testing.assert_allclose(femur["points"], [[*shares[0], 1], [*shares[1], 0]], atol=1e-4)


def test_the_planes_begin_where_most_voxels_are(study: Study, tmp_path: Path) -> None:
    made = volume_views(study.scores, study.shards, study.design)
    assert made is not None
    # Rows 10 to 25 have the most voxels, columns 14 to 33; the shown part begins at 4 and 6. Not where the masks of
    # a configuration are, so that all of them show the same planes.
    views_of = [view for configuration in made["configurations"] for view in configuration["views"]]
    assert {tuple(view["across"]) for view in views_of} == {(18 - 4, 24 - 6)}
    bare = Study(tmp_path, volumes=["a"], bare=["b"])
    made = volume_views(bare.scores, bare.shards, bare.design, chosen={("e", "m", "box"): {"example": "b"}})
    assert made is not None
    # Without a reference the masks, one pixel off, and so is the part that is shown.
    (view,) = made["configurations"][0]["views"]
    assert view["across"] == [18 - 4, 25 - 7]


@pytest.mark.parametrize("empty", [{}, {"femur": np.zeros((3, 8, 2), dtype=np.uint8)}])
def test_no_voxels_have_no_fullest_place(empty: dict[str, np.ndarray]) -> None:
    assert fullest_place(empty, Region((0, 3), (0, 8), (0, 10)), (8, 10)) is None


def test_the_fullest_place_is_that_of_the_shown_pixel() -> None:
    mask = np.zeros((3, 8, 10), dtype=bool)
    mask[:, 5, 9] = mask[1, 2:7, 9] = True
    place = fullest_place({"a": np.packbits(mask, axis=-1)}, Region((0, 3), (2, 8), (2, 10)), (3, 4))
    assert place == [1, 3]  # row 5 of 2 to 7, two to a shown pixel; column 9 of 2 to 9


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("corrected"), corrected=True)


def test_voxels_that_no_score_counts_count_on_no_slice(corrected: Study) -> None:
    """Everything around the structures is ignored. Volume c's femur, 24 pixels wide, is predicted 2 pixels off, and 6
    before any click: 22 and 18 of its pixels are found, and of those beyond it none counts."""
    made = volume_views(corrected.scores, corrected.shards, replace(corrected.design, ignored=[0]))
    plain = volume_views(corrected.scores, corrected.shards, corrected.design)
    assert made is not None
    assert plain is not None
    views = [
        next(c for c in each["configurations"] if c["scheme"] == "corrected")["views"][0] for each in (made, plain)
    ]
    volume = made["volumes"][views[0]["volume"]]
    assert volume["name"] == "c"
    on = volume["slices"].index(10)
    first, last = ([entry["slice_dice"][on][1] for entry in (view["rounds"][0], view)] for view in views)
    assert first == [round(36 / 42, 3), round(44 / 46, 3)]
    assert last == [round(36 / 48, 3), round(44 / 48, 3)]
    size = (len(volume["slices"]), *volume["size"])
    structures = [decoded_mask(text, size) for text in volume["reference"]]
    np.testing.assert_array_equal(decoded_mask(volume["ignored"], size), ~np.logical_or(*structures))
    assert plain["volumes"][views[1]["volume"]]["ignored"] is None


def test_rounds_of_corrections(corrected: Study) -> None:
    made = volume_views(corrected.scores, corrected.shards, corrected.design)
    assert made is not None
    view = next(c for c in made["configurations"] if c["scheme"] == "corrected")["views"][-1]
    volume = made["volumes"][view["volume"]]
    assert volume["name"] == "a"
    # The first round's masks reach 4 pixels farther to the right than the last one's: x 12 to 39 are shown, and 6 more.
    shape = (14, 52, 40)
    assert volume["size"] == list(shape[1:])
    shown = {shift: {n: m[3:17, 4:56, 6:46] for n, m in masks(shift).items()} for shift in (0, 2, 4)}
    for k, (name, shifts) in enumerate({"femur": (4, 2, 0), "tibia": (4, 0, 0)}.items()):
        of_round = decoded_mask(view["masks"][k], shape)
        np.testing.assert_array_equal(of_round, shown[0][name])
        for number in (1, 0):
            of_round = of_round ^ decoded_mask(view["rounds"][number]["changed"][k], shape)
            np.testing.assert_array_equal(of_round, shown[shifts[number]][name])
    assert [entry["dice"]["combined"] for entry in (*view["rounds"], view)] == [0.8, 0.9, 1.0]
    # Slice 10, pixels in common and of each mask: femur 16 x 20, 22 or 24 of 24, tibia 20 x 16 or 20 of 20.
    dices = [entry["slice_dice"][7] for entry in (*view["rounds"], view)]
    assert dices == [[0.816, 0.833, 0.8], [0.959, 0.917, 1.0], [1.0, 1.0, 1.0]]
    assert [entry["present"] for entry in view["rounds"]] == [view["present"]] * 2
    places = [[(x + 0.5 - 6) / 40, (y + 0.5 - 4) / 52] for _, _, _, x, y, _ in CLICKS]
    assert [[*click[:3], click[5]] for click in view["clicks"]] == [[1, 0, 10, 1], [1, 1, 7, 0], [2, 0, 12, 0]]
    np.testing.assert_allclose([click[3:5] for click in view["clicks"]], places, atol=1e-4)


def test_only_corrected_configurations_have_rounds(corrected: Study) -> None:
    made = volume_views(corrected.scores, corrected.shards, corrected.design)
    assert made is not None
    found = {
        c["scheme"]: [sorted({"rounds", "clicks"} & set(view)) for view in c["views"]] for c in made["configurations"]
    }
    assert found == {"box": [[]] * 3, "clicks": [[]] * 3, "corrected": [["clicks", "rounds"]] * 3}


def test_a_mask_that_a_round_does_not_change_takes_no_room(corrected: Study) -> None:
    made = volume_views(corrected.scores, corrected.shards, corrected.design)
    assert made is not None
    view = next(c for c in made["configurations"] if c["scheme"] == "corrected")["views"][-1]
    assert len(view["rounds"][1]["changed"][1]) < 20 < len(view["rounds"][0]["changed"][1])  # the tibia's only click


def test_corrected_slices_are_always_shown(corrected: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "LEVELS", (Level(64, 5, 30, 0),))
    made = volume_views(corrected.scores, corrected.shards, corrected.design)
    assert made is not None
    assert all({7, 10, 12} <= set(volume["slices"]) for volume in made["volumes"])


def test_rounds_without_their_table_or_files(corrected: Study, tmp_path: Path) -> None:
    (files,) = corrected.shards
    made = volume_views(corrected.scores, [replace(files, rounds={})], corrected.design)
    assert made is not None
    view = next(c for c in made["configurations"] if c["scheme"] == "corrected")["views"][-1]
    assert [entry["dice"] for entry in view["rounds"]] == [{}, {}]
    copy = shutil.copytree(corrected.masks, tmp_path / "masks")
    for path in copy.glob("corrected/*_rounds.nii.gz"):
        path.unlink()
    made = volume_views(corrected.scores, [replace(files, masks={("e", "m"): str(copy)})], corrected.design)
    assert made is not None
    assert not any("rounds" in view for c in made["configurations"] for view in c["views"])


def test_boxes_are_drawn_around_their_outermost_pixels(study: Study) -> None:
    made = volume_views(study.scores, study.shards, study.design)
    assert made is not None
    view = next(c for c in made["configurations"] if c["scheme"] == "box")["views"][-1]
    tibia = next(p for p in view["prompts"] if p["structure"] == 1 and p["slice"] == 10)
    _, rows, columns = TIBIA
    expected = [(columns.start - 6) / 36, (rows.start - 4) / 52, (columns.stop - 6) / 36, (rows.stop - 4) / 52]
    np.testing.assert_allclose(tibia["box"], expected, atol=1e-4)


def test_each_volume_is_read_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for name in ("read_frames", "read_reference"):
        original = getattr(views, name)

        def counted(folder: str, volume: str, original=original, name=name):
            read.append(f"{name} {volume}")
            return original(folder, volume)

        monkeypatch.setattr(views, name, counted)
    volume_views(study.scores, study.shards, study.design)
    assert sorted(read) == sorted(f"{name} {v}" for name in ("read_frames", "read_reference") for v in "abc")


@pytest.mark.parametrize("budget", [400_000, 100_000, 40_000, 20_000, 8_000])
def test_the_budget_is_kept(study: Study, budget: int) -> None:
    made = volume_views(study.scores, study.shards, study.design, budget)
    assert made is None or characters(made) <= budget
    if budget >= 40_000:
        assert made is not None
        assert len(made["volumes"]) == 3
        assert characters(made) > budget / 4 or budget > 200_000  # and it is made use of


def test_no_room_at_all(study: Study) -> None:
    assert volume_views(study.scores, study.shards, study.design, 1000) is None


def test_characters_count_what_html_makes_of_them() -> None:
    value = {"name": "<b>&'\"é", "list": [1, 2.5, None]}
    assert characters(value) == len(Environment().from_string("{{ value | tojson }}").render(value=value))


def test_masks_and_volumes_that_are_not_there(study: Study, tmp_path: Path) -> None:
    unknown = study.scores.assign(volume=study.scores["volume"].replace("c", "never_converted"))
    made = volume_views(unknown, study.shards, study.design)
    assert made is not None
    assert {v["name"] for v in made["volumes"]} == {"a", "b"}
    assert all(set(c["roles"]) == {"median", "best"} for c in made["configurations"])
    elsewhere = [ShardFiles(s.volumes, s.prompts, {("e", "m"): str(tmp_path)}) for s in study.shards]
    assert volume_views(study.scores, elsewhere, study.design) is None
    assert volume_views(study.scores, [], study.design) is None
    assert volume_views(study.scores.assign(status="failed", dice=float("nan")), study.shards, study.design) is None


def test_without_reference(tmp_path: Path) -> None:
    study = Study(tmp_path, volumes=[], bare=["x"])
    scores = study.scores[study.scores["scheme"] == "clicks"]
    study.design = StudyDesign(
        study.design.labels,
        study.design.scored,
        {"clicks": Scheme(predictor="video", slice="nearest", point=["click"])},
        {"e": (["m"], ["clicks"])},
    )
    made = volume_views(scores, study.shards, study.design)
    assert made is not None
    (configuration,) = made["configurations"]
    assert configuration["roles"] == {"example": 0}
    assert configuration["ranked"] == 0
    view = configuration["views"][0]
    assert view["slice_dice"] == []
    assert view["dice"] == {}
    assert made["volumes"][0]["reference"] == [None, None]
    assert made["volumes"][0]["surfaces"] == [None, None]
    assert view["surfaces"][0]["distances"] is False


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>&'\""
    study = Study(tmp_path, volumes=[name])
    made = volume_views(study.scores, study.shards, study.design)
    assert made is not None
    assert made["volumes"][0]["name"] == name
    assert json.loads(json.dumps(made)) == made  # plain JSON values only
