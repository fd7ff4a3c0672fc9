"""Volumes that are segmented as a whole, object by object: for models that take them so."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from volprompt.errors import VolpromptError
from volprompt.models.clock import Clock
from volprompt.models.rounds import Rounds
from volprompt.models.segmented import Confidence, LoadedVolume, Segmented
from volprompt.models.volume_model import VolumeModel, VolumePrompts, fault_of_mask
from volprompt.prompts.corrections import with_correction
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import Scheme


class WrongMask(VolpromptError):
    """An adapter returned something else than a mask of its volume."""


def segment_whole(
    model: VolumeModel,
    volume: LoadedVolume,
    schemes: Mapping[str, Scheme],
    progress: Callable[[str, int, int, str], None],
) -> Segmented:
    """Segment each object of a volume under each scheme, in as many rounds as its scheme has clicks.

    progress: called with the volume's name, how many objects are segmented, of how many, and what they are. Raises
    WrongMask.
    """
    clock = Clock(model.device)
    depth = len(volume.frames)
    objects = {
        name: {
            structure: [prompt for prompt in given if prompt.structure == structure]
            for structure in dict.fromkeys(prompt.structure for prompt in given)
        }
        for name, given in volume.prompts.items()
    }
    shape = (depth, volume.size[0], -(-volume.size[1] // 8))
    rounds = {name: Rounds(list(objects[name]), _clicks(schemes[name]), shape, torch.device("cpu")) for name in objects}
    every = [(name, structure) for name in objects for structure in objects[name]]
    for number, (name, structure) in enumerate(every, 1):
        _segment_object(model, volume, schemes[name], objects[name][structure], rounds[name], (clock, name))
        progress(volume.name, number, len(every), "masks of structures made")
    unsure = np.full(depth, np.nan, np.float32)
    corrected = [name for name in rounds if _clicks(schemes[name])]
    seconds = {
        name: [clock.seconds((name, str(number))) for number in range(_last_round(rounds[name]) + 1)] for name in rounds
    }
    return Segmented(
        masks={name: {part: bits.numpy() for part, bits in of.current.items()} for name, of in rounds.items()},
        seconds_encode=0.0,
        seconds_prompt={name: sum(of_rounds) for name, of_rounds in seconds.items()},
        confidence={name: {part: Confidence(unsure, unsure) for part in parts} for name, parts in objects.items()},
        rounds={name: rounds[name].masks() for name in corrected},
        clicks={name: rounds[name].made() for name in corrected},
        seconds_rounds={name: seconds[name] for name in corrected},
    )


def _segment_object(
    model: VolumeModel,
    volume: LoadedVolume,
    scheme: Scheme,
    prompts: list[ObjectPrompt],
    rounds: Rounds,
    timed: tuple[Clock, str],
) -> None:
    """Segment an object, and correct it with a click in each round as long as there are errors."""
    clock, name = timed
    structure, mask = prompts[0].structure, None
    for number in range(_clicks(scheme) + 1):
        if number:
            assert volume.reference is not None, "schemes with corrections need a reference"
            bits = rounds.current[structure].numpy()
            click = volume.reference.click_in_volume(structure, bits, volume.size[1], scheme.presence)
            if click is None:
                return
            rounds.add(number, structure, click)
            prompts = with_correction(prompts, click)
        given = volume.frames, volume.spacing, VolumePrompts.of(prompts), mask
        mask = clock.timed((name, str(number)), model.segment, *given)
        _require_mask(mask, volume, model)
        bits = np.packbits(mask, axis=-1)
        for index, of_slice in enumerate(torch.from_numpy(bits)):
            rounds.show(number, structure, index, of_slice)


def _require_mask(mask: object, volume: LoadedVolume, model: VolumeModel) -> None:
    if fault := fault_of_mask(mask, (len(volume.frames), *volume.size)):
        raise WrongMask(f"{type(model).__name__}.segment returned {fault}")


def _clicks(scheme: Scheme) -> int:
    return scheme.corrections.clicks if scheme.corrections else 0


def _last_round(rounds: Rounds) -> int:
    return max((click.round for click in rounds.clicks), default=0)
