"""Frames and prompts of some volumes in, masks out: each slice is encoded once and serves every scheme.

Slices are encoded in the order in which they are needed: from the prompted slices of the video schemes outwards, then
those that only image schemes ask for. All tracked objects move in lockstep, those of several volumes too.

Schemes with corrections go on in rounds: image schemes slice by slice, as long as the slice's features are at hand;
video schemes once all objects have been tracked, again in lockstep, with features that are kept for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Literal

from volprompt.models.base import PromptableModel
from volprompt.models.clock import Clock
from volprompt.models.segmented import LoadedVolume, Segmented
from volprompt.models.volume_work import VolumeWork
from volprompt.settings.schemes import Scheme

# Slices whose features are kept at most, of all volumes that are tracked together, and of each of them at least. A
# slice takes 8 MB in bfloat16 and 17 in float32 with images of 1024 pixels.
FEATURES_KEPT, FEATURES_KEPT_EACH = 256, 64


def segment_volumes(
    model: PromptableModel,
    volumes: Sequence[LoadedVolume],
    schemes: Mapping[str, Scheme],
    batch_size: int,
    reset_between_directions: bool = False,
    progress: Callable[[str, int, int], None] = lambda volume, done, slices: None,
    hole_area: int = 0,
    video_resize: Literal["shared", "bicubic"] = "shared",
) -> list[Segmented]:
    """Segment volumes under each scheme that they have prompts for.

    batch_size: slices per batch of the image encoder; progress: called with a volume's name, the slices encoded so far,
    and how many there are to encode; hole_area: pixels of the largest hole that video schemes fill, see
    `holes.fill_holes`; video_resize: `bicubic` encodes slices a second time for video schemes, resized as the package's
    video loader does. Structures without a prompt on any slice are absent from the masks.
    """
    with model.inference():
        clock = Clock(model.device)
        kept = max(FEATURES_KEPT // len(volumes), FEATURES_KEPT_EACH)
        works = [
            VolumeWork(
                model=model,
                volume=volume,
                schemes=schemes,
                clock=clock,
                progress=progress,
                batch_size=batch_size,
                kept=kept,
                reset_between_directions=reset_between_directions,
                video_resize=video_resize,
            )
            for volume in volumes
        ]
        per_step = _track_in_rounds(model, works, clock, hole_area, reset_between_directions)
        for work in works:
            work.finish()
        return [work.result(per_step) for work in works]


def _track_in_rounds(
    model: PromptableModel, works: Sequence[VolumeWork], clock: Clock, hole_area: int, reset_between_directions: bool
) -> list[float]:
    """Track the objects of all volumes, and correct them as long as there are clicks.

    Returns, for each round, the seconds of tracking one object over one slice.
    """
    tracked = [each for work in works for each in work.tracked]
    if not tracked:
        return [0.0]
    tracker = model.tracker(hole_area)
    steps = tracker.track(tracked, reset_between_directions)
    depths = [sum(each.features.depth for each in tracked)]
    for number in count(1):
        for needed in clock.timed_steps(("track", str(number - 1)), steps):
            for work in works:
                work.encode(index for features, index in needed if features is work.video_features)
        clicks = {each: click for work in works for each, click in work.next_clicks(number).items()}
        if not clicks:
            break
        steps = tracker.correct(clicks)
        depths.append(sum(each.features.depth for each in clicks))
    return [clock.seconds(("track", str(number))) / max(1, depth) for number, depth in enumerate(depths)]
