"""Frames and prompts of some volumes in, masks out: each slice is encoded once and serves every scheme.

Slices are encoded in the order in which they are needed: from the slices outwards from which objects are carried, then
those that only schemes with prompts on every slice ask for. All objects that memory or boxes carry move in lockstep,
those of several volumes too.

Schemes with corrections go on in rounds: image schemes slice by slice, as long as the slice's features are at hand;
video schemes once all objects have been tracked, again in lockstep, with features that are kept for that.

Models that take whole volumes have a way of their own, `whole_volumes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, zip_longest
from typing import Literal

from volprompt.models.base import PromptableModel
from volprompt.models.clock import Clock
from volprompt.models.features import SliceFeatures
from volprompt.models.model import Model
from volprompt.models.propagation import BoxPropagation
from volprompt.models.segmented import LoadedVolume, Segmented
from volprompt.models.volume_model import VolumeModel
from volprompt.models.volume_work import Pace, Progress, VolumeWork
from volprompt.models.whole_volumes import segment_whole
from volprompt.settings.schemes import Scheme

# Slices whose features are kept at most, of all volumes that are tracked together, and of each of them at least. A
# slice takes 8 MB in bfloat16 and 17 in float32 with images of 1024 pixels.
FEATURES_KEPT, FEATURES_KEPT_EACH = 256, 64
Needed = tuple[SliceFeatures, int]


def segment_volumes(
    model: Model,
    volumes: Sequence[LoadedVolume],
    schemes: Mapping[str, Scheme],
    batch_size: int,
    reset_between_directions: bool = False,
    progress: Progress = lambda volume, done, total, what: None,
    hole_area: int = 0,
    video_resize: Literal["shared", "bicubic"] = "shared",
) -> list[Segmented]:
    """Segment volumes under each scheme that they have prompts for.

    batch_size: slices per batch of the image encoder; progress: called as the work goes on, see `Progress`; hole_area:
    pixels of the largest hole that video schemes fill, see `holes.fill_holes`; video_resize: `bicubic` encodes slices a
    second time for video schemes, resized as the package's video loader does. Structures without a prompt on any slice
    are absent from the masks.
    """
    if isinstance(model, VolumeModel):
        with model.inference():
            return [segment_whole(model, volume, schemes, progress) for volume in volumes]
    assert isinstance(model, PromptableModel)
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
        pace = _carry_in_rounds(model, works, clock, hole_area, reset_between_directions, progress)
        for work in works:
            work.finish()
        return [work.result(pace) for work in works]


def _carry_in_rounds(
    model: PromptableModel,
    works: Sequence[VolumeWork],
    clock: Clock,
    hole_area: int,
    reset_between_directions: bool,
    progress: Progress,
) -> Pace:
    """Carry the objects of all volumes, and correct those that are tracked as long as there are clicks."""
    tracked = [each for work in works for each in work.tracked]
    propagated = [each for work in works for each in work.propagated]
    boxes = BoxPropagation(model).propagate(propagated, reset_between_directions)
    passes = [clock.timed_steps(("propagate",), boxes)]
    if tracked:
        tracker = model.tracker(hole_area)
        passes.append(clock.timed_steps(("track", "0"), tracker.track(tracked, reset_between_directions)))
    depths = [sum(each.features.depth for each in tracked)]
    most = max((each.clicks for each in tracked), default=0)
    names = ""  # of the volumes that are corrected
    done = 0  # slices that were tracked again
    for number in count(1):
        again = number - 1  # the round of corrections that these passes are, if any
        total = done + depths[-1] * (most - again + 1)
        for needed in in_lockstep(passes):
            for work in works:
                work.encode(needed)
            if again:
                progress(names, done, total, f"slices tracked again (correction {again} of at most {most})")
                done += len(needed)
        clicks = {each: click for work in works for each, click in work.next_clicks(number).items()}
        if not clicks:
            break
        passes = [clock.timed_steps(("track", str(number)), tracker.correct(clicks))]
        depths.append(sum(each.features.depth for each in clicks))
        names = ", ".join(work.volume.name for work in works if clicks.keys() & work.tracked.keys())
    per_step = [clock.seconds(("track", str(number))) / max(1, depth) for number, depth in enumerate(depths)]
    return Pace(per_step, clock.seconds(("propagate",)) / max(1, sum(each.decoded for each in propagated)))


def in_lockstep(passes: Sequence[Iterator[list[Needed]]]) -> Iterator[list[Needed]]:
    """What the next step of each of some passes needs, together."""
    for needed in zip_longest(*passes, fillvalue=[]):
        yield list(chain(*needed))
