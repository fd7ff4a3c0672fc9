"""Does an adapter do what this project asks of one? Each check is a few calls on small random frames and prompts."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from volprompt.checkpoints.load import load_into
from volprompt.models.base import PromptableModel
from volprompt.models.conformance_samples import (
    FORMS,
    SIZE,
    Check,
    Violation,
    frames_of,
    prompt_of,
    require,
    require_like,
    require_same,
)
from volprompt.models.conformance_volumes import VideoChecks, VolumeChecks
from volprompt.models.devices import Device
from volprompt.models.loading import adapter_of, predictors_of
from volprompt.models.model import Model
from volprompt.models.volume_model import VolumeModel
from volprompt.prompts.schemes import ObjectPrompt


class Result(NamedTuple):
    """What came of a check; fault: empty if it was passed."""

    what: str
    fault: str


def conformance(family: str, architecture: str, checkpoint: str | None = None) -> Iterator[Result]:
    """Check the adapter of a family, on the CPU in float32.

    architecture: as a configuration names it; checkpoint: a file of weights; None for those that building makes. Raises
    UnknownFamily and ArchitectureError where there is nothing to check, CheckpointError.
    """
    torch.manual_seed(0)
    adapter = adapter_of(family)
    module = adapter.build(architecture)
    if checkpoint is not None:
        load_into(module, checkpoint, f"{family} architecture {architecture}", adapter.weights_of)
    model = adapter(module, Device("cpu", "float32", "CPU"))
    for what, check in checks_of(model, predictors_of(adapter)):
        with model.inference():
            yield Result(what, _fault_of(check))


def checks_of(model: Model, predictors: Sequence[str]) -> list[tuple[str, Check]]:
    """The checks of a model, with what each holds."""
    if isinstance(model, VolumeModel):
        return [(str(check.__doc__), check) for check in VolumeChecks(model).checks()]
    assert isinstance(model, PromptableModel)
    checks = ImageChecks(model).checks()
    if "video" in predictors:
        checks += VideoChecks(model).checks()
    return [(str(check.__doc__), check) for check in checks]


def _fault_of(check: Check) -> str:
    try:
        check()
    except Violation as violation:
        return str(violation)
    except Exception as error:  # whatever an adapter does
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno}, in {last.name})"
    return ""


class ImageChecks:
    """Of a model that decodes slices."""

    def __init__(self, model: PromptableModel) -> None:
        self.model = model

    def checks(self) -> list[Check]:
        """All of them, the simple ones first."""
        return [self.encodes, self.encodes_alone_as_together, self.decodes, self.decodes_in_any_order, self.corrects]

    def levels(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """Feature levels of slices."""
        return self.model.encode(self.model.prepare(frames_of(4))[list(indices)])

    def decoded(self, prompts: Sequence[ObjectPrompt], multimask: Any = False, logits: Any = None) -> Any:
        """What the model makes of prompts."""
        levels = self.levels([prompt.slice for prompt in prompts])
        return self.model.decode(levels, prompts, SIZE, multimask, logits)

    def encodes(self) -> None:
        """encode: a list of levels (n, channel, y, x), a row for each frame"""
        require(self.model.image_size > 0, f"image_size is {self.model.image_size}; expected pixels")
        prepared = self.model.prepare(frames_of(3))
        require(
            isinstance(prepared, np.ndarray) and prepared.dtype == np.uint8 and prepared.ndim == 3,
            "prepare returns no uint8 (slice, y, x)",
        )
        levels = self.model.encode(prepared)
        require(bool(levels), "encode returns no level")
        for level in levels:
            require(
                isinstance(level, torch.Tensor) and level.dim() == 4 and len(level) == 3,
                "a level is no tensor (n, channel, y, x) with a row for each frame",
            )

    def encodes_alone_as_together(self) -> None:
        """encode: a frame has the same features whatever is encoded with it"""
        together, alone = self.levels([0, 1, 2]), self.levels([1])
        for one, other in zip(together, alone, strict=True):
            require(bool(torch.allclose(one[1:2], other, rtol=1e-2, atol=1e-3)), "the features differ")

    def decodes(self) -> None:
        """decode: points, boxes and both; one mask, the first, and the best of several; of the right types"""
        for form in FORMS:
            for multimask in (False, "first", "best"):
                prompts = [prompt_of(index, form) for index in (0, 1, 2)]
                found = self.decoded(prompts, multimask)
                where = f"{form}, multimask {multimask}: "
                require_like(found.masks, torch.bool, (3, *SIZE), f"{where}masks")
                require_like(found.confidence, torch.float32, (2, 3), f"{where}confidence")
                require(found.logits.dim() == 4, f"{where}logits have {found.logits.dim()} axes; expected (3, 1, y, x)")
                require_like(found.logits, torch.float32, (3, 1, *found.logits.shape[2:]), f"{where}logits")

    def decodes_in_any_order(self) -> None:
        """decode: a prompt has the same mask whatever is decoded with it, and every time"""
        for form in FORMS:
            prompts = [prompt_of(index, form) for index in (0, 1, 2)]
            found, again = self.decoded(prompts).masks.numpy(), self.decoded(prompts).masks.numpy()
            require(bool((found == again).all()), f"{form}: the same prompts have other masks the second time")
            turned = self.decoded(prompts[::-1]).masks.numpy()[::-1]
            for index, prompt in enumerate(prompts):
                (alone,) = self.decoded([prompt]).masks.numpy()
                require_same(found[index], turned[index], f"{form}: a mask in another order of prompts")
                require_same(found[index], alone, f"{form}: a mask alone and in a batch")

    def corrects(self) -> None:
        """decode: the logits of a decoding, with a click more, are a prompt of the next one"""
        first = self.decoded([prompt_of(1, "point")])
        second = self.decoded([prompt_of(1, "points")], logits=first.logits)
        require_like(second.masks, torch.bool, (1, *SIZE), "masks of a second round")
