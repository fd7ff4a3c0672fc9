"""The simulated correction click, by hand: which component, which sign, how deep, and ties."""

import numpy as np
import pytest

from volprompt.prompts.corrections import Click, click_alone, click_in_volume, click_on_slice, with_click
from volprompt.prompts.schemes import ObjectPrompt

ISOTROPIC = (1.0, 1.0)


def empty(*shape: int) -> np.ndarray:
    return np.zeros(shape, bool)


def pixels(picture: str) -> np.ndarray:
    """A mask drawn with `#`, bool (y, x)."""
    return np.array([[character == "#" for character in line] for line in picture.split()])


def test_no_error_no_click() -> None:
    mask = pixels(".#. ###")
    assert click_on_slice(mask, mask, ISOTROPIC, 4) is None
    assert click_in_volume(mask[None], mask[None], (1, 1, 1)) is None
    assert click_on_slice(empty(3, 3), empty(3, 3), ISOTROPIC, 4) is None


def test_a_part_that_is_lacking_gets_a_positive_click_in_its_middle() -> None:
    reference = empty(9, 12)
    reference[2:5, 4:9] = True
    # Depth 2 mm along y is reached on row 3, by columns 5 to 7: the first one.
    assert click_on_slice(empty(9, 12), reference, ISOTROPIC, 4) == Click(slice=4, x=5, y=3, label=1)


def test_a_part_that_is_too_much_gets_a_negative_click() -> None:
    mask = empty(9, 12)
    mask[5:8, 1:4] = True
    assert click_on_slice(mask, empty(9, 12), ISOTROPIC, 0) == Click(slice=0, x=2, y=6, label=0)


def test_the_largest_component_is_corrected_whatever_its_sign() -> None:
    mask, reference = empty(12, 12), empty(12, 12)
    reference[1:4, 1:4] = True  # 9 pixels are lacking
    mask[6:11, 6:8] = True  # 10 are too many
    assert click_on_slice(mask, reference, ISOTROPIC, 0) == Click(0, x=6, y=6, label=0)
    reference[6, 6] = True  # 9 are too many
    assert click_on_slice(mask, reference, ISOTROPIC, 0) == Click(0, x=2, y=2, label=1)


def test_the_number_of_pixels_decides_and_not_the_depth() -> None:
    reference = pixels(
        """
        ###........
        ###........
        ###........
        ...........
        ##########.
        """
    )
    click = click_on_slice(empty(5, 11), reference, ISOTROPIC, 0)
    assert click == Click(0, x=0, y=4, label=1)


def test_of_equal_components_the_first_in_c_order() -> None:
    reference = pixels("...## ..... ##...")
    assert click_on_slice(empty(3, 5), reference, ISOTROPIC, 0) == Click(0, x=3, y=0, label=1)


def test_of_equal_errors_what_is_lacking_is_corrected() -> None:
    mask, reference = pixels("##... ....."), pixels("..... ...##")
    assert click_on_slice(mask, reference, ISOTROPIC, 0) == Click(0, x=3, y=1, label=1)


def test_pixels_that_touch_by_corners_are_one_component() -> None:
    reference = pixels("#.... .#... ..#.. ...#. ....#")  # five in a diagonal
    mask = pixels("..... ..... ..... ##... ##...")  # a block of four
    click = click_on_slice(mask, reference, ISOTROPIC, 0)
    assert click is not None
    assert click.label == 1
    cube = empty(3, 3, 3)
    cube[0, 0, 0] = cube[1, 1, 1] = cube[2, 2, 2] = True
    lone = empty(3, 3, 3)
    lone[0, 2, 0] = lone[0, 2, 1] = True
    assert click_in_volume(lone, cube, (1, 1, 1)) == Click(0, x=0, y=0, label=1)


def test_depth_is_in_millimetres() -> None:
    """A bar of 3 x 9 pixels and one of 9 x 3 that touch by a corner: the spacing says which one is deeper."""
    reference = empty(14, 14)
    reference[1:4, 1:10] = True
    reference[4:13, 10:13] = True
    nothing = empty(14, 14)
    assert click_on_slice(nothing, reference, (3.0, 1.0), 0) == Click(0, x=5, y=2, label=1)  # 5 mm to either side
    assert click_on_slice(nothing, reference, (1.0, 3.0), 0) == Click(0, x=11, y=8, label=1)  # 5 mm up and down
    assert click_on_slice(nothing, reference, (1.0, 1.0), 0) == Click(0, x=2, y=2, label=1)  # 2 mm in both


def test_the_border_of_the_frame_counts_as_outside() -> None:
    reference = empty(8, 8)
    reference[0:5, 0:5] = True
    assert click_on_slice(empty(8, 8), reference, ISOTROPIC, 0) == Click(0, x=2, y=2, label=1)


def test_the_first_and_last_slices_are_borders_too() -> None:
    reference = np.ones((5, 9, 9), bool)
    assert click_in_volume(empty(5, 9, 9), reference, (1, 1, 1)) == Click(2, x=2, y=2, label=1)
    # Slices far apart are deep by themselves: the middle of a slice decides.
    assert click_in_volume(empty(5, 9, 9), reference, (50, 1, 1)) == Click(0, x=4, y=4, label=1)


def test_a_component_of_the_volume_can_be_smaller_on_its_slice() -> None:
    """On slice 1 the blob is larger, yet the column through all slices is the largest component in 3D."""
    reference = empty(6, 12, 12)
    reference[:, 2:5, 2:5] = True
    reference[1, 6:12, 6:12] = True
    click = click_in_volume(empty(6, 12, 12), reference, (1, 1, 1))
    assert click == Click(1, x=3, y=3, label=1)  # 2 mm deep from slice 1 on


@pytest.mark.parametrize("seed", range(20))
def test_clicks_are_those_of_plain_code(seed: int) -> None:
    """Random errors in 3D, against distances measured one by one to every voxel outside."""
    random = np.random.default_rng(seed)
    shape, spacing = (4, 6, 5), random.uniform(0.3, 3, 3)
    reference = random.random(shape) > 0.6
    click = click_in_volume(empty(*shape), reference, spacing)
    component = _flooded(reference)
    outside = np.argwhere(~np.pad(component, 1)) - 1
    depths = {
        tuple(place): np.sqrt((((outside - place) * spacing) ** 2).sum(axis=1)).min()
        for place in np.argwhere(component)
    }
    deepest = max(depths.values())
    first = next(place for place, depth in depths.items() if depth >= deepest - 1e-9)
    assert click == Click(int(first[0]), x=int(first[2]), y=int(first[1]), label=1)


def _flooded(error: np.ndarray) -> np.ndarray:
    """The largest component, found by flooding from each voxel."""
    largest = np.zeros_like(error)
    seen = np.zeros_like(error)
    for start in map(tuple, np.argwhere(error)):
        if seen[start]:
            continue
        component, edge = np.zeros_like(error), [start]
        while edge:
            place = edge.pop()
            if not error[place] or component[place]:
                continue
            component[place] = True
            lower = [max(0, index - 1) for index in place]
            around = tuple(slice(low, index + 2) for low, index in zip(lower, place, strict=True))
            edge += [tuple(np.add(lower, offset)) for offset in np.argwhere(error[around] & ~component[around])]
        seen |= component
        if component.sum() > largest.sum():
            largest = component
    return largest


def test_a_click_is_the_last_point_of_its_prompt() -> None:
    box = np.array([1, 2, 8, 9], np.float32)
    given = ObjectPrompt("femur", 3, np.array([[4, 5]], np.float32), np.array([1], np.int32), box)
    clicked = with_click(given, Click(3, x=7, y=6, label=0))
    assert clicked.points.tolist() == [[4, 5], [7, 6]]
    assert clicked.labels.tolist() == [1, 0]
    assert clicked.box is box
    assert clicked.points.dtype == np.float32
    assert clicked.labels.dtype == np.int32
    assert given.points.tolist() == [[4, 5]]


def test_a_click_takes_the_place_of_a_mask() -> None:
    mask = np.ones((3, 3), bool)
    given = ObjectPrompt("femur", 3, np.empty((0, 2), np.float32), np.empty(0, np.int32), mask=mask)
    clicked = with_click(given, Click(3, x=7, y=6, label=0))
    assert clicked.form == (1, False, False)
    assert click_alone("femur", Click(3, x=7, y=6, label=0)).points.tolist() == clicked.points.tolist()
